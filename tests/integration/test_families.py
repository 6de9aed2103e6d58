"""A user fine-tunes a model of each family and inspects a scan with what comes out, by the same two commands."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stand_ins.families import write_family
from test_train import losses

from xray_vqa.cli.main import main
from xray_vqa.core.images import read_image
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.branch_rows import decoder_of
from xray_vqa.modeling.loading import load_model
from xray_vqa.modeling.registry import SPECS

UNKNOWN = "qwen2_vl"


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Training hands its log file to loggers that outlive it; the next run's must not write into this one's."""
    loggers = [logging.getLogger(name) for name in ("xray_vqa", "xray_vqa.figures")]
    before = [list(logger.handlers) for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers = handlers


def scores(model_dir: Path, scan: Path) -> torch.Tensor:
    """What a model says behind the probes of some categories; random ones are too unsure for the engine's figures."""
    loaded = load_model(str(model_dir), device="cpu", merge=True)
    frame = torch.from_numpy(loaded.processor.resize(read_image(scan)).copy())
    _, logits = decoder_of(loaded).open([frame], [[loaded.encoder.probe(name) for name in CATEGORIES[:5]]])
    return logits[0]


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=[] if name == "qwen3_vl" else pytest.mark.slow) for name in (*SPECS, UNKNOWN)],
)
def test_a_model_is_fine_tuned_and_then_inspects(model_type, pairs_path, tmp_path, capsys, own_logging):
    model_dir, output = write_family(model_type, tmp_path / "model"), tmp_path / "out"
    words = [
        "train", "configs/train_demo.yaml", f"model_name={model_dir}", f"train_file={pairs_path}",
        f"output_dir={output}", "max_steps=2", "eval_steps=2", "save_steps=2", "logging_steps=1", "lora.r=4",
        "per_device_train_batch_size=2", "dense_weight=0.5", "jitter=true",
    ]  # fmt: skip
    assert main(words) == 0
    assert set(losses(output)) == {1, 2}
    moved = {name for name, weight in load_file(output / "adapter_model.safetensors").items() if weight.any()}
    assert any("lora_B" in name and "language_model" in name for name in moved)
    assert any("lora_B" in name and "visual" in name for name in moved)
    log = (output / "train.log").read_text()
    assert ("off for" in log) == (model_type not in ("qwen2_5_vl", "qwen3_vl"))
    capsys.readouterr()
    scan = next(pairs_path.parent.glob("data/train/images/*.png"))
    assert main(["inspect", str(scan), "--model", str(output), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["action"] == "manual_inspection"  # nothing of it is calibrated
    assert not answer["degraded"]
    assert main(["merge", str(output), "--output-dir", str(tmp_path / "merged"), "--precision", "fp32"]) == 0
    base, tuned, merged = (scores(path, scan) for path in (model_dir, output, tmp_path / "merged"))
    torch.testing.assert_close(merged, tuned, atol=1e-4, rtol=1e-4)
    assert (tuned - base).abs().max() > 1e-2
