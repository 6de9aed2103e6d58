"""How much memory a pass forward and backward takes, and how many images therefore go through at once.

An update is counted in images and stays what the configuration says. How many of them share a pass is up to memory.
The prediction counts what autograd keeps of a layer; where there is a GPU, a probe with the longest images corrects it
before the first update.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from xray_vqa.training.inputs.demand import Demand

GIB = 2**30
RESERVE_SHARE, RESERVE_BYTES = 0.04, GIB // 2
"""Left free on a GPU: for the pieces between allocations, and for what libraries take beside torch."""
WITHOUT_FUSING = 1.45
"""PEFT's own adapters to fused ones, on the careful side: in benchmarks/results/train_throughput.json an image takes
7.1 GiB beside the weights with the former (not compiled) and 5.8 with the latter (compiled)."""
ADAM_STATES = 2
"""Numbers a trainable weight, each in its own format."""

Image = TypeVar("Image")


@dataclass(frozen=True, slots=True)
class PassCost:
    """Bytes of activations at the peak of a pass forward and backward."""

    token: float
    """Kept of the decoder."""
    patch: float
    """Kept of the vision tower; 0 where it is frozen, since then nothing of it is kept."""
    answer: float
    """Output layer and loss, at the end of the way forward."""
    workspace: float
    """A token, on the way back through a layer, when those of the output layer are gone."""

    def bytes_of(self, demand: Demand) -> float:
        """Return the bytes that a pass takes."""
        passing = max(self.answer * demand.answers, self.workspace * demand.tokens)
        return self.token * demand.tokens + self.patch * demand.patches + passing

    def scaled(self, factor: float) -> "PassCost":
        """Return the cost with all of its numbers multiplied."""
        return PassCost(*(factor * value for value in (self.token, self.patch, self.answer, self.workspace)))


@dataclass(frozen=True, slots=True)
class PassSettings:
    """What of a run changes the bytes that autograd keeps."""

    dropout: float
    """Of the adapter; 0 without one."""
    trains_vision: bool
    compiled: bool
    fused: bool
    """Whether adapters are `FusedLoraLinear`, or there are none."""


def pass_cost(model_config: Any, element_bytes: int, settings: PassSettings, *, checkpointing: bool) -> PassCost:
    """Return what a pass takes by counting what autograd keeps of each layer.

    Args:
        model_config: The model's transformers configuration.
        element_bytes: Of an activation.
        settings: Of the run.
        checkpointing: Whether layers keep their input alone and are computed again, one by one, on the way back.
    """
    text, vision = model_config.text_config, model_config.vision_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layer, workspace = _layer_bytes(
        text.hidden_size, text.num_key_value_heads * head_dim, text.intermediate_size, element_bytes, settings
    )
    block, block_workspace = _layer_bytes(
        vision.hidden_size, vision.hidden_size, vision.intermediate_size, element_bytes, settings
    )
    token, patch = layer * text.num_hidden_layers, block * vision.depth
    if checkpointing:
        token = text.hidden_size * element_bytes * text.num_hidden_layers
        patch = vision.hidden_size * element_bytes * vision.depth
        workspace, patch = workspace + layer, patch + block + block_workspace
    return PassCost(
        token,
        patch if settings.trains_vision else 0.0,
        # Logits, the same in fp32, their log-softmax, and the gradients of the last and the first.
        text.vocab_size * (2 * element_bytes + 3 * 4),
        workspace,
    )


def _layer_bytes(hidden: int, keys: int, inner: int, element: int, settings: PassSettings) -> tuple[float, float]:
    """Return the bytes a token that one layer keeps, and those that its way back needs for a moment.

    With dropout each adapted product keeps its own input and a byte a number that says what was dropped; without,
    products of one input share it.
    """
    own = element + 1 if settings.dropout else 0
    norms = 2 * hidden * (element if settings.compiled else 4)
    projections = 3 * own * hidden if own else element * hidden
    attention = element * (hidden + 2 * keys + hidden) + own * hidden
    gates = 2 * own * hidden if own else element * hidden
    activation = element * inner * (2 if settings.compiled else 3)
    down = (own or element) * inner
    kept = norms + projections + attention + gates + activation + down
    return kept * (1 if settings.fused else WITHOUT_FUSING), 6 * element * inner


def state_bytes(model: torch.nn.Module, *, num_ranks: int = 1) -> int:
    """Return the bytes of weights, gradients and optimizer, and of the buffers in which several ranks join gradients.

    Args:
        model: With its adapter; on any device, `meta` too.
        num_ranks: Processes that train together.
    """
    copies = 1 + 1 + ADAM_STATES + (num_ranks > 1)
    return sum(w.numel() * w.element_size() * (copies if w.requires_grad else 1) for w in model.parameters())


def usable_bytes(capacity: float) -> float:
    """Return what a plan may use of a device's memory."""
    return capacity * (1 - RESERVE_SHARE) - RESERVE_BYTES


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run is predicted to take on a machine."""

    state: float
    """Bytes of weights, gradients and optimizer."""
    capacity: float
    """Bytes of the device; infinite where nobody limits them."""
    costs: tuple[PassCost, ...]
    """Of a pass: first as the run begins, then, where the run may still turn to it, with checkpointing."""
    checkpointing: bool
    """How the run begins."""
    longest: tuple[Demand, ...]
    """Of the images of the largest possible update of one process, as far as they may share a pass."""

    @property
    def limit(self) -> float:
        """Bytes that the activations of a pass may take."""
        return usable_bytes(self.capacity) - self.state

    @property
    def fits(self) -> bool:
        """Whether the longest image can be trained on at all."""
        return self.costs[0].bytes_of(self.longest[0]) <= self.limit

    @property
    def parts(self) -> list[Sequence[Demand]]:
        """The parts that they go through in."""
        return parts_of(self.longest, self._cost_of, self.limit)

    @property
    def peak(self) -> float:
        """Bytes at the peak of an update with them."""
        return self.state + max(map(self._cost_of, self.parts))

    def _cost_of(self, images: Sequence[Demand]) -> float:
        return self.costs[0].bytes_of(Demand.total(images))

    def describe(self) -> str:
        """Return the prediction in words."""
        number = len(self.longest)
        how = f"the {number} longest images ({Demand.total(self.longest).tokens:,} tokens) in "
        how += f"{len(self.parts)} passes" if len(self.parts) > 1 else "one pass"
        text = (
            f"predicted peak {self.peak / GIB:.1f} GiB{_of(self.capacity)}, {self.state / GIB:.1f} of them weights, "
            f"gradients and optimizer; {how}{', with gradient checkpointing' if self.checkpointing else ''}"
        )
        return text if self.fits else f"{text}; DOES NOT FIT: {advice(self.checkpointing)}"


def _of(capacity: float) -> str:
    return f" of {capacity / GIB:.1f}" if math.isfinite(capacity) else ""


def plan_memory(
    wanted: bool | None,
    state: float,
    capacity: float,
    costs: tuple[PassCost, PassCost],
    longest: Sequence[Demand],
    seconds: Callable[[MemoryPlan], float],
) -> MemoryPlan:
    """Return the plan of a run.

    Args:
        wanted: Whether to use gradient checkpointing; None for: only where it is needed, or faster than many parts.
        state: Bytes of weights, gradients and optimizer.
        capacity: Bytes of the device.
        costs: Of a pass without checkpointing, and with it.
        longest: See `MemoryPlan`; the largest first.
        seconds: Returns what these images take by a plan.
    """
    plain = MemoryPlan(state, capacity, costs, checkpointing=False, longest=tuple(longest))
    again = replace(plain, costs=costs[1:], checkpointing=True)
    if wanted is None:
        return plain if plain.fits and seconds(plain) <= seconds(again) else again
    return again if wanted else replace(plain, costs=costs[:1])


def parts_of(
    images: Sequence[Image], cost_of: Callable[[Sequence[Image]], float], limit: float
) -> list[Sequence[Image]]:
    """Return images in parts, in order: halved, and halved again, until each part costs no more than the limit.

    A part of one image may cost more.
    """
    if len(images) <= 1 or cost_of(images) <= limit:
        return [images]
    middle = _middle(images, cost_of)
    return [*parts_of(images[:middle], cost_of, limit), *parts_of(images[middle:], cost_of, limit)]


def _middle(images: Sequence[Image], cost_of: Callable[[Sequence[Image]], float]) -> int:
    """Return where to cut so that the costlier side costs least."""
    return min(range(1, len(images)), key=lambda cut: max(cost_of(images[:cut]), cost_of(images[cut:])))


def advice(checkpointing: bool) -> str:
    """Return what a user can do where one image does not fit."""
    return (
        "" if checkpointing else "set gradient_checkpointing: true, "
    ) + "lower image_resolution (or image_max_pixels) or max_seq_length, or use a smaller model"
