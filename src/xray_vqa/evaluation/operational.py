"""How fast a model inspects scans on this machine and what memory it takes, with the conditions of the measurement."""

import logging
import os
import platform
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from tqdm import tqdm

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.images import read_image
from xray_vqa.core.inspection import Inspection, Scan
from xray_vqa.core.manifest import package_version
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError, ModelUnavailable
from xray_vqa.inference.inspector import Inspector

logger = logging.getLogger(__name__)

WARM_UP = 3
BATCH = 8
GIGABYTE = 1e9
_PACKAGES = ("torch", "transformers", "peft", "numpy", "pillow")


class Conditions(Strict):
    """What the figures hold for."""

    machine: str
    processor: str
    num_cores: int
    """That this process may use."""
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
    image_sizes: dict[str, int]
    """How many scans of each width x height."""
    findings_per_scan: float
    """Boxes are decoded for findings alone, so a fuller bag takes longer."""
    num_degraded: int
    """Inspections that did not succeed; their times are in the figures."""
    stages_p50_ms: dict[str, float]
    """By stage, where the engine reports them."""
    calibration_loop_ms: tuple[float, float]
    """A fixed loop of matrix products before and after, to tell a slow machine or a busy one from a slow model."""
    versions: dict[str, str]


class OperationalResults(Strict):
    """`results/operational_benchmarks.json`: the guide's keys first."""

    latency_p50_ms: float
    """One scan at a time, from the bytes of the file to the decision."""
    latency_p95_ms: float
    throughput_batch1: float
    """Scans a second, one at a time."""
    throughput_batch8: float
    """Scans a second, eight at a time."""
    gpu_memory_gb: float | None
    """Most that PyTorch reserved on the GPU, in 10^9 bytes; null on a CPU."""
    memory_rss_gb: float
    """Most resident memory of the process, in 10^9 bytes."""
    conditions: Conditions


def benchmark(inspector: Inspector, paths: Sequence[Path], num_timed: int) -> OperationalResults:
    """Measure a started inspector on scans from files.

    Args:
        inspector: Started.
        paths: Scans, taken in turn.
        num_timed: How many inspections are timed at batch 1, and at least at batch 8.

    Raises:
        DatasetError: There are no scans.
        ModelUnavailable: The inspector is not started, or no inspection succeeds.
    """
    if not paths:
        raise DatasetError("no scans to measure on")
    info = inspector.info
    if info is None:
        raise ModelUnavailable("the model is not loaded")
    turn = [paths[k % len(paths)] for k in range(num_timed)]
    batches = [[paths[(k + i) % len(paths)] for i in range(BATCH)] for k in range(0, max(num_timed, BATCH), BATCH)]
    loop_before = calibration_loop_ms()
    for path in [paths[k % len(paths)] for k in range(WARM_UP)]:
        inspect_files(inspector, [path])
    inspect_files(inspector, batches[0])
    single: list[Inspection] = []
    latencies: list[float] = []
    for path in tqdm(turn, desc="batch 1", unit="scan"):
        started = time.perf_counter()
        single += inspect_files(inspector, [path])
        latencies.append((time.perf_counter() - started) * 1000)
    if all(inspection.decision.degraded for inspection in single):
        raise ModelUnavailable(f"no inspection succeeded: {single[0].reasoning}")
    started = time.perf_counter()
    together = [
        inspection
        for batch in tqdm(batches, desc="batch 8", unit="batch")
        for inspection in inspect_files(inspector, batch)
    ]
    batch_s = time.perf_counter() - started
    degraded = sum(inspection.decision.degraded for inspection in [*single, *together])
    if degraded:
        logger.warning("%d of %d inspections did not succeed", degraded, len(single) + len(together))
    p50, p95 = np.percentile(latencies, [50, 95])
    return OperationalResults(
        latency_p50_ms=round(float(p50), 2),
        latency_p95_ms=round(float(p95), 2),
        throughput_batch1=round(1000 * len(latencies) / sum(latencies), 3),
        throughput_batch8=round(len(together) / batch_s, 3),
        gpu_memory_gb=gpu_memory_gb(info.device),
        memory_rss_gb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / GIGABYTE, 3),
        conditions=Conditions(
            machine=platform.platform(),
            processor=processor_name(),
            num_cores=_num_cores(),
            device=info.device,
            gpu=gpu_name(info.device),
            dtype=info.identity.dtype,
            engine=info.identity.engine,
            model_name=info.model_name,
            identity=info.identity,
            calibrated=info.is_calibrated,
            num_categories=len(inspector.policy.required_categories),
            num_scans=len(paths),
            num_timed_batch1=len(latencies),
            num_timed_batch8=len(together),
            num_warm_up=WARM_UP + BATCH,
            image_sizes=_sizes(paths),
            findings_per_scan=round(sum(len(i.findings) for i in single) / len(single), 3),
            num_degraded=degraded,
            stages_p50_ms=_stages(single),
            calibration_loop_ms=(loop_before, calibration_loop_ms()),
            versions=_versions(),
        ),
    )


def inspect_files(inspector: Inspector, paths: Sequence[Path]) -> list[Inspection]:
    """Return inspections of scans in files, as a checkpoint sends them: decoding is part of the time."""
    return inspector.inspect([Scan(path.stem, read_image(path)) for path in paths])


def calibration_loop_ms() -> float:
    """Return the median time of a fixed piece of arithmetic."""
    matrix = np.linspace(-1, 1, 384 * 384, dtype=np.float32).reshape(384, 384)
    times: list[float] = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(10):
            np.matmul(matrix, matrix)
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 3)


def gpu_memory_gb(device: str) -> float | None:
    """Return the most that PyTorch reserved on a GPU, or None on another device. Never the one to import torch."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return None
    return round(torch.cuda.max_memory_reserved(device) / GIGABYTE, 3)


def gpu_name(device: str) -> str | None:
    """Return the name of a GPU, or None on another device."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name(device) if torch is not None and device.startswith("cuda") else None


def processor_name() -> str:
    """Return the processor's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""`ru_maxrss` is in bytes on macOS and in KiB on Linux."""


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sizes(paths: Sequence[Path]) -> dict[str, int]:
    counts = Counter("{}x{}".format(*read_image(path).size) for path in paths)
    return dict(sorted(counts.items()))


def _stages(inspections: Sequence[Inspection]) -> dict[str, float]:
    names = dict.fromkeys(name for inspection in inspections for name in inspection.timings_ms)
    return {
        name: round(statistics.median(i.timings_ms[name] for i in inspections if name in i.timings_ms), 2)
        for name in names
    }


def _versions() -> dict[str, str]:
    versions = {"xray-vqa": package_version(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
