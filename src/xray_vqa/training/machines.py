"""What GPUs can hold and reckon, and how long a run will therefore take: predictions, always told as such."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from xray_vqa.training.memory import GIB, Demand

MFU = {False: 0.18, True: 0.33}
"""Share of a GPU's arithmetic that training uses, by whether layers are compiled; measured on one H200 with the shape
of Qwen2.5-VL-7B (benchmarks/results/train_throughput.json), and taken for the others."""
CPU_MFU = 0.2
"""The same for nano on two shared CPU cores, of what a large product of matrices reaches there."""
CHECKPOINTING_SPEED = 0.72
"""Of the speed without: from the same rows."""


class DeviceMemory(Protocol):
    """What a device tells of its memory, all in bytes."""

    def capacity(self) -> float:
        """Return what this process can have in all."""
        ...

    def allocated(self) -> float:
        """Return what tensors take now."""
        ...

    def reset_peak(self) -> None:
        """Begin to look for the peak anew."""
        ...

    def peak(self) -> float:
        """Return the most that tensors took since."""
        ...


class CudaMemory:
    """The current CUDA device."""

    def capacity(self) -> float:
        """Return what other processes leave, within the share that torch was allowed."""
        free, total = torch.cuda.mem_get_info()
        allowed = torch.cuda.get_per_process_memory_fraction() * total
        return min(free + torch.cuda.memory_reserved(), allowed)

    def allocated(self) -> float:
        """See `DeviceMemory`."""
        return torch.cuda.memory_allocated()

    def reset_peak(self) -> None:
        """See `DeviceMemory`."""
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        """See `DeviceMemory`."""
        return torch.cuda.max_memory_allocated()


@dataclass(frozen=True, slots=True)
class Machine:
    """A device that trains."""

    name: str
    capacity: float
    """Bytes of its memory; infinite where nobody plans with it."""
    flops: float | None
    """Dense products in bf16 with fp32 sums, a second, as the maker tells; None where we do not know them."""
    is_gpu: bool = True


REFERENCES = (
    Machine("B200", 178 * GIB, 2250e12),
    Machine("H200", 139.8 * GIB, 989e12),
    Machine("H100", 79.1 * GIB, 989e12),
    Machine("A100", 79.2 * GIB, 312e12),
    Machine("L40S", 44.4 * GIB, 362e12),
    Machine("RTX 4090", 23.5 * GIB, 165e12),
    Machine("L4", 22.0 * GIB, 121e12),
)
"""GPUs by the part of their name that torch tells, with the bytes that a process finds on them."""


def machine_here() -> Machine:
    """Return the GPU of this process, or the CPU with what its cores reach just now."""
    if not torch.cuda.is_available():
        return Machine("this CPU", float("inf"), _cpu_flops() * CPU_MFU / MFU[False], is_gpu=False)
    name = torch.cuda.get_device_name()
    words = name.replace("-", " ").split()
    known = (machine.flops for machine in REFERENCES if all(word in words for word in machine.name.split()))
    return Machine(name, CudaMemory().capacity(), next(known, None))


def _cpu_flops() -> float:
    size = 768
    square = torch.ones(size, size)
    torch.mm(square, square)
    started = time.perf_counter()
    for _ in range(5):
        torch.mm(square, square)
    return 5 * 2 * size**3 / (time.perf_counter() - started)


def work_of(base: Any, demand: Demand) -> float:
    """Return the operations of a run, counted as MFU counts them: of the layers, attention and output layer aside.

    Two a weight and token on the way forward, two for the gradients of what a layer is given, two for those of its
    weights where they are trained. A frozen vision tower is left out, as in the measured shares.

    Args:
        base: The model, adapters inside it.
        demand: Of all images that the run sees.
    """
    decoder = _passes(base.model.language_model.layers) * demand.tokens
    visual = _passes(base.model.visual.blocks)
    return decoder + (visual * demand.patches if _is_trained(base.model.visual) else 0)


def _passes(layers: torch.nn.Module) -> float:
    """Return the operations a token."""
    weights = [(weight.numel(), weight.requires_grad) for weight in layers.parameters()]
    return sum(count * (6 if trained else 4) for count, trained in weights)


def _is_trained(module: torch.nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def predicted_hours(work: float, machine: Machine, *, num_ranks: int, compiled: bool, checkpointing: bool) -> float:
    """Return the hours of a run; not a number where the machine's arithmetic is not known."""
    if machine.flops is None:
        return float("nan")
    speed = machine.flops * MFU[compiled] * (CHECKPOINTING_SPEED if checkpointing else 1.0) * num_ranks
    return work / speed / 3600
