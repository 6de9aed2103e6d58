"""From scans and pairs to packed prompt trees: what the Trainer's workers do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.branch_rows import rows_of
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.packed_tree import pack_rows
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, Branch, TreeRow, build_row
from xray_vqa.training.dense import UNKNOWN, owners_of
from xray_vqa.training.inputs.augment import MIRRORINGS, draw_recolouring, mirrored_scan
from xray_vqa.training.inputs.demand import Demand
from xray_vqa.training.inputs.faulty import LeftOut, ScanFaulty
from xray_vqa.training.inputs.image_cache import ImageCache, read_frame
from xray_vqa.training.inputs.scans import Mix, TrainingScan


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
        cache: ImageCache | None = None,
    ) -> None:
        self.encoder, self.processor = encoder, processor
        self.max_seq_length, self.probes, self.boxes, self.probe_weight = max_seq_length, probes, boxes, probe_weight
        self.augmentation = augmentation or Augmentation()
        self.dense = dense
        self.cache = cache
        self.epoch = 0
        self.scans = list(scans)
        self._mixes: list[tuple[int, int, NDArray[np.int64]]] = []
        """For each mix: its first item, how many items an epoch has of it, and its scans in a mixed order."""
        rng = np.random.default_rng(self.augmentation.seed)
        self._length = len(scans)
        for mix in mixes:
            count = max(1, round(mix.weight * len(mix.scans)))
            self._mixes.append((self._length, count, len(self.scans) + rng.permutation(len(mix.scans))))
            self.scans += mix.scans
            self._length += count

    def __len__(self) -> int:
        return self._length

    def start_epoch(self, epoch: int) -> None:
        """Say which epoch the next items are of."""
        self.epoch = epoch

    def number_of(self, index: int) -> int:
        """Return which of `scans` an item is about in this epoch."""
        for start, count, order in reversed(self._mixes):
            if index >= start:
                return int(order[(self.epoch * count + index - start) % len(order)])
        return index

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.scans[self.number_of(index)]
        frame = self.cache.frame(scan) if self.cache is not None else read_frame(scan, self.processor)
        seed = np.random.SeedSequence((self.augmentation.seed, self.epoch, index)).generate_state(1, np.uint32)
        generator = torch.Generator().manual_seed(int(seed[0]))
        scan, mirroring = self._look_of(scan, generator)
        frame = frame[:: -1 if mirroring[1] else 1, :: -1 if mirroring[0] else 1]
        grid_hw = self.processor.grid_hw((frame.shape[1], frame.shape[0]))
        prefix, image_start = self.encoder.prefix(grid_hw[0] * grid_hw[1])
        branches = self.fitting(scan, len(prefix))
        row = build_row(prefix, image_start, grid_hw, branches)
        pixels = torch.from_numpy(frame.copy())
        item = {
            "frame": pixels,
            "grid_thw": self.processor.grid_thw([pixels])[0],
            "row": row,
            "weights": self._weights(row, branches),
            "image": str(scan.image_path),
        }
        if self.augmentation.jitter:
            item["recolouring"] = draw_recolouring(1, generator)[0]
        if self.dense:
            item |= self._dense(scan, grid_hw)
        return item

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
        boxes = [self.processor.to_resized(box, scan.size_wh) for _, box in placed]
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
            ScanFaulty: Not even one fits.
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
            raise ScanFaulty(
                f"{scan.image_path}: its image takes {prefix_length} of {self.max_seq_length} tokens; no question fits",
                kind="too long",
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

    def left_out(self, scan: TrainingScan) -> LeftOut | None:
        """Return what of a scan does not fit into `max_seq_length`, found without opening its image."""
        rows, columns = self.processor.grid_hw(self.processor.frame_wh(scan.size_wh))
        prefix, _ = self.encoder.prefix(rows * columns)
        try:
            kept = len(self.fitting(scan, len(prefix)))
        except ScanFaulty as fault:
            return LeftOut.of(scan.image_path, fault, len(scan.pairs))
        missing = len(self.branches(scan)) - kept
        if not missing:
            return None
        pairs = [question for question, _ in scan.pairs[kept:]]
        told = f"pairs {pairs} and " if pairs else ""
        reason = f"{told}{missing - len(pairs)} probes and boxes do not fit into {self.max_seq_length} tokens"
        return LeftOut(kind="cut", path=str(scan.image_path), reason=reason, pairs=len(pairs))

    def num_tokens(self, index: int) -> int:
        """Return how long an item's tree is in this epoch."""
        return self.demand_of(index).tokens

    def demand_of(self, index: int) -> Demand:
        """Return what an item demands of a pass in this epoch, mirrored or not, without opening its image."""
        return self._demands[self.number_of(index)]

    @cached_property
    def _demands(self) -> list[Demand]:
        """Of each scan."""
        found: list[Demand] = []
        for scan in self.scans:
            rows, columns = self.processor.grid_hw(self.processor.frame_wh(scan.size_wh))
            prefix, _ = self.encoder.prefix(rows * columns)
            branches = self.fitting(scan, len(prefix))
            answers = sum(len(branch.answer) for branch in branches)
            tokens = len(prefix) + answers + sum(len(branch.prompt) - 1 for branch in branches)
            found.append(Demand(tokens, rows * columns * self.processor.merge_size**2, answers))
        return found

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
    return collated | _beside(items)


def collate_rows(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give each branch a row of its own, with its image, padded on the right; where trees are not packed."""
    shown = [(item, seen) for item in items for seen in rows_of(item["row"])]

    def padded(values: Iterable[torch.Tensor], filling: int) -> torch.Tensor:
        return pad_sequence(list(values), batch_first=True, padding_value=filling)

    labels = padded((item["row"].labels[seen] for item, seen in shown), IGNORE_INDEX)
    collated = {
        "image_grid_thw": torch.stack([item["grid_thw"] for item, _ in shown]),
        "input_ids": padded((item["row"].input_ids[seen] for item, seen in shown), 0),
        "attention_mask": padded((torch.ones_like(seen) for _, seen in shown), 0),
        "labels": labels,
        "supervised": (labels != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1),
        "position_ids": padded((item["row"].position_ids.T[seen] for item, seen in shown), 0).permute(2, 0, 1),
        "frames": [item["frame"] for item, _ in shown],
        "weights": padded((item["weights"][seen] for item, seen in shown), 0),
    }
    return collated | _beside([item for item, _ in shown])


def _beside(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What else is known of the image of each item."""
    collated: dict[str, Any] = {}
    if "image" in items[0]:
        collated["images"] = [item["image"] for item in items]
    if "recolouring" in items[0]:
        collated["recolouring"] = torch.stack([item["recolouring"] for item in items])
    if "owner" in items[0]:
        collated["owner"] = pad_sequence([i["owner"] for i in items], batch_first=True, padding_value=UNKNOWN)
        collated["objects"] = pad_sequence([i["objects"] for i in items], batch_first=True)
        collated["named"] = torch.stack([item["named"] for item in items])
    return collated
