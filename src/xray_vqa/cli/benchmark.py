"""Measure latency, throughput and memory of a model: `xray-vqa benchmark`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from xray_vqa.cli.arguments import positive_count

EPILOG = """\
examples:
  xray-vqa benchmark                                 the guide's model on the scans of the guide's test file
  xray-vqa benchmark --model nano --max-samples 50 --device cpu

A scan is timed from the bytes of its file to the decision, one at a time, after a warm-up. The guide's keys come first
in the output, the conditions they hold under beneath them.
"""

FLAT_KEYS = ("latency_p50_ms", "latency_p95_ms", "throughput_batch1", "throughput_batch8", "gpu_memory_gb")


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
        default=Path("results/operational_benchmarks.json"),
        metavar="JSON",
        help="results (default %(default)s)",
    )
    add("--max-samples", type=positive_count, default=200, metavar="N", help="inspections timed (default %(default)s)")
    add("--policy", type=Path, metavar="YAML", help="rules of the checkpoint (default configs/policy.yaml)")
    add("--engine", choices=ENGINES, default="transformers", help="what runs the model (default %(default)s)")
    add("--device", help="cpu, cuda or cuda:1 (default: the first GPU where there is one)")


def run(args: argparse.Namespace) -> int:
    """Measure, write the results and print the guide's keys."""
    from xray_vqa.config.loading import load_policy
    from xray_vqa.core.jsonl import write_json
    from xray_vqa.core.manifest import make_manifest, write_manifest
    from xray_vqa.evaluation.operational import benchmark
    from xray_vqa.evaluation.testset import load_test_set
    from xray_vqa.inference.engines import open_engine
    from xray_vqa.inference.inspector import Inspector

    policy = load_policy(args.policy)
    data = load_test_set(args.test_file, max_images=args.max_samples)
    engine = open_engine(args.engine, args.model, device=args.device)
    inspector = Inspector(engine, policy)
    inspector.start()
    try:
        paths = [data.root / scan.record.image_path for scan in data.scans]
        results = benchmark(inspector, paths, args.max_samples).model_dump(mode="json")
    finally:
        engine.close()
    write_json(args.output, results)
    config = {key: str(value) for key, value in vars(args).items() if key not in ("run", "command")}
    write_manifest(args.output, make_manifest("benchmark", config=config, inputs=data.inputs, split=data.split))
    print(f"results in {args.output}", file=sys.stderr)
    print(json.dumps({key: results[key] for key in FLAT_KEYS}, indent=2))
    return 0
