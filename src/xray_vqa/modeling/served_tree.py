"""Attention over packed prompt trees whose keys and values are kept, so that branches can be opened behind them later.

Opening reads prefixes and first branches at once, as in training, and keeps what the prefixes' tokens hold. A later
step lets the next tokens of some branches look at their image's prefix and at what their own branch has said. The
two parts are joined by their log-sum-exps, which is exact. All tensors keep their places in memory, so that a GPU can
be told once what to do with them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from xray_vqa.modeling.packed_tree import TreeLayout, packed_attention
from xray_vqa.modeling.registry import spec_of

SERVED_ATTENTION = "xray_vqa_served_trees"
"""The name under which transformers finds it."""


@dataclass(frozen=True)
class LayerMemory:
    """What one decoder layer keeps of the trees that are open."""

    prefix_keys: Tensor
    """(prefix tokens, key heads, head_dim), the prefixes of all images one behind the other."""
    prefix_values: Tensor
    branch_keys: Tensor
    """(branch tokens, key heads, head_dim); a step says how they are dealt to branches."""
    branch_values: Tensor


PREFIX_PARTS = 8
"""A prefix is looked at in so many parts at once: a few new tokens alone would leave most of a GPU idle."""


@dataclass(frozen=True)
class StepLayout:
    """Where the next tokens of some branches stand. Each branch has as many, padded on the right."""

    images: Tensor
    """(branches,) int64, which image each branch is about."""
    part_starts: Tensor
    """(images * PREFIX_PARTS + 1,) int32, where each part of the prefixes stands in the memory."""
    past: Tensor
    """(branches,) int64, how many tokens each branch has in the memory."""
    slots: int
    """How many it may have."""


def served_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    memory: LayerMemory | None = None,
    trees: TreeLayout | None = None,
    step: StepLayout | None = None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return attention of opening (`trees`) or of a step, with the memory brought up to date; else transformers' sdpa.

    Args:
        module: The attention layer.
        query: (1, heads, length, head_dim); of a step, branch by branch.
        key: (1, key heads, length, head_dim).
        value: See `key`.
        attention_mask: Used where there is neither `trees` nor `step`.
        memory: The layer's; changed in place.
        trees: Where the trees stand that are opened.
        step: Where the next tokens stand.
        scaling: Factor on the products; head_dim ** -0.5 by default.
        **more: For sdpa.

    Returns:
        (1, length, heads, head_dim), and None for the weights that are not made.
    """
    if memory is None or (trees is None and step is None):
        return packed_attention(module, query, key, value, attention_mask, trees=trees, scaling=scaling, **more)
    if trees is not None:
        memory.prefix_keys[: trees.num_prefix].copy_(key[0, :, : trees.num_prefix].transpose(0, 1))
        memory.prefix_values[: trees.num_prefix].copy_(value[0, :, : trees.num_prefix].transpose(0, 1))
        return packed_attention(module, query, key, value, None, trees=trees, scaling=scaling)
    assert step is not None
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    _keep(k, v, memory, step)
    seen, sums = _attend_step(
        q.contiguous(), memory.prefix_keys, memory.prefix_values, memory.branch_keys, memory.branch_values,
        step.part_starts, step.images, step.past, step.slots, scale,
    )  # fmt: skip
    shares = (sums - sums.logsumexp(dim=1, keepdim=True)).exp()
    return (seen * shares[..., None]).sum(dim=1).to(query.dtype)[None], None


def part_starts(starts: Sequence[int]) -> list[int]:
    """Return where `PREFIX_PARTS` parts of each prefix begin, and the end; of prefixes that begin at `starts`."""
    found = [
        start + (end - start) * part // PREFIX_PARTS
        for start, end in itertools.pairwise(starts)
        for part in range(PREFIX_PARTS)
    ]
    return [*found, starts[-1]]


def use_served_attention(model: torch.nn.Module) -> None:
    """Switch the model's decoder to `served_attention`; what comes without trees or steps is answered as before."""
    AttentionInterface.register(SERVED_ATTENTION, served_attention)
    config: Any = model.config
    decoder = model.get_submodule(spec_of(config.model_type).language_model)
    decoder.config._attn_implementation_internal = SERVED_ATTENTION  # type: ignore[union-attr]


def _keep(key: Tensor, value: Tensor, memory: LayerMemory, step: StepLayout) -> None:
    branches = step.past.shape[0]
    begin = torch.arange(branches, device=key.device) * step.slots + step.past
    places = (begin[:, None] + torch.arange(key.shape[0] // branches, device=key.device)).flatten()
    memory.branch_keys.index_copy_(0, places, key)
    memory.branch_values.index_copy_(0, places, value)


@torch.library.custom_op("xray_vqa::attend_step", mutates_args=())
def _attend_step(
    query: Tensor,
    prefix_keys: Tensor,
    prefix_values: Tensor,
    branch_keys: Tensor,
    branch_values: Tensor,
    part_starts: Tensor,
    images: Tensor,
    past: Tensor,
    slots: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return what new tokens see in each part of their prefix, and last in their own branch.

    Returns:
        (length, PREFIX_PARTS + 1, heads, head_dim) float32, and log-sum-exps, (length, PREFIX_PARTS + 1, heads).
    """
    length, heads, width = query.shape
    kept = prefix_keys.shape[1]
    new = length // past.shape[0]
    seen = query.new_zeros((length, PREFIX_PARTS + 1, heads, width), dtype=torch.float32)
    sums = query.new_full(seen.shape[:3], float("-inf"), dtype=torch.float32)
    if query.is_cuda:
        from xray_vqa.modeling import kernels

        launch: Any = kernels.attend_part
        launch[(length, kept, PREFIX_PARTS + 1)](
            query, prefix_keys, prefix_values, branch_keys, branch_values, part_starts, images, past, seen, sums,
            slots, new, scale, HEADS=heads, KEPT=kept, GROUP=heads // kept, ROWS=_up_to_power(heads // kept),
            WIDTH=width, PARTS=PREFIX_PARTS, BLOCK=64, num_warps=4, num_stages=2,
        )  # fmt: skip
        return seen, sums
    starts = part_starts.tolist()
    for branch, (image, before) in enumerate(zip(images.tolist(), past.tolist(), strict=True)):
        places = [slice(*starts[at : at + 2]) for at in range(image * PREFIX_PARTS, (image + 1) * PREFIX_PARTS)]
        for token in range(branch * new, (branch + 1) * new):
            own = slice(branch * slots, branch * slots + before + token - branch * new + 1)
            looked = [(prefix_keys[part], prefix_values[part]) for part in places]
            for at, (keys, values) in enumerate([*looked, (branch_keys[own], branch_values[own])]):
                k, v = (each.repeat_interleave(heads // kept, dim=1).float() for each in (keys, values))
                scores = torch.einsum("hd,shd->hs", query[token].float() * scale, k)
                sums[token, at] = scores.logsumexp(dim=-1)
                seen[token, at] = torch.einsum("hs,shd->hd", scores.softmax(dim=-1), v)
    return seen, sums


@_attend_step.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], PREFIX_PARTS + 1, *query.shape[1:])
    return query.new_empty(shape, dtype=torch.float32), query.new_empty(shape[:3], dtype=torch.float32)


def _up_to_power(count: int) -> int:
    """The rows that a GPU's units multiply at once: a power of two, 16 at least."""
    return max(16, 1 << (count - 1).bit_length())
