"""The prompt tree: one image prefix, and behind it branches that see the prefix and themselves alone.

A row holds `prefix | branch 1 | branch 2 | ...`. Positions of each branch restart where the prefix ends, and the mask
hides the branches from each other, so every branch gets the logits that it would get in a sequence of its own
(tested exactly in fp32). An image is thus encoded once for all its questions, in training as in serving. This module
is the only one that knows the layout.

Labels are stored at the position that predicts them: `labels[i]` is the token after `input_ids[i]` in its branch.
The last token of an answer predicts nothing and is not in the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

IGNORE_INDEX = -100
PREFIX_SEGMENT = 0
PADDING_SEGMENT = -1


@dataclass(frozen=True, slots=True)
class Branch:
    """One question behind the prefix. Without an answer it is for inference."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One image's tree, not padded. All tensors int64."""

    input_ids: torch.Tensor
    """(length,)"""
    labels: torch.Tensor
    """(length,) the token that each position should predict, or IGNORE_INDEX."""
    segment_ids: torch.Tensor
    """(length,) 0 in the prefix, 1, 2, ... in the branches."""
    position_ids: torch.Tensor
    """(3, length) temporal, height and width positions of Qwen2.5-VL's rotary embedding."""
    branch_ends: torch.Tensor
    """(branches,) index of each branch's last token."""
    visual: slice
    """Where the image's tokens stand."""

    @property
    def next_position(self) -> int:
        """The position at which every branch begins."""
        return int(self.position_ids[:, self.segment_ids == PREFIX_SEGMENT].max()) + 1


@dataclass(frozen=True, slots=True)
class TreeBatch:
    """Rows padded on the right to one length."""

    input_ids: torch.Tensor
    """(batch, length) int64"""
    labels: torch.Tensor
    """(batch, length) int64"""
    segment_ids: torch.Tensor
    """(batch, length) int64, PADDING_SEGMENT where a row has ended."""
    position_ids: torch.Tensor
    """(3, batch, length) int64"""


def prefix_positions(length: int, image_start: int, grid_hw: tuple[int, int]) -> torch.Tensor:
    """Return the rotary positions of a prefix with one image in it, (3, length) int64.

    Text counts on in all three rows. Visual tokens stand at one time, at their row and column; text goes on behind
    the largest of them. The same as `Qwen2_5_VLModel.get_rope_index` gives for one image.
    """
    rows, columns = grid_hw
    positions = torch.arange(length).repeat(3, 1)
    image_end = image_start + rows * columns
    positions[0, image_start:image_end] = image_start
    positions[1, image_start:image_end] = image_start + torch.arange(rows).repeat_interleave(columns)
    positions[2, image_start:image_end] = image_start + torch.arange(columns).repeat(rows)
    positions[:, image_end:] = torch.arange(length - image_end) + image_start + max(rows, columns)
    return positions


def build_row(
    prefix_ids: Sequence[int], image_start: int, grid_hw: tuple[int, int], branches: Sequence[Branch]
) -> TreeRow:
    """Return the tree of one image.

    Args:
        prefix_ids: Token ids before the branches, the image's placeholders among them.
        image_start: Index of the first placeholder.
        grid_hw: Rows and columns of visual tokens.
        branches: At least one, each with at least one prompt token.
    """
    ids = list(prefix_ids)
    labels = [IGNORE_INDEX] * len(ids)
    segments = [PREFIX_SEGMENT] * len(ids)
    prefix = prefix_positions(len(ids), image_start, grid_hw)
    start = int(prefix.max()) + 1
    offsets: list[int] = []
    ends: list[int] = []
    for segment, branch in enumerate(branches, start=1):
        tokens = [*branch.prompt, *branch.answer]
        inputs = tokens[:-1] if branch.answer else tokens
        ids += inputs
        labels += [IGNORE_INDEX] * (len(inputs) - len(branch.answer)) + list(branch.answer)
        segments += [segment] * len(inputs)
        offsets += range(start, start + len(inputs))
        ends.append(len(ids) - 1)
    branch_positions = torch.tensor(offsets, dtype=torch.int64).repeat(3, 1)
    return TreeRow(
        input_ids=torch.tensor(ids),
        labels=torch.tensor(labels),
        segment_ids=torch.tensor(segments),
        position_ids=torch.cat([prefix, branch_positions], dim=1),
        branch_ends=torch.tensor(ends, dtype=torch.int64),
        visual=slice(image_start, image_start + grid_hw[0] * grid_hw[1]),
    )


def stack_rows(rows: Sequence[TreeRow], pad_id: int) -> TreeBatch:
    """Return rows as one batch, padded on the right to the longest."""
    length = max(row.input_ids.numel() for row in rows)

    def padded(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (0, length - tensor.shape[-1]), value=value)

    return TreeBatch(
        input_ids=torch.stack([padded(row.input_ids, pad_id) for row in rows]),
        labels=torch.stack([padded(row.labels, IGNORE_INDEX) for row in rows]),
        segment_ids=torch.stack([padded(row.segment_ids, PADDING_SEGMENT) for row in rows]),
        position_ids=torch.stack([padded(row.position_ids, 0) for row in rows], dim=1),
    )


def tree_mask(segment_ids: torch.Tensor) -> torch.Tensor:
    """Return what each token may look at: the prefix and its own branch, up to itself.

    Args:
        segment_ids: (batch, length) int64.

    Returns:
        (batch, 1, length, length) bool. A padding token sees itself alone, so that no row of the softmax is empty.
    """
    length = segment_ids.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()
    return _visible(segment_ids, segment_ids, earlier)


def continuation_mask(segment_ids: torch.Tensor, past_segment_ids: torch.Tensor) -> torch.Tensor:
    """Return what tokens that follow a cached row may look at.

    Args:
        segment_ids: (batch, new) int64 of the tokens of this step.
        past_segment_ids: (batch, past) int64 of the tokens in the cache.

    Returns:
        (batch, 1, new, past + new) bool.
    """
    new, past = segment_ids.shape[1], past_segment_ids.shape[1]
    earlier = torch.ones(new, past + new, dtype=torch.bool, device=segment_ids.device).tril(diagonal=past)
    return _visible(segment_ids, torch.cat([past_segment_ids, segment_ids], dim=1), earlier)


def _visible(queries: torch.Tensor, keys: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
    same = queries[:, :, None] == keys[:, None, :]
    in_prefix = (keys == PREFIX_SEGMENT)[:, None, :] & (queries != PADDING_SEGMENT)[:, :, None]
    itself = torch.ones_like(earlier).triu(diagonal=keys.shape[1] - queries.shape[1]) & earlier
    not_padding = (queries != PADDING_SEGMENT)[:, :, None]
    return ((((same & not_padding) | in_prefix) & earlier) | itself)[:, None]


def as_attention_mask(mask: torch.Tensor | None) -> dict[str, torch.Tensor | None]:
    """Return a mask in the form that transformers' decoder takes ready-made; None keeps it from making its own."""
    return {"full_attention": mask}
