"""What a run will do, known before it starts."""

import os
from dataclasses import dataclass

from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import DatasetError
from xray_vqa.training.collator import ScanDataset
from xray_vqa.training.faulty import LEFT_OUT_NAME, LeftOut, counts, report
from xray_vqa.training.image_cache import ImageCache, check_scans
from xray_vqa.training.scans import TrainingData


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

    def describe(self) -> str:
        pairs_per_update = self.num_pairs / max(1, self.num_images) * self.images_per_update
        text = (
            f"{self.num_images} images with {self.num_pairs} pairs, {self.num_development} held out; "
            f"{self.images_per_update} images (about {pairs_per_update:.0f} pairs) an update, "
            f"{self.num_updates} updates"
        )
        if self.left_out:
            told = ", ".join(f"{count} {kind}" for kind, count in self.left_out.items())
            text += f"; left out, see {LEFT_OUT_NAME}: {told}"
        if self.num_not_mirrored:
            text += f"; {self.num_not_mirrored} pairs speak of places, so mirrored scans go without them"
        return text


def usable(config: TrainConfig, data: TrainingData, asked: ScanDataset, cache: ImageCache | None) -> TrainingData:
    """Return the data without the scans that cannot be trained on; all of them are named.

    Args:
        config: The run.
        data: All that the pairs files name.
        asked: What would be asked about it.
        cache: Filled on the way; without one every image is checked.

    Raises:
        DatasetError: More scans are faulty than the run may do without, or all of those that it would train on.
        Incomplete: The disk has no room for the cache.
        ConfigError: The cache cannot be used.
    """
    faults = cache.add(data.scans) if cache is not None else check_scans(data.scans)
    left_out: list[LeftOut] = []
    for scan in data.scans:
        fault = faults.get(scan.image_path)
        found = LeftOut.of(scan.image_path, fault, len(scan.pairs)) if fault else asked.left_out(scan)
        if found is not None:
            left_out.append(found)
    num_scans = len(data.scans) + len(data.left_out)
    data = data.without(left_out)
    is_first = os.environ.get("RANK", "0") == "0"
    report(data.left_out, num_scans, most=config.max_left_out, output_dir=config.output_dir, write=is_first)
    if not data.train:
        raise DatasetError(f"no scan of {config.train_file} is left to train on; {LEFT_OUT_NAME} says why")
    return data


def plan_run(config: TrainConfig, data: TrainingData, train: ScanDataset) -> RunPlan:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    per_update = config.per_device_train_batch_size * config.gradient_accumulation_steps * ranks
    updates_per_epoch = max(1, -(-len(train) // per_update))
    updates = config.max_steps if config.max_steps > 0 else int(updates_per_epoch * config.num_train_epochs)
    return RunPlan(
        num_images=len(train),
        num_pairs=sum(len(train.scans[train.number_of(index)].pairs) for index in range(len(train))),
        num_development=len(data.development),
        left_out=counts(data.left_out),
        num_not_mirrored=train.num_not_mirrored(),
        images_per_update=per_update,
        num_updates=updates,
    )
