"""Weights as int8 with one scale a row: how nano fits into the package. They are widened when they are loaded."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

QUANTIZED_NAME = "model.int8.safetensors"
_SCALE = ".scale"


def save_quantized(state: dict[str, torch.Tensor], model_dir: Path) -> float:
    """Write a state dict as int8; matrices get one fp32 scale a row, vectors stay fp16.

    Returns:
        The largest relative error of a matrix, |w - w'| / |w| in the Frobenius norm.
    """
    tensors: dict[str, torch.Tensor] = {}
    worst = 0.0
    for name, weight in state.items():
        weight = weight.detach().float().cpu()
        if weight.ndim < 2:
            tensors[name] = weight.half()
            continue
        rows = weight.flatten(1)
        scale = rows.abs().amax(dim=1).clamp(min=1e-12) / 127
        codes = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        worst = max(worst, float((codes * scale[:, None] - rows).norm() / rows.norm().clamp(min=1e-12)))
        tensors[name] = codes.reshape(weight.shape)
        tensors[name + _SCALE] = scale
    save_file(tensors, model_dir / QUANTIZED_NAME, metadata={"format": "int8 rows"})
    return worst


def load_quantized(model_dir: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the state dict that `save_quantized` wrote, widened to `dtype`."""
    tensors = load_file(model_dir / QUANTIZED_NAME)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE):
            continue
        if tensor.dtype == torch.int8:
            scale = tensors[name + _SCALE].reshape(-1, *([1] * (tensor.ndim - 1)))
            tensor = tensor.float() * scale
        state[name] = tensor.to(dtype)
    return state
