"""The decoder's last layer where only some places are asked for.

Behind its attention nothing mixes places any more, so its MLP, half of the layer's work and more, is needed only where
a token is predicted: in training at the answers, a tenth of a tree.
"""

from typing import Any

import torch
from torch import Tensor


def use_last_layer_in_part(model: torch.nn.Module) -> None:
    """Switch the last layer of a model's decoder to `_forward`, which takes `kept`; without it nothing changes."""
    layers: Any = model.get_submodule("model.language_model.layers")
    last = layers[-1]
    kind = type(last)
    last.__class__ = type(f"{kind.__name__}InPart", (kind,), {"forward": _forward})


def _forward(self: Any, hidden_states: Tensor, *, kept: Tensor | None = None, **more: Any) -> Tensor:
    """Return the layer's output at the places `kept`, (n,) int64, as (1, n, hidden)."""
    attended, _ = self.self_attn(self.input_layernorm(hidden_states), **more)
    hidden_states = hidden_states + attended
    if kept is not None:
        hidden_states = hidden_states.index_select(1, kept)
    return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
