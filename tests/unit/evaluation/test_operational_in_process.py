"""The measurement in process against a scripted engine whose delays go by a fake clock: figures are as scripted."""

from pathlib import Path

import pytest
from PIL import Image

from xray_vqa.config.loading import load_policy
from xray_vqa.errors import DatasetError, ModelUnavailable
from xray_vqa.evaluation.operational.in_process import BATCH, benchmark
from xray_vqa.inference.engines import scripted
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.inference.inspector import Inspector

KNIFE = {"probabilities": {"Knife": 0.9}, "boxes": {"Knife": [[0, 0, 0.5, 0.5]]}}


class FakeTime:
    """A clock that moves when the engine sleeps, and by nothing else."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def perf_counter(self) -> float:
        return self.now_s


class BatchedEngine(ScriptedEngine):
    """Takes 40 ms a call and 10 ms a scan more, up to a batch that its memory does not hold."""

    def __init__(self, fake: FakeTime, *, most: int = 1000, interrupt_after: int | None = None) -> None:
        super().__init__([ScriptedReading()])
        self.fake, self.most, self.calls_left = fake, most, interrupt_after

    def read(self, images, categories, place_from):
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise KeyboardInterrupt
        if len(images) > self.most:
            self.fake.sleep(0.001)
            raise MemoryError("out of memory")
        self.fake.sleep(0.04 + 0.01 * len(images))
        return super().read(images, categories, place_from)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(scripted, "time", fake)
    return fake


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.png" for number in range(3)]
    for path in found:
        Image.new("RGB", (64, 48), "white").save(path)
    return found


def started(engine: ScriptedEngine) -> Inspector:
    inspector = Inspector(engine, load_policy())
    inspector.start()
    return inspector


def test_percentiles_and_kinds_come_out_as_scripted(fake, paths):
    warm = [ScriptedReading(delay_s=0.1)] * 6
    timed = [ScriptedReading(delay_s=0.1)] * 90 + [ScriptedReading(**KNIFE, delay_s=0.3)] * 10
    inspector = started(ScriptedEngine([*warm, *timed, ScriptedReading(delay_s=0.1)]))
    results = benchmark(inspector, paths, 100, clock=fake.clock).results
    assert results.conditions.warm_up_settled
    assert results.conditions.num_warm_up == 6
    assert results.latency_p50_ms == pytest.approx(100)
    assert results.latency_p95_ms == pytest.approx(300)
    assert results.throughput_batch1 == pytest.approx(100 / 12, rel=1e-3)
    assert results.latency_by_kind["clean"].n == 90
    assert results.latency_by_kind["with_findings"].p50_ms.value == pytest.approx(300)
    assert results.throughput_batch8 == pytest.approx(10, rel=1e-3)  # scripted scans take turns
    assert results.latency.p50_ms.low == results.latency.p50_ms.high == pytest.approx(100)


def test_warm_up_goes_on_until_times_settle_and_says_where_they_do_not(fake, paths):
    falling = [ScriptedReading(delay_s=delay) for delay in (2.0, 1.0, 1.0, 0.5, 0.4, 0.4)]
    results = benchmark(
        started(ScriptedEngine([*falling, ScriptedReading(delay_s=0.1)])), paths, 5, clock=fake.clock
    ).results
    assert results.conditions.num_warm_up == 12
    assert results.latency_p95_ms == pytest.approx(100)
    restless = [ScriptedReading(delay_s=0.1 * 1.2**k) for k in range(30)]
    results = benchmark(
        started(ScriptedEngine([*restless, ScriptedReading(delay_s=0.1)])), paths, 5, clock=fake.clock
    ).results
    assert (results.conditions.num_warm_up, results.conditions.warm_up_settled) == (30, False)


def test_the_sweep_ends_where_nothing_is_gained_and_names_the_knee(fake, paths):
    results = benchmark(started(BatchedEngine(fake)), paths, 20, max_batch=1024, clock=fake.clock).results
    rates = {point.batch: point.throughput.value for point in results.sweep.points}
    assert rates[1] == pytest.approx(20)
    assert rates[8] == results.throughput_batch8 == pytest.approx(8 / 0.12, rel=1e-3)
    # 100 n / (n + 4): from 64 to 128 it grows by 3.03 %, to 256 by 1.5 %, where it is 98.5.
    assert max(rates) == 256
    assert results.sweep.ended.startswith("saturated: batch 256")
    assert results.sweep.knee == 128


def test_a_batch_that_does_not_fit_ends_the_sweep_and_is_no_success(fake, paths):
    results = benchmark(started(BatchedEngine(fake, most=8)), paths, 20, max_batch=64, clock=fake.clock).results
    last = results.sweep.points[-1]
    assert last.batch == 16
    assert last.degraded_by_fault.keys() == {"engine_error"}
    assert last.throughput.value == 0
    assert last.call.n == 0
    assert "failed at batch 16" in results.sweep.ended
    assert results.sweep.knee == BATCH
    assert results.conditions.num_degraded == last.degraded_by_fault["engine_error"]


def test_fast_failures_do_not_make_the_latency_better(fake, paths):
    good, bad = ScriptedReading(delay_s=0.1), ScriptedReading(error=RuntimeError("broken kernel"))
    results = benchmark(
        started(ScriptedEngine([*[good] * 6, *[good, bad] * 10, good])), paths, 20, clock=fake.clock
    ).results
    assert results.latency.n == 10
    assert results.latency_p50_ms == pytest.approx(100)
    assert results.throughput_batch1 == pytest.approx(10)
    assert results.conditions.degraded_by_fault == {"engine_error": 10}


def test_what_was_measured_before_an_interruption_is_kept(fake, paths):
    results = benchmark(started(BatchedEngine(fake, interrupt_after=6 + 15)), paths, 20, clock=fake.clock).results
    assert results.interrupted
    assert results.conditions.num_timed_batch1 == 15
    assert results.throughput_batch8 is None
    assert results.sweep.ended == "interrupted"
    with pytest.raises(KeyboardInterrupt):
        benchmark(started(BatchedEngine(fake, interrupt_after=3)), paths, 20, clock=fake.clock)


def test_nothing_to_measure_is_refused(fake, paths):
    with pytest.raises(DatasetError, match="no scans"):
        benchmark(started(ScriptedEngine([ScriptedReading()])), [], 5)
    broken = started(ScriptedEngine([ScriptedReading(error=RuntimeError("broken kernel"))]))
    with pytest.raises(ModelUnavailable, match="no inspection succeeded"):
        benchmark(broken, paths, 5, clock=fake.clock)
