"""A recurrent layer over packed trees gives each branch what it gives it in a sequence of its own."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.families import CONFIGS
from transformers import AutoConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

from xray_vqa.modeling.branch_rows import rows_of
from xray_vqa.modeling.packed_tree import pack_rows
from xray_vqa.modeling.prompt_tree import Branch, build_row
from xray_vqa.modeling.recurrent_tree import use_recurrent_trees

SHAPES = st.lists(
    st.tuples(st.integers(3, 90), st.lists(st.integers(1, 7), min_size=1, max_size=4)), min_size=1, max_size=3
)
"""Of each image the tokens of its prefix (more than the layer's chunks of 64, too) and of its branches."""


@settings(max_examples=25)
@given(SHAPES, st.integers(0, 99))
def test_branches_of_packed_trees_equal_separate_sequences_and_gradients_too(shapes, seed):
    torch.manual_seed(seed)
    config = AutoConfig.for_model("qwen3_5", **CONFIGS["qwen3_5"]).text_config
    layer = Qwen3_5GatedDeltaNet(config, 0)
    rows = [build_row(range(n), 0, (1, 1), [Branch(tuple(range(m))) for m in lengths]) for n, lengths in shapes]
    packed = pack_rows(rows)
    states = [torch.randn(row.input_ids.numel(), config.hidden_size) for row in rows]
    wanted = [torch.randn_like(state) for state in states]

    expected, loss = [], torch.zeros(())
    for row, state, aim in zip(rows, states, wanted, strict=True):
        outputs = torch.empty_like(state)
        for branch, seen in enumerate(rows_of(row)):
            alone = layer(state[seen][None])[0]
            outputs[seen] = alone.detach()
            own = slice(0 if branch == 0 else int((row.segment_ids == 0).sum()), None)  # the prefix counts once
            loss = loss + (alone[own] * aim[seen][own]).sum()
        expected.append(outputs)
    weights = list(layer.parameters())
    gradients = torch.autograd.grad(loss, weights)

    use_recurrent_trees(layer)
    found = layer(torch.cat(states)[packed.order][None], trees=packed.layout)[0]
    torch.testing.assert_close(found, torch.cat(expected)[packed.order], atol=1e-5, rtol=1e-4)
    ours = torch.autograd.grad((found * torch.cat(wanted)[packed.order]).sum(), weights)
    for mine, theirs in zip(ours, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=2e-4)
