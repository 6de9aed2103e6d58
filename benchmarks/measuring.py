"""What every benchmark says beside its figures: on what it ran, and how fast that machine was just then."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

from xray_vqa.core.manifest import package_version


def calibration_loop_ms() -> float:
    """Return the time of a fixed amount of arithmetic, the median of five: cores may be shared."""
    return round(statistics.median(_loop_ms() for _ in range(5)), 1)


def _loop_ms() -> float:
    started = time.perf_counter()
    total = 0
    for number in range(2_000_000):
        total += number * number
    return (time.perf_counter() - started) * 1000


def conditions(*packages: str, **more: object) -> dict[str, object]:
    """Return command, machine and versions; of arguments that are paths the command holds the last part only."""
    words = [f"benchmarks/{Path(sys.argv[0]).name}", *(Path(word).name for word in sys.argv[1:])]
    return {
        "command": " ".join(["python", *words]),
        **more,
        "cores": os.cpu_count(),
        "processor": processor_name(),
        "python": platform.python_version(),
        "xray-vqa": package_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
    }


def processor_name() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def publish(figures: dict, path: Path | None) -> None:
    """Print the figures as JSON, and write them to a file if one is named."""
    text = json.dumps(figures, indent=1)
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
