"""What GPUs can hold and reckon, and how long a run will therefore take: predictions, always told as such."""

import time
from dataclasses import dataclass
from typing import Protocol

import torch

from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.training.inputs.demand import Demand
from xray_vqa.training.planning.memory import GIB

MFU = {"compiled": 0.47, "eager": 0.35, "cpu": 0.5}
"""Share of a device's arithmetic that training uses while it is busy. Compiled: 55 ms for each further image of 978
tokens on one H200 with the shape of Qwen2.5-VL-7B (8 and 12 images in benchmarks/results/train_throughput.json), taken
for other GPUs too. Eager: assumed, of 410 ms for four images. CPU: nano with its vision tower adapted, in processor
time of one core, of what a large product reaches there."""
PASS_S = {"compiled": 0.04, "eager": 0.12, "cpu": 0.0}
"""What a pass takes besides, however small; from the same rows."""
CHECKPOINTING_SPEED = 0.73
"""Of the speed without; from the same rows."""
UNKNOWN_FLOPS = 312e12
"""Of a GPU that we do not know, to choose between ways to train, not to tell hours."""


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
    """Dense products in bf16 with fp32 sums, a second, as the maker tells; of a CPU as tried; None where not known."""
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
        return Machine("this CPU", float("inf"), _cpu_flops(), is_gpu=False)
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


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a machine trains a model."""

    token_s: float
    pass_s: float

    def seconds(self, tokens: float, passes: float, *, checkpointing: bool) -> float:
        """Return what some tokens take in so many passes."""
        return (tokens * self.token_s + passes * self.pass_s) / (CHECKPOINTING_SPEED if checkpointing else 1.0)


def speed_of(loaded: LoadedModel, machine: Machine, demand: Demand, *, compiled: bool) -> Speed:
    """Return how fast a machine trains a model.

    Args:
        loaded: The model, with its adapter in it.
        machine: Which.
        demand: Of all images, for the share of the vision tower.
        compiled: Whether the layers are.
    """
    how = ("compiled" if compiled else "eager") if machine.is_gpu else "cpu"
    flops = machine.flops or UNKNOWN_FLOPS
    return Speed(_work(loaded, demand) / max(1, demand.tokens) / (flops * MFU[how]), PASS_S[how])


def _work(loaded: LoadedModel, demand: Demand) -> float:
    """Return operations as MFU counts them: of the layers, attention and output layer aside.

    Two a weight and token on the way forward, two for the gradients of what a layer is given, two for those of its
    weights where they are trained. A frozen vision tower is left out, as in the measured shares.
    """
    layers = loaded.base.get_submodule(f"{loaded.spec.language_model}.layers")
    blocks = loaded.base.get_submodule(f"{loaded.spec.vision_tower}.blocks")
    is_trained = any(weight.requires_grad for weight in blocks.parameters())
    return _operations(layers) * demand.tokens + (_operations(blocks) * demand.patches if is_trained else 0)


def _operations(layers: torch.nn.Module) -> float:
    return sum(weight.numel() * (6 if weight.requires_grad else 4) for weight in layers.parameters())
