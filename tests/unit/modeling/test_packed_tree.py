"""Trees in one sequence without padding give what they give in a padded batch under a mask."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prompt_tree import make_branches, make_frame, run_tree

from xray_vqa.modeling.loading import load_model
from xray_vqa.modeling.packed_tree import TreeLayout, pack_rows, packed_attention, use_packed_attention
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, Branch, TreeRow, build_row, tree_mask

SHAPES = st.lists(
    st.tuples(st.integers(2, 9), st.lists(st.integers(1, 5), min_size=1, max_size=4)), min_size=1, max_size=4
)
"""Of each image the tokens of its prefix and of its branches."""


def make_row(prefix: int, branches: list[int]) -> TreeRow:
    return build_row(range(prefix), 0, (1, 1), [Branch(tuple(range(length))) for length in branches])


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: TreeLayout) -> torch.Tensor:
    return packed_attention(torch.nn.Identity(), query, key, value, None, trees=layout)[0]


def masked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: list[TreeRow], order: torch.Tensor
) -> torch.Tensor:
    """The same by one product over all tokens and a mask."""
    visible = torch.block_diag(*(tree_mask(row.segment_ids[None])[0, 0] for row in rows))[order][:, order].to(
        query.device
    )
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    return (scores.masked_fill(~visible, -torch.inf).softmax(-1) @ value).transpose(1, 2)


def tensors_for(rows: list[TreeRow], head_dim: int, **kind) -> list[torch.Tensor]:
    length = sum(row.input_ids.numel() for row in rows)
    return [torch.randn(1, heads, length, head_dim, requires_grad=True, **kind) for heads in (4, 2, 2)]


@settings(deadline=None)
@given(SHAPES)
def test_parts_give_what_a_mask_over_all_tokens_gives_and_gradients_too(shapes):
    torch.manual_seed(0)
    rows = [make_row(*shape) for shape in shapes]
    packed, tensors = pack_rows(rows), tensors_for(rows, 8, dtype=torch.float64)
    ours, expected = attend(*tensors, packed.layout), masked(*tensors, rows, packed.order)
    torch.testing.assert_close(ours, expected)
    wanted = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(ours, tensors, wanted), torch.autograd.grad(expected, tensors, wanted), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.gpu
def test_the_kernels_of_a_gpu_give_what_a_mask_gives():
    torch.manual_seed(0)
    rows = [make_row(590, [120, 130, 7]), make_row(300, [3] * 20), make_row(64, [1])]
    packed = pack_rows(rows)
    tensors = tensors_for(rows, 128, dtype=torch.bfloat16, device="cuda")
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    ours = attend(*tensors, packed.layout.to("cuda"))
    expected = masked(*exact, rows, packed.order)
    torch.testing.assert_close(ours.float(), expected, atol=1e-2, rtol=1e-2)
    wanted = torch.randn_like(expected)
    gradients = torch.autograd.grad(ours, tensors, wanted.to(torch.bfloat16))
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, exact, wanted), strict=True):
        assert (mine.float() - theirs).norm() < 1e-2 * theirs.norm()


def test_packing_keeps_every_token_with_its_label_and_position():
    rows = [make_row(4, [2, 3]), make_row(3, [1])]
    packed = pack_rows(rows)
    assert packed.input_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 1, 2, 0]]
    assert packed.layout.prefix_starts.tolist() == [0, 4, 7]
    assert packed.layout.family_starts.tolist() == [0, 5, 6]
    assert packed.layout.branch_starts.tolist() == [0, 2, 5, 6]
    assert packed.position_ids[0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 4, 5, 4, 5, 6, 3]
    assert packed.labels.shape == packed.input_ids.shape


def test_a_model_gives_packed_trees_the_logits_and_gradients_of_padded_ones(tiny_model_dir: Path):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    frames = [make_frame(loaded, (392, 308), 1), make_frame(loaded, (224, 336), 2)]
    branches = [make_branches(loaded), make_branches(loaded)[:2]]
    weight = loaded.base.model.language_model.layers[0].mlp.up_proj.weight
    batch, padded = run_tree(loaded, frames, branches)
    keep = batch.labels != IGNORE_INDEX
    (expected,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(padded[keep], batch.labels[keep], reduction="sum"), weight
    )
    rows = []
    for frame, row_branches in zip(frames, branches, strict=True):
        grid = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
        rows.append(build_row(*loaded.encoder.prefix(grid[0] * grid[1]), grid, row_branches))
    packed = pack_rows(rows)
    patches, grid_thw = loaded.processor.patches_of(frames)
    use_packed_attention(loaded.base)
    logits = loaded.base(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=None,
        trees=packed.layout,
        pixel_values=patches,
        image_grid_thw=grid_thw,
    ).logits
    in_rows = padded[batch.segment_ids >= 0][packed.order]
    torch.testing.assert_close(logits[0], in_rows, atol=2e-5, rtol=0)
    assert torch.equal(logits[0].argmax(-1), in_rows.argmax(-1))
    kept = packed.labels != IGNORE_INDEX
    loss = torch.nn.functional.cross_entropy(logits[kept], packed.labels[kept], reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(loss, weight)[0], expected, atol=1e-4, rtol=1e-4)
    again = run_tree(loaded, frames, branches)[1]  # what is no packed tree goes through transformers' own path
    torch.testing.assert_close(again, padded, atol=2e-5, rtol=0)
