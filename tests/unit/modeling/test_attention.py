"""Attention over many segments at once equals transformers' loop over windows."""

import numpy as np
import torch

from xray_vqa.modeling.attention import SEGMENT_ATTENTION, segment_attention, use_segment_attention
from xray_vqa.modeling.loading import load_model
from xray_vqa.modeling.patches import PatchProjection


def test_segments_attend_within_themselves_alone():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 10, 8) for _ in range(3))
    bounds = torch.tensor([0, 4, 6, 10])
    result, weights = segment_attention(torch.nn.Identity(), query, key, value, None, cu_seq_lens_q=bounds)
    assert weights is None
    for start, end in ((0, 4), (4, 6), (6, 10)):
        part = slice(start, end)
        expected = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, part], key[:, :, part], value[:, :, part]
        )
        torch.testing.assert_close(result[:, part], expected.transpose(1, 2))


@torch.no_grad()
def test_the_vision_tower_gives_what_stock_sdpa_gives(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    frame = np.random.default_rng(0).integers(0, 255, (308, 252, 3), dtype=np.uint8)
    patches, grid = loaded.processor.patches_of([torch.from_numpy(frame)])
    visual = loaded.base.model.visual
    assert visual.config._attn_implementation == SEGMENT_ATTENTION
    ours = visual(patches, grid_thw=grid).pooler_output
    visual.config._attn_implementation_internal = "sdpa"
    stock = visual(patches, grid_thw=grid).pooler_output
    use_segment_attention(loaded.base)
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_patch_embedding_gives_what_the_convolution_gives(tiny_model_dir):
    projection = load_model(str(tiny_model_dir), device="cpu").base.model.visual.patch_embed.proj
    assert isinstance(projection, PatchProjection)
    patches = torch.randn(6, 3, 2, 14, 14)
    stock = torch.nn.functional.conv3d(patches, projection.weight, projection.bias, stride=(2, 14, 14))
    torch.testing.assert_close(projection(patches), stock, atol=1e-5, rtol=1e-5)
