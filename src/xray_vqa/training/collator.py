"""From scans and pairs to padded batches of prompt trees: what the Trainer's workers do."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from xray_vqa.core.images import read_image
from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.records import Annotation, ScanRecord, VQAPair
from xray_vqa.dataset.layout import annotated_categories, read_split, split_development
from xray_vqa.errors import DatasetError
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import Branch, build_row, stack_rows

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


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The scans of a run, divided by group."""

    train: list[TrainingScan]
    development: list[TrainingScan]
    annotated: tuple[str, ...]
    dataset_root: Path


def read_training_data(train_file: Path, eval_file: Path | None = None) -> TrainingData:
    """Return the scans that a pairs file names, with their annotations.

    Images without a pair are left out: the pairs file says what a run is about. Without `eval_file` the development
    part of the training split (10 % by group) is held out.

    Raises:
        DatasetError: A line is broken, an image has no annotation, or the pairs come from a test split.
    """
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
    if eval_file is None:
        train, development = split_development(records)
    else:
        train, development = records, []
    held_out = [_training_scan(root, record, annotated, pairs[record.image_path]) for record in development]
    if eval_file is not None:
        held_out = _read_eval(eval_file)
    return TrainingData(
        [_training_scan(root, record, annotated, pairs[record.image_path]) for record in train],
        held_out,
        annotated,
        root,
    )


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
    )


class ScanDataset(Dataset[dict[str, Any]]):
    """Prompt trees of scans, one an item.

    The order of an image's branches changes with nothing, so an item is the same whenever it is asked for.
    """

    def __init__(
        self,
        scans: Sequence[TrainingScan],
        encoder: PromptEncoder,
        processor: Processor,
        *,
        max_seq_length: int,
        probes: bool,
        boxes: bool,
    ) -> None:
        self.scans, self.encoder, self.processor = scans, encoder, processor
        self.max_seq_length, self.probes, self.boxes = max_seq_length, probes, boxes

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.scans[index]
        image = read_image(scan.image_path)
        if image.size != scan.size_wh:
            raise DatasetError(f"{scan.image_path} is {image.size}, its annotation says {scan.size_wh}")
        frame = self.processor.resize(image)
        grid_hw = self.processor.grid_hw((frame.shape[1], frame.shape[0]))
        prefix, image_start = self.encoder.prefix(grid_hw[0] * grid_hw[1])
        branches = self.fitting(scan, len(prefix))
        row = build_row(prefix, image_start, grid_hw, branches)
        return {"frame": torch.from_numpy(np.array(frame)), "row": row}

    def fitting(self, scan: TrainingScan, prefix_length: int) -> list[Branch]:
        """Return the branches of a scan that fit behind its prefix, in order; the image itself is never cut.

        Raises:
            DatasetError: Not even one fits.
        """
        chosen: list[Branch] = []
        used = prefix_length
        for branch in self.branches(scan):
            length = len(branch.prompt) + len(branch.answer) - 1
            if used + length > self.max_seq_length:
                break
            used += length
            chosen.append(branch)
        if not chosen:
            raise DatasetError(
                f"{scan.image_path}: its image alone takes {prefix_length} of {self.max_seq_length} tokens; raise "
                "max_seq_length or lower image_max_pixels"
            )
        return chosen

    def branches(self, scan: TrainingScan) -> list[Branch]:
        """Return every branch of a scan: its pairs, the probes, the boxes."""
        branches = [self.encoder.question(question, answer) for question, answer in scan.pairs]
        present = {annotation.category for annotation in scan.annotations}
        if self.probes:
            branches += [self.encoder.probe(category, category in present) for category in scan.annotated]
        if self.boxes:
            for category in scan.annotated:
                found = [a.box for a in scan.annotations if a.category == category]
                placed = [self.processor.to_frame(box, scan.size_wh) for box in found if box is not None]
                # One of two knives without a box would teach that there is no second one.
                if placed and len(placed) == len(found):
                    branches.append(self.encoder.boxes(category, placed))
        return branches

    def num_left_out(self) -> int:
        """Return how many branches do not fit into `max_seq_length`, over all scans, without opening an image."""
        total = 0
        for scan in self.scans:
            rows, columns = self.processor.grid_hw(self.processor.frame_wh(scan.size_wh))
            prefix, _ = self.encoder.prefix(rows * columns)
            total += len(self.branches(scan)) - len(self.fitting(scan, len(prefix)))
        return total


@dataclass(frozen=True, slots=True)
class Collator:
    """Pads trees to one length. The images stay uint8; the model's device cuts them into patches."""

    pad_id: int

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = stack_rows([item["row"] for item in items], self.pad_id)
        return {
            "input_ids": batch.input_ids,
            "labels": batch.labels,
            "segment_ids": batch.segment_ids,
            # (batch, 3, length): whatever splits a batch over devices splits the first axis.
            "position_ids": batch.position_ids.transpose(0, 1),
            "frames": [item["frame"] for item in items],
        }


def fingerprint(scans: Sequence[TrainingScan]) -> str:
    """Return a hash of what a run trains on, in order: a resumed run has to see the same."""
    total = hashlib.sha256()
    for scan in scans:
        total.update(repr((scan.image_path.name, scan.annotations, scan.annotated, scan.pairs)).encode())
    return total.hexdigest()
