"""How long one waits: for the package, for `--help`, for a server's first answer, for one inspection with nano.

    python benchmarks/start_up.py [--json FILE]

Prints medians with a calibration loop's time beside them: the machine's cores may be shared. Wants idle cores.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measuring import calibration_loop_ms, conditions, publish
from server import SIZE_WH, running_server, simulated_jpeg


def seconds(*command: str, times: int = 5) -> float:
    """Return the median time of a command as a whole process."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def measure_server(times: int = 30) -> dict[str, float]:
    """Return the time from start to the first true answer, and the latency of the following ones."""
    scan = simulated_jpeg()
    with running_server() as server:
        latencies = [server.timed_ms(scan) for _ in range(times)]
        first = server.first_answer_s
    return {
        "server_start_to_first_answer_s": round(first, 2),
        "inspection_p50_ms": round(statistics.median(latencies), 1),
        "inspection_max_ms": round(max(latencies), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    path = parser.parse_args().json
    bare = seconds(sys.executable, "-c", "pass")
    figures = {
        "import_xray_vqa_s": round(seconds(sys.executable, "-c", "import xray_vqa") - bare, 3),
        "help_s": round(seconds(sys.executable, "-m", "xray_vqa", "--help"), 3),
        **measure_server(),
        "calibration_loop_ms": calibration_loop_ms(),
        "conditions": conditions(
            "torch", image=f"{SIZE_WH[0]}x{SIZE_WH[1]} JPEG over HTTP on loopback, nano, one scan at a time"
        ),
    }
    publish(figures, path)


if __name__ == "__main__":
    main()
