"""Weights in 8-bit floats or 4-bit integers, in the compressed-tensors form that vLLM and transformers load.

The linear layers of the decoder are rounded to the nearest value, without calibration scans; vision tower, output layer
and all else stay as they are, since rounding those costs most. llmcompressor writes the same form, but needs an older
transformers than ours (0.14 ends at 5.17), and what is used of it here is two ways of rounding. This package itself
reads such weights by widening them: vLLM is who multiplies in the short form.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from xray_vqa.errors import ModelUnavailable
from xray_vqa.modeling.fp8 import LARGEST
from xray_vqa.modeling.registry import ModelSpec

Compression = Literal["fp8", "int4"]

_GROUP_SIZES = (128, 64, 32)
"""Columns that share a scale, from the one that vLLM's kernels are fastest with. nano's 704 columns take 64."""
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""A group's scale may leave its largest weights out of reach where that makes the squared error smaller."""
_PER_WORD = 8
"""4-bit numbers in an int32, the first in the lowest bits."""


@torch.no_grad()
def compress(
    model: torch.nn.Module, spec: ModelSpec, form: Compression, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return a model's state with the decoder's linear layers in a short form, and its `quantization_config`.

    Args:
        model: In fp32, on the CPU.
        spec: Of its family.
        form: `fp8` has a scale a row, and vLLM rounds each token's activations to it too. `int4` has one a group of
            columns and leaves the activations.
        dtype: Of every other weight.

    Raises:
        ModelUnavailable: A layer's columns do not fall into groups.
    """
    layers = {
        f"{spec.language_model}.{name}": module
        for name, module in model.get_submodule(spec.language_model).named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    whole = model.state_dict()
    cast = {weight.data_ptr(): weight.to(dtype) for weight in whole.values()}  # tied weights stay one tensor
    state = {name: cast[weight.data_ptr()] for name, weight in whole.items()}
    group_size = _group_size(layers) if form == "int4" else 0
    for name, module in layers.items():
        del state[f"{name}.weight"]
        weight = module.weight.float()
        if form == "fp8":
            codes, scale = _round_fp8(weight)
            state |= {f"{name}.weight": codes, f"{name}.weight_scale": scale}
        else:
            codes, scale = _round_int4(weight, group_size)
            state |= {
                f"{name}.weight_packed": _pack(codes),
                f"{name}.weight_scale": scale,
                f"{name}.weight_shape": torch.tensor(weight.shape),
            }
    return state, _describe(form, group_size, spec)


def _group_size(layers: Mapping[str, torch.nn.Linear]) -> int:
    for size in _GROUP_SIZES:
        if all(module.in_features % size == 0 for module in layers.values()):
            return size
    narrow = next(name for name, module in layers.items() if module.in_features % _GROUP_SIZES[-1])
    raise ModelUnavailable(f"{narrow} has no whole number of groups of {_GROUP_SIZES[-1]} columns; write fp8 instead")


def _describe(form: Compression, group_size: int, spec: ModelSpec) -> dict[str, Any]:
    """The `quantization_config` of config.json. Patterns, since vLLM and transformers name modules differently."""
    tower = spec.vision_tower.rpartition(".")[2]
    weights: dict[str, Any] = {"symmetric": True, "dynamic": False, "observer": "mse" if form == "int4" else "minmax"}
    if form == "fp8":
        weights |= {"num_bits": 8, "type": "float", "strategy": "channel"}
        activations = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}
    else:
        weights |= {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group_size}
        activations = None
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": "float-quantized" if form == "fp8" else "pack-quantized",
        "ignore": [rf"re:.*{tower}\..*", "re:.*lm_head"],
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": activations},
        },
    }


def _short(scale: torch.Tensor) -> torch.Tensor:
    """A scale as bf16 holds it: who loads it in that format gets the same weights as who loads it in fp32."""
    return scale.clamp(min=1e-12).to(torch.bfloat16)


def _round_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of (rows, columns) weights in float8_e4m3fn, and (rows, 1) float32 scales."""
    scale = _short(weight.abs().amax(dim=1, keepdim=True) / LARGEST).float()
    codes = (weight / scale).clamp(-LARGEST, LARGEST)  # beyond it the conversion gives NaN
    return codes.to(torch.float8_e4m3fn), scale


def _round_int4(weight: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes from -8 to 7 of (rows, columns) weights as int32, and (rows, groups) bfloat16 scales."""
    groups = weight.unflatten(1, (-1, group_size))
    reach = groups.abs().amax(dim=2, keepdim=True) / 7.5
    best_scale, best_error = _short(reach), torch.full_like(reach, torch.inf)
    for shrink in _SHRINKS:
        scale = _short(reach * shrink)
        error = (_nearest_int4(groups, scale) * scale.float() - groups).square().sum(dim=2, keepdim=True)
        better = error < best_error
        best_scale, best_error = torch.where(better, scale, best_scale), torch.where(better, error, best_error)
    return _nearest_int4(groups, best_scale).to(torch.int32).flatten(1), best_scale.squeeze(2)


def _nearest_int4(groups: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (groups / scale.float()).round().clamp(-8, 7)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """(rows, columns) int32 codes from -8 to 7 as (rows, columns / 8) int32 words."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    # The parts share no bit, so their sum is their union; in int64, since the last one reaches the sign.
    words = ((codes + 8).unflatten(1, (-1, _PER_WORD)).to(torch.int64) << shifts).sum(dim=2)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def _unpack(words: torch.Tensor) -> torch.Tensor:
    """The inverse of `_pack`."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    return ((words[..., None] >> shifts) & 15).flatten(1) - 8


def read_compressed(
    model_dir: Path, quantization_config: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return the state of a checkpoint in one of the two forms, widened to `dtype`, under the names on disk.

    Raises:
        ModelUnavailable: The checkpoint is in another form.
    """
    found = str(quantization_config.get("quant_method")), str(quantization_config.get("format"))
    if found not in [("compressed-tensors", form) for form in ("float-quantized", "pack-quantized")]:
        raise ModelUnavailable(
            f"{model_dir} is quantized as {' '.join(found)}; this package reads compressed-tensors' "
            "float-quantized and pack-quantized. Serve it with vLLM, or take the weights from before"
        )
    stored: dict[str, torch.Tensor] = {}
    for path in sorted(model_dir.glob("*.safetensors")):
        stored |= load_file(path)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        layer = name.rpartition(".")[0]
        if name.endswith(".weight_packed"):
            scale = stored[f"{layer}.weight_scale"].float()
            codes = _unpack(tensor)[:, : int(stored[f"{layer}.weight_shape"][1])].float()
            groups = codes.unflatten(1, (scale.shape[1], -1)) * scale[..., None]
            state[f"{layer}.weight"] = groups.flatten(1).to(dtype)
        elif tensor.dtype == torch.float8_e4m3fn:
            state[name] = (tensor.float() * stored[f"{layer}.weight_scale"].float()).to(dtype)
        elif not name.endswith((".weight_scale", ".weight_shape")):
            state[name] = tensor.to(dtype)
    return state
