"""Measure latency, throughput and memory of a model; the same as `xray-vqa benchmark`."""

from xray_vqa.cli.main import run_module

if __name__ == "__main__":
    raise SystemExit(run_module("benchmark", "evaluation/eval_operational.py"))
