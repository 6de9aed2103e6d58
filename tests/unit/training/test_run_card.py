"""The card of a finished run: the hub can read it, and it says which weights lie there and why."""

import importlib.metadata
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from transformers import TrainerState

from xray_vqa.config.train import TrainConfig
from xray_vqa.core.manifest import make_manifest
from xray_vqa.training.inputs.demand import Demand
from xray_vqa.training.planning.plan import RunPlan
from xray_vqa.training.watching import run_card
from xray_vqa.training.watching.run_card import CARD_NAME, CURVES_NAME, FinishedRun, write_run_card

HISTORY = [
    {"step": 5, "loss": 3.0, "learning_rate": 1e-4},
    {"step": 10, "loss": 2.0, "learning_rate": 5e-5},
    {"step": 10, "eval_loss": 2.5, "eval_item_f1": 0.75, "eval_runtime": 6.0},
    {"step": 20, "loss": 1.5, "learning_rate": 0.0},
    {"step": 20, "eval_loss": 2.25, "eval_item_f1": 0.5, "eval_runtime": 4.0},
]
PLAN = RunPlan(
    num_images=100, num_pairs=300, num_development=10, left_out={}, num_not_mirrored=0, images_per_update=4,
    num_updates=20, num_ranks=1, demands=(Demand(900, 2000, 70),), longest=(0,), num_epochs=1.0,
)  # fmt: skip


def make_run(history=HISTORY, first_update: int = 0, **config) -> FinishedRun:
    settings = TrainConfig(**({"metric_for_best_model": "eval_item_f1"} | config))
    state = TrainerState(
        global_step=20,
        log_history=history,
        best_global_step=10,
        best_metric=0.75,
        best_model_checkpoint="checkpoint-10",
    )
    return FinishedRun(
        config=settings,
        plan=PLAN,
        manifest=make_manifest("train", inputs={"pairs.jsonl": "ab12"}, counts={"images": 100}),
        state=state,
        first_update=first_update,
        seconds=30.0,
        base_digest="0123456789abcdef",
        data_digest="fedcba",
        gates=["gradients: each of 8 trained tensors had one within 3 updates"],
    )


def test_the_hub_reads_the_card_with_the_kept_weights_figures(tmp_path: Path):
    write_run_card(make_run(), tmp_path)
    card = ModelCard.load(tmp_path / CARD_NAME)
    assert card.data.base_model == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert card.data.library_name == "peft"
    results = {result.metric_type: result.metric_value for result in card.data.eval_results or []}
    assert results == {"loss": 2.5, "item_f1": 0.75}
    assert "| **10** | **2.5000** | **0.7500** |" in card.text
    assert "update 10 (bold): the greatest `eval_item_f1`" in card.text
    for told in ("ab12", "fedcba", "0123456789ab", "each of 8", "learning_rate: 0.0002"):
        assert told in card.text


def test_a_local_base_is_no_name_of_the_hub(tmp_path: Path):
    (tmp_path / "my" / "base").mkdir(parents=True)
    write_run_card(make_run(model_name=str(tmp_path / "my" / "base"), method="full"), tmp_path)
    card = ModelCard.load(tmp_path / CARD_NAME)
    assert card.data.base_model is None
    assert card.data.library_name == "transformers"


@pytest.mark.parametrize(
    ("first_update", "speed"),
    # 20 updates of 4 images with 3 pairs each in 30 - 10 s; 10 of them in 30 - 4 s, the first evaluation being earlier.
    [(0, "12.00 pairs/s, 4.00 images/s"), (10, "4.62 pairs/s, 1.54 images/s")],
)
def test_speed_is_of_training_in_this_process(tmp_path: Path, first_update, speed):
    write_run_card(make_run(first_update=first_update), tmp_path)
    text = (tmp_path / CARD_NAME).read_text()
    assert speed in text
    assert ("went on from update 10" in text) == bool(first_update)


def test_a_process_that_had_nothing_left_to_do_claims_no_speed(tmp_path: Path):
    write_run_card(make_run(first_update=20), tmp_path)
    text = (tmp_path / CARD_NAME).read_text()
    assert "pairs/s" not in text
    assert "see `train.log`" in text


def test_last_weights_are_told_as_such(tmp_path: Path):
    write_run_card(make_run(load_best_model_at_end=False), tmp_path)
    text = (tmp_path / CARD_NAME).read_text()
    assert "| **20** |" in text
    assert "update 20 (bold): the last ones" in text


def test_a_run_without_evaluations_has_a_card_too(tmp_path: Path):
    write_run_card(make_run(history=HISTORY[:2]), tmp_path)
    card = ModelCard.load(tmp_path / CARD_NAME)
    assert not card.data.eval_results
    assert "no development scans" in card.text


def test_curves_are_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib")
    write_run_card(make_run(), tmp_path)
    with Image.open(tmp_path / CURVES_NAME) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10  # axes, curves and their edges
    assert f"]({CURVES_NAME})" in (tmp_path / CARD_NAME).read_text()


def test_without_matplotlib_the_card_is_whole_and_the_log_says_what_is_missing(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(run_card.importlib.util, "find_spec", lambda name: None)
    write_run_card(make_run(), tmp_path)
    assert CURVES_NAME not in (tmp_path / CARD_NAME).read_text()
    assert not (tmp_path / CURVES_NAME).exists()
    assert "matplotlib" in caplog.text


def test_versions_are_those_that_ran(tmp_path: Path):
    write_run_card(make_run(), tmp_path)
    assert f"transformers {importlib.metadata.version('transformers')}" in (tmp_path / CARD_NAME).read_text()
