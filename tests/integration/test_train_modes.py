"""Each mode of training, over a few steps of a tiny model: it learns, goes on, and what it writes loads."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xray_vqa.config.loading import load_config
from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.loading import load_model
from xray_vqa.training.inputs.collator import ScanDataset, collate
from xray_vqa.training.inputs.scans import read_training_data
from xray_vqa.training.recipe import finetune
from xray_vqa.training.tree_trainer import TreeModel

Train = Callable[..., Path]
IDS = torch.arange(20, 60)[None]


@pytest.fixture
def train(tiny_model_dir: Path, pairs_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Fine-tune into a folder of this name, with some words more than usual."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))

    def run(name: str, *more: str) -> Path:
        finetune(settings(tiny_model_dir, pairs_path, tmp_path / name, *more))
        for logger in ("xray_vqa", "xray_vqa.figures"):  # or the next run here would write into this one's file too
            logging.getLogger(logger).handlers.clear()
        return tmp_path / name

    return run


def settings(model_dir: Path, pairs: Path, output: Path, *more: str) -> TrainConfig:
    words = [
        f"model_name={model_dir}", f"train_file={pairs}", f"output_dir={output}", "max_steps=6", "eval_steps=2",
        "save_steps=2", "save_total_limit=null", "per_device_train_batch_size=2", "logging_steps=1", "lora.r=4",
        "load_best_model_at_end=false", *more,
    ]  # fmt: skip
    return load_config(TrainConfig, Path("configs/train_demo.yaml"), words)


def logged(output: Path, figure: str) -> dict[int, float]:
    """Return a figure by step, as `train.log` tells it."""
    found = {}
    for line in (output / "train.log").read_text().splitlines():
        if "figures: step" in line and f'"{figure}"' in line:
            step, _, figures = line.split("step ", 1)[1].partition(" ")
            found[int(step.split("/")[0])] = json.loads(figures)[figure]
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(iter(folder.glob("*model.safetensors"))))


def logits(name: Path, **options) -> torch.Tensor:
    with torch.no_grad():
        return load_model(str(name), device="cpu", **options).model(input_ids=IDS).logits


@pytest.mark.parametrize(
    "words",
    [
        ["lora.rslora=true", "lora.dora=true", "lora.init=gaussian"],
        ["train_merger=true", "merger_learning_rate=1e-3", "lora.exclude_modules=[down_proj]"],
        ["neftune_noise_alpha=5", "ema_decay=0.5", "gradient_checkpointing=true", "lora.vision=false"],
        ["optim=adafactor", "lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_kwargs={min_lr_rate: 0.5}"],
    ],
    ids=["rslora+dora", "merger", "noise+average", "adafactor"],
)
def test_an_adapter_of_each_kind_learns_and_loads_apart_and_merged(train, words, tiny_model_dir):
    output = train("out", *words)
    losses = logged(output, "loss")
    assert min(losses[5], losses[6]) < losses[1]
    apart = logits(output)
    torch.testing.assert_close(apart, logits(output, merge=True), atol=1e-4, rtol=0)
    assert not torch.allclose(apart, logits(tiny_model_dir), atol=1e-3)


def test_a_merger_trained_beside_an_adapter_is_saved_goes_on_and_loads(train, tiny_model_dir):
    words = ["train_merger=true", "merger_learning_rate=1e-3"]
    output, stopped = train("whole", *words), stop_after(train, 4, *words)
    name = next(name for name in weights(output) if "merger" in name and name.endswith("mlp.0.weight"))
    base = load_model(str(tiny_model_dir), device="cpu").base.model.visual.merger.mlp[0].weight
    assert not torch.allclose(weights(output)[name], base, atol=1e-4)
    for merge in (False, True):
        loaded = load_model(str(output), device="cpu", merge=merge)
        active = [w for n, w in loaded.base.named_parameters() if "merger" in n and n.endswith("mlp.0.weight")][-1]
        assert torch.equal(active, weights(output)[name])
    assert_same(stopped, output)


def stop_after(train: Train, step: int, *words: str) -> Path:
    """Return the folder of a run that was stopped after some updates and went on with the same command."""
    output = train("stopped", *words)
    for checkpoint in output.glob("checkpoint-*"):
        if int(checkpoint.name.partition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    for path in (*output.glob("*.safetensors"), output / "train.log"):
        path.unlink()
    assert train("stopped", *words) == output
    assert min(logged(output, "loss")) == step + 1
    return output


def assert_same(ours: Path, theirs: Path, *, atol: float = 1e-7) -> None:
    assert weights(ours).keys() == weights(theirs).keys()
    for name, expected in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], expected, atol=atol, rtol=0, msg=name)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_averages_and_noise_go_on_after_a_stop_as_if_there_had_been_none(train, method):
    words = [f"method={method}", "ema_decay=0.9", "neftune_noise_alpha=5", "learning_rate=1e-3"]
    assert_same(stop_after(train, 4, *words), train("whole", *words))


def test_what_is_written_is_the_average_over_all_updates(train):
    output = train("out", "ema_decay=0.5", "save_steps=1", "eval_steps=1", "learning_rate=1e-2", "lora.vision=false")
    trained = [load_file(output / f"checkpoint-{step}" / "not_averaged.safetensors") for step in range(1, 7)]
    name = next(name for name in trained[0] if "lora_B" in name)
    average = torch.zeros_like(trained[0][name])  # where B begins
    for step, after in enumerate(trained, start=1):
        kept = min(0.5, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * after[name]
        saved = weights(output / f"checkpoint-{step}")
        torch.testing.assert_close(saved[name.removeprefix("model.").replace(".default", "")], average)
    assert_same(output / "checkpoint-6", output)


def test_averages_are_what_is_evaluated_and_what_the_best_checkpoint_is_chosen_by(
    train, tiny_model_dir, pairs_path, tmp_path
):
    words = ["ema_decay=0.9", "learning_rate=1e-2", "load_best_model_at_end=true"]
    output = train("out", *words)
    found = logged(output, "eval_loss")
    config = settings(tiny_model_dir, pairs_path, output)
    development = read_training_data(config.train_file, None, []).development
    for step, expected in found.items():
        loaded = load_model(str(output / f"checkpoint-{step}"), device="cpu")
        dataset = ScanDataset(
                development, loaded.encoder, loaded.processor, max_seq_length=2048, probes=True, boxes=True
            )  # fmt: skip
        with torch.no_grad():
            loss = TreeModel(loaded).eval()(**collate([dataset[index] for index in range(len(dataset))]))["loss"]
        assert float(loss) == pytest.approx(expected, abs=1e-4)
    assert_same(output / f"checkpoint-{min(found, key=lambda step: found[step])}", output)


def test_a_run_with_averages_does_not_go_on_without_them(train):
    train("out", "ema_decay=0.9")
    with pytest.raises(ConfigError, match="give it again"):
        train("out")


def test_noise_moves_the_training_loss_and_no_evaluation(train):
    words = ["learning_rate=1e-12", "lora.dropout=0"]
    plain, noisy = train("plain", *words), train("noisy", *words, "neftune_noise_alpha=5")
    assert logged(noisy, "eval_loss") == pytest.approx(logged(plain, "eval_loss"), abs=1e-6)
    assert logged(noisy, "loss")[1] != pytest.approx(logged(plain, "loss")[1], abs=1e-4)


def test_a_run_stops_when_evaluations_get_no_better(train):
    output = train("out", "early_stopping_patience=1", "early_stopping_threshold=100", "max_steps=40")
    assert max(logged(output, "loss")) == 4  # the first of the evaluations at 2 and 4 is the best by definition
    assert (output / "adapter_model.safetensors").is_file()


def test_evaluations_before_a_stop_count_for_stopping_early(train):
    words = ["early_stopping_patience=2", "early_stopping_threshold=100", "max_steps=40"]
    assert max(logged(stop_after(train, 4, *words), "loss")) == 6  # the second after the one at 2


def test_a_broken_setting_is_found_before_the_model_is_looked_at(pairs_path, tmp_path):
    words = ["lr_scheduler_type=warmup_stable_decay"]
    with pytest.raises(ConfigError, match="num_decay_steps"):
        finetune(settings(tmp_path, pairs_path, tmp_path / "out", *words))


def test_an_adapter_above_four_bits_learns_and_loads_on_the_plain_base(train, tiny_model_dir):
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    output = train("out", "quantization=4bit", "lora.vision=false")
    losses = logged(output, "loss")
    assert min(losses[5], losses[6]) < losses[1]
    assert json.loads((output / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model_dir)
    loaded = load_model(str(output), device="cpu")
    assert not any("4bit" in type(module).__name__ for module in loaded.model.modules())
    torch.testing.assert_close(logits(output), logits(output, merge=True), atol=1e-4, rtol=0)


def test_four_bits_stay_close_to_the_plain_decoder_and_leave_the_rest_alone(tiny_model_dir):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    short = load_model(str(tiny_model_dir), device="cpu", four_bit=True).base
    found = {name for name, module in short.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    assert found
    assert all(name.startswith("model.language_model.layers.") for name in found)
    plain = logits(tiny_model_dir)
    with torch.no_grad():
        difference = short(input_ids=IDS).logits - plain
    assert 0 < difference.norm() < 0.2 * plain.norm()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # DeepSpeed compiles an operation of its own first
@pytest.mark.parametrize(
    ("sharding", "trace"),
    [
        ("fsdp=true", "pytorch_model_fsdp.bin"),
        ("deepspeed=configs/deepspeed_zero2.json", "latest"),
        ("deepspeed=configs/deepspeed_zero3.json", "latest"),
    ],
    ids=["fsdp", "zero2", "zero3"],
)
@pytest.mark.parametrize("words", [["method=full", "learning_rate=1e-3"], ["lora.vision=false"]], ids=["full", "lora"])
def test_two_processes_that_share_the_weights_learn_what_two_whole_ones_do(
    tiny_model_dir, pairs_path, tmp_path, words, sharding, trace
):
    if "deepspeed" in sharding:
        pytest.importorskip("deepspeed", reason="needs the extra deepspeed")

    def train_on_two(name: str, *more: str) -> Path:
        output = tmp_path / name
        config = settings(tiny_model_dir, pairs_path, output, "load_best_model_at_end=true", *words, *more)
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(config.model_dump(mode="json")))
        stand_in = Path(__file__).parents[1] / "stand_ins" / "sharded_on_cpu.py"
        program = [str(stand_in)] if "fsdp=true" in more else ["-m", "xray_vqa"]
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program, "train",
             str(path)],
            capture_output=True, text=True, timeout=600, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (output / "checkpoint-2" / trace).exists() == bool(more)
        return output

    whole, sharded = train_on_two("whole"), train_on_two("sharded", sharding)
    assert_same(sharded, whole, atol=2e-5)
    shutil.rmtree(sharded / "checkpoint-6")
    for path in sharded.glob("*.safetensors"):
        path.unlink()
    assert_same(train_on_two("sharded", sharding), whole, atol=2e-5)
    torch.testing.assert_close(logits(sharded), logits(whole), atol=1e-4, rtol=0)
