"""Measure latency, throughput and memory of a model, or a running server under load: `xray-vqa benchmark`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xray_vqa.cli.arguments import positive_count

if TYPE_CHECKING:
    from xray_vqa.evaluation.operational.in_process import OperationalResults
    from xray_vqa.evaluation.operational.load_results import LoadResults

EPILOG = """\
examples:
  xray-vqa benchmark                                 the guide's model on the scans of the guide's test file
  xray-vqa benchmark --model nano --max-samples 50 --device cpu
  xray-vqa benchmark --url http://localhost:8080 --rate 2,5,10 --duration 60
  xray-vqa benchmark --url http://localhost:8080 --find-capacity --limit-p95-ms 500 --duration 20

Without --url a scan is timed from the bytes of its file to the decision, one at a time, after a warm-up; then eight at
a time, and 2, 4, 16, 32 ... until throughput gains less than 3 %. The guide's keys come first in the output, the
conditions they hold under beneath them, plots beside it.
With --url the scans go to a running server. --rate sends at its own times, and a latency counts from when a request was
due; --closed keeps so many clients busy. Degraded answers are counted apart and are no successes. Each
request has a scan_id of its own (bench-RUN-NUMBER) and leaves a record in the server's audit store.
Ctrl-C writes what was measured until then (exit code 130).
"""

LOCAL_OUTPUT = Path("results/operational_benchmarks.json")
SERVER_OUTPUT = Path("results/load_benchmarks.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa benchmark`."""
    from xray_vqa.inference.engines import ENGINES

    add = parser.add_argument
    add("--model", default="outputs/qwen25vl_stcray_lora", help="folder, hub name or nano (default %(default)s)")
    add(
        "--test-file",
        type=Path,
        default=Path("data/stcray_vqa_val.jsonl"),
        metavar="JSONL",
        help="pairs whose scans are inspected (default %(default)s)",
    )
    add(
        "--output",
        type=Path,
        metavar="JSON",
        help=f"results (default {LOCAL_OUTPUT}, with --url {SERVER_OUTPUT})",
    )
    add(
        "--max-samples",
        type=positive_count,
        default=200,
        metavar="N",
        help="inspections timed; with --url, different scans (default %(default)s)",
    )
    add("--max-batch", type=positive_count, default=64, metavar="N", help="end of the sweep (default %(default)s)")
    add("--policy", type=Path, metavar="YAML", help="rules of the checkpoint (default configs/policy.yaml)")
    add("--engine", choices=ENGINES, default="transformers", help="what runs the model (default %(default)s)")
    add("--device", help="cpu, cuda or cuda:1 (default: the first GPU where there is one)")
    load = parser.add_argument_group("a running server").add_argument
    load("--url", metavar="URL", help="measure this server over HTTP, whatever model it runs")
    load("--rate", type=_rates, default=(), metavar="R,R", help="arrivals a second, one load for each")
    load("--closed", type=_counts, default=(), metavar="N,N", help="clients that wait for their answers")
    load("--find-capacity", action="store_true", help="search the highest rate within the two limits")
    load("--limit-p95-ms", type=_positive, default=1000.0, metavar="MS", help="for capacity (default %(default)g)")
    load("--limit-lost", type=_share, default=0.01, metavar="SHARE", help="not succeeded, for capacity (default 0.01)")
    load("--duration", type=_positive, default=60.0, metavar="S", help="of each load (default %(default)g)")
    load("--arrivals", choices=("poisson", "constant"), default="poisson", help="of --rate (default %(default)s)")
    load("--max-requests", type=positive_count, default=10_000, metavar="N", help="in all (default %(default)s)")
    load("--timeout-s", type=_positive, default=30.0, metavar="S", help="for an answer (default %(default)g)")
    load("--api-key-env", metavar="NAME", help="variable with the key, sent as `Authorization: Bearer`")


def run(args: argparse.Namespace) -> int:
    """Measure, write the results and print the main figures."""
    from xray_vqa.errors import ConfigError

    loads = bool(args.rate or args.closed or args.find_capacity)
    if args.url and not loads:
        raise ConfigError("--url needs a load: --rate 2,5,10, --closed 4 or --find-capacity")
    if loads and not args.url:
        raise ConfigError("--rate, --closed and --find-capacity load a running server; name it with --url")
    return _run_server(args) if args.url else _run_local(args)


def _run_local(args: argparse.Namespace) -> int:
    from xray_vqa.config.loading import load_policy
    from xray_vqa.evaluation.operational.in_process import FLAT_KEYS, benchmark
    from xray_vqa.evaluation.operational.plots import draw_latencies, draw_throughput
    from xray_vqa.evaluation.testset import load_test_set
    from xray_vqa.inference.engines import open_engine
    from xray_vqa.inference.inspector import Inspector

    output = args.output or LOCAL_OUTPUT
    policy = load_policy(args.policy)
    data = load_test_set(args.test_file, max_images=args.max_samples)
    engine = open_engine(args.engine, args.model, device=args.device)
    inspector = Inspector(engine, policy)
    inspector.start()
    try:
        paths = [data.root / scan.record.image_path for scan in data.scans]
        measured = benchmark(inspector, paths, args.max_samples, max_batch=args.max_batch)
    finally:
        engine.close()
    results = measured.results
    written = results.model_dump(mode="json")
    _write(output, written, args, inputs=data.inputs, split=data.split)
    title = f"{results.conditions.model_name}, {results.conditions.engine}, {results.conditions.device}"
    draw_latencies(measured.latencies_ms, _picture(output, "latency"), f"one scan at a time: {title}")
    points = [
        (f"batch {p.batch}", p.throughput.value, p.call.p50_ms.value, p.call.p95_ms.value)
        for p in results.sweep.points
        if p.throughput.value and p.call.p50_ms.value is not None and p.call.p95_ms.value is not None
    ]
    draw_throughput(points, _picture(output, "throughput"), title, f"batch {results.sweep.knee}")
    print(_local_table(results), file=sys.stderr)
    print(json.dumps({key: written[key] for key in FLAT_KEYS}, indent=2))
    return _end(output, interrupted=results.interrupted)


def _run_server(args: argparse.Namespace) -> int:
    import asyncio

    from xray_vqa.config.loading import require

    require("aiohttp", extra="bench")
    from xray_vqa.evaluation.operational.plots import draw_latencies, draw_throughput
    from xray_vqa.evaluation.operational.server_load import LoadSettings, benchmark_server
    from xray_vqa.evaluation.testset import load_test_set

    output = args.output or SERVER_OUTPUT
    data = load_test_set(args.test_file, max_images=args.max_samples)
    settings = LoadSettings(
        url=args.url,
        rates_per_s=args.rate,
        closed=args.closed,
        find_capacity=args.find_capacity,
        duration_s=args.duration,
        poisson=args.arrivals == "poisson",
        max_requests=args.max_requests,
        limit_p95_ms=args.limit_p95_ms,
        limit_lost=args.limit_lost,
        timeout_s=args.timeout_s,
        api_key_env=args.api_key_env,
    )
    paths = [data.root / scan.record.image_path for scan in data.scans]
    measured = asyncio.run(benchmark_server(settings, paths))
    results = measured.results
    written = results.model_dump(mode="json")
    _write(output, written, args, inputs=data.inputs, split=data.split)
    names = [f"{p.load:g}/s" if p.kind == "open" else f"{p.load:g} clients" for p in results.points]
    latencies = dict(zip(names, measured.latencies_ms, strict=True))
    if any(latencies.values()):
        draw_latencies(latencies, _picture(output, "latency"), results.url)
        points = [
            (name, p.throughput_per_s, p.latency.p50_ms.value, p.latency.p95_ms.value)
            for name, p in zip(names, results.points, strict=True)
            if p.throughput_per_s and p.latency.p50_ms.value is not None and p.latency.p95_ms.value is not None
        ]
        draw_throughput(points, _picture(output, "throughput"), results.url)
    print(_load_table(results, names), file=sys.stderr)
    return _end(output, interrupted=results.interrupted)


def _write(output: Path, results: dict, args: argparse.Namespace, **origin: object) -> None:
    from xray_vqa.core.jsonl import write_json
    from xray_vqa.core.manifest import make_manifest, write_manifest

    write_json(output, results)
    config = {key: str(value) for key, value in vars(args).items() if key not in ("run", "command")}
    write_manifest(output, make_manifest("benchmark", config=config, **origin))


def _end(output: Path, *, interrupted: bool) -> int:
    print(f"results in {output}, plots beside it", file=sys.stderr)
    if interrupted:
        print("interrupted: the results hold what was measured until then", file=sys.stderr)
        return 130
    return 0


def _picture(output: Path, name: str) -> Path:
    return output.with_name(f"{output.stem}_{name}.png")


def _local_table(results: OperationalResults) -> str:
    lines = [f"{'batch':>6} {'scans/s':>22} {'p50 ms':>26} {'p95 ms':>26} {'p99 ms':>26}"]
    for point in results.sweep.points:
        cells = (point.throughput, point.call.p50_ms, point.call.p95_ms, point.call.p99_ms)
        shown = " ".join(f"{_shown(cell):>{width}}" for cell, width in zip(cells, (22, 26, 26, 26), strict=True))
        lines.append(f"{point.batch:>6} {shown}")
    lines.append(f"knee: batch {results.sweep.knee}; ended: {results.sweep.ended}")
    lines += [f"{kind}: p50 {_shown(row.p50_ms)} ms, n {row.n}" for kind, row in results.latency_by_kind.items()]
    stages = results.conditions.stages_p50_ms
    lines.append("stages (p50 ms): " + ", ".join(f"{name} {value:g}" for name, value in stages.items()))
    if results.conditions.num_degraded:
        lines.append(f"not successes: {results.conditions.num_degraded} {results.conditions.degraded_by_fault}")
    return "\n".join([*lines, *(f"note: {note}" for note in results.conditions.machine.notes)])


def _load_table(results: LoadResults, names: list[str]) -> str:
    lines = [
        f"{'load':>12} {'sent':>6} {'ok':>6} {'degraded':>8} {'refused':>7} {'failed':>6} {'ok/s':>8} "
        f"{'p50 ms':>24} {'p95 ms':>24} {'p99 ms':>24}"
    ]
    for name, p in zip(names, results.points, strict=True):
        cells = " ".join(f"{_shown(cell):>24}" for cell in (p.latency.p50_ms, p.latency.p95_ms, p.latency.p99_ms))
        rate = p.throughput_per_s if p.throughput_per_s is not None else "-"
        lines.append(
            f"{name:>12} {p.num_sent:>6} {p.num_succeeded:>6} {p.num_degraded:>8} {p.num_refused:>7} "
            f"{p.num_failed:>6} {rate:>8} {cells}"
        )
        lines += [f"{'':>12} {note}" for note in p.notes]
        if p.degraded_by or p.errors:
            lines.append(f"{'':>12} degraded by {p.degraded_by}, errors {p.errors}")
    if results.capacity:
        found = results.capacity
        lines.append(
            f"capacity: {found.rate_per_s} a second held, {found.fails_at_per_s} did not (p95 up to "
            f"{found.limit_p95_ms:g} ms, lost up to {found.limit_lost:g})"
            + ("" if found.finished else "; not finished")
        )
    return "\n".join([*lines, *(f"note: {note}" for note in [*results.notes, *results.client.notes])])


def _shown(estimate: object) -> str:
    from xray_vqa.evaluation.results import Estimate

    assert isinstance(estimate, Estimate)
    if estimate.value is None:
        return "-"
    low = "" if estimate.low is None else f"{estimate.low:.1f}"
    high = "" if estimate.high is None else f"{estimate.high:.1f}"
    return f"{estimate.value:.1f} [{low}, {high}]"


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to below 1")
    return value


def _rates(text: str) -> tuple[float, ...]:
    return tuple(_positive(word) for word in text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(positive_count(word) for word in text.split(","))
