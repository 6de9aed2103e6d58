"""What a person should have seen before hours are spent: `before_training.md` in the output folder.

A tree in plain text with the trained tokens marked, read back from the very tensors that are trained on; how many
tokens there are of what; what is left out; which weights move. Wrong labels and adapters on nothing show here and
nowhere else.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from xray_vqa.core.prompts import MAX_BOXES
from xray_vqa.errors import GateFailed
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, PREFIX_SEGMENT, TreeRow
from xray_vqa.training.inputs.collator import ScanDataset
from xray_vqa.training.planning.plan import RunPlan

logger = logging.getLogger(__name__)

PAGE_NAME = "before_training.md"
MAX_COUNTED = 1000
"""Trees whose tokens are counted; more would only cost time."""
TRIED_FOR_A_THREAT = 200
BAR_WIDTH = 40
BINS = 10
_PARTS = ("visual.merger", "visual", "language_model", "lm_head")
_PERCENTILES = (0, 5, 50, 95, 100)


@dataclass(frozen=True, slots=True)
class TrainedTensor:
    """One tensor that the optimizer moves."""

    name: str
    shape: tuple[int, ...]
    count: int


def preview(train: ScanDataset, plan: RunPlan) -> str:
    """Return what can be said without touching the model, as Markdown: what is left out, one tree, the tokens.

    Raises:
        GateFailed: The labels of the shown tree are not the tokens that follow.
        DatasetError: Its image cannot be read.
    """
    number = _worth_showing(train)
    scan = train.scans[train.number_of(number)]
    view = view_of(train[number]["row"], train.encoder)
    return "\n".join(
        [
            "## What is trained on, and what is left out\n",
            f"{plan.describe()}.\n",
            *(f"- {line}" for line in _left_out(train)),
            f"\n## One tree, of {scan.image_path.name}\n",
            "Tokens between ⟦ and ⟧ are trained on, all others are given. ⏎ is a new line.\n",
            f"~~~text\n{view}\n~~~\n",
            "## Tokens an image\n",
            f"~~~text\n{describe_tokens(count_tokens(train))}\n~~~",
        ]
    )


def write_before_training(output_dir: Path, shown: str, tensors: Sequence[TrainedTensor], num_weights: int) -> None:
    """Write the page, and the tensors' summary into the log.

    Args:
        output_dir: Of the run.
        shown: From `preview`.
        tensors: From `trained_tensors`.
        num_weights: Of the whole model.
    """
    total = sum(tensor.count for tensor in tensors)
    share = f"{total:,} of {num_weights:,} weights ({total / num_weights:.2%}) in {len(tensors)} tensors are trained"
    logger.info("%s: %s", share, ", ".join(f"{count:,} in {part}" for part, count in _by_part(tensors).items()))
    logger.info("%s lists each, and shows what one tree trains on", output_dir / PAGE_NAME)
    listed = "\n".join(f"{tensor.name} {tensor.shape}" for tensor in tensors)
    page = [
        "# Before the first step\n",
        shown,
        "\n## Trained weights\n",
        f"{share}.\n",
        *(f"- {line}" for line in group_tensors(tensors)),
        f"\nEach of them:\n\n~~~text\n{listed}\n~~~\n",
    ]
    (output_dir / PAGE_NAME).write_text("\n".join(page), encoding="utf-8")


def view_of(row: TreeRow, encoder: PromptEncoder) -> str:
    """Return a tree as text: its prefix and each branch a line, trained tokens between ⟦ and ⟧.

    Raises:
        GateFailed: A label is not the token that follows, or stands on the prefix.
    """
    lines: list[str] = []
    for segment in row.segment_ids.unique().tolist():
        chosen = row.segment_ids == segment
        ids, labels = row.input_ids[chosen].tolist(), row.labels[chosen].tolist()
        trained = [label != IGNORE_INDEX for label in labels]
        wrong = [at for at in range(len(ids) - 1) if trained[at] and labels[at] != ids[at + 1]]
        if wrong or (segment == PREFIX_SEGMENT and any(trained)):
            raise GateFailed(
                f"branch {segment} of a tree has a label that is not the next token (at {wrong[:3]}), or one before "
                "the answers: training would teach something else than the answers. This is a fault of the program"
            )
        if trained[-1]:  # the last token of an answer is a label alone
            ids.append(labels[-1])
        told = "".join(_told(encoder, run, is_trained) for is_trained, run in _runs(ids, [False, *trained]))
        lines.append(f"{'image' if segment == PREFIX_SEGMENT else segment:>5}  {told}")
    return "\n".join(lines)


def _runs(ids: Sequence[int], trained: Sequence[bool]) -> Iterator[tuple[bool, list[int]]]:
    """Return runs of tokens that are all trained on, or all given."""
    for is_trained, run in groupby(zip(trained, ids, strict=False), key=lambda pair: pair[0]):
        yield is_trained, [token for _, token in run]


def _told(encoder: PromptEncoder, ids: Sequence[int], is_trained: bool) -> str:
    parts: list[str] = []
    for is_image, run in groupby(ids, key=lambda token: token == encoder.image_pad_id):
        tokens = list(run)
        text = str(encoder.tokenizer.decode(tokens[:1] if is_image else tokens, skip_special_tokens=False))
        parts.append(f"[{len(tokens)} x {text}]" if is_image else text)
    told = "".join(parts).replace("\n", "⏎")
    return f"⟦{told}⟧" if is_trained else told


def count_tokens(train: ScanDataset) -> dict[str, list[int]]:
    """Return tokens an image by what they are, of evenly chosen trees, without opening an image."""
    numbers = np.unique(np.linspace(0, len(train) - 1, min(len(train), MAX_COUNTED)).round().astype(int))
    counts: dict[str, list[int]] = {name: [] for name in ("visual", "prefix", "branches", "trained", "whole tree")}
    for number in numbers.tolist():
        scan = train.scans[train.number_of(number)]
        rows, columns = train.processor.grid_hw(train.processor.frame_wh(scan.size_wh))
        prefix, _ = train.encoder.prefix(rows * columns)
        branches = train.fitting(scan, len(prefix))
        behind = sum(len(branch.prompt) + len(branch.answer) - 1 for branch in branches)
        trained = sum(len(branch.answer) for branch in branches)
        found = (rows * columns, len(prefix), behind, trained, len(prefix) + behind)
        for values, value in zip(counts.values(), found, strict=True):
            values.append(value)
    return counts


def describe_tokens(counts: dict[str, list[int]]) -> str:
    """Return a table of percentiles, and bars of how long the trees are and how much of them is trained on."""
    number = len(counts["visual"])
    lines = [f"{number} trees{'':<12}  least     5 %  median    95 %    most"]
    for name, values in counts.items():
        percentiles = np.percentile(values, _PERCENTILES).round().astype(int)
        lines.append(f"{name:<18}" + "".join(f"{value:>8,}" for value in percentiles))
    for name in ("whole tree", "trained"):
        lines += ["", name, *_bars(counts[name])]
    return "\n".join(lines)


def _bars(values: Sequence[int]) -> list[str]:
    edges = np.linspace(min(values), max(values) + 1, min(BINS, max(values) - min(values) + 1) + 1)
    heights, _ = np.histogram(values, edges)
    return [
        f"{low:>7.0f} to {high - 1:<7.0f} {'█' * int(np.ceil(BAR_WIDTH * height / max(heights)))} {height}"
        for low, high, height in zip(np.ceil(edges[:-1]), np.ceil(edges[1:]), heights, strict=True)
    ]


def trained_tensors(model: torch.nn.Module) -> list[TrainedTensor]:
    """Return every tensor that is trained, in the model's order.

    Raises:
        GateFailed: There is none.
    """
    found = [
        TrainedTensor(name, tuple(weight.shape), weight.numel())
        for name, weight in model.named_parameters()
        if weight.requires_grad
    ]
    if not found:
        raise GateFailed("no weight of the model would be trained; look at method and lora.target_modules")
    return found


def group_tensors(tensors: Sequence[TrainedTensor]) -> list[str]:
    """Return a line for all tensors that differ in the number of their layer alone."""
    groups: dict[tuple[str, tuple[int, ...]], list[TrainedTensor]] = {}
    for tensor in tensors:
        groups.setdefault((re.sub(r"\.\d+\.", ".*.", tensor.name), tensor.shape), []).append(tensor)
    return [
        f"{len(group)} x {name} {shape}: {sum(tensor.count for tensor in group):,}"
        for (name, shape), group in groups.items()
    ]


def _by_part(tensors: Sequence[TrainedTensor]) -> dict[str, int]:
    """Weights by the part of the model that they stand in, as far as its name tells."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        part = next((part for part in _PARTS if f".{part}." in f".{tensor.name}"), "the rest")
        counts[part] = counts.get(part, 0) + tensor.count
    return counts


def _worth_showing(train: ScanDataset) -> int:
    """The first item with something to place in it, else the first one."""
    tried = range(min(len(train), TRIED_FOR_A_THREAT))
    return next((number for number in tried if train.scans[train.number_of(number)].annotations), 0)


def _left_out(train: ScanDataset) -> list[str]:
    unplaced = crowded = unasked = 0
    for scan in train.scans:
        boxes: dict[str, list[bool]] = {}
        for annotation in scan.annotations:
            boxes.setdefault(annotation.category, []).append(annotation.box is not None)
        unasked += sum(category not in scan.annotated for category in boxes)
        unplaced += sum(not all(known) for known in boxes.values())
        crowded += sum(len(known) > MAX_BOXES for known in boxes.values())
    return [
        f"{unplaced} times a category's places are not asked, for one of its boxes is not known",
        f"{crowded} times a category has more than {MAX_BOXES} boxes, and the first {MAX_BOXES} are told",
        f"{unasked} times an item is of a category that the source does not label throughout, and is not asked about",
    ]
