"""Scans a second of the simulator on one core, beside those of the scratch prototype that it grew from.

    python benchmarks/simulator_speed.py [--baseline-dir DIR [--baseline-python PYTHON]] [--json FILE]

DIR holds the prototype's bench.py, whose own loop is timed; it needs numba, scipy, pillow, xraydb and spekpy. Without
it only ours is timed. Ours draws new scenes as training does (ScanStream): sampling, objects, line integrals, truth,
sensor, colour; JPEG not counted; on average one threat a scene, as in the prototype, at all clutter levels. Both run
in turns, a second or two each, in processes of their own on the same core, so that a busy machine slows both; the
ratio is the median over the pairs. Further: two processes on two cores, memory, the first image with nothing
compiled, milliseconds by stage.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from measuring import conditions, publish

SIZE_WH = (512, 384)
NUM_WARM_UP = 2000  # by then most variants of the stream's pool are built, as in a long run
FIRST_IMAGE = "from xray_vqa.simulation.simulate import ScanStream; ScanStream(1).draw()"
BASELINE = """
import json, sys, time
source = open("bench.py").read()
exec(source[: source.index("run(20,0)")])  # everything but its own report
run(20, 0)
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    wall, cpu = time.perf_counter(), time.process_time()
    run(int(line), 100 + 1000 * number)
    print(json.dumps({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}), flush=True)
"""


def work_for_parent(seed: int) -> None:
    """Render as many scans as each line on stdin says; answer with the time that they took."""
    from xray_vqa.simulation.simulate import ScanStream

    stream = ScanStream(seed, size_wh=SIZE_WH)
    for _ in range(NUM_WARM_UP):
        stream.draw()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "stages":
            print(json.dumps(measure_stages(stream)), flush=True)
            continue
        wall, cpu, num_threats = time.perf_counter(), time.process_time(), 0
        for _ in range(int(line)):
            num_threats += len(stream.draw().annotations)
        answer = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**answer, "threats": num_threats, "peak_mib": peak_mib}), flush=True)


def measure_stages(stream: object, count: int = 200) -> dict[str, float]:
    """Return milliseconds of CPU time a scan by stage; stages that hold others are named so."""
    from xray_vqa.simulation import simulate
    from xray_vqa.simulation.raster import LineIntegrals
    from xray_vqa.simulation.sensor import Sensor
    from xray_vqa.simulation.shapes import registry

    spent: dict[str, float] = defaultdict(float)

    def timed(owner: object, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def wrapper(*a: object, **k: object) -> object:
            start = time.process_time()
            try:
                return function(*a, **k)
            finally:
                spent[stage] += time.process_time() - start

        setattr(owner, name, wrapper)

    timed(registry, "_build", "build objects")
    timed(simulate, "draft_scene", "pack a scene, with builds")
    timed(simulate, "draw_look", "draw look")
    timed(LineIntegrals, "draw", "line integrals")
    timed(simulate.Renderer, "_measure", "measure threats")
    timed(Sensor, "develop", "sensor and colour")
    start = time.process_time()
    for _ in range(count):
        stream.draw()  # type: ignore[attr-defined]
    spent["all"] = time.process_time() - start
    return {stage: round(1000 * seconds / count, 2) for stage, seconds in spent.items()}


class Worker:
    """A process pinned to one core that renders on request."""

    def __init__(self, command: list[str], core: int, cwd: Path | None = None) -> None:
        def pin() -> None:
            os.sched_setaffinity(0, {core})

        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd, preexec_fn=pin,
            env={**os.environ, **threads},
        )  # fmt: skip
        while (line := self._read()).strip() != "ready":  # the prototype prints its fit first
            if not line:
                sys.exit(f"error: {command[0]} ended before it was ready")

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self, request: object) -> None:
        assert self._process.stdin is not None
        print(request, file=self._process.stdin, flush=True)

    def answer(self) -> dict:
        return json.loads(self._read())

    def run(self, request: object) -> dict:
        self.ask(request)
        return self.answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def our_worker(core: int, seed: int) -> Worker:
    return Worker([sys.executable, __file__, "--seed-of-worker", str(seed)], core)


def first_image() -> dict[str, float]:
    """Return seconds to an image in a fresh process, without and with compiled code on disk, and memory."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        found = []
        for _ in range(2):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", FIRST_IMAGE], check=True, env=environment)
            found.append(time.perf_counter() - start)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "first_image_cold_s": round(found[0], 1),
        "first_image_warm_s": round(found[1], 1),
        "first_image_cold_peak_mib": round(peak_mib),
    }


def compare(args: argparse.Namespace) -> dict:
    """Return rates of ours and of the baseline, in turns on one core."""
    ours = our_worker(args.core, seed=0)
    command = [args.baseline_python, "-c", BASELINE]
    baseline = Worker(command, args.core, args.baseline_dir) if args.baseline_dir else None
    found, found_baseline = [], []
    for _ in range(args.rounds):
        if baseline:
            found_baseline.append(baseline.run(args.scans))
        found.append(ours.run(args.scans))
    figures = {
        "images_per_s": round(statistics.median(args.scans / one["wall_s"] for one in found), 1),
        "images_per_cpu_s": round(statistics.median(args.scans / one["cpu_s"] for one in found), 1),
        "threats_per_image": round(sum(one["threats"] for one in found) / (args.scans * args.rounds), 2),
        "peak_mib": round(found[-1]["peak_mib"]),
        "num_images": NUM_WARM_UP + args.scans * args.rounds,
    }
    if baseline:
        baseline.close()
        pairs = list(zip(found, found_baseline, strict=True))
        ratios = sorted(b["wall_s"] / a["wall_s"] for a, b in pairs)
        figures["baseline_images_per_s"] = round(statistics.median(args.scans / b["wall_s"] for _, b in pairs), 1)
        figures["baseline_images_per_cpu_s"] = round(statistics.median(args.scans / b["cpu_s"] for _, b in pairs), 1)
        figures["ratio"] = round(statistics.median(ratios), 2)
        figures["ratio_by_cpu_time"] = round(statistics.median(b["cpu_s"] / a["cpu_s"] for a, b in pairs), 2)
        figures["ratio_lowest_and_highest"] = [round(ratios[0], 2), round(ratios[-1], 2)]
    figures["stage_cpu_ms"] = ours.run("stages")
    ours.close()
    return figures


def scale_to_two(args: argparse.Namespace) -> dict:
    """Return how much more two processes on two cores render than one."""
    workers = [our_worker(core, seed=core + 1) for core in sorted(os.sched_getaffinity(0))[:2]]
    scaling = []
    for _ in range(args.rounds):
        alone = [args.scans / worker.run(args.scans)["wall_s"] for worker in workers]
        for worker in workers:
            worker.ask(args.scans)
        together = sum(args.scans / worker.answer()["wall_s"] for worker in workers)
        scaling.append(together / statistics.mean(alone))
    for worker in workers:
        worker.close()
    return {"two_workers_to_one": round(statistics.median(scaling), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline-dir", type=Path, help="folder of the prototype")
    parser.add_argument("--baseline-python", default=sys.executable, help="interpreter with the prototype's packages")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scans", type=int, default=100, help="scans a turn")
    parser.add_argument("--skip-scaling", action="store_true", help="one core alone")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--seed-of-worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.seed_of_worker is not None:
        work_for_parent(args.seed_of_worker)
        return

    figures = {
        **first_image(),
        **compare(args),
        **({} if args.skip_scaling or len(os.sched_getaffinity(0)) < 2 else scale_to_two(args)),
        "conditions": conditions(
            "numba",
            "numpy",
            size="x".join(map(str, SIZE_WH)),
            rounds=args.rounds,
            scans_a_turn=args.scans,
            load_average_at_the_end=[round(load, 1) for load in os.getloadavg()],
        ),
    }
    publish(figures, args.json)


if __name__ == "__main__":
    main()
