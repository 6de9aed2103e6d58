"""nano's latency and throughput on this machine, in process and over HTTP, as `xray-vqa benchmark` measures them.

    python benchmarks/operational_nano.py [--samples 100] [--duration 60] [--rates 0.5,1,2] [--results-dir DIR]

Simulates scans of the looks that nano was trained on, inspects them one at a time and eight at a time, then sends them
to a server with nano on this machine: one client and two that wait for their answers, then arrivals at their own times.
The two files are the command's own results, with the machine and its calibration loop before and after in them. Another
program on the same cores makes all of it slower; the loop says by how much.
"""

import argparse
import os
import shutil
from pathlib import Path

from nano import ScanSet, trained_looks
from server import running_server

from xray_vqa.cli.main import main as command
from xray_vqa.simulation.scene import DEFAULT_SIZE_WH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--samples", type=int, default=100, help="inspections timed (default %(default)s)")
    add("--duration", type=float, default=60, help="seconds of each load (default %(default)s)")
    add("--rates", default="0.5,1,2", help="arrivals a second (default %(default)s)")
    add("--work-dir", type=Path, default=Path("outputs/operational"), help="default %(default)s")
    add("--results-dir", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    scans = ScanSet("operational", trained_looks(), min(args.samples, 100), 91, DEFAULT_SIZE_WH)
    pairs = next(iter(scans.make(args.work_dir, os.cpu_count() or 1).inputs))  # the first is the pairs file
    common = ["benchmark", "--test-file", pairs, "--max-samples", str(args.samples)]
    local, served = (args.work_dir / f"operational_nano{part}.json" for part in ("", "_served"))
    done = command([*common, "--model", "nano", "--device", "cpu", "--max-batch", "8", "--output", str(local)])
    with running_server("nano", "--device", "cpu") as server:
        loads = ["--closed", "1,2", "--rate", args.rates, "--duration", str(args.duration)]
        url = server.url.removesuffix("/api/v1/inspect")
        done = done or command([*common, "--url", url, *loads, "--output", str(served)])
    for path in (local, served):
        shutil.copyfile(path, args.results_dir / path.name)
    raise SystemExit(done)


if __name__ == "__main__":
    main()
