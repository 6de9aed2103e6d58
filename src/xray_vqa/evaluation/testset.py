"""Which scans are predicted and which questions are asked: the pairs file joined with its split's annotations."""

import hashlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from xray_vqa.core.images import read_image
from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import manifest_path, read_manifest, sha256_file
from xray_vqa.core.records import ScanRecord, Split, VQAPair
from xray_vqa.dataset.layout import annotated_categories, annotations_path, read_split, split_development
from xray_vqa.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Question:
    """A pair and which line of its file it stands on, from 0."""

    line: int
    pair: VQAPair


@dataclass(frozen=True, slots=True)
class PlannedScan:
    """A scan to be read, and what is to be asked about it."""

    record: ScanRecord
    questions: tuple[Question, ...] = ()

    @property
    def lines(self) -> tuple[int, ...]:
        return tuple(question.line for question in self.questions)

    @property
    def group(self) -> str:
        return self.record.group or f"image:{self.record.image_path}"


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """What a predictions file is made from."""

    root: Path
    split: Split
    annotated: tuple[str, ...]
    scans: tuple[PlannedScan, ...]
    inputs: dict[str, str]
    """SHA-256 by path of the pairs and annotation files."""
    max_samples: int | None = None
    max_images: int | None = None
    seen_through: Callable[[PlannedScan, Image.Image], Image.Image] | None = None
    """What changes an image between its file and the engine; the records then speak of the changed image."""

    def image(self, planned: PlannedScan) -> Image.Image:
        """Return what an engine is shown of a scan, RGB. Raises ImageUnreadable naming the file."""
        image = read_image(self.root / planned.record.image_path)
        return image if self.seen_through is None else self.seen_through(planned, image)

    @property
    def num_questions(self) -> int:
        return sum(len(scan.questions) for scan in self.scans)


def load_test_set(
    test_file: Path,
    max_samples: int | None = None,
    max_images: int | None = None,
    *,
    only: Container[Path] | None = None,
) -> EvaluationSet:
    """Return the scans and questions of a pairs file.

    Args:
        test_file: Pairs in JSONL, with a manifest that names `dataset_root` and `split`.
        max_samples: At most so many questions.
        max_images: At most so many scans. A limit takes scans in the order of a hash of their path, so that a small
            sample is as mixed as the whole and part of every larger one.
        only: Leave out pairs whose image is not among these, by path below the resolved root.

    Raises:
        DatasetError: A file is missing, a line is no pair, or a pair's image is not in the split.
    """
    root, split = dataset_of(test_file)
    pairs, faults = read_jsonl(test_file, VQAPair)
    if faults:
        raise DatasetError(f"{len(faults)} lines are no question-answer pair, first {faults[0]}")
    if not pairs:
        raise DatasetError(f"{test_file}: no question-answer pairs in it; write some with `xray-vqa generate`")
    records = {record.image_path: record for record in read_split(root, split).records}
    questions: dict[str, list[Question]] = {}
    base = root.resolve()
    for line, pair in enumerate(pairs):
        if only is not None and base / pair.image_path not in only:
            continue
        questions.setdefault(pair.image_path, []).append(Question(line, pair))
    strangers = [path for path in questions if path not in records]
    if strangers:
        raise DatasetError(
            f"{test_file}: {len(strangers)} images are not in {annotations_path(root, split)}, first {strangers[0]}; "
            "the pairs were written for another dataset or split"
        )
    planned = [PlannedScan(records[path], tuple(entries)) for path, entries in questions.items()]
    return EvaluationSet(
        root=root,
        split=split,
        annotated=annotated_categories(root),
        scans=_limited(planned, max_samples, max_images),
        inputs={
            str(test_file): sha256_file(test_file),
            str(annotations_path(root, split)): sha256_file(annotations_path(root, split)),
        },
        max_samples=max_samples,
        max_images=max_images,
    )


def load_development_set(root: Path, pairs_file: Path | None = None) -> EvaluationSet:
    """Return the development part of a dataset's training split, without questions.

    With the pairs that a run was trained on it is the part of their scans that this run held out. Raises DatasetError.
    """
    records = read_split(root, "train").records
    if pairs_file is not None:
        asked = {pair.image_path for pair in read_jsonl(pairs_file, VQAPair)[0]}
        records = [record for record in records if record.image_path in asked]
    _, development = split_development(records)
    if not development:
        raise DatasetError(f"{annotations_path(root, 'train')}: too few scans for a development part to calibrate on")
    return EvaluationSet(
        root=root,
        split="train",
        annotated=annotated_categories(root),
        scans=tuple(PlannedScan(record) for record in development),
        inputs={str(annotations_path(root, "train")): sha256_file(annotations_path(root, "train"))},
    )


def load_held_out(train_file: Path, eval_file: Path | None) -> EvaluationSet:
    """Return the scans that a training run held out, without questions. Raises DatasetError, also for test scans."""
    if eval_file is None:
        return load_development_set(dataset_of(train_file)[0], train_file)
    data = load_test_set(eval_file)
    if data.split != "train":
        raise DatasetError(f"{eval_file}: of the {data.split} split, which calibration never sees")
    return replace(data, scans=tuple(PlannedScan(scan.record) for scan in data.scans))


def dataset_of(pairs_file: Path) -> tuple[Path, Split]:
    """Return the dataset root and split that a pairs file's manifest names. Raises DatasetError."""
    if not pairs_file.is_file():
        raise DatasetError(f"{pairs_file}: no such file; write the pairs with `xray-vqa generate`")
    manifest = read_manifest(pairs_file)
    if manifest.dataset_root is None or manifest.split not in ("train", "test"):
        raise DatasetError(
            f"{manifest_path(pairs_file)}: has to name dataset_root and split (train or test), found "
            f"{manifest.dataset_root!r} and {manifest.split!r}; nobody can find the images otherwise"
        )
    split: Split = "train" if manifest.split == "train" else "test"
    return pairs_file.parent / manifest.dataset_root, split


def _limited(scans: Sequence[PlannedScan], max_samples: int | None, max_images: int | None) -> tuple[PlannedScan, ...]:
    if max_samples is None and max_images is None:
        return tuple(scans)
    order = sorted(range(len(scans)), key=lambda k: hashlib.sha256(scans[k].record.image_path.encode()).digest())
    chosen: dict[int, PlannedScan] = {}
    left = max_samples
    for index in order[:max_images]:
        scan = scans[index]
        if left is not None:
            if left <= 0:
                break
            scan = PlannedScan(scan.record, scan.questions[:left])
            left -= len(scan.questions)
        chosen[index] = scan
    return tuple(chosen[index] for index in sorted(chosen))
