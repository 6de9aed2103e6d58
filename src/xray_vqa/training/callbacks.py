"""What a run tells while it goes: `train.log` for `tail -f`, and one line of progress with the time that is left."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class LogFile(TrainerCallback):
    """Writes everything that is logged into a file, and each step's figures as a line."""

    def __init__(self, path: Path) -> None:
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._logger = logging.getLogger("xray_vqa")
        self._logger.addHandler(handler)
        self._figures = logging.getLogger("xray_vqa.figures")
        self._figures.propagate = False
        self._figures.setLevel(logging.INFO)
        self._figures.addHandler(handler)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if state.is_world_process_zero:
            figures = {
                key: round(value, 6) if isinstance(value, float) else value
                for key, value in (given["logs"] or {}).items()
            }
            self._figures.info("step %d/%d %s", state.global_step, state.max_steps, json.dumps(figures))


class ProgressLine(TrainerCallback):
    """A progress bar over updates with the last loss beside it."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="train", unit="update", file=sys.stderr
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        logs = given.get("logs") or {}
        shown = {key: f"{logs[key]:.4f}" for key in ("loss", "eval_loss", "eval_item_f1") if key in logs}
        if self._bar is not None and shown:
            self._bar.set_postfix(shown)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
