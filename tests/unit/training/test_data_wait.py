"""Waiting for data is told as a share of training time, and of nothing else."""

from xray_vqa.training.inputs import data_wait
from xray_vqa.training.inputs.data_wait import DataWait


class Clock:
    """Stands where it is put."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_evaluations_and_checkpoints_are_no_training_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(data_wait, "time", clock)
    wait = DataWait()

    def slow_batches():
        while True:
            clock.now += 1
            yield "batch"

    def told(event: str) -> None:
        getattr(wait, event)(None, None, None)  # type: ignore[arg-type]

    told("on_train_begin")
    batches = wait.watch(slow_batches())
    for _ in range(2):
        assert next(batches) == "batch"
        clock.now += 4
        told("on_step_end")
    clock.now += 30
    told("on_evaluate")
    clock.now += 60
    told("on_save")
    assert wait.take_share() == 2 / 10
    clock.now += 5
    told("on_step_end")
    assert wait.take_share() == 0
