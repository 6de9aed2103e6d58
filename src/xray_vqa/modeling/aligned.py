"""Widths that a GPU's matrix units take whole.

The MLPs of Qwen2.5-VL's vision tower are 3,420 wide, whose rows in bf16 are no multiple of 16 bytes, so that the GPU
falls back to slow kernels. Columns of zeros up to the next multiple of 64 change no result: silu(0) * 0 is 0. Qwen3's
towers, 4,096 or 4,304 wide and without a gate, need none of this.
"""

from typing import Any

import torch
import torch.nn.functional as F

from xray_vqa.modeling.registry import spec_of

ALIGNMENT = 64


def use_aligned_mlps(model: torch.nn.Module) -> None:
    """Widen the MLPs of a model's vision tower in place; for a tower that is neither trained nor saved afterwards."""
    config: Any = model.config
    for block in model.get_submodule(f"{spec_of(config.model_type).vision_tower}.blocks").children():
        mlp: Any = block.mlp
        if type(getattr(mlp, "gate_proj", None)) is not torch.nn.Linear:  # no gate, or an adapter around it
            return
        missing = -mlp.gate_proj.out_features % ALIGNMENT
        for wide in (mlp.gate_proj, mlp.up_proj):
            wide.weight = _padded(wide.weight, (0, 0, 0, missing))
            wide.bias = _padded(wide.bias, (0, missing)) if wide.bias is not None else None
            wide.out_features += missing
        mlp.down_proj.weight = _padded(mlp.down_proj.weight, (0, missing))
        mlp.down_proj.in_features += missing


def _padded(weight: torch.Tensor, sides: tuple[int, ...]) -> torch.nn.Parameter:
    return torch.nn.Parameter(F.pad(weight.detach(), sides), requires_grad=weight.requires_grad)
