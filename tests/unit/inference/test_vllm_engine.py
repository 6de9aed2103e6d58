"""vLLM in this process, with a stand-in for it; tests/integration/test_vllm_parity.py runs the real one."""

import runpy
from pathlib import Path

import pytest
from stand_ins.chat_server import SOME, picture
from stand_ins.fake_vllm import FakeVllm

from xray_vqa.config.serve import EngineSettings
from xray_vqa.core.prompts import prefix_text, probe_text
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable, ConfigError, ModelUnavailable
from xray_vqa.inference.engines import open_engine
from xray_vqa.inference.engines.transformers import TransformersEngine
from xray_vqa.inference.engines.vllm import VllmEngine
from xray_vqa.modeling.branch_rows import decoder_of

SETTINGS = EngineSettings(call_timeout_s=120)


@pytest.fixture
def fake(tiny, monkeypatch) -> FakeVllm:
    fake = FakeVllm(tiny)
    fake.install(monkeypatch)
    return fake


def test_the_benchmark_that_imports_vllm_alone_has_our_prompts():
    benchmark = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "vllm_scoring.py"))
    assert benchmark["PREFIX"] == prefix_text(1)
    assert benchmark["PROBES"] == tuple(map(probe_text, CATEGORIES))


def engine_of(fake: FakeVllm, **settings) -> VllmEngine:
    return VllmEngine(str(fake.loaded.weights_dir), SETTINGS.model_copy(update=settings))


def test_scores_places_and_answers_are_those_of_the_model_in_this_process(fake, tiny):
    engine, own = engine_of(fake), TransformersEngine.of(decoder_of(tiny))
    info = engine.start()
    assert (info.identity.engine, info.identity.dtype) == ("vllm", "fp32")
    assert info.identity.model_digest == tiny.model_digest
    images = [picture(1), picture(2, (84, 140))]
    found, expected = (each.read(images, SOME, {"Knife": 0.0}) for each in (engine, own))
    for ours, theirs in zip(found, expected, strict=True):
        for name in SOME:
            assert ours.scores[name].probability == pytest.approx(theirs.scores[name].probability, abs=1e-3)
        assert ours.boxes == theirs.boxes
    assert engine.ask(images[:1], [["What is in the bag?"]], 6) == own.ask(images[:1], [["What is in the bag?"]], 6)
    engine.close()


def test_pixels_go_over_once_under_a_name_that_no_other_inspection_has(fake):
    engine = engine_of(fake)
    engine.start()
    fake.requests.clear()
    engine.read([picture(3)] * 2, SOME, {})
    names = [request["mm_hashes"]["image"][0] for request in fake.requests]
    with_pixels = [request for request in fake.requests if request["mm_kwargs"]["image"][0] is not None]
    assert len(names) == 2 * len(SOME)
    assert len(set(names)) == len(with_pixels) == 2
    engine.close()


def test_a_dead_engine_and_a_resized_picture_raise_and_are_told_by_a_probe(fake):
    engine = engine_of(fake)
    engine.start()
    fake.extra_image_tokens = 1
    with pytest.raises(AnswerUnreadable):
        engine.read([picture(4)], SOME, {})
    fake.extra_image_tokens, fake.dead = 0, True
    for call in (lambda: engine.read([picture(4)], SOME, {}), engine.probe):
        with pytest.raises(ModelUnavailable, match="EngineCore"):
            call()
    engine.close()


def test_more_gpus_select_it_and_reach_it(fake):
    settings = EngineSettings(tensor_parallel_size=2)
    engine = open_engine("transformers", str(fake.loaded.weights_dir), settings=settings)
    assert isinstance(engine, VllmEngine)
    engine.start()
    assert fake.arguments["tensor_parallel_size"] == 2
    assert fake.arguments["dtype"] == "float32"
    engine.close()


def test_what_it_cannot_run_is_said_before_anything_is_loaded(fake, tmp_path):
    with pytest.raises(ConfigError, match="xray-vqa merge adapter"):
        VllmEngine("nano", SETTINGS, adapter="adapter")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        VllmEngine("nano", SETTINGS, device="cuda:1")
    with pytest.raises(ModelUnavailable, match="only the transformers engine reads"):
        VllmEngine("nano", SETTINGS).start()
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="merge it"):
        VllmEngine(str(tmp_path), SETTINGS).start()
