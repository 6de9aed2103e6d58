"""Endless simulated scans with everything that pre-training needs of them, made by many processes.

Each producer simulates a scan, and for each of its four mirrorings builds the branches of a prompt tree as token ids.
The arrays go through shared memory to the training process, which keeps a pool of them on its device.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from numpy.typing import NDArray

from xray_vqa.core.records import Annotation, ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, PADDING_SEGMENT, Branch
from xray_vqa.simulation.packing import DEFAULT_CLEAN_SHARE, DEFAULT_THREATS_PER_BAG
from xray_vqa.simulation.simulate import ScanStream, SimulatedScan, shared_renderer
from xray_vqa.training.inputs.augment import MIRRORINGS, mirrored

MAX_OBJECTS = 8

TOKENS, LABELS, SEGMENTS, OFFSETS, KINDS = range(5)
"""Rows of a scan's branch array: ids, labels, segment, position behind the prefix, and what the branch asks."""
PROBE, BOXES, QUESTION = range(3)

QuestionWriter = Callable[[ScanRecord], Sequence[tuple[str, str]]]
"""Returns question-answer pairs about a record; the record's `sha256` tells one scan from the next."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a producer process needs to know. Picklable."""

    seed: tuple[int, ...]
    """Each producer adds its number; no two of them make the same scans."""
    profiles: tuple[str, ...]
    size_wh: tuple[int, int]
    branch_tokens: int
    categories: tuple[str, ...] = CATEGORIES
    """What threats are drawn from; one that is named twice is drawn twice as often."""
    clean_share: float = DEFAULT_CLEAN_SHARE
    threats_per_bag: tuple[float, ...] = DEFAULT_THREATS_PER_BAG


@dataclass(slots=True)
class ScanArrays:
    """One scan, or a batch of them with a leading axis."""

    image: Any
    """(height, width, 3) uint8."""
    owner: Any
    """(rows, columns) uint8, which object covers each visual token; 0 for none, k + 1 for object k."""
    patch_owner: Any
    """(2 rows, 2 columns) uint8, the same for each of the patches that a visual token is merged from."""
    objects: Any
    """(MAX_OBJECTS, 5) float32: category index, then x0, y0, x1, y1 as fractions of the image."""
    branches: Any
    """(4, 5, branch_tokens) int16, one for each of `MIRRORINGS`."""


def branches_of(
    encoder: PromptEncoder,
    annotations: Sequence[Annotation],
    pairs: Sequence[tuple[str, str]],
    annotated: Sequence[str] = CATEGORIES,
) -> list[tuple[int, Branch]]:
    """Return every branch that a scan's annotations and pairs give, with its kind; boxes in the model's frame."""
    present = {annotation.category for annotation in annotations}
    branches = [(PROBE, encoder.probe(category, category in present)) for category in annotated]
    for category in annotated:
        placed = [a.box for a in annotations if a.category == category and a.box is not None]
        if placed and len(placed) == sum(a.category == category for a in annotations):
            branches.append((BOXES, encoder.boxes(category, placed)))
    branches += [(QUESTION, encoder.question(question, answer)) for question, answer in pairs]
    return branches


def pack_branches(branches: Sequence[tuple[int, Branch]], length: int) -> tuple[NDArray[np.int16], int]:
    """Return (5, length) int16 rows of `TOKENS` to `KINDS`, and how many branches did not fit."""
    packed = np.zeros((5, length), np.int16)
    packed[LABELS] = IGNORE_INDEX
    packed[SEGMENTS] = PADDING_SEGMENT
    at, left_out = 0, 0
    for segment, (kind, branch) in enumerate(branches, start=1):
        tokens = [*branch.prompt, *branch.answer][:-1]
        end = at + len(tokens)
        if end > length:
            left_out += 1
            continue
        packed[TOKENS, at:end] = tokens
        packed[LABELS, end - len(branch.answer) : end] = branch.answer
        packed[SEGMENTS, at:end] = segment
        packed[OFFSETS, at:end] = np.arange(len(tokens))
        packed[KINDS, at:end] = kind
        at = end
    return packed, left_out


def owner_map(masks: NDArray[np.bool_], factor: int) -> NDArray[np.uint8]:
    """Return which object covers most of each visual token, (rows, columns) uint8; 0 where none covers a quarter.

    Args:
        masks: (objects, height, width) bool.
        factor: Pixels a side of a visual token, or of a patch.
    """
    count, height, width = masks.shape
    rows, columns = height // factor, width // factor
    if count == 0:
        return np.zeros((rows, columns), np.uint8)
    share = masks.reshape(count, rows, factor, columns, factor).mean(axis=(2, 4))
    # A bullet is smaller than a token: its best token is its own even where it covers less than a quarter.
    best = share.reshape(count, -1).max(axis=1)[:, None, None]
    share = np.where((share >= 0.25) | ((share == best) & (best > 0)), share, 0)
    return np.where(share.max(axis=0) > 0, share.argmax(axis=0) + 1, 0).astype(np.uint8)


def scan_arrays(
    scan: SimulatedScan,
    settings: StreamSettings,
    encoder: PromptEncoder,
    processor: Processor,
    write_questions: QuestionWriter,
    seed: int,
) -> tuple[ScanArrays, int]:
    """Return the arrays of one simulated scan, and how many branches did not fit into their room."""
    size_wh = settings.size_wh
    packed: list[NDArray[np.int16]] = []
    left_out = 0
    for number, mirroring in enumerate(MIRRORINGS):
        annotations = [
            Annotation(a.category, mirrored(a.box, size_wh, mirroring) if a.box else None) for a in scan.annotations
        ]
        record = ScanRecord(
            image_id=0,
            image_filename="",
            image_path="",
            width=size_wh[0],
            height=size_wh[1],
            categories=[a.category for a in annotations],
            bboxes=[a.box.as_xywh() if a.box else None for a in annotations],
            sha256=f"{seed}/{number}",
        )
        pairs = write_questions(record)
        row, missed = pack_branches(branches_of(encoder, annotations, pairs), settings.branch_tokens)
        packed.append(row)
        left_out += missed
    objects = np.zeros((MAX_OBJECTS, 5), np.float32)
    for index, annotation in enumerate(scan.annotations[:MAX_OBJECTS]):
        if annotation.box is None:
            continue
        x0, y0, x1, y1 = annotation.box.as_xyxy()
        fractions = (x0 / size_wh[0], y0 / size_wh[1], x1 / size_wh[0], y1 / size_wh[1])
        objects[index] = (CATEGORIES.index(annotation.category), *fractions)
    masks = scan.masks[:MAX_OBJECTS]
    owner, patch_owner = owner_map(masks, processor.factor), owner_map(masks, processor.patch_size)
    return ScanArrays(scan.image, owner, patch_owner, objects, np.stack(packed)), left_out


PARTS = ("image", "owner", "patch_owner", "objects", "branches")


class ScanPool:
    """Scans on the training device, filled by producer processes and drawn from at random."""

    SLOTS = 16
    """Scans that a producer may have waiting in shared memory."""
    BATCH = 64
    """Scans that are moved at a time."""

    def __init__(
        self,
        settings: StreamSettings,
        make_tools: Callable[[], tuple[PromptEncoder, Processor, QuestionWriter]],
        *,
        size: int,
        num_producers: int,
        device: torch.device,
    ) -> None:
        """Allocate the pool and start the producers; `make_tools` is called in each of them (spawned processes)."""
        width, height = settings.size_wh
        _, processor, _ = make_tools()
        rows, columns = processor.grid_hw((width, height))
        shapes = {
            "image": ((height, width, 3), torch.uint8),
            "owner": ((rows, columns), torch.uint8),
            "patch_owner": ((rows * processor.merge_size, columns * processor.merge_size), torch.uint8),
            "objects": ((MAX_OBJECTS, 5), torch.float32),
            "branches": ((len(MIRRORINGS), 5, settings.branch_tokens), torch.int16),
        }
        self.scans = ScanArrays(
            **{name: torch.zeros(size, *shape, dtype=dtype, device=device) for name, (shape, dtype) in shapes.items()}
        )
        staging = {
            name: torch.zeros(num_producers * self.SLOTS, *shape, dtype=dtype).share_memory_()
            for name, (shape, dtype) in shapes.items()
        }
        assert tuple(shapes) == PARTS
        self._staging = ScanArrays(**staging)
        self._size = size
        self.num_drawn = 0
        self.num_left_out = 0
        shared_renderer(settings.size_wh)  # compiled once here, not in every producer
        context = mp.get_context("spawn")
        self._full: Any = context.Queue()
        self._free: list[Any] = [context.Queue() for _ in range(num_producers)]
        self._processes = [
            context.Process(
                target=_produce,
                args=(number, num_producers, settings, make_tools, self._staging, self._free[number], self._full),
                daemon=True,
            )
            for number in range(num_producers)
        ]
        for number, process in enumerate(self._processes):
            for slot in range(self.SLOTS):
                self._free[number].put(number * self.SLOTS + slot)
            process.start()
        self._closed = threading.Event()
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def __len__(self) -> int:
        return min(self.num_drawn, self._size)

    def hold_out(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and unmirrored branches of the first scans, which are never drawn from then on.

        Their places are given other scans, so they have to be held out before the pool is full.
        """
        assert count < self.num_drawn < self._size
        images = self.scans.image[:count].clone()
        branches = self.scans.branches[:count, 0].clone().long()
        for name in PARTS:
            part = getattr(self.scans, name)
            part[:count] = part[count : 2 * count]
        return images, branches

    def check(self) -> None:
        """Raise RuntimeError where a producer or the collecting thread has died."""
        dead = [process.exitcode for process in self._processes if process.exitcode is not None]
        if dead:
            raise RuntimeError(f"{len(dead)} producers have ended with exit codes {dead}")
        if not self._collector.is_alive():
            raise RuntimeError("the thread that moves scans into the pool has ended; see the traceback above")

    def _collect(self) -> None:
        """Move what the producers have ready into the pool, for ever; runs in a thread beside the training loop.

        Once the pool is full, new scans take the place of old ones. A batch drawn in that instant may hold one scan
        half replaced, one in tens of thousands, which training does not notice and evaluation never sees.
        """
        device = self.scans.image.device
        pinned = {
            name: torch.empty_like(getattr(self._staging, name)[: self.BATCH], pin_memory=device.type == "cuda")
            for name in PARTS
        }
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        while not self._closed.is_set():
            ready = self._wait_for_ready()
            if not ready:
                continue
            slots = torch.tensor([slot for slot, _ in ready])
            targets = ((torch.arange(len(ready)) + self.num_drawn) % self._size).to(device)
            with torch.cuda.stream(stream):
                for name in PARTS:
                    part = pinned[name][: len(ready)]
                    torch.index_select(getattr(self._staging, name), 0, slots, out=part)
                    getattr(self.scans, name)[targets] = part.to(device, non_blocking=True)
            if stream is not None:
                stream.synchronize()
            self.num_drawn += len(ready)
            self.num_left_out += sum(left_out for _, left_out in ready)
            for slot, _ in ready:
                self._free[slot // self.SLOTS].put(slot)

    def _wait_for_ready(self) -> list[tuple[int, int]]:
        ready: list[tuple[int, int]] = []
        with contextlib.suppress(queue.Empty):
            ready.append(self._full.get(timeout=0.5))
            while len(ready) < self.BATCH:
                ready.append(self._full.get_nowait())
        return ready

    def close(self) -> None:
        self._closed.set()
        self._collector.join(timeout=10)
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(timeout=10)


def _produce(
    number: int,
    num_producers: int,
    settings: StreamSettings,
    make_tools: Callable[[], tuple[PromptEncoder, Processor, QuestionWriter]],
    staging: ScanArrays,
    free: Any,
    full: Any,
) -> None:
    torch.set_num_threads(1)
    encoder, processor, write_questions = make_tools()
    stream = ScanStream(
        (*settings.seed, number),
        settings.profiles,
        settings.size_wh,
        categories=settings.categories,
        clean_share=settings.clean_share,
        threats_per_bag=settings.threats_per_bag,
    )
    index = number
    while True:
        arrays, left_out = scan_arrays(stream.draw(), settings, encoder, processor, write_questions, index)
        slot = free.get()
        for name in PARTS:
            getattr(staging, name)[slot] = torch.from_numpy(np.ascontiguousarray(getattr(arrays, name)))
        full.put((slot, left_out))
        index += num_producers
