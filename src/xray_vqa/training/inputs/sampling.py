"""Which images each update learns from, and which process learns which of them.

An update takes the next images of an order that seed and epoch alone decide, so a run sees the same updates on any
number of ranks, and again after a stop. Within an update the images are dealt out by their tokens, which are known
without opening an image: the ranks wait for each other at its end. accelerate would cut batches among the ranks too,
but by position.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from xray_vqa.modeling.prompt_tree import IGNORE_INDEX


class CountedItems(Protocol):
    """A dataset that knows how long its items are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def start_epoch(self, epoch: int) -> None:
        """Say which epoch the next items are of."""
        ...

    def num_tokens(self, index: int) -> int:
        """Return what an item costs in this epoch."""
        ...


class DealtBatches(Sampler[list[int]]):
    """The micro-batches of one rank, update by update; every rank has as many of them.

    Where the end of an epoch leaves fewer images than micro-batches, the index `~i` stands for image i with nothing to
    learn from it: see `WithSpares`.
    """

    def __init__(
        self,
        items: CountedItems,
        *,
        images_per_update: int,
        images_per_micro_batch: int,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.items = items
        self.images_per_update, self.images_per_micro_batch = images_per_update, images_per_micro_batch
        self.seed, self.rank, self.num_ranks = seed, rank, num_ranks
        self.epoch = 0

    @property
    def accumulation(self) -> int:
        """Micro-batches that a rank adds up in a whole update."""
        return self._num_micro_batches(self.images_per_update)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the Trainer does, before its workers start."""
        self.epoch = epoch
        self.items.start_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.items), self.images_per_update)
        return whole * self.accumulation + self._num_micro_batches(rest)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.items)).tolist()
        for start in range(0, len(order), self.images_per_update):
            yield from self._own_share(order[start : start + self.images_per_update])

    def _num_micro_batches(self, num_images: int) -> int:
        return -(-num_images // (self.images_per_micro_batch * self.num_ranks))

    def _own_share(self, update: Sequence[int]) -> list[list[int]]:
        """Return this rank's micro-batches of an update, the costliest first."""
        tokens = [self.items.num_tokens(index) for index in update]
        per_rank = self._num_micro_batches(len(update))
        batches = deal(tokens, per_rank * self.num_ranks, self.images_per_micro_batch)
        share = deal([sum(tokens[i] for i in batch) for batch in batches], self.num_ranks, per_rank)[self.rank]
        return [[update[i] for i in batches[number]] or [~update[0]] for number in share]


def deal(costs: Sequence[int], num_parts: int, capacity: int) -> list[list[int]]:
    """Return `num_parts` lists of positions with sums of cost as alike as dealing makes them.

    The costliest goes first, each to whichever part has least and has room (longest processing time first). With as
    many positions as parts, or more, no part stays empty.

    Args:
        costs: One for each position.
        num_parts: How many lists.
        capacity: The most positions in a list; `num_parts * capacity` must suffice.
    """
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    least = [(0, part) for part in range(num_parts)]
    for position in sorted(range(len(costs)), key=lambda position: (-costs[position], position)):
        load, part = heapq.heappop(least)
        parts[part].append(position)
        if len(parts[part]) < capacity:
            heapq.heappush(least, (load + costs[position], part))
    return parts


class WithSpares(Dataset[dict[str, Any]]):
    """A dataset whose item `~i` is item i with nothing to learn, so that a rank without an image still takes part."""

    def __init__(self, items: CountedItems) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= 0:
            return self._items[index]
        item = self._items[~index]
        row = item["row"]
        return item | {"row": replace(row, labels=torch.full_like(row.labels, IGNORE_INDEX))}
