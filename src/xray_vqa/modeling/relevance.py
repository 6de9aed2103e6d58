"""What the answer of a probe rests on: how much each visual token moves the odds of yes against no.

The tree of a probe is run as in serving, but with the visual tokens as variables, and differentiated. Nothing is left
on the model: its weights get no gradients, whatever state they are in.
"""

from typing import Any

import torch

from xray_vqa.errors import ModelUnavailable
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.prompt_tree import TreeRow, build_row, tree_mask
from xray_vqa.modeling.seeing import visual_tokens

PATH_STEPS = 8
"""Midpoints on the way from the mean token to the image."""


def relevance(loaded: LoadedModel, frame: torch.Tensor, categories: list[str]) -> dict[str, torch.Tensor]:
    """Return what each visual token adds to a category's log-odds against the image's mean token.

    Integrated gradients (Sundararajan et al., 2017, arXiv:1703.01365): the gradient's mean on the way from an image
    of nothing but its mean token to the image itself, times how far each token goes. `benchmarks/explain.py` compares
    it with attention, its product with gradients and Chefer's roll-out. One category and one step is run at a time, so
    that the memory is that of one probe behind one image, whatever is asked. With DeepStack, what a token adds further
    up counts with it.

    Args:
        loaded: In evaluation mode, of a family in `registry.SPECS`, with or without an adapter.
        frame: (height, width, 3) uint8, as `Processor.resize` gives it.
        categories: What to explain.

    Returns:
        By category (rows, columns) float32 on the CPU, positive where the token speaks for yes.

    Raises:
        ModelUnavailable: The model's family is not one that we know how to take apart.
    """
    spec, processor, encoder = loaded.spec, loaded.processor, loaded.encoder
    if not spec.is_known:
        raise ModelUnavailable(
            f"{loaded.name}: no heat maps for the family {spec.model_type!r}: nobody has tried where its visual tokens "
            "enter the decoder; leave --heat-maps out, or use a model of a known family (docs/MODELS.md)"
        )
    grid_hw = processor.grid_hw((frame.shape[1], frame.shape[0]))
    prefix, image_start = encoder.prefix(grid_hw[0] * grid_hw[1])
    visual = see(loaded, frame)
    found: dict[str, torch.Tensor] = {}
    for category in categories:
        row = build_row(prefix, image_start, grid_hw, [encoder.probe(category)])
        baselines = [each.mean(dim=0, keepdim=True) for each in visual]
        totals = [torch.zeros_like(each, dtype=torch.float32) for each in visual]
        for step in range(PATH_STEPS):
            share = (step + 0.5) / PATH_STEPS
            # Layers that serving has compiled know no gradients.
            with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
                tokens = [
                    (base + (each - base) * share).detach().requires_grad_()
                    for each, base in zip(visual, baselines, strict=True)
                ]
                gradients = torch.autograd.grad(log_odds(loaded, row, tokens), tokens)
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient.float() / PATH_STEPS
        added = torch.zeros(len(visual[0]), device=visual[0].device)
        for total, each, base in zip(totals, visual, baselines, strict=True):
            added += (total * (each - base).float()).sum(dim=-1)
        found[category] = added.reshape(grid_hw).cpu()
    return found


def see(loaded: LoadedModel, frame: torch.Tensor) -> list[torch.Tensor]:
    """Return the visual tokens of a frame, (tokens, hidden), and DeepStack's further ones of the same shape."""
    with torch.no_grad():
        dtype = next(loaded.base.parameters()).dtype
        patches, _ = loaded.processor.patches_of([frame.to(loaded.device)], dtype)
        seen, deeper = visual_tokens(loaded.base, patches, loaded.processor.grid_thw([frame]))
    return [seen, *deeper]


def log_odds(loaded: LoadedModel, row: TreeRow, tokens: list[torch.Tensor]) -> torch.Tensor:
    """Return a probe's logit of yes less that of no, where the image is some visual tokens, as `see` gives them."""
    base, spec, encoder = loaded.base, loaded.spec, loaded.encoder
    ids = row.input_ids[None].to(loaded.device)
    visual = torch.arange(row.visual.start, row.visual.stop, device=ids.device)
    embedded = base.get_input_embeddings()(ids).detach()
    further: dict[str, Any] = {}
    if spec.serves_tree:  # recurrent layers take no such mask, and one branch needs none
        further["attention_mask"] = tree_mask(row.segment_ids[None].to(ids.device))
    if len(tokens) > 1:
        is_visual = torch.zeros_like(ids).index_fill(1, visual, 1).bool()
        further |= {"visual_pos_masks": is_visual, "deepstack_visual_embeds": tokens[1:]}
    states = base.get_submodule(spec.language_model)(
        inputs_embeds=embedded.index_copy(1, visual, tokens[0][None].to(embedded.dtype)),
        position_ids=row.position_ids[:, None].to(ids.device),
        use_cache=False,
        **further,
    ).last_hidden_state
    logits = base.lm_head(states[0, -1]).float()
    return logits[encoder.yes_id] - logits[encoder.no_id]
