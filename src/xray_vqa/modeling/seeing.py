"""The vision tower as training calls it: the host never waits for the GPU.

transformers makes the order of windows, positions and segment starts from a tensor on the GPU, reads them back, and
checks on the GPU whether there are as many visual tokens as places for them. Each of these waits until all earlier work
is done, and the GPU then idles until the host has caught up. Here they are made on the host and sent.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from xray_vqa.modeling.registry import spec_of

WINDOW_STARTS = "cu_window_seqlens"
"""The tensor whose length depends on the shape of the images and not on their tokens alone."""


def visual_tokens(model: Any, patches: Tensor, grid_thw: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the visual tokens of some images as `get_image_features` makes them, and DeepStack's further ones.

    Args:
        model: Of a known family, its tower with segment attention.
        patches: (patches, channels * temporal * height * width).
        grid_thw: (images, 3) int64 on the CPU, patches an image in time, height and width.

    Returns:
        (tokens, hidden), and as many of the same shape as decoder layers get features added to; mostly none.
    """
    made, numbers = tower_inputs(model, grid_thw)
    sent = {name: send(tensor, patches.device) for name, tensor in made.items()}
    return see(model, patches, grid_thw, sent, numbers)


def see(
    model: Any, patches: Tensor, grid_thw: Tensor, tensors: dict[str, Tensor], numbers: dict[str, int]
) -> tuple[Tensor, list[Tensor]]:
    """Return what `visual_tokens` does, of what `tower_inputs` has made, the tensors on the device of the patches."""
    tower = model.get_submodule(spec_of(model.config.model_type).vision_tower)
    output = tower(patches, grid_thw=grid_thw, **numbers, **tensors)
    return output.pooler_output, list(getattr(output, "deepstack_features", None) or [])


def tower_inputs(model: Any, grid_thw: Tensor) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return what a vision tower is told beside the patches: tensors on the CPU by name, and lengths of segments."""
    tower = model.get_submodule(spec_of(model.config.model_type).vision_tower)
    config = tower.config
    made = {
        "position_ids": get_vision_position_ids(grid_thw, config.spatial_merge_size),
        "cu_seqlens": get_vision_cu_seqlens(grid_thw),
    }
    numbers = {"max_seqlen": int(grid_thw.prod(dim=1).max())}
    if hasattr(config, "window_size"):
        made["window_index"], made[WINDOW_STARTS] = get_vision_window_index(
            grid_thw, config.spatial_merge_size, config.window_size, config.patch_size
        )
        numbers["max_window_seqlen"] = (config.window_size // config.patch_size) ** 2
    if hasattr(tower, "pos_embed"):  # a learnt grid of positions, which every image's own is interpolated from
        made["interp_indices"], made["interp_weights"] = get_vision_interpolation_indices_and_weights(
            grid_thw,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=config.spatial_merge_size,
        )
    return made, numbers


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device, without waiting for it to arrive."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
