"""Reads answers out of the branches of a prompt tree: all branches of all images one token further at a time.

The prefix of each image stays in one key-value cache. Branches are opened behind it whenever they are needed, see the
prefix and themselves alone, and end when their grammar says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import torch
from transformers import DynamicCache

from xray_vqa.core.prompts import DIGITS_PER_NUMBER, MAX_BOXES, NUMBERS_PER_BOX
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.prompt_tree import (
    PADDING_SEGMENT,
    Branch,
    TreeRow,
    build_row,
    continuation_mask,
    stack_rows,
    tree_mask,
)


class Grammar(Protocol):
    """What a branch may say next, and when it has said enough."""

    @property
    def done(self) -> bool: ...

    @property
    def allowed(self) -> tuple[int, ...] | None:
        """Ids to choose from, or None for any."""
        ...

    @property
    def longest(self) -> int:
        """How many tokens it takes at most."""
        ...

    def push(self, token: int) -> None: ...


@dataclass(slots=True)
class BoxGrammar:
    """Twelve digits a box, then another box or the end."""

    encoder: PromptEncoder
    tokens: list[int] = field(default_factory=list[int])
    done: bool = False
    _DIGITS: ClassVar[int] = DIGITS_PER_NUMBER * NUMBERS_PER_BOX

    @property
    def longest(self) -> int:
        return MAX_BOXES * (self._DIGITS + 1)

    @property
    def allowed(self) -> tuple[int, ...]:
        if len(self.tokens) % (self._DIGITS + 1) < self._DIGITS:
            return self.encoder.digit_ids
        return (self.encoder.box_open_id, self.encoder.box_close_id)

    def push(self, token: int) -> None:
        self.tokens.append(token)
        full = len(self.tokens) + 1 >= self.longest
        self.done = token == self.encoder.box_close_id or full

    @property
    def digits(self) -> list[str]:
        """The twelve digits of each box."""
        value = {token: str(digit) for digit, token in enumerate(self.encoder.digit_ids)}
        text = "".join(value.get(token, " ") for token in self.tokens)
        return [part for part in text.split() if len(part) == self._DIGITS]


@dataclass(slots=True)
class TextGrammar:
    """Any tokens up to the end mark."""

    encoder: PromptEncoder
    max_tokens: int
    tokens: list[int] = field(default_factory=list[int])
    ended: bool = False
    """Whether the model itself came to an end."""
    allowed: None = None

    @property
    def done(self) -> bool:
        return self.ended or len(self.tokens) >= self.max_tokens

    @property
    def longest(self) -> int:
        return self.max_tokens

    def push(self, token: int) -> None:
        if token == self.encoder.end_id:
            self.ended = True
        else:
            self.tokens.append(token)


class Decoder(ABC):
    """Encodes images with their branches and reads answers.

    `TreeDecoder` says how; `PackedDecoder` does the same in a GPU's way, and `RowDecoder` for other models.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.encoder = loaded.encoder
        self._dtype = next(loaded.base.parameters()).dtype

    def groups(self, count: int) -> list[int]:
        """Return how many of so many images to open together, group after group."""
        return [count] if count else []

    def warm_up(self, probes: Sequence[Branch]) -> None:  # noqa: B027  (most have nothing to prepare)
        """Prepare for scans of any size that are asked these probes, so that no first one waits for it."""

    @abstractmethod
    def open(
        self, frames: Sequence[torch.Tensor], branches: Sequence[Sequence[Branch]]
    ) -> tuple[Any, list[torch.Tensor]]: ...

    @abstractmethod
    def extend(
        self, state: Any, branches: Sequence[Sequence[Branch]], grammars: Sequence[Sequence[Grammar]]
    ) -> None: ...


@dataclass(slots=True)
class TreeState:
    """What is cached for a batch of images."""

    cache: DynamicCache
    segment_ids: torch.Tensor
    """(batch, cached) int64"""
    branch_starts: torch.Tensor
    """(batch,) the position at which every branch of an image begins."""
    next_segment: int


class TreeDecoder(Decoder):
    """Runs prompt trees on one loaded model. Everything is under inference mode."""

    @torch.inference_mode()
    def open(
        self, frames: Sequence[torch.Tensor], branches: Sequence[Sequence[Branch]]
    ) -> tuple[TreeState, list[torch.Tensor]]:
        """Encode images with their first branches in one pass.

        Args:
            frames: One (height, width, 3) uint8 tensor an image, as `Processor.resize` gives it.
            branches: For each image, its branches.

        Returns:
            The state to go on from, and for each image (branches, vocabulary) float32 logits behind each branch.
        """
        processor, device = self.loaded.processor, self.loaded.device
        rows: list[TreeRow] = []
        for frame, row_branches in zip(frames, branches, strict=True):
            grid_hw = processor.grid_hw((frame.shape[1], frame.shape[0]))
            prefix, image_start = self.encoder.prefix(grid_hw[0] * grid_hw[1])
            rows.append(build_row(prefix, image_start, grid_hw, row_branches))
        batch = stack_rows(rows, self.encoder.pad_id)
        patches, grid = processor.patches_of([frame.to(device) for frame in frames], self._dtype)
        segments = batch.segment_ids.to(device)
        cache = DynamicCache()
        states = self.loaded.base.model(
            input_ids=batch.input_ids.to(device),
            position_ids=batch.position_ids.to(device),
            attention_mask=tree_mask(segments),
            pixel_values=patches,
            image_grid_thw=grid,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits = [self._logits(states[at, row.branch_ends.to(device)]) for at, row in enumerate(rows)]
        starts = torch.tensor([row.next_position for row in rows], device=device)
        return TreeState(cache, segments, starts, max(map(len, branches)) + 1), logits

    @torch.inference_mode()
    def extend(
        self, state: TreeState, branches: Sequence[Sequence[Branch]], grammars: Sequence[Sequence[Grammar]]
    ) -> None:
        """Open further branches behind cached prefixes and decode them, greedily, until every grammar is done.

        Args:
            state: From `open`; it grows.
            branches: For each image of the state its new branches, possibly none.
            grammars: One for each branch; they take up the answers.
        """
        count = max(map(len, branches), default=0)
        if count == 0:
            return
        first = state.next_segment
        state.next_segment += count
        lengths = [[len(branch.prompt) for branch in row] for row in branches]
        tokens = [[list(branch.prompt) for branch in row] for row in branches]
        offsets = [[0] * len(row) for row in branches]
        while any(step for row in tokens for step in row):
            fed = [(image, at) for image, row in enumerate(tokens) for at, step in enumerate(row) if step]
            logits = self._feed(state, tokens, offsets, first)
            tokens = [[[] for _ in row] for row in branches]
            chosen = choose(logits, [grammars[image][at].allowed for image, at in fed])
            for (image, at), token in zip(fed, chosen, strict=True):
                offsets[image][at] += lengths[image][at]
                lengths[image][at] = 1
                grammars[image][at].push(token)
                if not grammars[image][at].done:
                    tokens[image][at] = [token]

    def _feed(
        self,
        state: TreeState,
        tokens: Sequence[Sequence[Sequence[int]]],
        offsets: Sequence[Sequence[int]],
        first: int,
    ) -> torch.Tensor:
        """Run the next tokens of each branch that has any. Branches are segments `first`, `first + 1`, ...

        Returns:
            (branches with tokens, vocabulary) float32 logits behind the last token of each, image by image.
        """
        device = state.segment_ids.device
        length = max(sum(map(len, row)) for row in tokens)
        ids, marks, places = [], [], []
        ends: list[int] = []
        for image, row in enumerate(tokens):
            numbered = list(enumerate(row))
            row_ids = [token for step in row for token in step]
            padding = length - len(row_ids)
            ids.append(row_ids + [self.encoder.pad_id] * padding)
            marks.append([first + number for number, step in numbered for _ in step] + [PADDING_SEGMENT] * padding)
            place = [offsets[image][number] + at for number, step in numbered for at in range(len(step))]
            places.append(place + [0] * padding)
            at = image * length - 1
            for step in row:
                at += len(step)
                if step:
                    ends.append(at)
        new_segments = torch.tensor(marks, device=device)
        positions = torch.tensor(places, device=device) + state.branch_starts[:, None]
        mask = continuation_mask(new_segments, state.segment_ids)
        states = self.loaded.base.model(
            input_ids=torch.tensor(ids, device=device),
            position_ids=positions.expand(3, -1, -1),
            attention_mask=mask,
            past_key_values=state.cache,
            use_cache=True,
        ).last_hidden_state
        state.segment_ids = torch.cat([state.segment_ids, new_segments], dim=1)
        return self._logits(states.flatten(0, 1)[torch.tensor(ends, device=device)])

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.loaded.base.lm_head(states).float()


def choose(logits: torch.Tensor, allowed: Sequence[tuple[int, ...] | None]) -> list[int]:
    """Return the likeliest allowed id of each row, fetched from the device together.

    Args:
        logits: (rows, vocabulary).
        allowed: For each row the ids to choose from, or None for any.
    """
    kinds = set(allowed)
    if len(kinds) == 1:  # as of boxes that are told in step
        (ids,) = kinds
        return _choose_among(logits, ids).tolist()
    chosen = torch.zeros(len(allowed), dtype=torch.int64, device=logits.device)
    for ids in kinds:
        rows = torch.tensor([at for at, each in enumerate(allowed) if each == ids], device=logits.device)
        chosen[rows] = _choose_among(logits[rows], ids)
    return chosen.tolist()


def _choose_among(logits: torch.Tensor, ids: tuple[int, ...] | None) -> torch.Tensor:
    if ids is None:
        return logits.argmax(dim=-1)
    among = _on_device(ids, logits.device)
    return among[logits[:, among].argmax(dim=-1)]


@lru_cache(maxsize=64)
def _on_device(ids: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Sent once: the host waits for each such copy."""
    return torch.tensor(ids, device=device)
