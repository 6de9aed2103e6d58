"""What pre-training is fed: mirrored boxes, packed branches, and which object owns which visual token."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import Annotation
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.nano import PROCESSOR, train_tokenizer
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, build_row
from xray_vqa.training.inputs.augment import MIRRORINGS, mirrored
from xray_vqa.training.pretraining.stream import (
    KINDS,
    LABELS,
    OFFSETS,
    PROBE,
    SEGMENTS,
    TOKENS,
    branches_of,
    owner_map,
    pack_branches,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(train_tokenizer(["Is there a gun?"]))


def test_mirroring_moves_a_box_to_the_other_side():
    assert mirrored(Box(10, 20, 30, 40), (100, 200), (True, False)) == Box(60, 20, 30, 40)
    assert mirrored(Box(10, 20, 30, 40), (100, 200), (False, True)) == Box(10, 140, 30, 40)


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from(MIRRORINGS))
def test_mirroring_twice_changes_nothing(x: int, y: int, mirroring: tuple[bool, bool]):
    box = Box(x, y, 30, 40)
    assert mirrored(mirrored(box, (100, 100), mirroring), (100, 100), mirroring) == box


def test_packed_branches_hold_what_a_tree_row_holds(encoder: PromptEncoder):
    annotations = [Annotation("Gun", Box(30, 40, 60, 50)), Annotation("Knife", None)]
    branches = branches_of(encoder, annotations, [("What is it?", "A gun.")])
    packed, left_out = pack_branches(branches, 192)
    assert left_out == 0
    row = build_row([1, 2, 3], 0, (1, 2), [branch for _, branch in branches])
    length = row.input_ids.numel() - 3
    for name, expected in ((TOKENS, row.input_ids), (LABELS, row.labels), (SEGMENTS, row.segment_ids)):
        assert packed[name, :length].tolist() == expected[3:].tolist()
    assert (packed[OFFSETS, :length] + row.next_position).tolist() == row.position_ids[0, 3:].tolist()
    assert (packed[LABELS, length:] == IGNORE_INDEX).all()
    probes = packed[LABELS][(packed[KINDS] == PROBE) & (packed[LABELS] != IGNORE_INDEX)]
    assert (probes == encoder.yes_id).sum() == 2
    assert len(probes) == len(CATEGORIES)


def test_a_category_with_an_unplaced_item_teaches_no_boxes(encoder: PromptEncoder):
    both = [Annotation("Knife", Box(1, 2, 30, 40)), Annotation("Knife", None)]
    kinds = [kind for kind, _ in branches_of(encoder, both, [])]
    assert set(kinds) == {PROBE}


def test_branches_that_do_not_fit_are_counted(encoder: PromptEncoder):
    branches = branches_of(encoder, [], [("What is it?", "Nothing at all that would be forbidden.")])
    needed = sum(len(branch.prompt) + len(branch.answer) - 1 for _, branch in branches)
    packed, left_out = pack_branches(branches, needed - 1)
    assert left_out == 1
    assert packed.shape == (5, needed - 1)


def test_each_visual_token_belongs_to_the_object_that_covers_it():
    masks = np.zeros((2, 56, 84), bool)
    masks[0, :28, :28] = True  # the whole upper left token
    masks[1, 28:40, 56:60] = True  # a sliver: less than a quarter of its token
    assert owner_map(masks, 28).tolist() == [[1, 0, 0], [0, 0, 2]]
    assert owner_map(masks[:0], 28).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_drawn_batch_mirrors_image_owner_objects_and_branches_alike(encoder: PromptEncoder):
    """A bright square stands for the object; wherever a mirroring puts it, boxes, owners and answers must follow."""
    from xray_vqa.training.pretraining.pretrain import draw_batch
    from xray_vqa.training.pretraining.stream import ScanArrays

    size_wh, box = (112, 84), Box(28, 0, 28, 28)
    image = np.full((84, 112, 3), 255, np.uint8)
    image[:28, 28:56] = 0
    packed = []
    for mirroring in MIRRORINGS:
        moved = mirrored(box, size_wh, mirroring)
        packed.append(pack_branches(branches_of(encoder, [Annotation("Gun", moved)], []), 128)[0])
    objects = np.zeros((8, 5), np.float32)
    objects[0] = (CATEGORIES.index("Gun"), 28 / 112, 0, 56 / 112, 28 / 84)
    mask = np.zeros((1, 84, 112), bool)
    mask[0, :28, 28:56] = True

    class Pool:
        scans = ScanArrays(
            *(
                torch.from_numpy(a)[None]
                for a in (image, owner_map(mask, 28), owner_map(mask, 14), objects, np.stack(packed))
            )
        )

        def __len__(self) -> int:
            return 1

    batch = draw_batch(Pool(), 32, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    seen = set()
    for k in range(32):
        dark = (batch.images[k].float().mean(-1) < 128).nonzero()
        y0, x0 = dark.min(dim=0).values.tolist()
        seen.add((x0, y0))
        assert batch.objects[k, 0, 1:].tolist() == pytest.approx([x0 / 112, y0 / 84, (x0 + 28) / 112, (y0 + 28) / 84])
        assert batch.owner[k].nonzero().flatten().tolist() == [y0 // 28 * 4 + x0 // 28]
        patches = batch.patch_owner[k].nonzero()
        assert patches.min(dim=0).values.tolist() == [y0 // 14, x0 // 14]
        assert len(patches) == 4
        digits = "".join(
            encoder.tokenizer.decode([t]) for t in batch.branches[k, LABELS].tolist() if t in encoder.digit_ids
        )
        assert digits == f"{x0:03d}{y0:03d}{x0 + 28:03d}{y0 + 28:03d}"
    assert len(seen) == 4
    assert PROCESSOR.factor == 28
