"""From scans and pairs to packed prompt trees: what the Trainer's workers do."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from xray_vqa.core.images import read_image
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import DatasetError
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.packed_tree import pack_rows
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, Branch, TreeRow, build_row
from xray_vqa.training.augment import MIRRORINGS, draw_recolouring, mirrored_scan
from xray_vqa.training.dense import UNKNOWN, owners_of
from xray_vqa.training.scans import Mix, TrainingScan

DECODING_THREADS = 8


@dataclass(frozen=True, slots=True)
class Augmentation:
    """In which other looks scans are shown."""

    mirror: bool = False
    jitter: bool = False
    seed: int = 0


class ScanDataset(Dataset[dict[str, Any]]):
    """Prompt trees of scans, one an item.

    The scans come first, then so many of each mix as an epoch shows of it. An item is a function of its index and the
    epoch alone, so a resumed run sees what it would have seen.
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
        probe_weight: float = 1.0,
        dense: bool = False,
        mixes: Sequence[Mix] = (),
        augmentation: Augmentation | None = None,
    ) -> None:
        self.encoder, self.processor = encoder, processor
        self.max_seq_length, self.probes, self.boxes, self.probe_weight = max_seq_length, probes, boxes, probe_weight
        self.augmentation = augmentation or Augmentation()
        self.dense = dense
        self.epoch = 0
        self.scans = list(scans)
        self._num_first = len(scans)
        self._mixes: list[tuple[int, int, NDArray[np.int64]]] = []
        """For each mix: its first item, how many items an epoch has of it, and its scans in a mixed order."""
        rng = np.random.default_rng(self.augmentation.seed)
        self._length = len(scans)
        for mix in mixes:
            count = max(1, round(mix.weight * len(mix.scans)))
            self._mixes.append((self._length, count, len(self.scans) + rng.permutation(len(mix.scans))))
            self.scans += mix.scans
            self._length += count
        self._frames: list[NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return self._length

    def start_epoch(self, epoch: int) -> None:
        """Say which epoch the next items are of."""
        self.epoch = epoch

    def keep_frames(self) -> None:
        """Decode and resize every image now and keep it; workers that are forked later share the memory."""
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            self._frames = list(pool.map(self._read_frame, self.scans))

    def number_of(self, index: int) -> int:
        """Return which of `scans` an item is about in this epoch."""
        for start, count, order in reversed(self._mixes):
            if index >= start:
                return int(order[(self.epoch * count + index - start) % len(order)])
        return index

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = self.number_of(index)
        frame = self._frames[number] if self._frames is not None else self._read_frame(self.scans[number])
        seed = np.random.SeedSequence((self.augmentation.seed, self.epoch, index)).generate_state(1, np.uint32)
        generator = torch.Generator().manual_seed(int(seed[0]))
        scan, mirroring = self._look_of(self.scans[number], generator)
        frame = frame[:: -1 if mirroring[1] else 1, :: -1 if mirroring[0] else 1]
        grid_hw = self.processor.grid_hw((frame.shape[1], frame.shape[0]))
        prefix, image_start = self.encoder.prefix(grid_hw[0] * grid_hw[1])
        branches = self.fitting(scan, len(prefix))
        row = build_row(prefix, image_start, grid_hw, branches)
        patch = self.processor.patch_size
        item = {
            "frame": torch.from_numpy(frame.copy()),
            "grid_thw": torch.tensor([1, frame.shape[0] // patch, frame.shape[1] // patch]),
            "row": row,
            "weights": self._weights(row, branches),
        }
        if self.augmentation.jitter:
            item["recolouring"] = draw_recolouring(1, generator)[0]
        if self.dense:
            item |= self._dense(scan, grid_hw)
        return item

    def _read_frame(self, scan: TrainingScan) -> NDArray[np.uint8]:
        image = read_image(scan.image_path)
        if image.size != scan.size_wh:
            raise DatasetError(f"{scan.image_path} is {image.size}, its annotation says {scan.size_wh}")
        return self.processor.resize(image)

    def _look_of(self, scan: TrainingScan, generator: torch.Generator) -> tuple[TrainingScan, tuple[bool, bool]]:
        """Return what is asked about one look of a scan, and how it is mirrored; as it is where nothing would be."""
        if self.augmentation.mirror:
            mirroring = MIRRORINGS[int(torch.randint(len(MIRRORINGS), (), generator=generator))]
            mirrored = mirrored_scan(scan, mirroring)
            if self.branches(mirrored):
                return mirrored, mirroring
        return scan, MIRRORINGS[0]

    def _weights(self, row: TreeRow, branches: Sequence[Branch]) -> torch.Tensor:
        """What each position's prediction counts in the loss, (length,) float32."""
        weights = torch.ones(row.labels.shape)
        for segment, branch in enumerate(branches, start=1):
            if branch.answer in ((self.encoder.yes_id,), (self.encoder.no_id,)):
                weights[row.segment_ids == segment] = self.probe_weight
        return weights

    def _dense(self, scan: TrainingScan, grid_hw: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Return what each visual token is asked: see `DenseHeads.loss`, without the batch."""
        placed = [(a.category, a.box) for a in scan.annotations if a.box is not None and a.category in scan.annotated]
        boxes = [self.processor.to_frame(box, scan.size_wh) for _, box in placed]
        # An item without a box may be anywhere, so that no token can be said to be empty.
        whole = len(placed) == sum(a.category in scan.annotated for a in scan.annotations)
        owner = owners_of(boxes, grid_hw, self.processor.factor) if whole else np.full(grid_hw, UNKNOWN)
        width, height = scan.size_wh
        objects = [
            (CATEGORIES.index(name), box.x / width, box.y / height, (box.x + box.w) / width, (box.y + box.h) / height)
            for name, box in placed
        ]
        return {
            "owner": torch.from_numpy(owner.reshape(-1)),
            "objects": torch.tensor(objects or [(0, 0, 0, 0, 0)], dtype=torch.float32),
            "named": torch.tensor([name in scan.annotated for name in CATEGORIES]),
        }

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

    def num_not_mirrored(self) -> int:
        """Return how many pairs, over all scans, are left out where their scan is mirrored."""
        if not self.augmentation.mirror:
            return 0
        return sum(len(scan.pairs) - len(mirrored_scan(scan, (True, True)).pairs) for scan in self.scans)


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pack trees into one sequence. The images stay uint8; the model's device cuts them into patches."""
    packed = pack_rows([item["row"] for item in items])
    collated = {
        # First, because accelerate takes the size of a batch from what comes first.
        "image_grid_thw": torch.stack([item["grid_thw"] for item in items]),
        "input_ids": packed.input_ids,
        "labels": packed.labels,
        # Found here: on a GPU the search would wait for all that the GPU has still to do.
        "supervised": (packed.labels[0] != IGNORE_INDEX).nonzero().squeeze(1),
        "position_ids": packed.position_ids,
        "visual": packed.visual,
        "trees": packed.layout,
        "frames": [item["frame"] for item in items],
        "weights": torch.cat([item["weights"] for item in items])[packed.order][None],
    }
    if "recolouring" in items[0]:
        collated["recolouring"] = torch.stack([item["recolouring"] for item in items])
    if "owner" in items[0]:
        collated["owner"] = pad_sequence([i["owner"] for i in items], batch_first=True, padding_value=UNKNOWN)
        collated["objects"] = pad_sequence([i["objects"] for i in items], batch_first=True)
        collated["named"] = torch.stack([item["named"] for item in items])
    return collated
