"""What has to hold while a run trains, or it stops: every trained tensor gets a gradient, and every number is one.

A run that learns nothing with half of its adapters, or whose weights have become NaN, looks like any other for hours.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xray_vqa.errors import GateFailed

logger = logging.getLogger(__name__)

GRADIENT_UPDATES = 5
"""By then every tensor has had a gradient. An adapter's A matrices have none before B has left zero, which the first
update leaves there where warm-up starts from a rate of zero: they follow at the third."""
NAMED = 5
HEADS = "heads."
"""Auxiliary heads are not saved, and an item to place may be long in coming."""


class GradientGate(TrainerCallback):
    """Looks at the gradients of the first updates: each trained tensor must have had one that is not zero."""

    def __init__(self) -> None:
        self._waiting: set[str] | None = None
        self._updates = 0
        self._is_done = False
        self.result = "gradients: not looked at, for want of updates"
        """In words, for the run card."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if self._is_done:
            return
        if args.deepspeed:
            self._finish("gradients: not looked at, for DeepSpeed keeps them to itself")
            return
        trained = {name: weight for name, weight in given["model"].named_parameters() if weight.requires_grad}
        waiting = set(trained) if self._waiting is None else self._waiting
        largest = _largest([weight.grad for weight in trained.values()])
        broken = [name for name, value in zip(trained, largest, strict=True) if not math.isfinite(value)]
        if broken and args.fp16:
            return  # the scale of the loss is still being found; the optimizer leaves such an update out
        if broken:
            raise GateFailed(
                f"update {state.global_step + 1}: {len(broken)} of {len(trained)} gradients are no finite number, "
                f"first {', '.join(broken[:NAMED])}; lower learning_rate, or look for a scan that is not one"
            )
        self._updates += 1
        self._waiting = waiting - {name for name, value in zip(trained, largest, strict=True) if value > 0}
        if self._updates == 1:
            first = len(trained) - len(self._waiting)
            logger.info("first update: %d of %d trained tensors have a gradient", first, len(trained))
        if not self._waiting:
            self._finish(f"gradients: each of {len(trained)} trained tensors had one within {self._updates} updates")
        elif self._updates == GRADIENT_UPDATES:
            self._give_up(sorted(self._waiting), len(trained))

    def _finish(self, result: str) -> None:
        self._is_done = True
        self.result = result
        logger.info(result)

    def _give_up(self, waiting: Sequence[str], total: int) -> None:
        found = (
            f"{len(waiting)} of {total} trained tensors had no gradient in {GRADIENT_UPDATES} updates, first "
            f"{', '.join(waiting[:NAMED])}"
        )
        if any(HEADS not in name for name in waiting):
            raise GateFailed(
                f"{found}: they would be saved as they were made; leave their modules out (lora.target_modules, "
                "lora.vision, train_vision), or look for what cuts them off from the loss"
            )
        self._finish(f"gradients: {found}; auxiliary heads alone, which are not saved")


class PlausibleLoss(TrainerCallback):
    """Warns of a first loss that is far above that of guessing a token at random."""

    def __init__(self, vocabulary_size: int, heaviest: float) -> None:
        self._guessing = math.log(vocabulary_size)
        self._limit = 2 * self._guessing * heaviest
        self.result = ""
        """In words, for the run card; empty before the first loss."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        loss = (given.get("logs") or {}).get("loss")
        if loss is None or self.result:
            return
        self.result = f"first loss: {loss:.3f} (guessing a token: {self._guessing:.2f})"
        if loss > self._limit:
            self.result += ", implausibly high"
            logger.warning("%s: are these weights, this tokenizer and these labels of one model?", self.result)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A loss on its way from the GPU."""

    loss: torch.Tensor
    arrived: "torch.cuda.Event"
    update: int
    images: Sequence[str]


class LossWatch:
    """Notices a loss that is no finite number, and which images it is of, without making a GPU wait for it."""

    def __init__(self) -> None:
        self._pending: deque[_Seen] = deque()
        self.num_seen = 0

    @property
    def result(self) -> str:
        """In words, for the run card."""
        return f"losses: all of {self.num_seen:,} batches were finite"

    def see(self, loss: torch.Tensor, update: int, images: Sequence[str]) -> None:
        """Take note of a batch's loss. Raises GateFailed for it, or for an earlier one that has arrived by now."""
        self.num_seen += 1
        if not loss.is_cuda:
            _check(float(loss.detach()), update, images, self.num_seen)
            return
        on_host = torch.empty((), dtype=torch.float32, pin_memory=True)
        on_host.copy_(loss.detach(), non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending.append(_Seen(on_host, arrived, update, images))
        while self._pending and self._pending[0].arrived.query():
            self._take()

    def settle(self) -> None:
        """Wait for all losses that are still on their way, as before a checkpoint. Raises GateFailed."""
        while self._pending:
            self._pending[0].arrived.synchronize()
            self._take()

    def _take(self) -> None:
        seen = self._pending.popleft()
        _check(float(seen.loss), seen.update, seen.images, self.num_seen - len(self._pending))


def check_weights(model: torch.nn.Module, update: int) -> None:
    """Raise GateFailed where a trained weight is no finite number, so that no checkpoint is made of it."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    largest = _largest([weight.detach() for weight in trained.values()])
    broken = [name for name, value in zip(trained, largest, strict=True) if not math.isfinite(value)]
    if broken:
        raise GateFailed(
            f"after update {update} {len(broken)} of {len(trained)} trained tensors are no finite numbers, first "
            f"{', '.join(broken[:NAMED])}; no checkpoint was made of them. The same command goes on from the last one; "
            "with the same settings it comes here again: lower learning_rate"
        )


def _check(loss: float, update: int, images: Sequence[str], num_seen: int) -> None:
    if not math.isfinite(loss):
        raise GateFailed(
            f"update {update}: the loss is {loss} (batch {num_seen} of this run; all before it were finite) on "
            f"{', '.join(images)}; nothing was saved since. Look at these images and their pairs, or lower "
            "learning_rate; the same command goes on from the last checkpoint"
        )


def _largest(tensors: Sequence[torch.Tensor | None]) -> list[float]:
    """Return each tensor's largest absolute value, fetched from the device together; 0 for None and for empty ones.

    Of tensors that FSDP has cut into pieces every process has to ask; NaN is infinity there.
    """
    pieces = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    nothing = torch.zeros((), device=next((piece.device for piece in pieces if piece is not None), None))
    largest = torch.stack(
        [
            torch.linalg.vector_norm(piece, torch.inf).float() if piece is not None and piece.numel() else nothing
            for piece in pieces
        ]
    )
    if any(isinstance(tensor, DTensor) for tensor in tensors):
        largest.nan_to_num_(nan=torch.inf, posinf=torch.inf)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()
