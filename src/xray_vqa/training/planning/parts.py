"""The images of an update go through the model in as few passes as memory allows.

Losses and gradients are sums over the answers of the update, so it does not matter how its images are put together:
small batches share a pass, large ones are divided. An update that runs out of memory is begun anew in smaller parts, so
that nothing of the failed pass stays in its gradients; apart from dropout's draws it is the update that it would have
been. Several processes join their gradients once, behind the last part, so each takes as many parts as it needs and
none waits for another in the middle. Where weights are sharded (DeepSpeed, FSDP) every pass is done together, and
batches stay as they are.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import DistributedType, send_to_device
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data._utils.pin_memory import pin_memory
from transformers import Trainer

from xray_vqa.errors import ConfigError
from xray_vqa.training.inputs.demand import Demand, Item
from xray_vqa.training.planning.machines import CudaMemory, DeviceMemory
from xray_vqa.training.planning.memory import ADAM_STATES, GIB, MemoryPlan, advice, parts_of, usable_bytes

logger = logging.getLogger(__name__)

AFTER_OVERFLOW = 0.9
"""Of a pass that did not fit, what a later one may take."""


class Budget:
    """What one pass may take, in a run: at first as predicted, then as probed, and less after each overflow."""

    def __init__(self, plan: MemoryPlan) -> None:
        self._costs = list(plan.costs)
        self._left = plan.limit
        self.limit = plan.limit
        self.checkpointing = plan.checkpointing
        self.num_overflows = 0
        self.num_updates = 0
        self.num_passes = 0

    def cost_of(self, items: Sequence[Item]) -> float:
        """Return the bytes that a pass with some trees takes."""
        return self._costs[0].bytes_of(Demand.of(items))

    def parts_of(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Return the trees of an update in parts that each fit, in order."""
        demands = [Demand.of([item]) for item in items]  # once: what is divided again and again are numbers

        def cost_of(numbers: Sequence[int]) -> float:
            return self._costs[0].bytes_of(Demand.total(demands[number] for number in numbers))

        return [[items[number] for number in part] for part in parts_of(range(len(items)), cost_of, self.limit)]

    def count(self, num_parts: int) -> None:
        """Note in how many parts an update went through."""
        self.num_updates += 1
        self.num_passes += num_parts

    def overflow(self, items: Sequence[Item], told: str) -> bool:
        """Make later passes smaller after one did not fit; return whether the model has to turn to checkpointing.

        Raises:
            ConfigError: It was a single image, and there is nothing left to try.
        """
        self.num_overflows += 1
        demand = Demand.of(items)
        found = f"out of memory at {len(items)} images of {demand.tokens:,} tokens"
        if len(items) > 1:
            self.limit = AFTER_OVERFLOW * self.cost_of(items)
            logger.warning("%s; the update is done again in halves, later ones too (%s)", found, told)
            return False
        if len(self._costs) == 1:
            raise ConfigError(
                f"{items[0]['image']}: out of memory at this one image of {demand.tokens:,} tokens "
                f"({demand.patches // 4:,} of them visual; {told}); {advice(self.checkpointing)}"
            )
        self._costs.pop(0)
        self.checkpointing = True
        self.limit = self._left
        logger.warning("%s; going on with gradient checkpointing, a third slower (%s)", found, told)
        return True

    def correct(self, items: Sequence[Item], measured: float, left: float) -> None:
        """Take what a pass really took.

        Args:
            items: Of the pass.
            measured: Bytes that it took.
            left: Bytes that any pass may take.
        """
        predicted = self.cost_of(items)
        ratio = measured / predicted
        self._costs = [cost.scaled(ratio) for cost in self._costs]
        self._left, self.limit = left, min(left, self.limit * ratio) if self.num_overflows else left
        tokens = Demand.of(items).tokens
        logger.info(
            "memory: a pass with the %d longest images (%s tokens) takes %.1f GiB (predicted %.1f); passes may take "
            "%.1f, about %s tokens",
            len(items), f"{tokens:,}", measured / GIB, predicted / GIB, self.limit / GIB,
            f"{round(tokens * self.limit / measured):,}",
        )  # fmt: skip

    def describe(self) -> str:
        """Return what became of it, at the end of a run."""
        text = f"{self.num_updates} updates in {self.num_passes} passes"
        return f"{text}, besides {self.num_overflows} that ran out of memory" if self.num_overflows else text


class KeepingItems:
    """A collator that also hands on what it has packed, in case that it has to be packed again in parts."""

    KEY = "unpacked"

    def __init__(self, pack: Callable[[Sequence[Item]], dict[str, Any]]) -> None:
        self.pack = pack

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        return self.pack(items) | {self.KEY: _Unmoved(items)}


@dataclass(frozen=True, slots=True)
class _Unmoved:
    """Hides trees from those who move a batch to its device."""

    items: Sequence[Item]


class PartsTrainer(Trainer):
    """transformers' Trainer for packed trees, whose passes are as large as memory allows."""

    def __init__(
        self,
        *arguments: Any,
        budget: Budget | None = None,
        longest: Callable[[], Sequence[Item]] | None = None,
        memory: DeviceMemory | None = None,
        **named: Any,
    ) -> None:
        """Make a Trainer.

        Args:
            *arguments: As for transformers' own.
            budget: What a pass may take; without it every batch is one pass.
            longest: Returns the trees of the largest update, with which the first step begins by measuring a pass.
            memory: Where that is measured; by default nowhere but on a CUDA device.
            **named: As for transformers' own.
        """
        super().__init__(*arguments, **named)
        self._pack: Callable[[Sequence[Item]], dict[str, Any]] = self.data_collator
        self.data_collator = KeepingItems(self._pack)
        self.budget = budget
        self._longest = longest
        self._memory = memory or (CudaMemory() if torch.cuda.is_available() else None)
        self._update: list[Item] = []
        """The images of this update so far."""

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Return the loss of an update at its last batch, with its gradients made, and zero before.

        Raises:
            ConfigError: Not even one image fits into memory, or a batch cannot be divided.
        """
        items = inputs.pop(KeepingItems.KEY).items
        if self.budget is None:
            return super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP):
            return self._undivided(model, self.budget, items, inputs, num_items_in_batch)
        self._update += items
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        images, self._update = self._update, []
        is_replica = isinstance(model, DistributedDataParallel)
        with model.no_sync() if is_replica else nullcontext():
            if self._longest is not None and self._memory is not None:
                self._probe(model, self.budget, self._memory, self._longest())
                self._longest = None
            packed = inputs if len(images) == len(items) else None
            while (loss := self._accumulate(model, self.budget, images, packed, num_items_in_batch)) is None:
                model.zero_grad()
        if is_replica:
            average_gradients(model)
        return loss

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """Return what transformers' own does."""
        inputs.pop(KeepingItems.KEY)
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def _accumulate(
        self,
        model: torch.nn.Module,
        budget: Budget,
        images: Sequence[Item],
        packed: dict[str, Any] | None,
        count: torch.Tensor | int | None,
    ) -> torch.Tensor | None:
        """Make the gradients of an update; return its loss, or None where memory ran out.

        Args:
            model: Whose.
            budget: Of a pass.
            images: All trees of the update.
            packed: The same in one sequence, if there is one.
            count: Answer tokens of the update, over all processes.
        """
        assert count is not None  # without it a part would count as much as the whole
        parts, losses = budget.parts_of(images), []
        for part in parts:
            inputs = packed if packed is not None and len(parts) == 1 else self._send(self._pack(part))
            loss = self._pass(model, inputs, count)
            if isinstance(loss, str):
                self._overflow(model, budget, part, loss)
                return None
            losses.append(loss)
        budget.count(len(parts))
        return torch.stack(losses).sum()

    def _send(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return a batch on the device; the host does not wait for it to arrive."""
        if self.args.device.type != "cuda":
            return inputs
        sent: Any = send_to_device(pin_memory(inputs), self.args.device, non_blocking=True)
        return sent

    def _pass(
        self, model: torch.nn.Module, inputs: dict[str, Any], count: torch.Tensor | int | None
    ) -> torch.Tensor | str:
        """Return the loss of one pass forward and backward, or what torch says where memory runs out."""
        try:
            return super().training_step(model, inputs, count)
        except torch.OutOfMemoryError as error:
            told = str(error).split(" If reserved")[0].splitlines()[0]
        # Behind the clause: within it the traceback still holds what the pass has made.
        gc.collect()
        torch.cuda.empty_cache()
        return told

    def _overflow(self, model: torch.nn.Module, budget: Budget, part: Sequence[Item], told: str) -> None:
        if budget.overflow(part, told):
            tree: Any = self.accelerator.unwrap_model(model)
            tree.gradient_checkpointing_enable()

    def _undivided(
        self,
        model: torch.nn.Module,
        budget: Budget,
        items: Sequence[Item],
        inputs: dict[str, Any],
        count: torch.Tensor | int | None,
    ) -> torch.Tensor:
        loss = self._pass(model, inputs, count)
        if isinstance(loss, str):
            raise ConfigError(
                f"out of memory at {len(items)} images of {Demand.of(items).tokens:,} tokens ({loss}); with DeepSpeed "
                "or FSDP a batch cannot be divided: lower per_device_train_batch_size and raise "
                f"gradient_accumulation_steps as much, or {advice(budget.checkpointing)}"
            )
        return loss

    def _probe(self, model: torch.nn.Module, budget: Budget, memory: DeviceMemory, items: Sequence[Item]) -> None:
        """Measure a pass with the longest images; weights, gradients and random numbers are left as they were."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            measured = None
            while measured is None:
                part = max(budget.parts_of(items), key=budget.cost_of)
                measured = self._measure(model, budget, memory, part)
        # Gradients and the optimizer's numbers are not there yet, or only after a resumption.
        trained = sum(w.numel() * w.element_size() for w in model.parameters() if w.requires_grad)
        optimizer: Any = self.optimizer
        pending = trained * (1 if optimizer.state else 1 + ADAM_STATES)
        budget.correct(part, measured, usable_bytes(memory.capacity()) - memory.allocated() - pending)

    def _measure(
        self, model: torch.nn.Module, budget: Budget, memory: DeviceMemory, part: Sequence[Item]
    ) -> float | None:
        """Return the bytes that a pass takes at its peak, or None where they are not there."""
        measured = 0.0
        for _ in range(2):  # the first one compiles, and fetches what libraries keep
            before = memory.allocated()
            memory.reset_peak()
            loss = self._pass(model, self._send(self._pack(part)), Demand.of(part).answers)
            model.zero_grad()
            if isinstance(loss, str):
                self._overflow(model, budget, part, loss)
                return None
            measured = memory.peak() - before
        return measured


def average_gradients(model: torch.nn.Module) -> None:
    """Average the gradients of all processes, in place."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    joining: list[Any] = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
    for gradient, joined in zip(gradients, joining, strict=True):
        joined.wait()
        gradient /= dist.get_world_size()
