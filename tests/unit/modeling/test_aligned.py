"""Zeros that widen an MLP change nothing."""

import torch

from xray_vqa.modeling.aligned import ALIGNMENT, use_aligned_mlps
from xray_vqa.modeling.loading import load_model


@torch.no_grad()
def test_a_widened_vision_tower_gives_what_it_gave(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    visual = loaded.base.model.visual
    for block in visual.blocks:  # as wide as no unit takes it
        for name, weight in list(block.mlp.named_parameters()):
            cut = weight[:, :-3] if name == "down_proj.weight" else weight if "down" in name else weight[:-3]
            block.mlp.get_submodule(name.split(".")[0]).register_parameter(
                name.split(".")[1], torch.nn.Parameter(cut.clone())
            )
        block.mlp.gate_proj.out_features -= 3
        block.mlp.up_proj.out_features -= 3
    patches, grid = loaded.processor.patches_of([torch.randint(0, 255, (112, 168, 3), dtype=torch.uint8)])
    before = visual(patches, grid_thw=grid).pooler_output
    use_aligned_mlps(loaded.base)
    assert all(block.mlp.gate_proj.weight.shape[0] % ALIGNMENT == 0 for block in visual.blocks)
    torch.testing.assert_close(visual(patches, grid_thw=grid).pooler_output, before, atol=1e-5, rtol=1e-5)
