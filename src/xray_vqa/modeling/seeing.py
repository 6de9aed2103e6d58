"""The vision tower as training calls it: the host never waits for the GPU.

transformers makes the order of windows, positions and segment starts from a tensor on the GPU, reads them back, and
checks on the GPU whether there are as many visual tokens as places for them. Each of these waits until all earlier work
is done, and the GPU then idles until the host has caught up. Here they are made on the host and sent.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index


def visual_tokens(model: Any, patches: Tensor, grid_thw: Tensor) -> Tensor:
    """Return the visual tokens of some images, (tokens, hidden), as `get_image_features` makes them.

    Args:
        model: Qwen2_5_VLForConditionalGeneration, its tower with segment attention.
        patches: (patches, channels * temporal * height * width).
        grid_thw: (images, 3) int64 on the CPU, patches an image in time, height and width.
    """
    tower, device = model.model.visual, patches.device
    config = tower.config
    window_index, window_starts = get_vision_window_index(
        grid_thw, config.spatial_merge_size, config.window_size, config.patch_size
    )
    made = {
        "position_ids": get_vision_position_ids(grid_thw, config.spatial_merge_size),
        "cu_seqlens": get_vision_cu_seqlens(grid_thw),
        "window_index": window_index,
        "cu_window_seqlens": window_starts,
    }
    return tower(
        patches,
        grid_thw=grid_thw,
        max_seqlen=int(grid_thw.prod(dim=1).max()),
        max_window_seqlen=(config.window_size // config.patch_size) ** 2,
        **{name: send(tensor, device) for name, tensor in made.items()},
    ).pooler_output


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device, without waiting for it to arrive."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
