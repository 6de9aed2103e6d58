"""The vision tower's patch embedding as one matrix product.

transformers writes it as a 3-D convolution whose stride is its kernel, which cuDNN serves with its slowest kernels: a
tenth of a training step of nano on an H100. The values are the same but for the order of the sums.
"""

from typing import Any

import torch
import torch.nn.functional as F


class PatchProduct(torch.nn.Conv3d):
    """A convolution over inputs that are exactly as large as its kernel. Still a Conv3d to PEFT and to checkpoints."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (Conv3d's own name)
        """Return (patches, width, 1, 1, 1) of (patches, channels, temporal, patch, patch)."""
        return F.linear(input.flatten(1), self.weight.flatten(1))[..., None, None, None]


def use_product_patches(model: torch.nn.Module) -> None:
    """Let the model's patch embedding multiply. Its weights keep their name and shape."""
    embedding: Any = model.get_submodule("model.visual.patch_embed")
    convolution = embedding.proj
    with torch.device("meta"):
        product = PatchProduct(
            convolution.in_channels, convolution.out_channels, convolution.kernel_size, convolution.stride, bias=False
        )
    product.weight = convolution.weight
    embedding.proj = product
