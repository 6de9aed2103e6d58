"""A model in training is asked what it would be asked in service, and scored as it would be afterwards."""

import dataclasses
from pathlib import Path

import pytest
import torch
from prediction_samples import make_prediction
from test_predict import make_dataset

from xray_vqa.config.loading import load_policy
from xray_vqa.config.train import GENERATION_METRICS
from xray_vqa.errors import ModelUnavailable
from xray_vqa.evaluation.examiner import DevelopmentExaminer
from xray_vqa.evaluation.testset import load_test_set
from xray_vqa.modeling.loading import load_model
from xray_vqa.training.tree_trainer import TreeModel


def make_examiner(root: Path, **limits) -> DevelopmentExaminer:
    return DevelopmentExaminer(load_test_set(make_dataset(root), **limits), load_policy())


def test_only_some_scans_are_examined_and_a_limit_counts_among_them(tmp_path: Path):
    pairs = make_dataset(tmp_path / "stcray")
    wanted = {(tmp_path / "stcray").resolve() / f"test/images/{k:06d}.png" for k in (1, 4, 5, 99)}
    chosen = load_test_set(pairs, only=wanted).scans
    assert [scan.record.image_id for scan in chosen] == [1, 4, 5]
    assert {scan.record.image_id for scan in load_test_set(pairs, max_images=2, only=wanted).scans} < {1, 4, 5}


def test_scans_of_both_kinds_measure_everything(tmp_path: Path):
    measurable = make_examiner(tmp_path / "stcray").measurable()
    assert measurable == {name.removeprefix("eval_") for name in GENERATION_METRICS}


def test_false_alarms_need_clean_bags(tmp_path: Path):
    pairs = make_dataset(tmp_path / "stcray")
    threats = {(tmp_path / "stcray").resolve() / f"test/images/{k:06d}.png" for k in (0, 3, 6)}
    examiner = DevelopmentExaminer(load_test_set(pairs, only=threats), load_policy())
    assert examiner.measurable() == {"item_f1", "exact_match", "lenient_match"}


def test_metrics_are_worked_out_over_bags_and_items(tmp_path: Path):
    examiner = make_examiner(tmp_path / "stcray")
    predictions = [
        make_prediction(0, present=("Knife",), scores={"Knife": 0.9}),
        make_prediction(1, present=("Knife",), scores={"Knife": 0.4}),
        make_prediction(2, present=(), scores={"Knife": 0.6}),
        make_prediction(3, present=(), scores={"Knife": 0.1}),
    ]
    found = examiner.score(predictions)
    # At 0.5: one hit, one miss, one false alarm. Of the four threat-clean pairs three are in order.
    assert found["item_f1"] == pytest.approx(2 / (2 + 1 + 1))
    assert found["auc"] == found["category_auc"] == pytest.approx(0.75)
    assert found["recall_at_fpr5"] == found["recall_at_fpr10"] == pytest.approx(0.5)


def test_training_attention_answers_as_serving_does(tmp_path: Path):
    examiner = make_examiner(tmp_path / "stcray", max_images=3)
    loaded = load_model("nano", device="cpu")
    served = examiner.answer(loaded, range(3))
    TreeModel(loaded)  # switches the decoder to packed attention
    trained = examiner.answer(loaded, range(3))
    for ours, theirs in zip(trained, served, strict=True):
        assert [a.answer for a in ours.answers] == [a.answer for a in theirs.answers]
        assert ours.scores["Knife"].probability == pytest.approx(theirs.scores["Knife"].probability, abs=1e-6)


@pytest.mark.slow
def test_the_weights_are_used_as_they_are_now(tmp_path: Path):
    examiner = make_examiner(tmp_path / "stcray", max_images=1)
    loaded = load_model("nano", device="cpu")
    (before,) = examiner.answer(loaded, [0])
    with torch.no_grad():
        loaded.base.model.visual.merger.mlp[2].weight.mul_(-3)
    (after,) = examiner.answer(loaded, [0])
    assert before.scores["Knife"].probability != after.scores["Knife"].probability


def test_an_engine_that_fails_on_everything_is_no_measurement(tmp_path: Path):
    examiner = make_examiner(tmp_path / "stcray", max_images=2)
    broken = dataclasses.replace(load_model("nano", device="cpu"), processor=None)
    with pytest.raises(ModelUnavailable, match="eval_generate_images=0"):
        examiner.answer(broken, [0, 1])
