"""A run that is watched: answers generated at its evaluations, gates, and what it leaves for people to read."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_train import command, losses, run

from xray_vqa.config.train import GENERATION_METRICS


def watched(model_dir: Path, pairs: Path, output: Path, *more: str) -> list[str]:
    """Twelve development scans, half of them clean; the last word of an option counts."""
    options = (f"eval_file={pairs}", "eval_generate_images=6", "max_steps=4", "lora.dropout=0.1")
    return command(model_dir, pairs, output, *options, *more)


def evaluations(output: Path) -> dict[int, dict[str, float]]:
    """The figures of each evaluation that `train.log` tells."""
    found = {}
    for line in (output / "train.log").read_text().splitlines():
        if "figures: step" in line and '"eval_loss"' in line:
            step, _, figures = line.split("step ", 1)[1].partition(" ")
            found[int(step.split("/")[0])] = json.loads(figures)
    return found


@pytest.mark.slow
def test_generating_answers_leaves_the_training_as_it_is_and_chooses_the_checkpoint(
    tiny_model_dir, pairs_path, tmp_path
):
    with_answers, without = tmp_path / "with", tmp_path / "without"
    best = ("load_best_model_at_end=true", "metric_for_best_model=category_auc", "greater_is_better=true")
    done = run(*watched(tiny_model_dir, pairs_path, with_answers, *best))
    assert done.returncode == 0, done.stderr
    alone = run(*watched(tiny_model_dir, pairs_path, without, "eval_generate_images=0"))
    assert alone.returncode == 0, alone.stderr
    assert losses(with_answers) == losses(without)
    assert [e["eval_loss"] for e in evaluations(with_answers).values()] == [
        e["eval_loss"] for e in evaluations(without).values()
    ]
    measured = evaluations(with_answers)
    assert list(measured) == [2, 4]
    assert all(0 <= figures[name] <= 1 for figures in measured.values() for name in GENERATION_METRICS)
    state = json.loads((with_answers / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["best_metric"] == pytest.approx(max(f["eval_category_auc"] for f in measured.values()))
    card = (with_answers / "README.md").read_text()
    assert "greatest `eval_category_auc`" in card
    assert "gradients: each of" in card
    assert "⟦Yes.<|im_end|>⟧" in (with_answers / "before_training.md").read_text()


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_good_checkpoint(
    tiny_model_dir, pairs_path, tmp_path
):
    output = tmp_path / "out"
    options = ("save_steps=1", "warmup_ratio=0", "learning_rate=1e30", "eval_generate_images=0", "eval_steps=100")
    done = run(*watched(tiny_model_dir, pairs_path, output, *options))
    assert done.returncode == 4, done.stderr
    assert "error: update 2: the loss is nan" in done.stderr
    assert done.stderr.count("/images/0000") == 2  # both images of the batch
    assert "Traceback" not in done.stderr
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-1"]
    saved = load_file(output / "checkpoint-1" / "adapter_model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in saved.values())
    assert not (output / "adapter_model.safetensors").exists()
    assert not math.isnan(losses(output)[1])


def test_a_metric_that_the_development_scans_cannot_measure_stops_before_training(tiny_model_dir, pairs_path, tmp_path):
    # One scan in twelve is held out, so there are no threat bags beside clean ones.
    words = ("metric_for_best_model=eval_recall_at_fpr5", "eval_generate_images=6")
    done = run(*command(tiny_model_dir, pairs_path, tmp_path / "out", *words))
    assert done.returncode == 2
    assert "cannot be measured on these" in done.stderr
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_dry_run_shows_what_would_be_trained_on_in_comments(tiny_model_dir, pairs_path, tmp_path):
    done = run(*watched(tiny_model_dir, pairs_path, tmp_path / "out", "--dry-run"))
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["eval_generate_images"] == 6
    assert "⟦" in done.stdout


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tiny_model_dir, pairs_path, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    again = ("max_steps=2", "per_device_train_batch_size=1", "learning_rate=1e-9", "eval_generate_images=5")
    alone = run(*watched(tiny_model_dir, pairs_path, one, *again))
    assert alone.returncode == 0, alone.stderr
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    together = run(*torchrun, *watched(tiny_model_dir, pairs_path, two, *again)[2:])
    assert together.returncode == 0, together.stderr
    ours, theirs = evaluations(one)[2], evaluations(two)[2]
    assert [ours[name] for name in GENERATION_METRICS] == pytest.approx([theirs[name] for name in GENERATION_METRICS])
