"""The machine that figures hold for, and how steady it was while they were taken."""

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from xray_vqa.core.manifest import package_version
from xray_vqa.core.records import Strict

GIGABYTE = 1e9
STEADY_WITHIN = 0.15
"""Share by which the loop's time may change before the machine is called busy or throttled."""
DRIFT_WITHIN = 0.1
"""Share by which the second half of the latencies may differ from the first."""
_PACKAGES = ("torch", "transformers", "peft", "numpy", "pillow", "aiohttp")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""`ru_maxrss` is in bytes on macOS and in KiB on Linux."""
_CLOCKS = ("name", "clocks.sm", "clocks.max.sm", "temperature.gpu", "power.draw")


class Machine(Strict):
    """Where a measurement ran, and how steadily."""

    machine: str
    processor: str
    num_cores: int
    """That this process may use."""
    calibration_loop_ms: tuple[float, float]
    """A fixed loop of matrix products before and after, to tell a slow machine or a busy one from a slow model."""
    gpu_clocks: tuple[list[dict[str, str]], list[dict[str, str]]]
    """What nvidia-smi says of each GPU before and right after the timed part; empty without it."""
    versions: dict[str, str]
    notes: list[str]
    """What makes the figures less than steady."""


class MachineWatch:
    """Looks at the machine when made, and again for the record."""

    def __init__(self) -> None:
        self._loop_ms, self._clocks = calibration_loop_ms(), gpu_clocks()

    def record(self, latencies_ms: Sequence[float] = ()) -> Machine:
        """Return the conditions so far; latencies in the order of measurement show a drift."""
        clocks = gpu_clocks()  # first: a GPU slows down as soon as nothing runs
        loop_ms = (self._loop_ms, calibration_loop_ms())
        return Machine(
            machine=platform.platform(),
            processor=processor_name(),
            num_cores=num_cores(),
            calibration_loop_ms=loop_ms,
            gpu_clocks=(self._clocks, clocks),
            versions=_versions(),
            notes=steadiness_notes(loop_ms, latencies_ms),
        )


def steadiness_notes(loop_ms: tuple[float, float], latencies_ms: Sequence[float]) -> list[str]:
    """Return what the calibration loop and the order of the latencies say against the figures."""
    notes: list[str] = []
    before, after = loop_ms
    if abs(after / before - 1) > STEADY_WITHIN:
        notes.append(
            f"the calibration loop took {before:g} ms before and {after:g} ms after: the machine was throttled or busy "
            "with something else; measure again when it is quiet"
        )
    half = len(latencies_ms) // 2
    if half >= 10:
        first, second = statistics.median(latencies_ms[:half]), statistics.median(latencies_ms[half:])
        if abs(second / first - 1) > DRIFT_WITHIN:
            notes.append(
                f"the median latency went from {first:.1f} ms in the first half to {second:.1f} ms in the second"
            )
    return notes


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


def gpu_clocks() -> list[dict[str, str]]:
    """Return clock, temperature and power of each GPU as nvidia-smi tells them; empty where it is not there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(_CLOCKS)}", "--format=csv,noheader"]
    try:
        # The command is ours, from end to end.
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(_CLOCKS, map(str.strip, line.split(",")), strict=False)) for line in told.splitlines() if line]


def gpu_memory_gb(device: str) -> float | None:
    """Return the most that PyTorch reserved on a GPU, or None on another device. Never the one to import torch."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return None
    return round(torch.cuda.max_memory_reserved(device) / GIGABYTE, 3)


def memory_rss_gb() -> float:
    """Return the most resident memory of this process, in 10^9 bytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / GIGABYTE, 3)


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


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions() -> dict[str, str]:
    versions = {"xray-vqa": package_version(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
