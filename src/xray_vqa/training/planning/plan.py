"""What a run will do, known before it starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer

from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import DatasetError
from xray_vqa.modeling.fused_lora import FusedLoraLinear
from xray_vqa.modeling.loading import LoadedModel, is_nano
from xray_vqa.training.inputs.collator import ScanDataset
from xray_vqa.training.inputs.demand import Demand
from xray_vqa.training.inputs.faulty import LEFT_OUT_NAME, LeftOut, ScanFaulty, counts, report
from xray_vqa.training.inputs.image_cache import ImageCache, check_scans
from xray_vqa.training.inputs.scans import TrainingData, TrainingScan
from xray_vqa.training.planning.machines import REFERENCES, Machine, Speed, machine_here, speed_of
from xray_vqa.training.planning.memory import MemoryPlan, PassSettings, parts_of, pass_cost, plan_memory, state_bytes
from xray_vqa.training.ranks import Ranks
from xray_vqa.training.trainable import is_gathered_by_module

UPDATES_WORTH_COMPILING = 500
"""At which the two minutes that it takes come back on an H200, a third of each update's time saved."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Images, pairs and updates of a run."""

    num_images: int
    num_pairs: int
    num_development: int
    left_out: dict[str, int]
    """Scans left out whole or in part, by kind."""
    num_not_mirrored: int
    images_per_update: int
    num_updates: int
    num_ranks: int
    demands: tuple[Demand, ...]
    """Of each item of the first epoch."""
    longest: tuple[int, ...]
    """The items of the largest possible update of one process, the longest first."""
    num_epochs: float

    @property
    def seen(self) -> Demand:
        """What all images demand that the run sees."""
        return Demand(*(round(self.num_epochs * value) for value in Demand.total(self.demands)))

    def describe(self) -> str:
        pairs_per_update = self.num_pairs / max(1, self.num_images) * self.images_per_update
        text = (
            f"{self.num_images} images with {self.num_pairs} pairs, {self.num_development} held out; "
            f"{self.images_per_update} images (about {pairs_per_update:.0f} pairs) an update, "
            f"{self.num_updates} updates; {self._lengths()}"
        )
        if self.left_out:
            told = ", ".join(f"{count} {kind}" for kind, count in self.left_out.items())
            text += f"; left out, see {LEFT_OUT_NAME}: {told}"
        if self.num_not_mirrored:
            text += f"; {self.num_not_mirrored} pairs speak of places, so mirrored scans go without them"
        return text

    def _lengths(self) -> str:
        tokens = np.array([demand.tokens for demand in self.demands])
        middle, most = np.percentile(tokens, (50, 95)).round().astype(int)
        answers = sum(demand.answers for demand in self.demands) / tokens.sum()
        return (
            f"tokens an image: {tokens.min():,} to {tokens.max():,}, half up to {middle:,}, 95 % up to {most:,}; "
            f"{answers:.1%} of them are trained on"
        )


def usable(
    config: TrainConfig, data: TrainingData, asked: ScanDataset, cache: ImageCache | None, ranks: Ranks
) -> TrainingData:
    """Return the data without the scans that cannot be trained on; all of them are named.

    Args:
        config: The run.
        data: All that the pairs files name.
        asked: What would be asked about it.
        cache: Filled on the way; without one every image is checked.
        ranks: They share the checking, and the first one writes the file.

    Raises:
        DatasetError: More scans are faulty than the run may do without, or all of those that it would train on.
        Incomplete: The disk has no room for the cache.
        ConfigError: The cache cannot be used.
    """
    faults = cache.add(data.scans) if cache is not None else check_together(data.scans, ranks)
    left_out: list[LeftOut] = []
    for scan in data.scans:
        fault = faults.get(scan.image_path)
        found = LeftOut.of(scan.image_path, fault, len(scan.pairs)) if fault else asked.left_out(scan)
        if found is not None:
            left_out.append(found)
    num_scans = len(data.scans) + len(data.left_out)
    data = data.without(left_out)
    report(data.left_out, num_scans, most=config.max_left_out, output_dir=config.output_dir, write=ranks.is_first)
    if not data.train:
        raise DatasetError(f"no scan of {config.train_file} is left to train on; {LEFT_OUT_NAME} says why")
    return data


def check_together(scans: Sequence[TrainingScan], ranks: Ranks) -> dict[Path, ScanFaulty]:
    """Return what is wrong with scans, by path; each image is read by one of the processes."""
    found = ranks.gather(check_scans(scans[ranks.rank :: ranks.world]))
    return {path: fault for faults in found for path, fault in faults.items()}


def plan_run(
    config: TrainConfig, data: TrainingData, train: ScanDataset, images_per_update: int, num_ranks: int
) -> RunPlan:
    updates_per_epoch = max(1, -(-len(train) // images_per_update))
    updates = config.max_steps if config.max_steps > 0 else math.ceil(updates_per_epoch * config.num_train_epochs)
    demands = [train.demand_of(index) for index in range(len(train))]
    by_length = sorted(range(len(train)), key=lambda index: demands[index], reverse=True)
    return RunPlan(
        num_images=len(train),
        num_pairs=sum(len(train.scans[train.number_of(index)].pairs) for index in range(len(train))),
        num_development=len(data.development),
        left_out=counts(data.left_out),
        num_not_mirrored=train.num_not_mirrored(),
        images_per_update=images_per_update,
        num_updates=updates,
        num_ranks=num_ranks,
        demands=tuple(demands),
        longest=tuple(by_length[: images_per_update // num_ranks]),
        num_epochs=updates * images_per_update / len(train) if config.max_steps > 0 else config.num_train_epochs,
    )


def is_worth_compiling(config: TrainConfig, loaded: LoadedModel, plan: RunPlan, machine: Machine) -> bool:
    """Return whether the layers are compiled: as configured, or in long runs on a GPU of families that allow it."""
    if config.compile is not None:
        return config.compile
    return (
        machine.is_gpu
        and loaded.spec.is_compiled
        and not is_gathered_by_module(config)
        and plan.num_updates >= UPDATES_WORTH_COMPILING
    )


def plan_memory_of(config: TrainConfig, loaded: LoadedModel, plan: RunPlan, machine: Machine) -> MemoryPlan:
    """Return what a run takes on a machine.

    Args:
        config: The run.
        loaded: Its model with the adapter in it; weights are not looked at, so that `meta` will do.
        plan: What the run does.
        machine: Where.
    """
    element = next(loaded.base.parameters()).element_size()
    decoder = loaded.base.get_submodule(loaded.spec.language_model)
    adapters = [module for module in decoder.modules() if isinstance(module, LoraLayer)]
    tower = loaded.base.get_submodule(f"{loaded.spec.vision_tower}.blocks")
    settings = PassSettings(
        dropout=config.lora.dropout if adapters else 0.0,
        trains_vision=any(weight.requires_grad for weight in tower.parameters()),
        compiled=is_worth_compiling(config, loaded, plan, machine),
        fused=all(isinstance(adapter, FusedLoraLinear) for adapter in adapters),
    )
    model_config: Any = loaded.base.config
    plain, again = (pass_cost(model_config, element, settings, checkpointing=wanted) for wanted in (False, True))
    speed = _speed(config, loaded, plan, machine)
    return plan_memory(
        config.gradient_checkpointing,
        state_bytes(loaded.model, num_ranks=plan.num_ranks),
        machine.capacity,
        (plain, again),
        [plan.demands[index] for index in plan.longest[: _images_together(config, machine)]],
        lambda some: speed.seconds(
            Demand.total(some.longest).tokens, len(some.parts), checkpointing=some.checkpointing
        ),
    )


def _images_together(config: TrainConfig, machine: Machine) -> int:
    """Return how many images of an update may share a pass, if memory allows it."""
    is_joined = machine.is_gpu and not is_gathered_by_module(config)
    return config.per_device_train_batch_size * (config.gradient_accumulation_steps if is_joined else 1)


def _speed(config: TrainConfig, loaded: LoadedModel, plan: RunPlan, machine: Machine) -> Speed:
    return speed_of(loaded, machine, plan.seen, compiled=is_worth_compiling(config, loaded, plan, machine))


def predict(config: TrainConfig, loaded: LoadedModel, plan: RunPlan) -> list[str]:
    """Return lines with hours and GiB of this machine; of known GPUs where the model needs one and there is none."""
    if not loaded.spec.trains_packed:
        return ["hours and memory are not predicted for a family whose trees are not packed"]
    lines: list[str] = []
    for machine in _machines(loaded):
        memory = plan_memory_of(config, loaded, plan, machine)
        hours = _hours(config, loaded, plan, machine, memory)
        lines.append(f"{machine.name}: {hours}, {memory.describe()}")
    return lines


def _hours(config: TrainConfig, loaded: LoadedModel, plan: RunPlan, machine: Machine, memory: MemoryPlan) -> str:
    """Return what the run is predicted to take, with updates of the usual image."""
    if machine.flops is None:
        return "hours not predicted for this GPU"
    together = _images_together(config, machine)
    cost = memory.costs[0].bytes_of(Demand.total(plan.demands)) / max(1, plan.num_images)
    num_parts = len(parts_of(range(together), lambda images: cost * len(images), memory.limit))
    num_passes = plan.num_updates * num_parts * plan.images_per_update / plan.num_ranks / together
    speed = _speed(config, loaded, plan, machine)
    seconds = speed.seconds(plan.seen.tokens / plan.num_ranks, num_passes, checkpointing=memory.checkpointing)
    return f"predicted {seconds / 3600:.1f} hours" if seconds >= 3600 else f"predicted {seconds / 60:.1f} minutes"


def _machines(loaded: LoadedModel) -> Sequence[Machine]:
    return [machine_here()] if torch.cuda.is_available() or is_nano(loaded.weights_dir) else REFERENCES
