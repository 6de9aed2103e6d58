"""Several prompt trees in one sequence without padding, and attention that never looks where a tree is empty.

All prefixes stand first, then all branches, image by image: `prefix A | prefix B | A1 | A2 | B1 | ...`. What a tree
allows is then three dense parts: each prefix over itself, the branches of an image (its family) over its prefix, each
branch over itself. On a GPU each part is one call of the varlen flash kernel; a branch token's two parts are joined by
their log-sum-exps, which is exact. A mask of the same trees would compute all pairs of tokens and throw most away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from xray_vqa.modeling.prompt_tree import PREFIX_SEGMENT, TreeRow
from xray_vqa.modeling.registry import spec_of

PACKED_ATTENTION = "xray_vqa_packed_trees"
"""The name under which transformers finds it."""


@dataclass(frozen=True)
class TreeLayout:
    """Where the parts of packed trees stand."""

    prefix_starts: Tensor
    """(images + 1,) int32, first token of each prefix, and the end of the last one."""
    family_starts: Tensor
    """(images + 1,) int32, first token of each image's branches, counted from the first token of all branches."""
    branch_starts: Tensor
    """(branches + 1,) int32, first token of each branch, counted in the same way."""
    num_prefix: int
    """Tokens of all prefixes together."""
    longest_prefix: int
    longest_family: int
    longest_branch: int

    @property
    def starts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.prefix_starts, self.family_starts, self.branch_starts

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        return self.num_prefix, self.longest_prefix, self.longest_family, self.longest_branch

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "TreeLayout":
        """Return the layout on a device; the Trainer moves batches this way."""
        return self._with([tensor.to(device, non_blocking=non_blocking) for tensor in self.starts])

    def pin_memory(self) -> "TreeLayout":
        """Return the layout in memory that a GPU can fetch from by itself; torch's loader asks for it."""
        return self._with([tensor.pin_memory() for tensor in self.starts])

    def _with(self, starts: Sequence[Tensor]) -> "TreeLayout":
        return replace(self, prefix_starts=starts[0], family_starts=starts[1], branch_starts=starts[2])

    @cached_property
    def images(self) -> list[tuple[slice, slice, Tensor]]:
        """For each image the places of its prefix and its family, and what the family sees of both.

        The mask is (family, prefix + family) bool.
        """
        found: list[tuple[slice, slice, Tensor]] = []
        starts = self.branch_starts
        prefixes, families = self.prefix_starts.tolist(), self.family_starts.tolist()
        for image in range(len(prefixes) - 1):
            prefix = slice(prefixes[image], prefixes[image + 1])
            tokens = torch.arange(families[image], families[image + 1], dtype=starts.dtype, device=starts.device)
            branch = torch.bucketize(tokens, starts, right=True)
            own = (branch[:, None] == branch[None, :]).tril()
            mask = torch.cat([own.new_ones(len(tokens), prefix.stop - prefix.start), own], dim=1)
            family = slice(self.num_prefix + families[image], self.num_prefix + families[image + 1])
            found.append((prefix, family, mask))
        return found


@dataclass(frozen=True, slots=True)
class PackedTrees:
    """Rows in one sequence."""

    input_ids: Tensor
    """(1, length) int64"""
    labels: Tensor
    """(1, length) int64"""
    position_ids: Tensor
    """(3, 1, length) int64"""
    order: Tensor
    """(length,) int64, which token of the rows, one behind the other, stands at each place."""
    visual: Tensor
    """(visual tokens,) int64, where the images' tokens stand."""
    layout: TreeLayout


def pack_rows(rows: Sequence[TreeRow]) -> PackedTrees:
    """Return rows as one sequence, prefixes first. Each row has at least one branch."""
    segments = torch.cat([row.segment_ids for row in rows])
    order = torch.cat([(segments == PREFIX_SEGMENT).nonzero(), (segments != PREFIX_SEGMENT).nonzero()]).squeeze(1)
    prefixes = [int((row.segment_ids == PREFIX_SEGMENT).sum()) for row in rows]
    families = [row.segment_ids.numel() - prefix for row, prefix in zip(rows, prefixes, strict=True)]
    branches = [length for row in rows for length in torch.bincount(row.segment_ids)[1:].tolist()]
    prefix_starts = _starts(prefixes)
    visual = [
        torch.arange(row.visual.start, row.visual.stop) + start
        for row, start in zip(rows, prefix_starts.tolist(), strict=False)
    ]
    return PackedTrees(
        input_ids=torch.cat([row.input_ids for row in rows])[order][None],
        labels=torch.cat([row.labels for row in rows])[order][None],
        position_ids=torch.cat([row.position_ids for row in rows], dim=1)[:, order][:, None],
        order=order,
        visual=torch.cat(visual),
        layout=TreeLayout(
            prefix_starts=prefix_starts,
            family_starts=_starts(families),
            branch_starts=_starts(branches),
            num_prefix=sum(prefixes),
            longest_prefix=max(prefixes),
            longest_family=max(families),
            longest_branch=max(branches),
        ),
    )


def _starts(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trees: TreeLayout | None = None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return attention within packed trees; without `trees` what transformers' sdpa returns.

    Args:
        module: The attention layer.
        query: (1, heads, length, head_dim).
        key: (1, key heads, length, head_dim).
        value: See `key`.
        attention_mask: Used without `trees` alone.
        trees: Where the trees stand.
        scaling: Factor on the products; head_dim ** -0.5 by default.
        **more: For sdpa without `trees`.

    Returns:
        (1, length, heads, head_dim), and None for the weights that are not made.
    """
    if trees is None:
        new, seen = query.shape[2], key.shape[2]
        if attention_mask is None and 1 < new < seen:
            # transformers makes none for an attention that is not its own, and sdpa's own would begin with the cache.
            attention_mask = torch.ones(new, seen, dtype=torch.bool, device=query.device).tril(seen - new)[None, None]
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    if query.is_cuda and torch.is_autocast_enabled("cuda"):
        # The rotary embedding of fp32 weights has widened what autocast had narrowed.
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if _has_kernel(query):
        q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
        return _attend(q, k, v, *trees.starts, *trees.numbers, scale)[0][None], None
    return _image_by_image(query, key, value, trees, scale), None


def use_packed_attention(model: torch.nn.Module) -> None:
    """Switch the model's decoder to `packed_attention`; for batches that are no packed trees nothing changes."""
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    config: Any = model.config
    decoder = model.get_submodule(spec_of(config.model_type).language_model)
    decoder.config._attn_implementation_internal = PACKED_ATTENTION  # type: ignore[union-attr]


def _has_kernel(query: Tensor) -> bool:
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _image_by_image(query: Tensor, key: Tensor, value: Tensor, trees: TreeLayout, scale: float) -> Tensor:
    """For CPUs, older GPUs and fp32: two calls an image, the second with a mask."""
    result = torch.empty_like(query)
    for prefix, family, mask in trees.images:
        result[:, :, prefix] = F.scaled_dot_product_attention(
            query[:, :, prefix], key[:, :, prefix], value[:, :, prefix], is_causal=True, scale=scale, enable_gqa=True
        )
        seen_key = torch.cat([key[:, :, prefix], key[:, :, family]], dim=2)
        seen_value = torch.cat([value[:, :, prefix], value[:, :, family]], dim=2)
        result[:, :, family] = F.scaled_dot_product_attention(
            query[:, :, family], seen_key, seen_value, attn_mask=mask, scale=scale, enable_gqa=True
        )
    return result.transpose(1, 2)


@dataclass(frozen=True, slots=True)
class _Part:
    """Queries of some segments over the keys of as many."""

    queries: slice
    keys: slice
    query_starts: Tensor
    key_starts: Tensor
    longest_query: int
    longest_key: int
    is_causal: bool


def _parts(of: TreeLayout) -> tuple[_Part, _Part, _Part]:
    """Return the prefixes over themselves, the families over their prefixes, the branches over themselves."""
    before, behind = slice(0, of.num_prefix), slice(of.num_prefix, None)
    prefix, family, branch = of.longest_prefix, of.longest_family, of.longest_branch
    return (
        _Part(before, before, of.prefix_starts, of.prefix_starts, prefix, prefix, is_causal=True),
        _Part(behind, before, of.family_starts, of.prefix_starts, family, prefix, is_causal=False),
        _Part(behind, behind, of.branch_starts, of.branch_starts, branch, branch, is_causal=True),
    )


@torch.library.custom_op("xray_vqa::attend", mutates_args=())
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_starts: Tensor,
    family_starts: Tensor,
    branch_starts: Tensor,
    num_prefix: int,
    longest_prefix: int,
    longest_family: int,
    longest_branch: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return attention, (length, heads, head_dim), and its log-sum-exps, (heads, length) float32."""
    lengths = (num_prefix, longest_prefix, longest_family, longest_branch)
    parts = _parts(TreeLayout(prefix_starts, family_starts, branch_starts, *lengths))
    prefix, over_prefix, over_itself = (
        torch.ops.aten._flash_attention_forward(
            query[part.queries], key[part.keys], value[part.keys], part.query_starts, part.key_starts,
            part.longest_query, part.longest_key, dropout_p=0.0, is_causal=part.is_causal, return_debug_mask=False,
            scale=scale,
        )[:2]
        for part in parts
    )  # fmt: skip
    sums = torch.logaddexp(over_prefix[1], over_itself[1])
    shares = [
        part.float() * (part_sums - sums).exp().transpose(0, 1)[..., None]
        for part, part_sums in (over_prefix, over_itself)
    ]
    joined = shares[0].add_(shares[1])
    return torch.cat([prefix[0], joined.to(query.dtype)]), torch.cat([prefix[1], sums], dim=1)


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *layout: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)


@torch.library.custom_op("xray_vqa::attend_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor,
    sums: Tensor,
    prefix_starts: Tensor,
    family_starts: Tensor,
    branch_starts: Tensor,
    num_prefix: int,
    longest_prefix: int,
    longest_family: int,
    longest_branch: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value.

    The kernel's own formula holds for a part when it is given the joined output and log-sum-exps.
    """
    gradient = gradient.contiguous()
    lengths = (num_prefix, longest_prefix, longest_family, longest_branch)
    parts = _parts(TreeLayout(prefix_starts, family_starts, branch_starts, *lengths))
    unused = torch.empty(0, dtype=torch.uint64, device=query.device)  # the seed of a dropout that there is none of
    prefix, over_prefix, over_itself = (
        torch.ops.aten._flash_attention_backward(
            gradient[part.queries], query[part.queries], key[part.keys], value[part.keys], attended[part.queries],
            sums[:, part.queries].contiguous(), part.query_starts, part.key_starts, part.longest_query,
            part.longest_key, 0.0, part.is_causal, unused, unused, scale=scale,
        )
        for part in parts
    )  # fmt: skip
    return (
        torch.cat([prefix[0], over_prefix[0].add_(over_itself[0])]),
        torch.cat([prefix[1].add_(over_prefix[1]), over_itself[1]]),
        torch.cat([prefix[2].add_(over_prefix[2]), over_itself[2]]),
    )


@_attend_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, prefix_starts, family_starts, branch_starts, *ctx.numbers = inputs
    ctx.save_for_backward(query, key, value, *output, prefix_starts, family_starts, branch_starts)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_attend_backward(gradient, *ctx.saved_tensors, *ctx.numbers), *[None] * 8


_attend.register_autograd(_differentiate, setup_context=_keep)
