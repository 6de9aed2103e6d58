"""Gated DeltaNet layers over packed trees: each branch goes on from the state that its image's prefix has left.

A mask cannot keep branches apart in a layer that carries a state from token to token. So the prefixes are run first,
and each branch from a copy of its prefix's state, its short convolution from the prefix's last tokens: what a sequence
of its own would do, without running the prefix again. The wide projections see all tokens of the batch at once.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3_5.modeling_qwen3_5 import (
    Qwen3_5GatedDeltaNet,
    causal_conv1d_fn,
    torch_chunk_gated_delta_rule,
)

from xray_vqa.modeling.packed_tree import TreeLayout


@dataclass(frozen=True, slots=True)
class _Rows:
    """Segments of the packed sequence as the rows of a batch."""

    tokens: Tensor
    """(rows, longest) int64, which token of the sequence stands there; anything behind a row's end."""
    is_token: Tensor
    """(rows, longest) bool"""
    places: Tensor
    """(tokens of all rows,) int64, where in the flattened batch each token of the sequence is found again."""

    @classmethod
    def of(cls, starts: Tensor, longest: int, first: int, count: int) -> "_Rows":
        """Return the rows of `count` tokens from the `first` on, whose segments begin at `starts`, end included."""
        starts = starts.long()
        tokens = starts[:-1, None] + torch.arange(longest, device=starts.device)
        inside = torch.arange(count, device=starts.device)
        row = torch.bucketize(inside, starts[1:], right=True)
        places = row * longest + inside - starts[row]
        return cls(first + tokens.clamp(max=count - 1), tokens < starts[1:, None], places)


class TreeGatedDeltaNet(Qwen3_5GatedDeltaNet):
    """The layer as transformers has it; with `trees` it keeps their branches apart."""

    def forward(
        self,
        hidden_states: Tensor,
        cache_params: Any = None,
        attention_mask: Tensor | None = None,
        *,
        trees: TreeLayout | None = None,
        **more: Any,
    ) -> Tensor:
        """Return (1, length, width) for packed trees of the same shape; without `trees` what transformers returns.

        Every prefix is at least as long as the convolution reaches back, three tokens; the system text alone is longer.
        """
        if trees is None:
            return super().forward(hidden_states, cache_params=cache_params, attention_mask=attention_mask, **more)
        length = hidden_states.shape[1]
        mixed = self.in_proj_qkv(hidden_states)[0]
        beta = self.in_proj_b(hidden_states)[0].sigmoid()
        decay = -self.A_log.float().exp() * F.softplus(self.in_proj_a(hidden_states)[0].float() + self.dt_bias)
        prefixes = _Rows.of(trees.prefix_starts, trees.longest_prefix, 0, trees.num_prefix)
        branches = _Rows.of(trees.branch_starts, trees.longest_branch, trees.num_prefix, length - trees.num_prefix)
        reach = self.conv_kernel_size - 1
        before = mixed.new_zeros(len(prefixes.tokens), reach, mixed.shape[-1])
        over_prefix, state = self._run(prefixes, mixed, decay, beta, before, None)
        image = torch.bucketize(trees.branch_starts[:-1], trees.family_starts[1:], right=True)
        ends = trees.prefix_starts[1:].long()[image, None]
        before = mixed[ends - reach + torch.arange(reach, device=mixed.device)]
        over_branches, _ = self._run(branches, mixed, decay, beta, before, state[image])
        attended = torch.cat([over_prefix, over_branches])
        gates = self.in_proj_z(hidden_states).reshape(-1, self.head_v_dim)
        attended = self.norm(attended.reshape(-1, self.head_v_dim), gates)
        return self.out_proj(attended.reshape(1, length, -1))

    def _run(
        self, rows: _Rows, mixed: Tensor, decay: Tensor, beta: Tensor, before: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run some segments from what stands before them.

        Args:
            rows: The segments.
            mixed: (length, channels) queries, keys and values side by side, before the convolution.
            decay: (length, value heads) float32, logarithms.
            beta: (length, value heads).
            before: (rows, kernel size - 1, channels) the tokens before each segment.
            state: (rows, value heads, key dim, value dim) the state at its start; zeros by default.

        Returns:
            (tokens of the segments, value heads, value dim), and the state at each segment's end.
        """
        width = rows.tokens.shape[1]
        seen = torch.cat([before, mixed[rows.tokens]], dim=1).transpose(1, 2)
        seen = causal_conv1d_fn(seen, self.conv1d.weight.squeeze(1), self.conv1d.bias, activation=self.activation)
        query, key, value = seen.transpose(1, 2)[:, -width:].split([self.key_dim, self.key_dim, self.value_dim], dim=-1)
        shape = (*rows.tokens.shape, -1)
        repeats = self.num_v_heads // self.num_k_heads
        # Behind a row's end nothing is added to the state and nothing of it is forgotten.
        attended, state = torch_chunk_gated_delta_rule(
            query.reshape(*shape, self.head_k_dim).repeat_interleave(repeats, dim=2),
            key.reshape(*shape, self.head_k_dim).repeat_interleave(repeats, dim=2),
            value.reshape(*shape, self.head_v_dim),
            g=decay[rows.tokens] * rows.is_token[..., None],
            beta=beta[rows.tokens] * rows.is_token[..., None],
            initial_state=state,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        assert state is not None
        return attended.flatten(0, 1)[rows.places], state


def use_recurrent_trees(model: torch.nn.Module) -> None:
    """Switch a model's Gated DeltaNet layers, where it has any, to `TreeGatedDeltaNet`."""
    for module in model.modules():
        if type(module) is Qwen3_5GatedDeltaNet:
            module.__class__ = TreeGatedDeltaNet
