"""Branches in sequences of their own, for models that a mask does not keep from mixing them up.

A recurrent layer carries a state from token to token, and would carry it from one branch of a tree to the next; of a
family that nobody has tried we cannot know. In serving the prefix is run once, and what the model remembers of it is
copied for each branch. In training a family that nobody has tried gets each branch as a row with its prefix before it;
for recurrent layers that we know there is `recurrent_tree`.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from xray_vqa.modeling.decoding import Decoder, Grammar, TreeDecoder, choose
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.prompt_tree import PREFIX_SEGMENT, Branch, TreeRow, prefix_positions


def rows_of(tree: TreeRow) -> list[torch.Tensor]:
    """Return which tokens of a tree each of its branches sees, prefix and all: int64 indices, one tensor a branch."""
    branches = range(1, int(tree.segment_ids.max()) + 1)
    return [
        ((tree.segment_ids == PREFIX_SEGMENT) | (tree.segment_ids == branch)).nonzero().squeeze(1)
        for branch in branches
    ]


@dataclass(slots=True)
class RowState:
    """What the model remembers of each image's prefix."""

    caches: list[DynamicCache]
    branch_starts: list[int]
    """The position at which every branch of an image begins."""


class RowDecoder(Decoder):
    """Does what `TreeDecoder` does, with the same results, for models without a prompt tree."""

    @torch.inference_mode()
    def open(
        self, frames: Sequence[torch.Tensor], branches: Sequence[Sequence[Branch]]
    ) -> tuple[RowState, list[torch.Tensor]]:
        """Encode images, and score the first branches of each; see `TreeDecoder.open`."""
        state = RowState([], [])
        logits: list[torch.Tensor] = []
        for frame, row_branches in zip(frames, branches, strict=True):
            self._read_prefix(state, frame)
            vocabulary = self.loaded.base.lm_head.out_features
            row_logits = torch.empty(len(row_branches), vocabulary, device=self.loaded.device)
            for group in _of_one_length(row_branches):
                cache = _copied(state.caches[-1], len(group))
                ids = torch.tensor([row_branches[at].prompt for at in group])
                row_logits[group] = self._step(cache, ids, state.branch_starts[-1])
            logits.append(row_logits)
        return state, logits

    @torch.inference_mode()
    def extend(
        self, state: RowState, branches: Sequence[Sequence[Branch]], grammars: Sequence[Sequence[Grammar]]
    ) -> None:
        """Decode further branches, greedily, until every grammar is done; see `TreeDecoder.extend`."""
        for image, row in enumerate(branches):
            for group in _of_one_length(row):
                cache = _copied(state.caches[image], len(group))
                ids = torch.tensor([row[at].prompt for at in group])
                place = state.branch_starts[image]
                answers = [grammars[image][at] for at in group]
                while not all(grammar.done for grammar in answers):
                    logits = self._step(cache, ids, place)
                    place += ids.shape[1]
                    # A branch that is done goes along, unread, until the last of its group is.
                    chosen = choose(logits, [grammar.allowed for grammar in answers])
                    for grammar, token in zip(answers, chosen, strict=True):
                        if not grammar.done:
                            grammar.push(token)
                    ids = torch.tensor(chosen)[:, None]

    def _read_prefix(self, state: RowState, frame: torch.Tensor) -> None:
        processor, base = self.loaded.processor, self.loaded.base
        grid_hw = processor.grid_hw((frame.shape[1], frame.shape[0]))
        prefix, image_start = self.encoder.prefix(grid_hw[0] * grid_hw[1])
        positions = prefix_positions(len(prefix), image_start, grid_hw)
        patches, grid = processor.patches_of([frame.to(self.loaded.device)], self._dtype)
        cache = DynamicCache(config=base.config)
        base.model(
            input_ids=torch.tensor([prefix], device=self.loaded.device),
            position_ids=positions[:, None].to(self.loaded.device),
            pixel_values=patches,
            image_grid_thw=grid,
            past_key_values=cache,
            use_cache=True,
        )
        state.caches.append(cache)
        state.branch_starts.append(int(positions.max()) + 1)

    def _step(self, cache: DynamicCache, ids: torch.Tensor, place: int) -> torch.Tensor:
        """Run the next tokens of some branches. Returns (branches, vocabulary) float32 logits behind the last one."""
        positions = torch.arange(place, place + ids.shape[1]).expand(3, *ids.shape)
        states = self.loaded.base.model(
            input_ids=ids.to(self.loaded.device),
            position_ids=positions.to(self.loaded.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self.loaded.base.lm_head(states[:, -1]).float()


def decoder_of(loaded: LoadedModel) -> Decoder:
    """Return what reads answers out of a model: through the prompt tree where its family has one."""
    return TreeDecoder(loaded) if loaded.spec.serves_tree else RowDecoder(loaded)


def _of_one_length(branches: Sequence[Branch]) -> list[list[int]]:
    """Branches whose prompts are as long as each other: padding behind them would stay in a recurrent state."""
    groups: dict[int, list[int]] = {}
    for at, branch in enumerate(branches):
        groups.setdefault(len(branch.prompt), []).append(at)
    return list(groups.values())


def _copied(cache: DynamicCache, count: int) -> DynamicCache:
    """What is remembered of a prefix, once for each of some branches, which then change their own copy alone."""
    copies: Any = deepcopy(cache)
    copies.reorder_cache(torch.zeros(count, dtype=torch.int64))  # unlike batch_repeat_interleave for any layer
    return copies
