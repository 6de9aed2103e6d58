"""Attention of the vision tower over many short segments at once.

transformers runs its `sdpa` path as a Python loop over windows (20 calls a layer for a 504x392 scan, 65 to 82 ms an
image for the 7B on an H100). An implementation whose name holds "flash" is handed all segments in one call instead;
this one serves it with torch alone: the varlen kernel on a GPU, one batched call for each window size elsewhere.
"""

import itertools

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

SEGMENT_ATTENTION = "xray_vqa_flash_segments"
"""The name under which transformers finds it; "flash" in it selects the branch without the loop."""


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int | torch.Tensor | None = None,
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Return attention within each segment, without a mask inside it.

    Args:
        module: The attention layer.
        query: (1, heads, seq, head_dim), as are `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: Not used; a segment sees itself and nothing else.
        cu_seq_lens_q: (segments + 1,) first token of each segment, and the end.
        max_length_q: Longest segment in tokens. A number spares the host from waiting for the GPU.
        scaling: Factor on the products; head_dim ** -0.5 by default.

    Returns:
        (1, seq, heads, head_dim), and None for the weights that are not made.
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _varlen(query, key, value, cu_seq_lens_q, max_length_q, scaling), None
    return _grouped(query, key, value, cu_seq_lens_q, scaling), None


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    max_length: int | torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    starts = cu_seq_lens.to(torch.int32)
    longest = int(max_length) if max_length is not None else int((starts[1:] - starts[:-1]).max())
    q, k, v = (tensor.squeeze(0).transpose(0, 1).contiguous() for tensor in (query, key, value))
    result = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling)
    assert isinstance(result, torch.Tensor)
    return result.unsqueeze(0)


def _grouped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seq_lens: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Segments of one length become one batch; an image has at most four lengths of window."""
    starts = cu_seq_lens.tolist()
    by_length: dict[int, list[int]] = {}
    for start, end in itertools.pairwise(starts):
        by_length.setdefault(end - start, []).append(start)
    result = torch.empty_like(query)
    for length, segment_starts in by_length.items():
        if length == 0:
            continue
        index = torch.tensor(segment_starts, device=query.device)[:, None] + torch.arange(length, device=query.device)
        # (1, heads, segments * length, d) -> (segments, heads, length, d)
        q, k, v = (tensor[0][:, index].transpose(0, 1) for tensor in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        result[0][:, index] = attended.transpose(0, 1)
    return result.transpose(1, 2)


def use_segment_attention(model: torch.nn.Module) -> None:
    """Switch the model's vision tower to `segment_attention`; the language model keeps its own."""
    AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
    visual = model.get_submodule("model.visual")
    visual.config._attn_implementation_internal = SEGMENT_ATTENTION  # type: ignore[union-attr]
