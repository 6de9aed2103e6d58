"""Who examines a model while it trains, on which scans, and when nobody can."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.training.watching.generation_eval import GenerationEvaluation, choose_examiner

IMAGES = {Path("a.png")}


class CountingExaminer:
    """Answers with the numbers that it was given, and says whether layers would have been compiled meanwhile."""

    def __init__(self, num_scans: int = 1, measurable: frozenset[str] = frozenset({"item_f1"})) -> None:
        self.num_scans, self._measurable = num_scans, measurable
        self.asked: list[int] = []
        self.was_compiling: list[bool] = []

    def measurable(self) -> frozenset[str]:
        return self._measurable

    def answer(self, loaded, numbers):
        self.asked += numbers
        compiled = torch.compile(lambda x: torch.tensor(float(torch.compiler.is_compiling())) + x, backend="eager")
        self.was_compiling.append(bool(compiled(torch.zeros(()))))
        return list(numbers)

    def score(self, answers):
        return {"item_f1": len(answers) / 100}


def find(config, images):
    return CountingExaminer()


def config_of(tmp_path: Path, stage: int | None = None, **settings) -> TrainConfig:
    if stage is not None:
        settings["deepspeed"] = tmp_path / "deepspeed.json"
        settings["deepspeed"].write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return TrainConfig(**settings)


@given(st.integers(0, 40), st.integers(1, 8))
def test_the_processes_divide_the_scans_among_themselves(num_scans, world):
    examiner = CountingExaminer(num_scans)
    for rank in range(world):
        GenerationEvaluation(examiner, None)(rank, world)  # type: ignore[arg-type]
    assert sorted(examiner.asked) == list(range(num_scans))


def test_metrics_come_with_the_time_that_they_took_and_nothing_is_compiled_for_them():
    examiner = CountingExaminer(3)
    found = GenerationEvaluation(examiner, None)(0, 1)  # type: ignore[arg-type]
    assert found["item_f1"] == 0.03
    assert found["generation_s"] >= 0
    assert examiner.was_compiling == [False]


@pytest.mark.parametrize(("stage", "examined"), [(None, True), (2, True), (3, False)])
def test_weights_that_are_divided_over_gpus_generate_nothing_and_the_log_says_so(tmp_path, caplog, stage, examined):
    examiner = choose_examiner(config_of(tmp_path, stage), IMAGES, find)
    assert (examiner is not None) == examined
    assert ("generating needs them whole" in caplog.text) != examined


def test_a_metric_that_nobody_would_measure_is_refused(tmp_path):
    config = config_of(tmp_path, 3, metric_for_best_model="eval_item_f1")
    with pytest.raises(ConfigError, match="eval_item_f1 cannot be measured"):
        choose_examiner(config, IMAGES, find)
    with pytest.raises(ConfigError, match="nobody"):
        choose_examiner(config_of(tmp_path, metric_for_best_model="eval_item_f1"), IMAGES, None)
    with pytest.raises(ConfigError, match="these can: eval_item_f1, eval_loss"):
        choose_examiner(config_of(tmp_path, metric_for_best_model="eval_auc"), IMAGES, find)


def test_nothing_is_examined_where_nothing_is_held_out_or_wanted(tmp_path):
    assert choose_examiner(config_of(tmp_path), set(), find) is None
    assert choose_examiner(config_of(tmp_path, eval_generate_images=0), IMAGES, find) is None
