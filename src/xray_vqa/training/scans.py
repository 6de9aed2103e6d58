"""What a training run is about: scans with everything that is asked about each, read from pairs files."""

import hashlib
import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from xray_vqa.config.train import MixFile
from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.records import Annotation, ScanRecord, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import annotated_categories, read_split, split_development
from xray_vqa.errors import DatasetError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingScan:
    """One image with everything that is asked about it."""

    image_path: Path
    size_wh: tuple[int, int]
    annotations: tuple[Annotation, ...]
    annotated: tuple[str, ...]
    """The categories that the source labels at all; nothing is asked about others."""
    pairs: tuple[tuple[str, str], ...]
    languages: tuple[str, ...]
    """One for each pair."""
    group: str = ""
    """Scans of one bag share it; empty where nobody knows."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The scans of another dataset, and how many times each is seen in an epoch."""

    scans: list[TrainingScan]
    weight: float


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The scans of a run, divided by group."""

    train: list[TrainingScan]
    development: list[TrainingScan]
    annotated: tuple[str, ...]
    """The categories that any of the datasets labels, in the taxonomy's order."""
    mixes: tuple[Mix, ...] = ()


def read_training_data(
    train_file: Path, eval_file: Path | None = None, mix_files: Sequence[MixFile] = ()
) -> TrainingData:
    """Return the scans that a pairs file names, with their annotations.

    Images without a pair are left out: the pairs file says what a run is about. Without `eval_file` the development
    part of the training split (10 % by group) is held out. Scans of `mix_files` whose group is held out too, as threats
    projected into held-out bags are, are left out.

    Raises:
        DatasetError: A line is broken, an image has no annotation, or the pairs come from a test split.
    """
    records, scan_of, annotated = _read_train(train_file)
    if eval_file is None:
        train, held_out = split_development(records)
        development = [scan_of(record) for record in held_out]
    else:
        train, development = records, _read_eval(eval_file)
    groups = {scan.group for scan in development} - {""}
    mixes = [_read_mix(mix, groups) for mix in mix_files]
    everything = {*annotated, *(name for mix in mixes for scan in mix.scans for name in scan.annotated)}
    return TrainingData(
        [scan_of(record) for record in train],
        development,
        tuple(category for category in CATEGORIES if category in everything),
        tuple(mixes),
    )


def _read_train(train_file: Path) -> tuple[list[ScanRecord], Callable[[ScanRecord], TrainingScan], tuple[str, ...]]:
    """Return the records of a file of training pairs, what makes scans of them, and the annotated categories."""
    pairs, root, split = _read_pairs(train_file)
    if split != "train":
        raise DatasetError(f"{train_file} holds pairs of the {split} split; train on the training split")
    annotated = annotated_categories(root)
    scans = read_split(root, "train")
    for fault in scans.faults:
        logger.warning("%s", fault)
    records = [record for record in scans.records if record.image_path in pairs]
    missing = sorted(set(pairs) - {record.image_path for record in records})
    if missing:
        raise DatasetError(
            f"{train_file}: {len(missing)} images have no entry in {root}/train/annotations.json, first {missing[0]}; "
            "generate the pairs again from this dataset"
        )
    return records, lambda record: _training_scan(root, record, annotated, pairs[record.image_path]), annotated


def _read_mix(mix: MixFile, held_out: Set[str]) -> Mix:
    records, scan_of, _ = _read_train(mix.file)
    kept = [record for record in records if record.group not in held_out]
    if len(kept) < len(records):
        logger.info("%s: %d scans of held-out bags are left out", mix.file, len(records) - len(kept))
    if not kept:
        raise DatasetError(f"{mix.file}: all of its scans are of held-out bags; nothing is left to mix in")
    return Mix([scan_of(record) for record in kept], mix.weight)


def _read_eval(eval_file: Path) -> list[TrainingScan]:
    pairs, root, split = _read_pairs(eval_file)
    annotated = annotated_categories(root)
    if split == "test":
        logger.warning("%s comes from the test split: choosing a checkpoint by it spoils it as a test", eval_file)
    records = read_split(root, "test" if split == "test" else "train").records
    return [_training_scan(root, r, annotated, pairs[r.image_path]) for r in records if r.image_path in pairs]


def _read_pairs(path: Path) -> tuple[dict[str, list[VQAPair]], Path, str]:
    pairs, faults = read_jsonl(path, VQAPair)
    if faults:
        shown = "; ".join(str(fault) for fault in faults[:3])
        raise DatasetError(f"{path}: {len(faults)} broken lines: {shown}; mend or generate them again")
    if not pairs:
        raise DatasetError(f"{path}: no pairs in it")
    manifest = read_manifest(path)
    if manifest.dataset_root is None:
        raise DatasetError(f"the manifest of {path} does not name dataset_root; generate the pairs again")
    by_image: dict[str, list[VQAPair]] = {}
    for pair in pairs:
        by_image.setdefault(pair.image_path, []).append(pair)
    return by_image, (path.parent / manifest.dataset_root).resolve(), manifest.split or "train"


def _training_scan(
    root: Path, record: ScanRecord, annotated: tuple[str, ...], pairs: Sequence[VQAPair]
) -> TrainingScan:
    return TrainingScan(
        root / record.image_path,
        record.size_wh,
        record.annotations,
        annotated,
        tuple((pair.question, pair.answer) for pair in pairs),
        tuple(pair.metadata.language for pair in pairs),
        record.group,
    )


def fingerprint(data: TrainingData) -> str:
    """Return a hash of what a run trains on, in order: a resumed run has to see the same."""
    total = hashlib.sha256()
    for scan in data.train:
        total.update(_told(scan))
    for mix in data.mixes:
        total.update(repr(mix.weight).encode())
        for scan in mix.scans:
            total.update(_told(scan))
    return total.hexdigest()


def _told(scan: TrainingScan) -> bytes:
    return repr((scan.image_path.name, scan.annotations, scan.annotated, scan.pairs)).encode()
