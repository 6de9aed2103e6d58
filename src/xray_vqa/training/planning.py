"""What a run will do, known before it starts."""

from dataclasses import dataclass

from xray_vqa.config.train import TrainConfig
from xray_vqa.training.collator import ScanDataset
from xray_vqa.training.scans import TrainingData


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Images, pairs and updates of a run."""

    num_images: int
    num_pairs: int
    num_development: int
    num_left_out: int
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
        if self.num_left_out:
            text += f"; {self.num_left_out} branches do not fit into max_seq_length"
        if self.num_not_mirrored:
            text += f"; {self.num_not_mirrored} pairs speak of places, so mirrored scans go without them"
        return text


def plan_run(config: TrainConfig, data: TrainingData, train: ScanDataset, images_per_update: int) -> RunPlan:
    updates_per_epoch = max(1, -(-len(train) // images_per_update))
    updates = config.max_steps if config.max_steps > 0 else int(updates_per_epoch * config.num_train_epochs)
    return RunPlan(
        num_images=len(train),
        num_pairs=sum(len(train.scans[train.number_of(index)].pairs) for index in range(len(train))),
        num_development=len(data.development),
        num_left_out=train.num_left_out(),
        num_not_mirrored=train.num_not_mirrored(),
        images_per_update=images_per_update,
        num_updates=updates,
    )
