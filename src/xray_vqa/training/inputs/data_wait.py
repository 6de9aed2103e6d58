"""Which share of its time a run waits for its next batch, so that a starving GPU is seen and not guessed at."""

import time
from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class DataWait(TrainerCallback):
    """Counts the seconds in which the training loop waits for data; evaluations and checkpoints are not counted."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._waited_s = self._away_s = 0.0

    def watch(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Return the same batches, each fetched under the clock."""
        return _Watched(self, batches)

    def fetch(self, batches: Iterator[Any]) -> Any:
        """Return the next batch."""
        began = time.perf_counter()
        try:
            return next(batches)
        finally:
            self._waited_s += time.perf_counter() - began

    def take_share(self) -> float:
        """Return the share of time since the last call, or the begin, that went by waiting; 0 to 1."""
        now = time.perf_counter()
        share = self._waited_s / max(now - self._began - self._away_s, 1e-9)
        self._began = self._last = now
        self._waited_s = self._away_s = 0.0
        return share

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self.take_share()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._last = time.perf_counter()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._leave_out()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._leave_out()

    def _leave_out(self) -> None:
        now = time.perf_counter()
        self._away_s += now - self._last
        self._last = now


class _Watched:
    def __init__(self, clock: DataWait, batches: Iterator[Any]) -> None:
        self._clock, self._batches = clock, batches

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._clock.fetch(self._batches)
