"""Updates that memory does not hold at once end as those that it does; a fake runs out of it at a number of tokens."""

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PrinterCallback

from xray_vqa.config.train import LoraSettings, TrainConfig
from xray_vqa.core.records import Annotation
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.loading import load_model
from xray_vqa.training.arguments import training_arguments
from xray_vqa.training.inputs.collator import ScanDataset, collate
from xray_vqa.training.inputs.demand import Demand
from xray_vqa.training.inputs.scans import TrainingScan
from xray_vqa.training.planning.memory import MemoryPlan, PassCost
from xray_vqa.training.planning.parts import Budget
from xray_vqa.training.trainable import make_trainable
from xray_vqa.training.tree_trainer import TreeModel, TreeTrainer

A_TOKEN_EACH = PassCost(token=1, patch=0, answer=0, workspace=0)
ROOMY = 1e9


def plan_of(limit: float, *, fallback: bool = False) -> MemoryPlan:
    """A plan in which a token costs a byte and a pass may take `limit` of them."""
    costs = (A_TOKEN_EACH, A_TOKEN_EACH.scaled(0.1)) if fallback else (A_TOKEN_EACH,)
    # What a plan leaves free is added, so that the limit is as said.
    plan = MemoryPlan(0.0, 0.0, costs, checkpointing=False, longest=(Demand(100, 100, 1),) * 4)
    return MemoryPlan(plan.limit - limit, 0.0, costs, checkpointing=False, longest=plan.longest)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingScan]:
    """Eight scans of several sizes."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("scans")
    found = []
    for number in range(8):
        path, size = folder / f"{number}.png", (112 + 28 * (number % 3), 84)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        answer = "Yes." if number % 2 else "No, there is no gun in it."
        annotations = (Annotation("Gun", None),) if number % 2 else ()
        found.append(TrainingScan(path, size, annotations, ("Gun", "Knife"), (("Is it a gun?", answer),), ("en",)))
    return found


class Run:
    """A few updates of a tiny model on a CPU."""

    def __init__(
        self,
        model_dir: Path,
        scans: list[TrainingScan],
        output: Path,
        budget: Budget | None,
        *,
        batch_size: int = 4,
        dropout: float = 0.0,
        **more: Any,
    ) -> None:
        config = TrainConfig(
            model_name=str(model_dir), output_dir=output, per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=2, max_steps=2,
            logging_steps=1, learning_rate=1e-2, save_steps=100, eval_steps=100, report_to=[],
            lora=LoraSettings(r=4, dropout=dropout, vision=True), dataloader_num_workers=0,
        )  # fmt: skip
        loaded = load_model(str(model_dir), device="cpu")
        self.data = ScanDataset(
            scans, loaded.encoder, loaded.processor, max_seq_length=512, probes=True, boxes=True, probe_weight=3.0
        )
        torch.manual_seed(0)
        loaded.model = make_trainable(config, loaded)
        self.base = loaded.base
        self.trainer = TreeTrainer(
            model=TreeModel(loaded),
            args=training_arguments(config, loaded, has_development=False, checkpointing=False),
            data_collator=collate,
            train_dataset=self.data,
            budget=budget,
            **more,
        )
        self.trainer.remove_callback(PrinterCallback)

    def train(self) -> "Run":
        self.trainer.train()
        return self

    @property
    def losses(self) -> list[float]:
        return [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach() for name, weight in self.base.named_parameters() if weight.requires_grad}

    def run_out_of_memory(self, *, above: int, backward: bool = False) -> "Run":
        """Let passes with more tokens fail, on the way forward or when the decoder's gradients are already made."""

        def fail(*_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        def look(module: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> None:
            embedded = named["inputs_embeds"]
            if embedded.shape[1] > above:
                embedded.register_hook(fail) if backward else fail()

        self.base.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
        return self


@pytest.fixture(scope="module")
def whole(tiny_model_dir: Path, scans: list[TrainingScan], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run without limits."""
    return Run(tiny_model_dir, scans, tmp_path_factory.mktemp("whole"), None).train()


@pytest.fixture
def make_run(tiny_model_dir: Path, scans: list[TrainingScan], tmp_path: Path) -> Callable[..., Run]:
    return lambda budget=None, **more: Run(tiny_model_dir, scans, tmp_path / "out", budget, **more)


def assert_same(run: Run, whole: Run) -> None:
    assert run.losses == pytest.approx(whole.losses, abs=1e-6)
    assert run.trainer.state.global_step == 2
    for name, weight in whole.weights.items():
        # A hundredth of one step: Adam scales a gradient near zero up to a step's size, and its rounding with it.
        torch.testing.assert_close(run.weights[name], weight, atol=1e-4, rtol=0)


def test_an_update_divided_by_a_budget_ends_as_one_divided_into_batches(make_run, whole):
    budget = Budget(plan_of(300))  # two images
    assert_same(make_run(budget).train(), whole)
    assert budget.describe() == "2 updates in 8 passes"


def test_small_batches_share_a_pass_where_memory_allows(make_run, whole):
    budget = Budget(plan_of(ROOMY))
    assert_same(make_run(budget).train(), whole)
    assert budget.describe() == "2 updates in 2 passes"


@pytest.mark.parametrize("backward", [False, True])
def test_an_update_that_runs_out_of_memory_is_done_again_in_halves(make_run, whole, caplog, backward):
    budget = Budget(plan_of(ROOMY))
    with caplog.at_level(logging.WARNING, "xray_vqa"):
        run = make_run(budget).run_out_of_memory(above=300, backward=backward).train()
    assert_same(run, whole)
    assert "out of memory at 8 images of" in caplog.text
    assert "out of memory at 4 images of" in caplog.text
    assert "Tried to allocate" in caplog.text
    # The second update is divided before it fails.
    assert budget.describe() == "2 updates in 8 passes, besides 2 that ran out of memory"


def test_running_out_of_memory_late_in_an_update_leaves_nothing_of_the_failed_pass(make_run, whole):
    passes = []
    run = make_run(Budget(plan_of(300)))

    def fail_once(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 2:  # when the gradients of the first part are there
            raise torch.OutOfMemoryError("CUDA out of memory.")

    run.base.model.visual.merger.register_full_backward_hook(fail_once)
    assert_same(run.train(), whole)
    assert len(passes) > 4


def test_one_image_that_does_not_fit_is_named_with_what_to_do(make_run, scans):
    run = make_run(Budget(plan_of(ROOMY))).run_out_of_memory(above=20)
    with pytest.raises(ConfigError, match=r"\d\.png: out of memory at this one image of \d+ tokens.*image_resolution"):
        run.train()


def test_where_one_image_does_not_fit_checkpointing_is_turned_on_if_nobody_decided(make_run, whole, caplog):
    run = make_run(Budget(plan_of(ROOMY, fallback=True)))
    model = run.base.model.language_model

    def look(*_: Any, **__: Any) -> None:
        if not model.layers[0].gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(look)
    with caplog.at_level(logging.WARNING, "xray_vqa"):
        run.train()
    assert_same(run, whole)
    assert "going on with gradient checkpointing" in caplog.text


class ScriptedMemory:
    """A device on which every pass takes 300 bytes, beside 1,000 that are always taken."""

    def capacity(self) -> float:
        return 2e9

    def allocated(self) -> float:
        return 1000

    def reset_peak(self) -> None:
        pass

    def peak(self) -> float:
        return 1300


def test_a_probe_measures_and_changes_nothing(make_run, caplog):
    plain = make_run(Budget(plan_of(ROOMY)), dropout=0.2).train()
    budget = Budget(plan_of(ROOMY))
    run = make_run(budget, dropout=0.2, memory=ScriptedMemory(), longest=lambda: [run.data[index] for index in (2, 5)])
    with caplog.at_level(logging.INFO, "xray_vqa"):
        run.train()
    assert run.losses == plain.losses
    assert all(torch.equal(run.weights[name], weight) for name, weight in plain.weights.items())
    assert "a pass with the 2 longest images" in caplog.text
    assert budget.cost_of([run.data[2], run.data[5]]) == pytest.approx(300)


def test_a_probe_that_runs_out_of_memory_spares_the_updates_from_it(make_run, whole):
    budget = Budget(plan_of(ROOMY))
    run = make_run(budget, memory=ScriptedMemory(), longest=lambda: [run.data[index] for index in range(8)])
    assert_same(run.run_out_of_memory(above=300).train(), whole)
    assert budget.describe() == "2 updates in 8 passes, besides 2 that ran out of memory"


def train_as_rank(rank: int, port: int, model_dir: Path, scans: list[TrainingScan], folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    budget = Budget(plan_of(ROOMY))
    run = Run(model_dir, scans, folder / "out", budget, batch_size=2)
    if rank == 1:
        run.run_out_of_memory(above=200, backward=True)
    run.train()
    torch.save((run.losses, run.weights, budget.num_overflows), folder / f"{rank}.pt")


@pytest.mark.slow
def test_one_process_of_two_may_run_out_of_memory_alone(tiny_model_dir, whole, scans, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train_as_rank, (port, tiny_model_dir, scans, tmp_path), nprocs=2)
    (losses, weights, untroubled), (_, others, troubled) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert untroubled == 0 < troubled
    assert losses == pytest.approx(whole.losses, abs=1e-5)  # of one process with the same batch of images
    for name, weight in whole.weights.items():
        assert torch.equal(weights[name], others[name])
        torch.testing.assert_close(weights[name], weight, atol=2e-5, rtol=0)
