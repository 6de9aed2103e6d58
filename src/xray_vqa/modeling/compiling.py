"""Compiles what a model repeats: the layers of its decoder and the blocks of its vision tower.

Each kind is compiled once and serves all its layers at any length. What lies between them differs from batch to batch
and is not compiled.
"""

from itertools import chain

import torch


def compile_layers(model: torch.nn.Module) -> None:
    """Let torch compile the layers at their first call, in place; the names of their weights stay."""
    decoder, vision = model.get_submodule("model.language_model.layers"), model.get_submodule("model.visual.blocks")
    for layer in chain(decoder.children(), vision.children()):
        layer.compile(dynamic=True)
