"""Dealing images out: every image once an epoch, the same updates on any number of ranks, alike in tokens."""

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, TreeRow
from xray_vqa.training.inputs.sampling import DealtBatches, WithSpares, deal


class Items:
    """So many items, an epoch's tokens drawn at random."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.start_epoch(0)

    def __len__(self) -> int:
        return self.count

    def start_epoch(self, epoch: int) -> None:
        self.tokens = np.random.default_rng(epoch).integers(300, 1500, self.count)

    def num_tokens(self, index: int) -> int:
        return int(self.tokens[index])

    def __getitem__(self, index: int) -> dict[str, Any]:
        none = torch.zeros(0)
        return {"row": TreeRow(none, torch.tensor([IGNORE_INDEX, index]), none, none, none, slice(0, 0))}


def ranks_of(items: Items, num_ranks: int, per_update: int, micro: int, epoch: int = 0) -> list[DealtBatches]:
    ranks = [
        DealtBatches(
            items, images_per_update=per_update, images_per_micro_batch=micro, seed=1, rank=rank, num_ranks=num_ranks
        )
        for rank in range(num_ranks)
    ]
    for rank in ranks:
        rank.set_epoch(epoch)
    return ranks


def updates_of(ranks: list[DealtBatches]) -> list[list[int]]:
    """For each update the images that all ranks learn from, sorted, as the Trainer cuts it."""
    steps = ranks[0].accumulation
    shares = [list(rank) for rank in ranks]
    return [
        sorted(index for share in shares for batch in share[start : start + steps] for index in batch if index >= 0)
        for start in range(0, len(shares[0]), steps)
    ]


@given(
    count=st.integers(1, 60), num_ranks=st.integers(1, 5), micro=st.integers(1, 4), factor=st.integers(1, 20),
    epoch=st.integers(0, 3),
)  # fmt: skip
def test_updates_do_not_depend_on_the_ranks(count: int, num_ranks: int, micro: int, factor: int, epoch: int):
    per_update = num_ranks - 1 + factor  # at least one image a rank, in micro-batches that need not be full
    items = Items(count)
    ranks = ranks_of(items, num_ranks, per_update, micro, epoch)
    shares = [list(rank) for rank in ranks]
    assert {len(share) for share in shares} == {len(ranks[0])}
    assert all(1 <= len(batch) <= micro for share in shares for batch in share)
    assert all(len(batch) == 1 or min(batch) >= 0 for share in shares for batch in share)
    assert updates_of(ranks) == updates_of(ranks_of(items, 1, per_update, 1, epoch))
    assert sorted(index for update in updates_of(ranks) for index in update) == list(range(count))


def test_every_epoch_has_an_order_of_its_own():
    items = Items(12)
    first, second, again = (updates_of(ranks_of(items, 1, 4, 1, epoch)) for epoch in (0, 1, 0))
    assert first == again
    assert first != second


def test_the_costliest_goes_to_whoever_has_least():
    assert deal([9, 1, 8, 2], 2, 2) == [[0, 1], [2, 3]]
    assert deal([1, 1, 1, 9], 2, 2) == [[3, 2], [0, 1]]  # the second is full


def test_ranks_get_a_like_share_of_the_tokens():
    items = Items(960)
    ranks = ranks_of(items, 8, 96, 3)
    shares = np.array([[sum(map(items.num_tokens, batch)) for batch in rank] for rank in ranks])
    updates = shares.reshape(8, -1, ranks[0].accumulation).sum(axis=2)
    waiting = 1 - updates.mean(axis=0) / updates.max(axis=0)
    assert waiting.mean() < 0.02  # dealt by position it is 0.14


def test_nothing_is_learnt_from_a_spare():
    items = WithSpares(Items(8))
    assert items[5]["row"].labels.tolist() == [IGNORE_INDEX, 5]
    assert items[~5]["row"].labels.tolist() == [IGNORE_INDEX, IGNORE_INDEX]
