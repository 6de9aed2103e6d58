"""Compiles what a model repeats: the layers of its decoder and the blocks of its vision tower.

Each kind is compiled once and serves all its layers at any length. What lies between them differs from batch to batch
and is not compiled.
"""

from itertools import chain
from typing import Any

import torch

from xray_vqa.modeling.registry import spec_of


def compile_layers(model: torch.nn.Module) -> None:
    """Let torch compile the layers at their first call, in place; the names of their weights stay."""
    config: Any = model.config
    spec = spec_of(config.model_type)
    decoder, vision = (
        model.get_submodule(f"{spec.language_model}.layers"),
        model.get_submodule(f"{spec.vision_tower}.blocks"),
    )
    for layer in chain(decoder.children(), vision.children()):
        layer.compile(dynamic=True)
