"""By which metric the best checkpoint is chosen: checked before a run starts, and never the wrong way round."""

import pytest

from xray_vqa.config.loading import load_config
from xray_vqa.config.train import GENERATION_METRICS, TrainConfig
from xray_vqa.errors import ConfigError


def config_of(*words: str) -> TrainConfig:
    return load_config(TrainConfig, overrides=words)


@pytest.mark.parametrize("name", ["eval_loss", *GENERATION_METRICS])
def test_a_metric_is_known_with_and_without_its_prefix_and_knows_its_direction(name):
    for spelling in (name, name.removeprefix("eval_")):
        config = config_of(f"metric_for_best_model={spelling}")
        assert config.metric_for_best_model == name
        assert config.best_is_greatest == (name != "eval_loss")


def test_the_guides_keys_are_accepted_as_they_stand():
    assert not config_of("metric_for_best_model=eval_loss", "greater_is_better=false").best_is_greatest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metric_for_best_model=eval_f1"], r"no metric 'eval_f1'.*eval_item_f1"),
        (["metric_for_best_model=eval_item_f1", "eval_generate_images=0"], "eval_generate_images is 0"),
        (["metric_for_best_model=eval_item_f1", "greater_is_better=false"], r"better the greater.*set it to True"),
        (["greater_is_better=true"], r"better the smaller.*leave it out"),
    ],
)
def test_what_would_choose_wrongly_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        config_of(*words)
