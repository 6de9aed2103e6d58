"""Pre-training of nano: a run that is stopped goes on exactly, several processes learn as one, the recipe works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from xray_vqa.config.train import PretrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.loading import NANO_DIR, load_model
from xray_vqa.modeling.nano import PROCESSOR, build_config
from xray_vqa.modeling.patches import use_patch_products
from xray_vqa.training.pretraining import pretrain as recipe
from xray_vqa.training.pretraining.model import AuxiliaryHeads, Batch, PretrainModel
from xray_vqa.training.pretraining.state import RunState

SIZE_WH = (112, 84)
TINY = {
    "size_wh": [*SIZE_WH], "vision_depth": 2, "text_depth": 1, "batch_size": 4, "num_producers": 1, "pool_size": 64,
    "pool_minimum": 8, "num_validation": 8, "warmup_steps": 2, "max_minutes": 10,
}  # fmt: skip


def tiny_config(output_dir: Path) -> PretrainConfig:
    return PretrainConfig(recipe="pretrain", profiles=["stcray-like"], output_dir=output_dir, **TINY)


class Run:
    """A tiny model in mid-run, fed with batches that depend on the step alone."""

    def __init__(self, config: PretrainConfig) -> None:
        from transformers import Qwen2_5_VLForConditionalGeneration

        torch.manual_seed(config.seed)
        self.config = config
        tokenizer = AutoTokenizer.from_pretrained(NANO_DIR)
        self.network = Qwen2_5_VLForConditionalGeneration(
            build_config(tokenizer, vision_depth=config.vision_depth, text_depth=config.text_depth)
        ).float()
        use_segment_attention(self.network)
        use_patch_products(self.network)
        self.heads = AuxiliaryHeads(256)
        self.model = PretrainModel(self.network, PromptEncoder(tokenizer), PROCESSOR, SIZE_WH, torch.device("cpu"))
        self.state = RunState.begin(self.network, self.heads, config)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            losses = self.model.losses(batch_of(self.state.step), self.heads)
            torch.stack(list(losses.values())).sum().backward()
            self.state.update(1e-3, self.config)


def batch_of(step: int) -> Batch:
    from xray_vqa.core.geometry import Box
    from xray_vqa.core.records import Annotation
    from xray_vqa.training.pretraining.stream import branches_of, pack_branches

    generator = torch.Generator().manual_seed(step)
    encoder = PromptEncoder(AutoTokenizer.from_pretrained(NANO_DIR))
    packed, _ = pack_branches(branches_of(encoder, [Annotation("Gun", Box(28, 0, 28, 28))], []), 160)
    images = torch.randint(0, 256, (2, 84, 112, 3), generator=generator, dtype=torch.uint8)
    owner = torch.randint(0, 2, (2, 12), generator=generator)
    patch_owner = torch.randint(0, 2, (2, 6, 8), generator=generator)
    objects = torch.zeros(2, 8, 5)
    objects[:, 0] = torch.tensor([1, 0.25, 0, 0.5, 0.33])
    return Batch(images, owner, patch_owner, objects, torch.from_numpy(packed).long().expand(2, -1, -1))


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.state.parameters.items()} | {
        f"average.{name}": average.clone() for name, average in run.state.averages.items()
    }


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(tmp_path: Path):
    config = tiny_config(tmp_path)
    whole = Run(config)
    whole.train(4)
    first = Run(config)
    first.train(2)
    first.state.seconds = 7.5
    first.state.save(tmp_path, config)
    second = Run(config.model_copy(update={"learning_rate": 1.0}))  # whatever it begins with is overwritten
    assert second.state.resume(tmp_path, config)
    assert (second.state.step, second.state.seconds) == (2, 7.5)
    second.train(2)
    expected, found = weights_of(whole), weights_of(second)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_is_written_in_pieces_and_replaces_the_one_before(tmp_path: Path):
    config = tiny_config(tmp_path)
    run = Run(config)
    for _ in range(2):
        run.train(1)
        run.state.save(tmp_path, config)
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-2"]
    pieces = list((tmp_path / "checkpoint-2").glob("*.safetensors"))
    assert len(pieces) > 1
    assert max(piece.stat().st_size for piece in pieces) <= 16 * 2**20


def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path):
    config = tiny_config(tmp_path)
    run = Run(config)
    run.train(1)
    run.state.save(tmp_path, config)
    with pytest.raises(ConfigError, match="another seed and profiles"):
        run.state.resume(tmp_path, config.model_copy(update={"seed": 3, "profiles": ["sixray-white-like"]}))


def test_patches_stand_in_the_order_of_their_owners(tmp_path: Path):
    """A change of one patch of the image must show most in that patch's state."""
    model = Run(tiny_config(tmp_path)).model
    batch = batch_of(0)
    white = torch.full_like(batch.images[:1], 255)
    branches = batch.branches[:1]
    with torch.no_grad():
        before = model.hidden_states(white, branches)[2][0]
        for row, column in ((0, 0), (1, 0), (0, 1), (3, 5), (5, 7)):
            image, owner = white.clone(), torch.zeros(1, 6, 8, dtype=torch.int64)
            image[:, row * 14 : row * 14 + 14, column * 14 : column * 14 + 14] = 0
            owner[0, row, column] = 1
            change = (model.hidden_states(image, branches)[2][0] - before).norm(dim=-1)
            assert change.argmax() == model.as_patches(owner)[0].argmax()


def run_pretrain(output_dir: Path, *words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    settings = [f"{key}={value}" for key, value in TINY.items()]
    command = [sys.executable, *launch, "-m", "xray_vqa", "train", "--config", "configs/pretrain_nano.yaml"]
    return subprocess.run(
        [*command, f"output_dir={output_dir}", *settings, *words],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_recipe_makes_weights_that_load_over_two_runs(tmp_path: Path):
    """What takes GPUs minutes, in a few steps: two processes that are stopped, one that goes on and exports."""
    stopped = run_pretrain(tmp_path, "max_steps=12", "stop_after_minutes=0.001", processes=2)
    assert stopped.returncode == 0, stopped.stderr
    assert "the same command goes on" in stopped.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    finished = run_pretrain(tmp_path, "max_steps=12")
    assert finished.returncode == 0, finished.stderr
    assert "going on at step 1" in finished.stderr
    result = json.loads((tmp_path / "pretrain.jsonl").read_text().splitlines()[-1])
    assert result["step"] == 12
    assert not list(tmp_path.glob("checkpoint-*"))
    loaded = load_model(str(tmp_path), device="cpu")
    assert loaded.covered_categories
    with pytest.raises(ConfigError, match="holds a finished run"):
        recipe.pretrain(tiny_config(tmp_path), None, None)  # type: ignore[arg-type]
