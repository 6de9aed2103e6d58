"""How fast a model inspects scans in this process: one at a time, eight at a time, and more until nothing is gained."""

import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.images import read_image
from xray_vqa.core.inspection import Inspection, Scan
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError, ModelUnavailable
from xray_vqa.evaluation.operational.conditions import (
    Machine,
    MachineWatch,
    gpu_memory_gb,
    gpu_name,
    memory_rss_gb,
)
from xray_vqa.evaluation.operational.latency import LatencySummary, rate_per_s, summarise
from xray_vqa.evaluation.results import Estimate
from xray_vqa.inference.engine import EngineInfo
from xray_vqa.inference.inspector import Inspector

logger = logging.getLogger(__name__)

FLAT_KEYS = ("latency_p50_ms", "latency_p95_ms", "throughput_batch1", "throughput_batch8", "gpu_memory_gb")
BATCH = 8
SATURATED_BELOW = 0.03
"""A doubled batch that gains less throughput than this ends the sweep."""
WARM_UP_WINDOW = 3
WARM_UP_AT_MOST = 30
SETTLED_WITHIN = 0.1
"""Warm-up ends when the medians of two windows in a row differ by no more than this share."""

Clock = Callable[[], float]


class Conditions(Strict):
    """What the figures hold for."""

    machine: Machine
    device: str
    gpu: str | None
    dtype: str
    engine: str
    model_name: str
    identity: EngineIdentity
    calibrated: bool
    """Without a calibration other thresholds hold, and other boxes are decoded."""
    num_categories: int
    """Looked for in each scan: what the policy requires."""
    num_scans: int
    """Different ones; they are taken in turn where more are needed."""
    num_timed_batch1: int
    num_timed_batch8: int
    num_warm_up: int
    warm_up_settled: bool
    """False: the times of the warm-up still changed when it was broken off."""
    image_sizes: dict[str, int]
    """How many scans of each width x height."""
    findings_per_scan: float
    """Boxes are decoded for findings alone, so a fuller bag takes longer."""
    num_degraded: int
    """Inspections that did not succeed. They are in no latency, and count as nothing in throughput."""
    degraded_by_fault: dict[str, int]
    stages_p50_ms: dict[str, float]
    """By stage: reading the file, then those that the engine reports."""


class SweepPoint(Strict):
    """One number of scans at once."""

    batch: int
    throughput: Estimate
    """Successful inspections a second."""
    call: LatencySummary
    """Of a whole batch, without those in which an inspection failed: how long each of its scans waits."""
    degraded_by_fault: dict[str, int]
    gpu_memory_gb: float | None
    memory_rss_gb: float
    """The most so far, of both."""


class Sweep(Strict):
    """Throughput by the number of scans at once."""

    points: list[SweepPoint]
    knee: int | None
    """The smallest batch within 3 % of the best throughput: a larger one only makes scans wait."""
    ended: str
    """Why there is no larger batch."""


class OperationalResults(Strict):
    """`results/operational_benchmarks.json`: the guide's keys first."""

    latency_p50_ms: float
    """One scan at a time, from the bytes of the file to the decision."""
    latency_p95_ms: float
    throughput_batch1: float
    """Scans a second, one at a time."""
    throughput_batch8: float | None
    """Scans a second, eight at a time; null where it was interrupted before."""
    gpu_memory_gb: float | None
    """Most that PyTorch reserved on the GPU, in 10^9 bytes; null on a CPU."""
    memory_rss_gb: float
    """Most resident memory of the process, in 10^9 bytes."""
    interrupted: bool
    latency: LatencySummary
    latency_by_kind: dict[str, LatencySummary]
    """`clean` and `with_findings`, by what the model said."""
    sweep: Sweep
    conditions: Conditions


@dataclass(slots=True)
class Timed:
    """Calls of the inspector with what came back, in order."""

    seconds: list[float] = field(default_factory=list[float])
    read_ms: list[float] = field(default_factory=list[float])
    calls: list[list[Inspection]] = field(default_factory=list[list[Inspection]])

    @property
    def inspections(self) -> list[Inspection]:
        return [inspection for call in self.calls for inspection in call]

    def successful_ms(self) -> list[float]:
        """Return the times of the calls in which nothing failed."""
        pairs = zip(self.seconds, self.calls, strict=True)
        return [seconds * 1000 for seconds, call in pairs if not any(i.decision.degraded for i in call)]

    def throughput(self) -> Estimate:
        """Return successful inspections a second."""
        return rate_per_s([sum(not i.decision.degraded for i in call) for call in self.calls], self.seconds)

    def faults(self) -> dict[str, int]:
        """Return how many inspections failed, by fault."""
        degraded = [i for i in self.inspections if i.decision.degraded]
        return dict(Counter(fault for i in degraded for fault in i.engine_faults or ("degraded",)))


@dataclass(frozen=True, slots=True)
class Measured:
    """The results, and the latencies behind them for a plot."""

    results: OperationalResults
    latencies_ms: dict[str, list[float]]
    """By kind of scan."""


class Measurer:
    """Times a started inspector on scans from files, taken in turn.

    Raises:
        DatasetError: There are no scans.
        ModelUnavailable: The inspector is not started.
    """

    def __init__(self, inspector: Inspector, paths: Sequence[Path], clock: Clock = time.perf_counter) -> None:
        if not paths:
            raise DatasetError("no scans to measure on")
        if inspector.info is None:
            raise ModelUnavailable("the model is not loaded")
        self._inspector, self._paths, self._clock = inspector, list(paths), clock
        self.info: EngineInfo = inspector.info

    def run(self, timed: Timed, num_scans: int, batch: int) -> None:
        """Add timed calls with `batch` scans each until `num_scans` or more went through; whole calls alone count."""
        for at in range(0, num_scans, batch):
            started = self._clock()
            scans = [
                Scan(path.stem, read_image(path))
                for path in (self._paths[(at + k) % len(self._paths)] for k in range(batch))
            ]
            read = self._clock()
            inspections = self._inspector.inspect(scans)
            ended = self._clock()
            timed.seconds.append(ended - started)
            timed.read_ms.append((read - started) * 1000)
            timed.calls.append(inspections)

    def warm_up(self) -> tuple[int, bool]:
        """Inspect until times settle, or often enough; return how often and whether they settled."""
        timed = Timed()
        while len(timed.seconds) < WARM_UP_AT_MOST:
            self.run(timed, WARM_UP_WINDOW, 1)
            if len(timed.seconds) >= 2 * WARM_UP_WINDOW:
                earlier = statistics.median(timed.seconds[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW])
                last = statistics.median(timed.seconds[-WARM_UP_WINDOW:])
                if abs(last - earlier) <= SETTLED_WITHIN * earlier:
                    return len(timed.seconds), True
        logger.warning("times had not settled after %d inspections of warm-up", WARM_UP_AT_MOST)
        return len(timed.seconds), False

    def point(self, batch: int, timed: Timed) -> SweepPoint:
        """Return what some timed calls say of a batch."""
        return SweepPoint(
            batch=batch,
            throughput=timed.throughput(),
            call=summarise(timed.successful_ms()),
            degraded_by_fault=timed.faults(),
            gpu_memory_gb=gpu_memory_gb(self.info.device),
            memory_rss_gb=memory_rss_gb(),
        )


def benchmark(
    inspector: Inspector,
    paths: Sequence[Path],
    num_timed: int,
    *,
    max_batch: int = BATCH,
    clock: Clock = time.perf_counter,
) -> Measured:
    """Measure a started inspector on scans from files.

    Interrupted (Ctrl-C) after the first inspection at batch 1, it returns what it has and says so.

    Args:
        inspector: Started.
        paths: Scans, taken in turn.
        num_timed: How many inspections are timed at batch 1, and at least at batch 8.
        max_batch: The sweep ends here at the latest; batch 8 is measured in any case.
        clock: Seconds, to be replaced in tests.

    Raises:
        DatasetError: There are no scans.
        ModelUnavailable: The inspector is not started, or no inspection succeeds.
        KeyboardInterrupt: Before anything was timed.
    """
    watch, measurer = MachineWatch(), Measurer(inspector, paths, clock)
    num_warm_up, settled = measurer.warm_up()
    single, interrupted = Timed(), False
    points: list[SweepPoint] = []
    num_batch8, ended = 0, "interrupted"
    faults: Counter[str] = Counter()
    try:
        measurer.run(single, num_timed, 1)
    except KeyboardInterrupt:
        if not single.calls:
            raise
        interrupted = True
    if all(inspection.decision.degraded for inspection in single.inspections):
        raise ModelUnavailable(f"no inspection succeeded: {single.inspections[0].reasoning}")
    points.append(measurer.point(1, single))
    faults.update(points[-1].degraded_by_fault)
    batch = 2
    try:
        while not interrupted:
            timed = Timed()
            measurer.run(Timed(), batch, batch)  # the first call of a shape allocates, and may compile
            measurer.run(timed, max(_num_scans(num_timed, batch), batch), batch)
            points.append(measurer.point(batch, timed))
            faults.update(points[-1].degraded_by_fault)
            logger.info("batch %d: %s scans a second", batch, points[-1].throughput.value)
            num_batch8 = len(timed.inspections) if batch == BATCH else num_batch8
            if batch >= BATCH and (reason := _why_enough(points, max_batch)):
                ended = reason
                break
            batch *= 2
    except KeyboardInterrupt:
        interrupted = True
    machine = watch.record(single.successful_ms())
    if faults:
        logger.warning("inspections that did not succeed: %s", dict(faults))
    by_batch = {point.batch: point.throughput.value for point in points}
    kinds = _by_kind(single)
    latency, info = summarise(single.successful_ms()), measurer.info
    assert latency.p50_ms.value is not None
    assert latency.p95_ms.value is not None
    results = OperationalResults(
        latency_p50_ms=latency.p50_ms.value,
        latency_p95_ms=latency.p95_ms.value,
        throughput_batch1=by_batch[1] or 0.0,
        throughput_batch8=by_batch.get(BATCH),
        gpu_memory_gb=gpu_memory_gb(info.device),
        memory_rss_gb=memory_rss_gb(),
        interrupted=interrupted,
        latency=latency,
        latency_by_kind={kind: summarise(times) for kind, times in kinds.items()},
        sweep=Sweep(points=points, knee=knee(points), ended="interrupted" if interrupted else ended),
        conditions=Conditions(
            machine=machine,
            device=info.device,
            gpu=gpu_name(info.device),
            dtype=info.identity.dtype,
            engine=info.identity.engine,
            model_name=info.model_name,
            identity=info.identity,
            calibrated=info.is_calibrated,
            num_categories=len(inspector.policy.required_categories),
            num_scans=len(paths),
            num_timed_batch1=len(single.calls),
            num_timed_batch8=num_batch8,
            num_warm_up=num_warm_up,
            warm_up_settled=settled,
            image_sizes=_sizes(paths),
            findings_per_scan=round(sum(len(i.findings) for i in single.inspections) / len(single.calls), 3),
            num_degraded=sum(faults.values()),
            degraded_by_fault=dict(faults),
            stages_p50_ms=_stages(single),
        ),
    )
    return Measured(results, kinds)


def knee(points: Sequence[SweepPoint]) -> int | None:
    """Return the smallest batch within 3 % of the best throughput, None where nothing succeeded."""
    best = max((point.throughput.value or 0.0 for point in points), default=0.0)
    enough = [p.batch for p in points if (p.throughput.value or 0.0) >= best * (1 - SATURATED_BELOW)]
    return min(enough) if best > 0 else None


def _num_scans(num_timed: int, batch: int) -> int:
    """As many scans at batch 8, whose figure is the guide's, as at 1; for the curve five calls or 40 scans do."""
    return num_timed if batch == BATCH else min(num_timed, max(40, 5 * batch))


def _why_enough(points: Sequence[SweepPoint], max_batch: int) -> str | None:
    before, last = points[-2], points[-1]
    if last.degraded_by_fault:
        return (
            f"inspections failed at batch {last.batch} ({last.degraded_by_fault}), as they do where memory runs out; "
            "the log has the error"
        )
    if (last.throughput.value or 0.0) < (before.throughput.value or 0.0) * (1 + SATURATED_BELOW):
        return f"saturated: batch {last.batch} gains less than 3 % over batch {before.batch}"
    if last.batch * 2 > max_batch:
        return f"batch {last.batch} was the largest to be tried"
    return None


def _by_kind(single: Timed) -> dict[str, list[float]]:
    kinds: dict[str, list[float]] = {}
    for seconds, (inspection,) in zip(single.seconds, single.calls, strict=True):
        if not inspection.decision.degraded:
            kind = "with_findings" if inspection.findings else "clean"
            kinds.setdefault(kind, []).append(seconds * 1000)
    return dict(sorted(kinds.items()))


def _sizes(paths: Sequence[Path]) -> dict[str, int]:
    counts = Counter("{}x{}".format(*read_image(path).size) for path in paths)
    return dict(sorted(counts.items()))


def _stages(single: Timed) -> dict[str, float]:
    stages = {"read_file": single.read_ms}
    for inspection in single.inspections:
        for name, time_ms in inspection.timings_ms.items():
            stages.setdefault(name, []).append(time_ms)
    return {name: round(statistics.median(times), 2) for name, times in stages.items()}
