"""A run that learns nothing, or whose numbers are none, stops with the reason; a sound one is left alone."""

import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState, TrainingArguments

from xray_vqa.errors import GateFailed
from xray_vqa.training.watching.gates import GRADIENT_UPDATES, GradientGate, LossWatch, PlausibleLoss, check_weights


def make_model(*names: str) -> torch.nn.Module:
    return torch.nn.ParameterDict({name: torch.ones(3) for name in names})


def run_update(gate: GradientGate, model: torch.nn.Module, fp16: bool = False, **gradients: float | None) -> None:
    """One update in which the named weights have the given gradient, and all others none."""
    for name, weight in model.named_parameters():
        value = gradients.get(name)
        weight.grad = None if value is None else torch.full((3,), value)
    arguments = TrainingArguments(output_dir="unused", use_cpu=True, report_to="none")
    arguments.fp16 = fp16
    gate.on_pre_optimizer_step(arguments, TrainerState(), TrainerControl(), model=model)


def test_an_adapters_a_matrix_may_follow_when_b_has_left_zero():
    gate, model = GradientGate(), make_model("a", "b")
    run_update(gate, model, a=0.0, b=1.0)
    run_update(gate, model, a=0.5, b=1.0)
    assert gate.result == "gradients: each of 2 trained tensors had one within 2 updates"


@pytest.mark.parametrize("gradient", [None, 0.0])
def test_a_tensor_that_never_learns_stops_the_run_and_is_named(gradient):
    gate, model = GradientGate(), make_model("learns", "cut_off")
    for _ in range(GRADIENT_UPDATES - 1):
        run_update(gate, model, learns=1.0, cut_off=gradient)
    with pytest.raises(GateFailed, match=r"1 of 2 trained tensors .* cut_off"):
        run_update(gate, model, learns=1.0, cut_off=gradient)


def test_a_frozen_tensor_is_not_waited_for():
    gate, model = GradientGate(), make_model("learns", "frozen")
    model["frozen"].requires_grad = False  # type: ignore[index]
    run_update(gate, model, learns=1.0)
    assert "each of 1" in gate.result


def test_an_auxiliary_head_that_waits_for_an_item_is_only_told():
    gate, model = GradientGate(), torch.nn.ModuleDict({"heads": make_model("box"), "model": make_model("a")})
    for _ in range(GRADIENT_UPDATES):
        run_update(gate, model, **{"model.a": 1.0})
    assert "heads.box" in gate.result


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_stops_the_run_but_while_fp16_finds_its_scale(broken):
    model = make_model("a", "b")
    with pytest.raises(GateFailed, match=r"update 1: 1 of 2 gradients .* first b"):
        run_update(GradientGate(), model, a=1.0, b=broken)
    gate = GradientGate()
    for _ in range(GRADIENT_UPDATES + 1):
        run_update(gate, model, fp16=True, a=1.0, b=broken)
    run_update(gate, model, fp16=True, a=1.0, b=1.0)
    assert "each of 2" in gate.result


@given(st.lists(st.floats(width=32), max_size=8))
def test_the_first_loss_that_is_no_number_is_named_with_its_update_and_images(losses):
    watch = LossWatch()
    first = next((at for at, loss in enumerate(losses) if not math.isfinite(loss)), None)
    for at, loss in enumerate(losses):
        if at == first:
            with pytest.raises(GateFailed, match=rf"^update {at}: .*batch {at + 1} .*image-{at}\.png"):
                watch.see(torch.tensor(loss), at, [f"image-{at}.png"])
            return
        watch.see(torch.tensor(loss), at, [f"image-{at}.png"])
    assert f"all of {len(losses)} batches" in watch.result


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_named_before_they_are_saved(broken):
    model = make_model("sound", "broken")
    check_weights(model, 7)
    with torch.no_grad():
        model["broken"][1] = broken  # type: ignore[index]
    with pytest.raises(GateFailed, match=r"after update 7 1 of 2 trained tensors .* first broken"):
        check_weights(model, 7)
    model["broken"].requires_grad = False  # type: ignore[index]
    check_weights(model, 7)


def test_large_weights_are_numbers():
    model = make_model("large")
    with torch.no_grad():
        model["large"][:] = 3e38  # type: ignore[index]
    check_weights(model, 1)


@pytest.mark.parametrize(("loss", "warns"), [(6.9, False), (13.0, False), (14.5, True)])
def test_only_a_first_loss_far_above_guessing_is_warned_of(caplog, loss, warns):
    gate = PlausibleLoss(1024, heaviest=1.0)  # guessing one of 1024 tokens costs ln 1024 = 6.93
    arguments = TrainingArguments(output_dir="unused", use_cpu=True, report_to="none")
    for value in (loss, 100.0):
        gate.on_log(arguments, TrainerState(), TrainerControl(), logs={"loss": value})
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warns
    assert gate.result.startswith(f"first loss: {loss:.3f} (guessing a token: 6.93)")


PIECES = """
import torch, torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
from xray_vqa.errors import GateFailed
from xray_vqa.training.watching.gates import check_weights
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
def model_of(values):
    return torch.nn.ParameterDict({"w": torch.nn.Parameter(distribute_tensor(torch.tensor(values), mesh, [Shard(0)]))})
check_weights(model_of([[1.0, 2.0]]), 1)  # one row: the second process has an empty piece
try:
    check_weights(model_of([[1.0], [2.0], [float("nan")]]), 1)  # in the second process's piece
except GateFailed:
    print("both know")
"""


@pytest.mark.slow
def test_pieces_of_a_weight_are_judged_together(tmp_path: Path):
    script = tmp_path / "pieces.py"
    script.write_text(PIECES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("both know") == 2


@pytest.mark.gpu
def test_a_gpus_loss_is_named_before_a_checkpoint_at_the_latest():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    watch = LossWatch()

    def train_and_save() -> None:
        for update, loss in enumerate((1.0, 2.0, math.nan, 1.0), start=1):
            watch.see(torch.tensor(loss, device="cuda"), update, ["broken.png" if math.isnan(loss) else "sound.png"])
        watch.settle()

    with pytest.raises(GateFailed, match=r"update 3: the loss is nan .*broken\.png"):
        train_and_save()
