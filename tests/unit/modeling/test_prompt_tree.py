"""Every branch of a tree gets the logits that it would get in a sequence of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.modeling.loading import LoadedModel, load_model
from xray_vqa.modeling.prompt_tree import (
    IGNORE_INDEX,
    PADDING_SEGMENT,
    Branch,
    build_row,
    continuation_mask,
    prefix_positions,
    stack_rows,
    tree_mask,
)


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Path) -> LoadedModel:
    return load_model(str(tiny_model_dir), device="cpu")


def make_frame(loaded: LoadedModel, size_wh: tuple[int, int], seed: int) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    return torch.from_numpy(np.array(loaded.processor.resize(Image.fromarray(pixels))))


def make_branches(loaded: LoadedModel) -> list[Branch]:
    encoder = loaded.encoder
    return [
        encoder.probe("Gun", present=True),
        encoder.probe("Other Sharp Item", present=False),
        encoder.boxes("Knife", [Box(10, 20, 30, 40), Box(100, 5, 60, 70)]),
        encoder.question("What is in the bag?", "A gun in the upper-left."),
    ]


def run_tree(loaded: LoadedModel, frames: list[torch.Tensor], branches: list[list[Branch]]):
    rows = []
    for frame, row_branches in zip(frames, branches, strict=True):
        grid = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
        prefix, start = loaded.encoder.prefix(grid[0] * grid[1])
        rows.append(build_row(prefix, start, grid, row_branches))
    batch = stack_rows(rows, loaded.encoder.pad_id)
    patches, grid_thw = loaded.processor.patches_of(frames)
    logits = loaded.base(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=tree_mask(batch.segment_ids),
        pixel_values=patches,
        image_grid_thw=grid_thw,
    ).logits
    return batch, logits


def run_alone(loaded: LoadedModel, frame: torch.Tensor, branch: Branch) -> torch.Tensor:
    """The branch's logits from an ordinary sequence, with transformers' own mask and positions."""
    grid = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
    prefix, start = loaded.encoder.prefix(grid[0] * grid[1])
    ids = torch.tensor([[*prefix, *branch.prompt, *branch.answer][:-1]])
    types = torch.zeros_like(ids)
    types[0, start : start + grid[0] * grid[1]] = 1
    patches, grid_thw = loaded.processor.patches_of([frame])
    positions, _ = loaded.base.model.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=grid_thw)
    logits = loaded.base(input_ids=ids, position_ids=positions, pixel_values=patches, image_grid_thw=grid_thw).logits
    return logits[0, len(prefix) :]


@torch.no_grad()
def test_branches_of_a_padded_batch_equal_separate_sequences(loaded: LoadedModel):
    frames = [make_frame(loaded, (392, 308), 1), make_frame(loaded, (224, 336), 2)]
    branches = [make_branches(loaded), make_branches(loaded)[:2]]
    batch, logits = run_tree(loaded, frames, branches)
    for image, frame in enumerate(frames):
        for segment, branch in enumerate(branches[image], start=1):
            in_tree = logits[image, batch.segment_ids[image] == segment]
            alone = run_alone(loaded, frame, branch)
            torch.testing.assert_close(in_tree, alone, atol=2e-5, rtol=0)
            assert torch.equal(in_tree.argmax(-1), alone.argmax(-1))


def test_gradients_of_a_tree_equal_the_sum_over_separate_sequences(loaded: LoadedModel):
    frame, branches = make_frame(loaded, (308, 224), 3), make_branches(loaded)
    weight = loaded.base.model.language_model.layers[0].mlp.up_proj.weight
    batch, logits = run_tree(loaded, [frame], [branches])
    keep = batch.labels != IGNORE_INDEX
    torch.nn.functional.cross_entropy(logits[keep], batch.labels[keep], reduction="sum").backward()
    in_tree = weight.grad.clone()
    loaded.base.zero_grad()
    for branch in branches:
        alone = run_alone(loaded, frame, branch)[-len(branch.answer) :]
        torch.nn.functional.cross_entropy(alone, torch.tensor(branch.answer), reduction="sum").backward()
    torch.testing.assert_close(in_tree, weight.grad, atol=1e-4, rtol=1e-4)
    loaded.base.zero_grad()


def test_labels_stand_where_they_are_predicted_and_only_on_answers():
    row = build_row([1, 2, 9, 9, 3], 2, (1, 2), [Branch((5, 6), (7,)), Branch((8,), (10, 11, 12)), Branch((4, 4))])
    ignored = IGNORE_INDEX
    assert row.input_ids.tolist() == [1, 2, 9, 9, 3, 5, 6, 8, 10, 11, 4, 4]
    assert row.labels.tolist() == [ignored] * 6 + [7, 10, 11, 12] + [ignored] * 2
    assert row.segment_ids.tolist() == [0] * 5 + [1, 1, 2, 2, 2, 3, 3]
    assert row.branch_ends.tolist() == [6, 9, 11]


def test_prefix_positions_count_text_and_lay_the_image_out_in_rows_and_columns():
    positions = prefix_positions(8, 2, (2, 2))  # two text, four image, two text tokens
    assert positions.tolist() == [[0, 1, 2, 2, 2, 2, 4, 5], [0, 1, 2, 2, 3, 3, 4, 5], [0, 1, 2, 3, 2, 3, 4, 5]]


segments = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(segments)
def test_a_token_sees_the_prefix_and_its_own_branch_up_to_itself(values: list[int]):
    ids = torch.tensor([sorted(values) + [PADDING_SEGMENT] * 2])
    mask = tree_mask(ids)[0, 0]
    for query, segment in enumerate(ids[0].tolist()):
        for key, other in enumerate(ids[0].tolist()):
            expected = key == query or (key < query and segment >= 0 and (other in (0, segment)))
            assert bool(mask[query, key]) == expected


@given(segments, st.integers(1, 11))
def test_a_continuation_sees_what_the_whole_row_would_show_it(values: list[int], cut: int):
    ids = torch.tensor([sorted(values)])
    cut = min(cut, ids.shape[1] - 1)
    if cut:
        whole = tree_mask(ids)[:, :, cut:]
        assert torch.equal(continuation_mask(ids[:, cut:], ids[:, :cut]), whole)
