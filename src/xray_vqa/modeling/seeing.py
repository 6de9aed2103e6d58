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


def visual_tokens(model: Any, patches: Tensor, grid_thw: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the visual tokens of some images as `get_image_features` makes them, and DeepStack's further ones.

    Args:
        model: Of a known family, its tower with segment attention.
        patches: (patches, channels * temporal * height * width).
        grid_thw: (images, 3) int64 on the CPU, patches an image in time, height and width.

    Returns:
        (tokens, hidden), and as many of the same shape as decoder layers get features added to; mostly none.
    """
    tower, device = model.get_submodule(spec_of(model.config.model_type).vision_tower), patches.device
    config = tower.config
    made = {
        "position_ids": get_vision_position_ids(grid_thw, config.spatial_merge_size),
        "cu_seqlens": get_vision_cu_seqlens(grid_thw),
    }
    numbers = {"max_seqlen": int(grid_thw.prod(dim=1).max())}
    if hasattr(config, "window_size"):
        made["window_index"], made["cu_window_seqlens"] = get_vision_window_index(
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
    sent = {name: send(tensor, device) for name, tensor in made.items()}
    output = tower(patches, grid_thw=grid_thw, **numbers, **sent)
    return output.pooler_output, list(getattr(output, "deepstack_features", None) or [])


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device, without waiting for it to arrive."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
