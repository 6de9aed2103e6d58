"""Scans without pixels: what the plan, the validator and a run need to know of a bag."""

import random
from collections.abc import Sequence

from xray_vqa.config.generate import GenerateConfig, ProviderSettings
from xray_vqa.config.loading import load_policy
from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.records import ScanRecord, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import write_split

POLICY = load_policy()
NUM_IMAGES = 12


def make_record(
    number: int = 0,
    categories: Sequence[str] = (),
    bboxes: Sequence[tuple[float, float, float, float] | None] | None = None,
    raw_labels: Sequence[str] | None = None,
) -> ScanRecord:
    """A 300x300 scan; without boxes given, item i lies in the i-th region in reading order."""
    boxes = bboxes
    if boxes is None:
        boxes = [(100.0 * (i % 3) + 30, 100.0 * (i // 3 % 3) + 30, 40.0, 40.0) for i in range(len(categories))]
    return ScanRecord(
        image_id=number,
        image_filename=f"{number:06d}.jpg",
        image_path=f"train/images/{number:06d}.jpg",
        width=300,
        height=300,
        sha256=f"{number:064x}",
        categories=list(categories),
        bboxes=list(boxes),
        raw_labels=list(raw_labels) if raw_labels is not None else None,
    )


def make_records(count: int, clean_share: float = 0.15) -> list[ScanRecord]:
    """Bags of very unequal categories, a few of them clean, some with several items."""
    chance = random.Random(7)
    weights = [1 / (1 + index) for index in range(len(CATEGORIES))]
    records: list[ScanRecord] = []
    for number in range(count):
        size = 0 if chance.random() < clean_share else chance.choices([1, 2, 3], [6, 3, 1])[0]
        categories = chance.choices(CATEGORIES, weights, k=size)
        if size > 1 and chance.random() < 0.3:
            categories = categories[:1] * size
        boxes = [(chance.uniform(0, 240), chance.uniform(0, 240), *SIZES[(number + k) % 3]) for k in range(size)]
        records.append(make_record(number, categories, boxes).model_copy(update=surroundings(number, size)))
    return records


SIZES = ((50.0, 50.0), (50.0, 20.0), (20.0, 50.0))


def surroundings(number: int, size: int) -> dict:
    """What a simulated record says of its bag, varied with its number."""
    goods = ["book", "charger", "folded clothes", "glue gun", "towel"]
    return {
        "occlusion": [(number * 0.37 + k * 0.21) % 1 for k in range(size)],
        "factors": {
            "bag": ("backpack", "hard suitcase", "tray")[number % 3],
            "clutter_level": 1 + number % 4,
            "threats": [{"concealer": goods[(number + k) % 5]} for k in range(size)],
        },
        "co_items": goods,
        "declared_items": ["books", "clothes", "keys", "laptop"][: 1 + number % 4] if number % 2 else None,
    }


def write_scans(root, records):
    (root / "train" / "images").mkdir(parents=True, exist_ok=True)
    for record in records:
        (root / record.image_path).write_bytes(b"pixels")
    write_split(root, "train", records)


def config_of(dataset, **changes):
    values = {
        "annotations_path": dataset / "train" / "annotations.json",
        "output_path": dataset.parent / "pairs.jsonl",
        "provider": ProviderSettings(provider="template"),
        "rate_limit_delay_s": 0.0,
    }
    return GenerateConfig(**values | changes)


def read(path):
    pairs, faults = read_jsonl(path, VQAPair)
    assert faults == []
    return pairs
