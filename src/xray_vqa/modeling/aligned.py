"""Widths that a GPU's matrix units take whole.

The vision tower's MLPs are 3,420 wide, whose rows in bf16 are no multiple of 16 bytes, so that the GPU falls back to
slow kernels. Columns of zeros up to the next multiple of 64 change no result: silu(0) * 0 is 0.
"""

from typing import Any

import torch
import torch.nn.functional as F

ALIGNMENT = 64


def use_aligned_mlps(model: torch.nn.Module) -> None:
    """Widen the MLPs of a model's vision tower in place; for a tower that is neither trained nor saved afterwards."""
    for block in model.get_submodule("model.visual.blocks").children():
        mlp: Any = block.mlp
        missing = -mlp.gate_proj.out_features % ALIGNMENT
        for wide in (mlp.gate_proj, mlp.up_proj):
            wide.weight = _padded(wide.weight, (0, 0, 0, missing))
            wide.bias = _padded(wide.bias, (0, missing)) if wide.bias is not None else None
            wide.out_features += missing
        mlp.down_proj.weight = _padded(mlp.down_proj.weight, (0, missing))
        mlp.down_proj.in_features += missing


def _padded(weight: torch.Tensor, sides: tuple[int, ...]) -> torch.nn.Parameter:
    return torch.nn.Parameter(F.pad(weight.detach(), sides), requires_grad=weight.requires_grad)
