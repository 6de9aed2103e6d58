"""Fine-tuning as a user runs it: a tiny model, a real command, a kill, and the same end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xray_vqa.core.manifest import read_manifest
from xray_vqa.modeling.loading import load_model, read_card


def command(model_dir: Path, pairs: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "xray_vqa", "train", "configs/train_demo.yaml", f"model_name={model_dir}",
        f"train_file={pairs}", f"output_dir={output}", "max_steps=8", "eval_steps=2", "save_steps=2",
        "per_device_train_batch_size=2", "logging_steps=1", "lora.r=4", "load_best_model_at_end=false", *more,
    ]  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=240, check=False)


def logged(output: Path, name: str) -> dict[int, float]:
    """A figure of each step whose loss `train.log` tells."""
    found = {}
    for line in (output / "train.log").read_text().splitlines():
        if "figures: step" in line and '"loss"' in line:
            step, _, figures = line.split("step ", 1)[1].partition(" ")
            found[int(step.split("/")[0])] = json.loads(figures)[name]
    return found


def losses(output: Path) -> dict[int, float]:
    return logged(output, "loss")


def test_a_killed_run_goes_on_with_the_same_command_and_ends_the_same(tiny_model_dir, pairs_path, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(*command(tiny_model_dir, pairs_path, whole))
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        command(tiny_model_dir, pairs_path, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (killed / "checkpoint-4" / "trainer_state.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "adapter_model.safetensors").is_file()
    again = run(*command(tiny_model_dir, pairs_path, killed))
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stderr
    assert losses(killed) == pytest.approx(losses(whole), abs=1e-4)  # the same scans in the same order
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (killed, whole))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


def test_a_run_leaves_what_its_user_expects(tiny_model_dir, pairs_path, tmp_path):
    output = tmp_path / "out"
    done = run(*command(tiny_model_dir, pairs_path, output, "calibrate=true"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(output)
    assert list((output / "logs").glob("events.out.tfevents.*"))
    assert sorted(losses(output)) == list(range(1, 9))
    assert all(0 <= share < 1 for share in logged(output, "data_wait").values())
    assert losses(output)[8] < losses(output)[1]
    card = read_card(output)
    assert card is not None
    assert card.covered_categories == list(read_card(tiny_model_dir).covered_categories)  # type: ignore[union-attr]
    assert read_manifest(output).counts["images"] == 11  # a tenth, here one, is held out
    assert "not calibrated: nothing to calibrate on" in done.stderr  # its scores cannot be read
    apart, merged = (load_model(str(output), device="cpu", merge=merge) for merge in (False, True))
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            apart.model(input_ids=ids).logits, merged.model(input_ids=ids).logits, atol=1e-4, rtol=0
        )


EVERYTHING = (
    "method=full", "train_vision=true", "vision_learning_rate=1e-4", "mirror=true", "jitter=true", "dense_weight=1",
    "probe_weight=5",
)  # fmt: skip


def test_full_training_with_every_option_goes_on_after_a_stop_as_if_there_had_been_none(
    tiny_model_dir, pairs_path, tmp_path
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    mix = f"mix_files=[{{file: {pairs_path}, weight: 0.5}}]"
    assert run(*command(tiny_model_dir, pairs_path, whole, *EVERYTHING, mix)).returncode == 0
    shutil.copytree(whole, stopped)
    for name in ("checkpoint-8", "model.safetensors", "train.log"):
        path = stopped / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = run(*command(tiny_model_dir, pairs_path, stopped, *EVERYTHING, mix))
    assert again.returncode == 0, again.stderr
    assert "checkpoint-6" in again.stderr
    ours, theirs = (load_file(path / "model.safetensors") for path in (stopped, whole))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    before = load_file(tiny_model_dir / "model.safetensors")
    assert any("visual" in name and not torch.equal(before[name], theirs[name]) for name in before)
    card = read_card(whole)
    assert card is not None
    assert card.covered_categories == ["Gun", "Knife"]  # every weight has changed; the others are unlearned


def test_another_data_set_is_not_taken_for_the_same_run(tiny_model_dir, pairs_path, tmp_path):
    output = tmp_path / "out"
    assert run(*command(tiny_model_dir, pairs_path, output)).returncode == 0
    pairs_path.write_text(pairs_path.read_text().replace("Is there a gun?", "Gun?"))
    again = run(*command(tiny_model_dir, pairs_path, output))
    assert again.returncode == 2
    assert "another data" in again.stderr


def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(tiny_model_dir, pairs_path, tmp_path):
    output = tmp_path / "out"
    words = ("max_steps=2", "lora.vision=false")
    assert run(*command(tiny_model_dir, pairs_path, output, *words)).returncode == 0
    checkpoint = {path.name: path.read_bytes() for path in (output / "checkpoint-2").iterdir()}
    recorded = (output / "run.json").read_bytes()
    again = run(*command(tiny_model_dir, pairs_path, output, *words, "max_steps=4", "lora.alpha=16", "lora.r=8"))
    assert again.returncode == 2, again.stderr
    assert "was trained with another lora.r and lora.alpha" in again.stderr
    assert "Traceback" not in again.stderr
    assert {path.name: path.read_bytes() for path in (output / "checkpoint-2").iterdir()} == checkpoint
    assert (output / "run.json").read_bytes() == recorded
    longer = run(*command(tiny_model_dir, pairs_path, output, *words, "max_steps=4", "lora.dropout=0.1"))
    assert longer.returncode == 0, longer.stderr
    assert "going on from" in longer.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("learning_rat=1e-4", "did you mean 'learning_rate'"),
        ("lora.rank=8", "unknown key 'lora.rank'"),
        ("nonsense", "no such checkpoint"),
    ],
)
def test_a_wrong_word_stops_before_training(tiny_model_dir, pairs_path, tmp_path, word, message):
    done = run(*command(tiny_model_dir, pairs_path, tmp_path / "out", word))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_needs_a_gpu_says_so(pairs_path, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = run(*command(Path("Qwen/Qwen2.5-VL-7B-Instruct"), pairs_path, tmp_path / "out"))
    assert done.returncode == 2
    assert "GPU" in done.stderr
    assert "nano" in done.stderr


def test_a_dry_run_shows_the_plan_and_trains_nothing(tiny_model_dir, pairs_path, tmp_path):
    output = tmp_path / "out"
    done = run(*command(tiny_model_dir, pairs_path, output, "--dry-run"))
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout
    assert "8 updates; tokens an image: " in done.stdout
    assert (done.stdout + done.stderr).count("tokens an image: ") == 1
    assert re.search(r"# this CPU: predicted [\d.]+ minutes, predicted peak [\d.]+ GiB", done.stdout)
    assert not (output / "run.json").exists()
    assert os.environ.get("WORLD_SIZE") is None


def test_a_dry_run_of_a_large_model_needs_neither_its_weights_nor_a_gpu(tiny_model_dir, pairs_path, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("with a GPU the plan is for that one")
    folder = tmp_path / "large"
    shutil.copytree(tiny_model_dir, folder, ignore=shutil.ignore_patterns("*.safetensors", "xray_vqa.json"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "layer_types": None,
    }  # fmt: skip
    config["text_config"]["rope_parameters"]["mrope_section"] = [16, 24, 24]
    config["vision_config"] |= {"out_hidden_size": 3584}
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    done = run(*command(folder, pairs_path, tmp_path / "out", "lora.r=64", "lora.vision=false", "--dry-run"))
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"# ([\w ]+): predicted .*predicted peak ([\d.]+) GiB", done.stdout))
    assert {"H100", "A100", "RTX 4090"} <= found.keys()
    assert 15 < float(found["RTX 4090"]) < 22  # 14.2 GiB of decoder, 2.4 of adapter, gradients and optimizer
