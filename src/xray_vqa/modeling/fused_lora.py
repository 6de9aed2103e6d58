"""Low-rank adapters with as few passes over memory as their products need.

PEFT computes `W x + s B (A drop(x))` as separate products, a scaling and a sum, and widens the input to the adapter's
fp32 before. Here the matrix multiplication itself adds the adapter's part, in place, forward and backward, in the
number format of the base. Numbers, names and files of the adapter stay PEFT's.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor


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
    inner_gradient = (gradient @ b.to(gradient.dtype)).mul_(scale)
    a_gradient = (inner_gradient.T @ seen).to(a.dtype)
    b_gradient = (gradient.T @ inner).to(b.dtype).mul_(scale)
    if not wants_rows:
        return gradient.new_empty(0), a_gradient, b_gradient
    result, narrow_a = gradient @ weight, a.to(gradient.dtype)
    if kept is None:
        result.addmm_(inner_gradient, narrow_a)
    else:
        result.addcmul_(inner_gradient @ narrow_a, kept.to(result.dtype), value=1 / (1 - dropout))
    return result, a_gradient, b_gradient


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


class FusedLoraLinear(LoraLinear):
    """PEFT's adapted linear layer; where something else than one plain adapter is active, PEFT's own way is taken."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return (..., out) in the format of autocast, without it in that of the base."""
        base: Any = self.get_base_layer()
        plain = not (self.disable_adapters or self.merged or args or kwargs or self.lora_variant)
        if not plain or len(self.active_adapters) != 1 or base.weight.requires_grad or not torch.is_grad_enabled():
            return super().forward(x, *args, **kwargs)
        name, device = self.active_adapters[0], x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        weight, bias = base.weight.to(dtype), base.bias.to(dtype) if base.bias is not None else None
        dropout = getattr(self.lora_dropout[name], "p", 0.0) if self.training else 0.0
        seen, kept = torch.native_dropout(rows.detach(), dropout, train=True) if dropout else (rows.detach(), None)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        result, _ = _adapted_product(rows, seen, kept, weight, bias, a, b, self.scaling[name], dropout)
        return result.view(*x.shape[:-1], -1)


def fuse_adapters(model: torch.nn.Module) -> int:
    """Switch a PEFT model's plain adapters of linear layers to `FusedLoraLinear`. Returns how many there are."""
    count = 0
    for module in model.modules():
        if type(module) is LoraLinear and type(module.get_base_layer()) is torch.nn.Linear:
            module.__class__ = FusedLoraLinear
            count += 1
    return count
