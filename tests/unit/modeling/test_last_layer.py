"""A last layer in part gives what the whole one gives at the same places."""

import torch
from test_prompt_tree import make_branches, make_frame

from xray_vqa.modeling.last_layer import use_last_layer_in_part
from xray_vqa.modeling.loading import load_model
from xray_vqa.modeling.packed_tree import pack_rows, use_packed_attention
from xray_vqa.modeling.prompt_tree import build_row
from xray_vqa.modeling.seeing import visual_tokens


def test_kept_places_have_the_logits_and_gradients_of_the_whole(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    use_packed_attention(loaded.base)
    frame = make_frame(loaded, (224, 168), 1)
    grid = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
    packed = pack_rows([build_row(*loaded.encoder.prefix(grid[0] * grid[1]), grid, make_branches(loaded))] * 2)
    patches, grid_thw = loaded.processor.patches_of([frame, frame])
    kept = torch.tensor([packed.input_ids.shape[1] - 1, 3, 40])
    early = loaded.base.model.language_model.layers[0].mlp.up_proj.weight
    late = loaded.base.model.language_model.layers[-1].self_attn.k_proj.weight

    def run(**more):
        logits = loaded.base(
            input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=None,
            trees=packed.layout, pixel_values=patches, image_grid_thw=grid_thw, **more,
        ).logits  # fmt: skip
        return logits.detach(), torch.autograd.grad(logits.square().mean(), [early, late])

    expected, gradients = run(logits_to_keep=kept)
    use_last_layer_in_part(loaded.base)
    found, again = run(kept=kept)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, gradients, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(run(logits_to_keep=kept)[0], expected)  # without `kept` it is the whole layer


@torch.no_grad()
def test_visual_tokens_are_those_of_transformers(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    frames = [make_frame(loaded, (392, 308), 1), make_frame(loaded, (224, 336), 2)]
    patches, grid = loaded.processor.patches_of(frames)
    expected = torch.cat(list(loaded.base.model.get_image_features(patches, grid).pooler_output))
    assert torch.equal(visual_tokens(loaded.base, patches, loaded.processor.grid_thw(frames))[0], expected)
