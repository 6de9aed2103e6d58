"""The auxiliary task: which visual token names which category, and what is never taught."""

import torch

from xray_vqa.core.geometry import Box
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.training.dense import UNKNOWN, DenseHeads, owners_of


def test_a_token_belongs_to_the_smallest_box_over_its_middle():
    owner = owners_of([Box(0, 0, 56, 56), Box(30, 30, 20, 20), Box(85, 1, 2, 2)], (2, 4), 28)
    assert owner.tolist() == [[1, 1, 0, 3], [1, 2, 0, 0]]


def test_what_the_source_does_not_label_is_not_taught_to_be_absent():
    torch.manual_seed(0)
    heads = DenseHeads(4)
    named = torch.zeros(1, len(CATEGORIES), dtype=torch.bool)
    named[0, CATEGORIES.index("Gun")] = True
    visual, owner = torch.randn(1, 3, 4), torch.tensor([[0, 1, 0]])
    objects = torch.tensor([[[CATEGORIES.index("Gun"), 0.1, 0.1, 0.2, 0.2]]])
    heads.loss(visual, owner, objects, named).backward()
    taught = heads.category.bias.grad.abs() > 0
    assert taught.nonzero().flatten().tolist() == [0, CATEGORIES.index("Gun") + 1]


def test_unknown_tokens_do_not_count():
    torch.manual_seed(0)
    heads = DenseHeads(4)
    visual, objects = torch.randn(1, 3, 4), torch.tensor([[[0, 0.1, 0.1, 0.2, 0.2]]])
    short = heads.loss(visual[:, :2], torch.tensor([[0, 1]]), objects)
    padded = heads.loss(visual, torch.tensor([[0, 1, UNKNOWN]]), objects)
    torch.testing.assert_close(padded, short)
