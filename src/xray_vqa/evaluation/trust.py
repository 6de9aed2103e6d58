"""What must hold before anything is scored: no test scan was trained on, and the predictions are of this test set."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.jsonl import replacing
from xray_vqa.core.manifest import sha256_bytes, sha256_file
from xray_vqa.core.records import ScanRecord, Split
from xray_vqa.dataset.copies import MAX_DISTANCE, find_near_copies
from xray_vqa.dataset.layout import annotations_path, read_split
from xray_vqa.dataset.verify import look_at_images
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.records import ScanPrediction
from xray_vqa.evaluation.testset import EvaluationSet, dataset_of


def find_leakage(data: EvaluationSet, train_file: Path | None = None) -> str:
    """Return which test scans were trained on, in words, or nothing.

    Files are compared by the SHA-256 that the annotations name. Groups are compared with the test set's own dataset,
    since two datasets may give one name to two bags.

    Args:
        data: The test set, with the training split beside it where there is one.
        train_file: Pairs that may have been written from another dataset.

    Raises:
        DatasetError: The training pairs do not say what they were written from.
    """
    by_hash: dict[str, str] = {}
    groups: dict[str, str] = {}
    for root in _roots_trained_on(data, train_file):
        for record in read_split(root, "train").records:
            by_hash.setdefault(record.sha256, record.image_path)
            if root == data.root.resolve():
                groups.setdefault(record.group, record.image_path)
    by_hash.pop("", None)
    groups.pop("", None)
    scans = [planned.record for planned in data.scans]
    return "; ".join(
        told
        for told in (
            _tell("have the bytes of a training scan", [(s, by_hash[s.sha256]) for s in scans if s.sha256 in by_hash]),
            _tell("are of the group of a training scan", [(s, groups[s.group]) for s in scans if s.group in groups]),
        )
        if told
    )


def _roots_trained_on(data: EvaluationSet, train_file: Path | None) -> list[Path]:
    """Return the resolved roots of datasets with a training split: the test set's own and that of training pairs."""
    roots = [data.root.resolve(), *([dataset_of(train_file)[0].resolve()] if train_file else [])]
    return [
        root for root in dict.fromkeys(roots) if data.split != "train" and annotations_path(root, "train").is_file()
    ]


def note_on_near_copies(data: EvaluationSet, train_file: Path | None, cache_dir: Path, workers: int = 1) -> str:
    """Return which test scans look like a training image, in words, or that none does, or that nobody could look.

    Whether two pictures show one bag is for a person to say, and over all pairs of a large set some that do not look
    alike (docs/decisions/0010); so this is a note and never stops anything.

    Args:
        data: The test set.
        train_file: Pairs that may have been written from another dataset.
        cache_dir: Where the looks of images are kept, by the digest of their annotations: reading an image takes about
            a millisecond.
        workers: Processes that read images.

    Raises:
        DatasetError: The training pairs do not say what they were written from.
        Incomplete: A worker process died.
    """
    told: list[str] = []
    num_seen = 0
    tested = [planned.record for planned in data.scans]
    roots = _roots_trained_on(data, train_file)
    test = _looks(data.root, data.split, tested, cache_dir, workers) if roots else None
    for root in roots:
        trained = read_split(root, "train").records
        train = _looks(root, "train", trained, cache_dir, workers)
        num_seen += int(train.thumbnails.any(axis=(1, 2)).sum())
        assert test is not None
        near = find_near_copies(
            np.concatenate([test.hashes, train.hashes]), np.concatenate([test.thumbnails, train.thumbnails])
        )
        across = (near.first < len(tested)) & (near.second >= len(tested))
        found = dict(zip(near.first[across].tolist(), near.second[across].tolist(), strict=True))
        # Of test scans with one hash only the first was compared with training images; it stands for the others.
        same = np.isin(near.first, list(found)) & (near.second < len(tested)) & (near.distance == 0)
        found |= {
            other: found[one] for one, other in zip(near.first[same].tolist(), near.second[same].tolist(), strict=True)
        }
        if found:
            first, second = next(iter(found.items()))
            told.append(
                f"{len(found)} test scans look like a training image, first {tested[first].image_path} "
                f"(as {trained[second - len(tested)].image_path})"
            )
        if not near.is_complete:
            told.append(f"{root} holds too many near copies to look at all of them")
    if not num_seen:
        return "leakage was looked for by bytes and bags alone: no training images are at hand to look at"
    how = f"{num_seen} training images, pHash within {MAX_DISTANCE} of 64 bits"
    if told:
        return f"leakage by looks ({how}): {'; '.join(told)}; `xray-vqa data verify` shows them to a person"
    return f"leakage was looked for by bytes, bags and looks ({how}): no test scan looks like a training image"


class _Looks(NamedTuple):
    thumbnails: NDArray[np.uint8]
    hashes: NDArray[np.uint64]


def _looks(root: Path, split: Split, records: Sequence[ScanRecord], cache_dir: Path, workers: int) -> _Looks:
    names = "\n".join([sha256_file(annotations_path(root, split)), *(record.image_path for record in records)])
    path = cache_dir / f"looks-{sha256_bytes(names.encode())[:16]}.npz"
    with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(path) as kept:
        return _Looks(kept["thumbnails"], kept["hashes"])
    looks = look_at_images(root, records, workers)
    with replacing(path) as stream:
        np.savez_compressed(stream, thumbnails=looks.thumbnails, hashes=looks.hashes)
    return _Looks(looks.thumbnails, looks.hashes)


def _tell(what: str, found: Sequence[tuple[ScanRecord, str]]) -> str:
    if not found:
        return ""
    return f"{len(found)} test scans {what}, first {found[0][0].image_path} (as {found[0][1]})"


def check_complete(path: Path, predictions: Sequence[ScanPrediction], data: EvaluationSet) -> None:
    """Check that predictions are one for each scan and question of a test set.

    Raises:
        DatasetError: Some are missing, doubled, of other scans, with other questions or another truth.
    """
    planned = {scan.record.image_path: scan for scan in data.scans}
    counts = Counter(prediction.image_path for prediction in predictions)
    faults = {
        "doubled": [name for name, count in counts.items() if count > 1],
        "not of this test set": [name for name in counts if name not in planned],
        "missing": [name for name in planned if name not in counts],
        "with other questions": [
            p.image_path
            for p in predictions
            if p.image_path in planned and tuple(a.pair for a in p.answers) != planned[p.image_path].lines
        ],
        "with other items than the annotations": [
            p.image_path
            for p in predictions
            if p.image_path in planned and p.present != planned[p.image_path].record.present
        ],
    }
    told = [f"{len(names)} scans {what}, first {names[0]}" for what, names in faults.items() if names]
    if told:
        raise DatasetError(f"{path}: {'; '.join(told)}; run `xray-vqa evaluate predict` again")


def notes_on_classes(data: EvaluationSet) -> list[str]:
    """Return which rates a test set cannot measure, for want of a class."""
    counts = Counter(name for scan in data.scans for name in scan.record.present)
    notes: list[str] = []
    empty = [name for name in data.annotated if not counts[name]]
    if empty:
        notes.append(f"no scan holds {', '.join(empty)}: detection of them is not measured")
    everywhere = [name for name in data.annotated if counts[name] == len(data.scans)]
    if everywhere:
        notes.append(f"every scan holds {', '.join(everywhere)}: false alarms for them are not measured")
    return notes
