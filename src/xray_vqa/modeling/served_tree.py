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

from xray_vqa.modeling.packed_tree import TreeLayout, has_kernel, packed_attention
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

    askers: Tensor
    """(PREFIX_PARTS * length,) int64, which new token looks at which part: image by image, part by part."""
    copies: Tensor
    """(length, PREFIX_PARTS) int64, where among the askers each new token stands."""
    asker_starts: Tensor
    """(images * PREFIX_PARTS + 1,) int32, first asker of each part."""
    part_starts: Tensor
    """(images * PREFIX_PARTS + 1,) int32, where each part of the prefixes stands in the memory."""
    past: Tensor
    """(branches,) int64, how many tokens each branch has in the memory."""
    slots: int
    """How many it may have."""
    longest_part: int


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
    parts, part_sums = _attend_prefix(
        q[step.askers], memory.prefix_keys, memory.prefix_values, step.asker_starts, step.part_starts,
        step.longest_part, scale,
    )  # fmt: skip
    own, own_sums = _attend_own(q, k, v, memory, step, scale)
    all_sums = torch.cat([part_sums[step.copies], own_sums[:, None]], dim=1)  # (length, parts + 1, heads)
    shares = (all_sums - all_sums.logsumexp(dim=1, keepdim=True)).exp()[..., None]
    joined = (parts[step.copies].float() * shares[:, :-1]).sum(dim=1) + own * shares[:, -1]
    return joined.to(query.dtype)[None], None


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


def _attend_own(
    query: Tensor, key: Tensor, value: Tensor, memory: LayerMemory, step: StepLayout, scale: float
) -> tuple[Tensor, Tensor]:
    """Keep new keys and values, and return attention of new tokens over their branch, in float32.

    Returns:
        (length, heads, head_dim), and the log-sum-exps, (length, heads).
    """
    branches, slots = step.past.shape[0], step.slots
    heads, kept_heads, width = query.shape[1], key.shape[1], query.shape[2]
    new = query.shape[0] // branches
    places = step.past[:, None] + torch.arange(new, device=query.device)
    at = (torch.arange(branches, device=query.device)[:, None] * slots + places).flatten()
    memory.branch_keys.index_copy_(0, at, key)
    memory.branch_values.index_copy_(0, at, value)
    keys = memory.branch_keys[: branches * slots].view(branches, slots, kept_heads, width).float()
    values = memory.branch_values[: branches * slots].view(branches, slots, kept_heads, width).float()
    q = query.view(branches, new, kept_heads, heads // kept_heads, width).float() * scale
    scores = torch.einsum("bnhgd,bshd->bnhgs", q, keys)
    seen = torch.arange(slots, device=query.device) <= places[..., None]  # (branches, new, slots)
    scores = scores.masked_fill(~seen[:, :, None, None], float("-inf"))
    sums = scores.logsumexp(dim=-1)
    # Slots that were never written may hold anything, and 0 * nan is nan.
    written = torch.arange(slots, device=query.device) < step.past[:, None] + new
    values = values.masked_fill(~written[:, :, None, None], 0.0)
    own = torch.einsum("bnhgs,bshd->bnhgd", (scores - sums[..., None]).exp(), values)
    return own.reshape(-1, heads, width), sums.reshape(-1, heads)


@torch.library.custom_op("xray_vqa::attend_prefix", mutates_args=())
def _attend_prefix(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    asker_starts: Tensor,
    part_starts: Tensor,
    longest_part: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return attention of askers over their part of a prefix, and its log-sum-exps, (askers, heads) float32."""
    if has_kernel(query):
        found = torch.ops.aten._flash_attention_forward(
            query, keys, values, asker_starts, part_starts, query.shape[0] // PREFIX_PARTS, longest_part, dropout_p=0.0,
            is_causal=False, return_debug_mask=False, scale=scale,
        )  # fmt: skip
        return found[0], found[1].transpose(0, 1).contiguous()
    attended = torch.zeros_like(query)
    sums = query.new_full(query.shape[:2], float("-inf"), dtype=torch.float32)
    groups = query.shape[1] // keys.shape[1]
    all_askers, all_parts = asker_starts.tolist(), part_starts.tolist()
    for at in range(len(all_parts) - 1):
        askers, part = slice(*all_askers[at : at + 2]), slice(*all_parts[at : at + 2])
        k, v = (kept[part].repeat_interleave(groups, dim=1).float() for kept in (keys, values))
        scores = torch.einsum("nhd,shd->nhs", query[askers].float() * scale, k)
        sums[askers] = scores.logsumexp(dim=-1)
        attended[askers] = torch.einsum("nhs,shd->nhd", scores.softmax(dim=-1), v).to(query.dtype)
    return attended, sums


@_attend_prefix.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
