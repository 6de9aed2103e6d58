"""The processes of one run, one a GPU, as torchrun starts them; a single process is a run of one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""For which the others wait while the first process writes; NCCL's own ten may not do for all weights of a 7B."""

_LEFT: list[dist.ProcessGroup | None] = []
"""Groups that are kept until the process ends: see `Ranks.leave`."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls) -> "Ranks":
        """Return this process's place as torchrun's environment says it, after meeting the others."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        has_gpu = torch.cuda.is_available()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if has_gpu else torch.device("cpu")
        if has_gpu:
            torch.cuda.set_device(device)
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=PATIENCE)
        return cls(int(os.environ.get("RANK", "0")), world, device)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def largest(self, value: float) -> float:
        """Return the largest value that any process gives, in all of them."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)  # on the CPU, so that the GPU need not wait
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return float(shared.item())

    def share(self, value: T) -> T:
        """Return what the first process gives, in all of them: clocks differ, schedules must not."""
        if self.world == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, 0, device=torch.device("cpu"))
        return shared[0]

    def gather(self, value: T) -> list[T]:
        """Return what each process gives, in the order of the ranks, in all of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def average(self, gradients: Sequence[torch.Tensor]) -> None:
        """Replace each gradient by its mean over the processes, all in one message."""
        if self.world == 1:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat.div_(self.world), [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(list(gradients), [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])  # pyright: ignore[reportPrivateImportUsage]

    def meet(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """Wait for the others, and speak to them no more."""
        if self.world > 1:
            dist.barrier()
            # Were DistributedDataParallel the last to hold the group, it would end gloo's threads while it holds the
            # interpreter's lock, for which one of them may be waiting: both would wait for ever (torch 2.13).
            _LEFT.append(dist.group.WORLD)
            dist.destroy_process_group()
