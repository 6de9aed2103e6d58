"""Trained weights averaged over updates (EMA): what is evaluated, kept and written in place of the last ones.

A checkpoint holds the averages where its weights are looked for, so that it answers as it was evaluated, and beside
them the weights that training goes on from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WEIGHTS_NAME = "not_averaged.safetensors"


def move_averages(averages: Sequence[Tensor], weights: Sequence[Tensor], decay: float, step: int) -> None:
    """Move averages towards weights after an update, in place.

    Args:
        averages: Of the same shapes, formats and devices as `weights`.
        weights: After the update.
        decay: What an average keeps of itself; early steps keep less, so that the start is soon forgotten.
        step: How many updates there were before.
    """
    kept = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(averages), list(weights), 1 - kept)  # pyright: ignore[reportPrivateImportUsage]


class WeightAverages(TrainerCallback):
    """The averages of a model's trained weights, kept up to date as a callback of its training."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._averages: dict[str, Tensor] = {}
        self._decay = decay
        self.restart()

    def restart(self) -> None:
        """Let the averages begin at the weights as they are."""
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Have the averages in the model for as long as the context lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """Swap weights and averages without moving a number: neither fits into memory a third time."""
        for name, weight in self._weights.items():
            weight.data, self._averages[name] = self._averages[name], weight.data

    def save(self, checkpoint: Path) -> None:
        """Write the weights that training goes on from; call it while they are in the model."""
        save_file({name: w.detach().contiguous() for name, w in self._weights.items()}, checkpoint / WEIGHTS_NAME)

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint whose averages have just been loaded into the model.

        One that was written without averages lets them begin at its weights.
        """
        self.restart()
        if (checkpoint / WEIGHTS_NAME).is_file():
            found = load_file(checkpoint / WEIGHTS_NAME)
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(found[name])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Follow an update."""
        weights = [weight.data for weight in self._weights.values()]
        move_averages(list(self._averages.values()), weights, self._decay, state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Leave the averages in the model."""
        self._exchange()
