"""Ends a run with a checkpoint when it is told to stop, by a scheduler that wants its machines back or by Ctrl-C.

transformers' own `enable_jit_checkpoint` does not serve: each process decides for itself, so that ranks that hear of
the signal at different updates wait for each other for ever, and the command ends as if it were done.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xray_vqa.errors import Incomplete
from xray_vqa.training.ranks import Ranks


class StopWithCheckpoint(TrainerCallback):
    """Finishes the update, writes a checkpoint and ends the run, once any rank gets SIGTERM or SIGINT.

    The run ends with Incomplete after SIGTERM and with KeyboardInterrupt after SIGINT, a second of which does not wait.
    The handlers are inherited by the Trainer's data workers, which a signal to the whole group must not end before the
    checkpoint is there.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._received = 0
        self._agreed = 0
        self._pid = os.getpid()
        self._before: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._agree(state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._agree(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if not self._agreed:
            return
        self._restore()
        self._ranks.leave()
        if self._agreed == signal.SIGINT:
            raise KeyboardInterrupt
        raise Incomplete(
            f"stopped by a signal after update {state.global_step} of {state.max_steps}; the same command goes on from "
            f"{args.output_dir}/checkpoint-{state.global_step}"
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return
        if number == signal.SIGINT and self._received:
            raise KeyboardInterrupt
        self._received = number
        if self._ranks.is_first:  # by no logger, which may be in the middle of a line
            os.write(2, b"\nstopping after this update, with a checkpoint; Ctrl-C again does not wait for it\n")

    def _agree(self, state: TrainerState, control: TrainerControl) -> None:
        """Let all ranks end after the same update. The message goes between the hosts' CPUs; no GPU waits for it."""
        received = int(self._ranks.largest(self._received))
        if received and state.global_step < state.max_steps:
            self._agreed = received
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # it may take longer than the machines are still ours

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
