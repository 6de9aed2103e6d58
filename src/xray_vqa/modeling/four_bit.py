"""A decoder's frozen weights in 4 bit, for adapters on cards of 12 to 24 GiB (QLoRA)."""

from typing import Any

import torch

from xray_vqa.modeling.registry import ModelSpec


def use_four_bit_decoder(model: Any, spec: ModelSpec, dtype: torch.dtype) -> None:
    """Replace the linear layers of a model's decoder by bitsandbytes' NF4 ones, in place.

    They take their 4-bit form, with quantised scales, when the model is next moved to its device. Vision tower, merger
    and output layer stay as they are: of all parts they lose most.

    Args:
        model: With plain weights, on the CPU.
        spec: Says where the decoder is, and which of its layers lose too much.
        dtype: That products are computed in.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit  # pyright: ignore[reportMissingImports]

    decoder: torch.nn.Module = model.get_submodule(spec.language_model)
    for parent in list(decoder.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is torch.nn.Linear and name not in spec.unquantized:
                short: Any = Linear4bit(
                    linear.in_features, linear.out_features, bias=linear.bias is not None, compute_dtype=dtype,
                    quant_type="nf4", device="meta",
                )  # fmt: skip
                short.weight = Params4bit(linear.weight.detach(), requires_grad=False, quant_type="nf4", module=short)
                short.bias = linear.bias
                # On CPUs with AVX-512 the first evaluation would repack the weights, after which 0.50 cannot train.
                short.support_avx512bf16_for_cpu = False
                setattr(parent, name, short)
    model.is_loaded_in_4bit = True  # PEFT asks for it
