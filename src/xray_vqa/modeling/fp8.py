"""Products with frozen weights in 8-bit floats, for GPUs that multiply them twice as fast as bf16.

Each row of an input and each row of a weight is scaled to the range of e4m3 by its own largest value and rounded once.
A weight is kept twice, as the forward and as the backward product want it, which takes as much memory as once in bf16.
"""

from typing import Any

import torch
from torch import Tensor

from xray_vqa.modeling.few_rows import FEW_ROWS, product_of_few_rows
from xray_vqa.modeling.registry import spec_of

LARGEST = 448.0
"""Of e4m3."""
FP8_CAPABILITY = (8, 9)
"""Of the first GPUs that have such products."""


class Fp8Linear(torch.nn.Module):
    """A frozen linear layer whose weight and inputs are rounded to e4m3."""

    def __init__(self, linear: torch.nn.Linear, *, backward: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        weight = linear.weight.detach()
        self.rows, self.row_scales = map(torch.nn.Buffer, quantise_rows(weight))
        if backward:
            self.columns, self.column_scales = map(torch.nn.Buffer, quantise_rows(weight.T.contiguous()))
        self.bias = torch.nn.Buffer(linear.bias.detach()) if linear.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) in the format of autocast, without it in that of the layer it was made of.

        No gradient flows to `x`.
        """
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype
        narrow, scales = quantise_rows(x.reshape(-1, x.shape[-1]))
        if narrow.is_cuda and 0 < narrow.shape[0] <= FEW_ROWS:
            parts = product_of_few_rows(narrow, self.rows)
            result = parts.sum(dim=0) * scales * self.row_scales.T
            result = (result if self.bias is None else result + self.bias).to(dtype)
            return result.view(*x.shape[:-1], result.shape[-1])
        result = scaled_product(narrow, scales, self.rows, self.row_scales, self.bias, dtype)
        return result.view(*x.shape[:-1], result.shape[-1])


def use_fp8_tower(model: torch.nn.Module) -> None:
    """Let a frozen vision tower's layers multiply in 8-bit floats, in place."""
    config: Any = model.config
    _replace_linears(model.get_submodule(f"{spec_of(config.model_type).vision_tower}.blocks"))


def use_fp8_decoder(model: torch.nn.Module) -> None:
    """Let a decoder that is not trained multiply in 8-bit floats, in place; the output layer stays as it is."""
    config: Any = model.config
    spec = spec_of(config.model_type)
    _replace_linears(model.get_submodule(f"{spec.language_model}.layers"), unless=spec.unquantized)


def _replace_linears(layers: torch.nn.Module, unless: tuple[str, ...] = ()) -> None:
    for layer in layers.children():
        for name, module in list(layer.named_modules()):
            if type(module) is torch.nn.Linear and name.rpartition(".")[2] not in unless:
                layer.set_submodule(name, Fp8Linear(module, backward=False))


def quantise_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows in e4m3, (rows, columns), and what to multiply them by, (rows, 1) float32."""
    wide = values.float()
    scales = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (wide / scales).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scales


def scaled_product(
    narrow: Tensor, scales: Tensor, weight: Tensor, weight_scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Return `(scales * narrow) (weight_scales * weight)' + bias`, (n, out) in `dtype`, of quantised rows.

    Args:
        narrow: (n, in) e4m3.
        scales: (n, 1) float32.
        weight: (out, in) e4m3.
        weight_scales: (out, 1) float32.
        bias: (out,) or None.
        dtype: Of the result.
    """
    if narrow.is_cuda and narrow.shape[0]:  # the unit takes no empty matrix
        result = torch.ops.aten._scaled_mm(
            narrow, weight.T, scale_a=scales, scale_b=weight_scales.T, out_dtype=torch.bfloat16, use_fast_accum=True,
            bias=None if bias is None else bias.to(torch.bfloat16),
        )  # fmt: skip
        return result.to(dtype)  # the unit gives no other format where rows have scales of their own
    # The same rounding without such a unit, so that what it costs can be seen anywhere.
    result = (narrow.float() * scales) @ (weight.float() * weight_scales).T
    return (result if bias is None else result + bias.float()).to(dtype)
