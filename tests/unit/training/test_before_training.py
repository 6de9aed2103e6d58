"""What a person sees before the first step is what is trained on, not what somebody meant to train on."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import Annotation
from xray_vqa.errors import GateFailed
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.nano import PROCESSOR, train_tokenizer
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, TreeRow, build_row
from xray_vqa.training.inputs.collator import ScanDataset
from xray_vqa.training.inputs.demand import Demand
from xray_vqa.training.inputs.scans import TrainingScan
from xray_vqa.training.planning.plan import RunPlan
from xray_vqa.training.watching.before_training import (
    TrainedTensor,
    count_tokens,
    describe_tokens,
    group_tensors,
    preview,
    trained_tensors,
    view_of,
)

SIZE = (168, 112)
ENCODER = PromptEncoder(train_tokenizer(["Is there a gun?"]))
WORDS = st.lists(st.sampled_from(["gun", "knife", "no", "upper-left", "2,", "über", "刀"]), min_size=1).map(" ".join)


def make_row(pairs: list[tuple[str, str]]) -> TreeRow:
    prefix, image_start = ENCODER.prefix(6)
    return build_row(prefix, image_start, (2, 3), [ENCODER.question(*pair) for pair in pairs])


def make_dataset(folder: Path, **changes) -> ScanDataset:
    Image.new("RGB", SIZE).save(folder / "a.png")
    annotations = (Annotation("Gun", Box(10, 10, 50, 40)), Annotation("Knife", None), Annotation("Bullet", None))
    pairs = (("What is it?", "A gun."),)
    scan = TrainingScan(folder / "a.png", SIZE, annotations, ("Gun", "Knife"), pairs, ("en",))
    return ScanDataset([scan], ENCODER, PROCESSOR, **({"max_seq_length": 512, "probes": True, "boxes": True} | changes))


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_the_answers_and_nothing_else_are_marked(pairs):
    lines = view_of(make_row(pairs), ENCODER).split("\n")
    assert "⟦" not in lines[0]
    assert "[6 x <|image_pad|>]" in lines[0]
    for line, (question, answer) in zip(lines[1:], pairs, strict=True):
        assert re.findall("⟦(.*?)⟧", line) == [f"{answer}<|im_end|>"]
        assert question in line.partition("⟦")[0]


def test_labels_that_are_not_the_next_tokens_are_an_error():
    row = make_row([("What is it?", "A gun.")])
    shifted = row.labels.roll(1)  # as where a library shifts once more
    with pytest.raises(GateFailed, match="not the next token"):
        view_of(dataclasses.replace(row, labels=shifted), ENCODER)


def test_a_label_on_the_prefix_is_an_error():
    row = make_row([("What is it?", "A gun.")])
    labels = row.labels.clone()
    labels[0] = row.input_ids[1]
    with pytest.raises(GateFailed, match="before the answers"):
        view_of(dataclasses.replace(row, labels=labels), ENCODER)


def test_tokens_are_counted_as_the_trees_have_them(tmp_path: Path):
    dataset = make_dataset(tmp_path)
    row = dataset[0]["row"]
    assert count_tokens(dataset) == {
        "visual": [int((row.input_ids == ENCODER.image_pad_id).sum())],
        "prefix": [int((row.segment_ids == 0).sum())],
        "branches": [int((row.segment_ids > 0).sum())],
        "trained": [int((row.labels != IGNORE_INDEX).sum())],
        "whole tree": [row.input_ids.numel()],
    }


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_every_tree_stands_in_one_bar(lengths):
    counts = dict.fromkeys(("visual", "prefix", "branches", "trained", "whole tree"), lengths)
    bars = re.findall(r"^ *\d+ to +\d+ .* (\d+)$", describe_tokens(counts), re.MULTILINE)
    assert sum(map(int, bars)) == 2 * len(lengths)  # of whole trees, and of trained tokens


def test_the_preview_names_what_is_left_out(tmp_path: Path):
    plan = RunPlan(
        num_images=1, num_pairs=1, num_development=0, left_out={"cut": 3}, num_not_mirrored=0, images_per_update=2,
        num_updates=5, num_ranks=1, demands=(Demand(900, 2000, 70),), longest=(0,), num_epochs=1.0,
    )  # fmt: skip
    shown = preview(make_dataset(tmp_path), plan)
    assert "5 updates" in shown
    assert "3 cut" in shown
    assert "2 times a category's places are not asked" in shown
    assert "1 times an item is of a category that the source does not label" in shown
    assert "What is it?<|im_end|>⏎<|im_start|>assistant⏎⟦A gun.<|im_end|>⟧" in shown
    assert "Knife:⟦ yes⟧" in shown


def test_tensors_that_differ_in_their_layer_alone_are_one_line():
    tensors = [TrainedTensor(f"model.layers.{layer}.q_proj.weight", (4, 8), 32) for layer in range(12)]
    tensors.append(TrainedTensor("model.norm.weight", (8,), 8))
    assert group_tensors(tensors) == ["12 x model.layers.*.q_proj.weight (4, 8): 384", "1 x model.norm.weight (8,): 8"]


def test_a_model_without_anything_to_train_is_refused():
    model = torch.nn.Linear(2, 3)
    assert [tensor.name for tensor in trained_tensors(model)] == ["weight", "bias"]
    with pytest.raises(GateFailed, match="no weight"):
        trained_tensors(model.requires_grad_(False))
