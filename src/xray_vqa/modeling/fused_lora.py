"""Low-rank adapters with as few passes over memory as their products need.

PEFT computes `W x + s B (A drop(x))` as separate products, a scaling and a sum, and widens the input to the adapter's
fp32 before. Here the matrix multiplication itself adds the adapter's part, in place, forward and backward, in the
number format of the base. The base's own product may be one of 8-bit floats. Numbers, names and files of the adapter
stay PEFT's.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor

from xray_vqa.modeling.fp8 import Fp8Linear, quantise_rows, scaled_product


@torch.library.custom_op("xray_vqa::adapted_product", mutates_args=())
def _adapted_product(
    rows: Tensor,
    seen: Tensor,
    kept: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Return `rows W' + bias + scale * seen A' B'`, (n, out), and `seen A'`, (n, rank). One operation to a compiler.

    Args:
        rows: (n, in), in the format of `weight`.
        seen: `rows` after the dropout with probability `dropout`; the gradient of `rows` holds this way too.
        kept: (n, in) bool, what the dropout left; None without one.
        weight, bias: (out, in) and (out,), frozen.
        a, b: (rank, in) and (out, rank) of the adapter, in any format.
    """
    inner = seen @ a.to(rows.dtype).T
    result = F.linear(rows, weight, bias)
    return result.addmm_(inner, b.to(rows.dtype).T, alpha=scale), inner


@_adapted_product.register_fake
def _(rows: Tensor, seen: Tensor, kept: Tensor | None, weight: Tensor, bias: Tensor | None, a: Tensor, *_: Any) -> Any:
    return rows.new_empty(rows.shape[0], weight.shape[0]), rows.new_empty(rows.shape[0], a.shape[0])


@torch.library.custom_op("xray_vqa::adapted_product_backward", mutates_args=())
def _adapted_product_backward(
    gradient: Tensor,
    inner: Tensor,
    seen: Tensor,
    kept: Tensor | None,
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    scale: float,
    dropout: float,
    wants_rows: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `rows` (empty where nobody wants it), `a` and `b`."""
    inner_gradient, a_gradient, b_gradient = _adapter_gradients(gradient, inner, seen, a, b, scale)
    if not wants_rows:
        return gradient.new_empty(0), a_gradient, b_gradient
    return _add_adapter(gradient @ weight, inner_gradient, kept, a, dropout), a_gradient, b_gradient


def _adapter_gradients(
    gradient: Tensor, inner: Tensor, seen: Tensor, a: Tensor, b: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `inner`, `a` and `b`."""
    inner_gradient = (gradient @ b.to(gradient.dtype)).mul_(scale)
    return inner_gradient, (inner_gradient.T @ seen).to(a.dtype), (gradient.T @ inner).to(b.dtype).mul_(scale)


def _add_adapter(result: Tensor, inner_gradient: Tensor, kept: Tensor | None, a: Tensor, dropout: float) -> Tensor:
    """Add to the base's gradient of the rows what comes through the adapter, in place."""
    narrow_a = a.to(result.dtype)
    if kept is None:
        return result.addmm_(inner_gradient, narrow_a)
    return result.addcmul_(inner_gradient @ narrow_a, kept.to(result.dtype), value=1 / (1 - dropout))


@_adapted_product_backward.register_fake
def _(
    gradient: Tensor, inner: Tensor, seen: Tensor, kept: Any, weight: Tensor, a: Tensor, b: Tensor, *rest: Any
) -> Any:
    rows = torch.empty_like(seen) if rest[-1] else gradient.new_empty(0)
    return rows, torch.empty_like(a), torch.empty_like(b)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, seen, kept, weight, _, a, b, ctx.scale, ctx.dropout = inputs
    ctx.save_for_backward(output[1], seen, kept, weight, a, b)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    wants_rows = ctx.needs_input_grad[0]
    rows, a, b = _adapted_product_backward(
        gradient.contiguous(), *ctx.saved_tensors, ctx.scale, ctx.dropout, wants_rows
    )
    return rows if wants_rows else None, None, None, None, None, a, b, None, None


_adapted_product.register_autograd(_differentiate, setup_context=_keep)


@torch.library.custom_op("xray_vqa::adapted_fp8_product", mutates_args=())
def _adapted_fp8_product(
    rows: Tensor,
    narrow: Tensor,
    narrow_scales: Tensor,
    seen: Tensor,
    kept: Tensor | None,
    weight: Tensor,
    weight_scales: Tensor,
    columns: Tensor,
    column_scales: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Return what `_adapted_product` does; the base's product is made of `narrow`, which is `rows` quantised.

    Args:
        columns, column_scales: (in, out) e4m3 and (in, 1), the weight as the backward product wants it.
    """
    inner = seen @ a.to(rows.dtype).T
    result = scaled_product(narrow, narrow_scales, weight, weight_scales, bias, rows.dtype)
    return result.addmm_(inner, b.to(rows.dtype).T, alpha=scale), inner


@_adapted_fp8_product.register_fake
def _(rows: Tensor, narrow: Tensor, narrow_scales: Tensor, seen: Tensor, kept: Any, weight: Tensor, *rest: Any) -> Any:
    return rows.new_empty(rows.shape[0], weight.shape[0]), rows.new_empty(rows.shape[0], rest[4].shape[0])


@torch.library.custom_op("xray_vqa::adapted_fp8_product_backward", mutates_args=())
def _adapted_fp8_product_backward(
    gradient: Tensor,
    narrow: Tensor,
    narrow_scales: Tensor,
    inner: Tensor,
    seen: Tensor,
    kept: Tensor | None,
    columns: Tensor,
    column_scales: Tensor,
    a: Tensor,
    b: Tensor,
    scale: float,
    dropout: float,
    wants_rows: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `rows` (empty where nobody wants it), `a` and `b`; `narrow` is `gradient` quantised."""
    inner_gradient, a_gradient, b_gradient = _adapter_gradients(gradient, inner, seen, a, b, scale)
    if not wants_rows:
        return gradient.new_empty(0), a_gradient, b_gradient
    result = scaled_product(narrow, narrow_scales, columns, column_scales, None, gradient.dtype)
    return _add_adapter(result, inner_gradient, kept, a, dropout), a_gradient, b_gradient


@_adapted_fp8_product_backward.register_fake
def _(gradient: Tensor, narrow: Any, narrow_scales: Any, inner: Any, seen: Tensor, *rest: Any) -> Any:
    rows = torch.empty_like(seen) if rest[-1] else gradient.new_empty(0)
    return rows, torch.empty_like(rest[3]), torch.empty_like(rest[4])


def _keep_fp8(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, _, seen, kept, _, _, columns, column_scales, _, a, b, ctx.scale, ctx.dropout = inputs
    ctx.save_for_backward(output[1], seen, kept, columns, column_scales, a, b)


def _differentiate_fp8(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    wants_rows = ctx.needs_input_grad[0]
    gradient = gradient.contiguous()
    # Outside of the operation, so that a compiler joins it with what made the gradient.
    narrow, scales = quantise_rows(gradient)
    rows, a, b = _adapted_fp8_product_backward(
        gradient, narrow, scales, *ctx.saved_tensors, ctx.scale, ctx.dropout, wants_rows
    )
    return rows if wants_rows else None, *[None] * 9, a, b, None, None


_adapted_fp8_product.register_autograd(_differentiate_fp8, setup_context=_keep_fp8)


class FusedLoraLinear(LoraLinear):
    """PEFT's adapted linear layer; where something else than one plain adapter is active, PEFT's own way is taken."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return (..., out) in the format of autocast, without it in that of the base."""
        base: Any = self.get_base_layer()
        is_narrow = isinstance(base, Fp8Linear)
        plain = not (self.disable_adapters or self.merged or args or kwargs or self.lora_variant)
        frozen = is_narrow or not base.weight.requires_grad
        if not plain or len(self.active_adapters) != 1 or not frozen or not torch.is_grad_enabled():
            return super().forward(x, *args, **kwargs)
        name, device = self.active_adapters[0], x.device.type
        base_dtype = base.dtype if is_narrow else base.weight.dtype
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base_dtype
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        bias = base.bias.to(dtype) if base.bias is not None else None
        dropout = getattr(self.lora_dropout[name], "p", 0.0) if self.training else 0.0
        seen, kept = torch.native_dropout(rows.detach(), dropout, train=True) if dropout else (rows.detach(), None)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        adapter = (bias, a, b, self.scaling[name], dropout)
        if is_narrow:
            weights = (base.rows, base.row_scales, base.columns, base.column_scales)
            result, _ = _adapted_fp8_product(rows, *quantise_rows(rows.detach()), seen, kept, *weights, *adapter)
        else:
            result, _ = _adapted_product(rows, seen, kept, base.weight.to(dtype), *adapter)
        return result.view(*x.shape[:-1], result.shape[-1])


def fuse_adapters(model: torch.nn.Module) -> int:
    """Switch a PEFT model's plain adapters of linear layers to `FusedLoraLinear`. Returns how many there are."""
    count = 0
    for module in model.modules():
        if type(module) is LoraLinear and type(module.get_base_layer()) is torch.nn.Linear:
            module.__class__ = FusedLoraLinear
            count += 1
    return count


def use_fp8_products(model: torch.nn.Module) -> int:
    """Let the frozen bases of all fused adapters multiply in 8-bit floats. Returns how many there are."""
    count = 0
    for module in model.modules():
        if type(module) is FusedLoraLinear:
            base: Any = module.base_layer
            module.base_layer = Fp8Linear(base)
            count += 1
    return count
