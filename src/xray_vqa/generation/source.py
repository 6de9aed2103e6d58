"""What pairs are written about: the scans of one annotation file, and the plan over them."""

from dataclasses import dataclass
from pathlib import Path

from xray_vqa.config.generate import GenerateConfig
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import SPLITS, Fault, ScanRecord, Split
from xray_vqa.dataset.layout import annotated_categories, read_split
from xray_vqa.errors import ConfigError
from xray_vqa.generation.plan import PlannedImage, plan_images
from xray_vqa.generation.providers import Request


@dataclass(frozen=True, slots=True)
class Source:
    """What pairs are written about."""

    root: Path
    split: Split
    records: tuple[ScanRecord, ...]
    annotated: tuple[str, ...]
    faults: tuple[Fault, ...]

    def request(self, image: PlannedImage) -> Request:
        return Request(
            image.record,
            image.slots,
            self.root / image.record.image_path,
            self.annotated,
            language=image.language,
        )


def open_source(annotations_path: Path) -> Source:
    """Return the scans that an annotation file of the layout describes.

    Raises:
        ConfigError: The path is not `<root>/{train,test}/annotations.json`.
        DatasetError: It cannot be read, or the dataset does not say what it labels.
    """
    split: Split | None = next((name for name in SPLITS if name == annotations_path.parent.name), None)
    if split is None or annotations_path.name != "annotations.json":
        raise ConfigError(
            f"{annotations_path}: expected <dataset>/train/annotations.json or <dataset>/test/annotations.json, as "
            "`xray-vqa data synth`, `data import` and `data download` write them"
        )
    root = annotations_path.parent.parent
    scans = read_split(root, split)
    return Source(root, split, scans.records, annotated_categories(root), scans.faults)


def make_plan(config: GenerateConfig, source: Source, policy: Policy) -> list[PlannedImage]:
    return plan_images(
        source.records,
        source.annotated,
        policy,
        samples_per_image=config.samples_per_image,
        seed=config.seed,
        max_images=config.max_images,
        languages=config.languages,
    )
