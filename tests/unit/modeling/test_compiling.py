"""Compiled layers compute what they computed before, at any length, and keep the names of their weights."""

import pytest
import torch
from test_prompt_tree import make_branches, make_frame

from xray_vqa.modeling.compiling import compile_layers
from xray_vqa.modeling.loading import load_model
from xray_vqa.modeling.packed_tree import pack_rows, use_packed_attention
from xray_vqa.modeling.prompt_tree import build_row


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_layers_give_the_same_logits_and_gradients(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    use_packed_attention(loaded.base)
    layer = loaded.base.model.language_model.layers[0]

    def run(num_branches):
        frame = make_frame(loaded, (224, 168 + 28 * num_branches), num_branches)
        grid = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
        branches = make_branches(loaded)[:num_branches]
        packed = pack_rows([build_row(*loaded.encoder.prefix(grid[0] * grid[1]), grid, branches)] * 2)
        patches, grid_thw = loaded.processor.patches_of([frame, frame])
        logits = loaded.base(
            input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=None,
            trees=packed.layout, pixel_values=patches, image_grid_thw=grid_thw,
        ).logits  # fmt: skip
        return logits.detach(), torch.autograd.grad(logits.square().mean(), layer.mlp.up_proj.weight)[0]

    names, before = list(loaded.base.state_dict()), [run(number) for number in (2, 3, 4)]
    compile_layers(loaded.base)
    for number, (logits, gradient) in zip((2, 3, 4), before, strict=True):
        found = run(number)
        torch.testing.assert_close(found[0], logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[1], gradient, atol=1e-5, rtol=1e-3)
    assert list(loaded.base.state_dict()) == names
