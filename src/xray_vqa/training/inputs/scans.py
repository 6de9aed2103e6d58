"""What a training run is about: scans with everything that is asked about each, read from pairs files."""

import hashlib
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from xray_vqa.config.train import MixFile
from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.records import SPLITS, Annotation, ScanRecord, Split, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import annotated_categories, annotations_path, read_split, split_development
from xray_vqa.errors import DatasetError
from xray_vqa.training.inputs.faulty import LeftOut

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
    sha256: str = ""
    """Of the image file; empty where the annotation does not say."""


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
    left_out: tuple[LeftOut, ...] = ()
    """What the pairs files name and a run does without."""

    @property
    def scans(self) -> list[TrainingScan]:
        """Every scan, of whatever part."""
        return [*self.train, *self.development, *(scan for mix in self.mixes for scan in mix.scans)]

    def without(self, left_out: Sequence[LeftOut]) -> "TrainingData":
        """Return the data without the scans that are left out whole; all that is left out is noted in it."""
        paths = {each.path for each in left_out if each.is_whole}

        def rest(scans: list[TrainingScan]) -> list[TrainingScan]:
            return [scan for scan in scans if str(scan.image_path) not in paths]

        return replace(
            self,
            train=rest(self.train),
            development=rest(self.development),
            mixes=tuple(Mix(scans, mix.weight) for mix in self.mixes if (scans := rest(mix.scans))),
            left_out=tuple(dict.fromkeys((*self.left_out, *left_out))),
        )


def read_training_data(
    train_file: Path, eval_file: Path | None = None, mix_files: Sequence[MixFile] = ()
) -> TrainingData:
    """Return the scans that a pairs file names, with their annotations.

    Images without a pair are left out: the pairs file says what a run is about. Without `eval_file` the development
    part of the training split (10 % by group) is held out. Scans of `mix_files` whose group is held out too, as threats
    projected into held-out bags are, are left out. Images that have no usable annotation are named in `left_out`.

    Raises:
        DatasetError: A line is broken, or the pairs come from a test split.
    """
    first = _read_train(train_file)
    if eval_file is None:
        train, held_out = split_development(first.records)
        development = [first.scan(record) for record in held_out]
        files = [first]
    else:
        held = _read_eval(eval_file)
        train, development = first.records, [held.scan(record) for record in held.records]
        files = [first, held]
    groups = {scan.group for scan in development} - {""}
    others = [_read_train(mix.file) for mix in mix_files]
    mixes = [_mix(mix, other, groups) for mix, other in zip(mix_files, others, strict=True)]
    annotated = {name for file in (first, *others) for name in file.annotated}
    return TrainingData(
        [first.scan(record) for record in train],
        development,
        tuple(category for category in CATEGORIES if category in annotated),
        tuple(mixes),
        tuple(each for file in (*files, *others) for each in file.left_out),
    )


@dataclass(frozen=True, slots=True)
class _PairsFile:
    """What a pairs file names, with what its dataset knows of it."""

    pairs: dict[str, list[VQAPair]]
    """By the image's path in the dataset."""
    root: Path
    split: Split
    annotated: tuple[str, ...]
    records: list[ScanRecord]
    """Of the images that have pairs."""
    left_out: list[LeftOut]

    def scan(self, record: ScanRecord) -> TrainingScan:
        pairs = self.pairs[record.image_path]
        return TrainingScan(
            self.root / record.image_path,
            record.size_wh,
            record.annotations,
            self.annotated,
            tuple((pair.question, pair.answer) for pair in pairs),
            tuple(pair.metadata.language for pair in pairs),
            record.group,
            record.sha256,
        )


def _read_train(train_file: Path) -> _PairsFile:
    file = _read_pairs_file(train_file)
    if file.split != "train":
        raise DatasetError(f"{train_file} holds pairs of the {file.split} split; train on the training split")
    return file


def _read_eval(eval_file: Path) -> _PairsFile:
    file = _read_pairs_file(eval_file)
    if file.split == "test":
        logger.warning("%s comes from the test split: choosing a checkpoint by it spoils it as a test", eval_file)
    return file


def _read_pairs_file(path: Path) -> _PairsFile:
    pairs, root, split = _read_pairs(path)
    annotated = annotated_categories(root)
    scans = read_split(root, split)
    for fault in scans.faults:
        logger.warning("%s", fault)
    records = [record for record in scans.records if record.image_path in pairs]
    known = {record.image_path for record in records}
    left_out = [
        LeftOut(
            kind="entry", path=str(root / image_path), pairs=len(of_image),
            reason=f"named by {path}, without a usable entry in {annotations_path(root, split)}",
        )
        for image_path, of_image in pairs.items()
        if image_path not in known
    ]  # fmt: skip
    return _PairsFile(pairs, root, split, annotated, records, left_out)


def _mix(mix: MixFile, file: _PairsFile, held_out: Set[str]) -> Mix:
    kept = [record for record in file.records if record.group not in held_out]
    if len(kept) < len(file.records):
        logger.info("%s: %d scans of held-out bags are left out", mix.file, len(file.records) - len(kept))
    if not kept:
        raise DatasetError(f"{mix.file}: all of its scans are of held-out bags; nothing is left to mix in")
    return Mix([file.scan(record) for record in kept], mix.weight)


def _read_pairs(path: Path) -> tuple[dict[str, list[VQAPair]], Path, Split]:
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
    split = manifest.split or "train"
    if split != "train" and split != "test":
        raise DatasetError(f"the manifest of {path} names the split {split!r}, which is none of {', '.join(SPLITS)}")
    return by_image, (path.parent / manifest.dataset_root).resolve(), split


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
