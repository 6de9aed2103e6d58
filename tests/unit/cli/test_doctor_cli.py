"""What `xray-vqa doctor` says of a model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_ins.llm import WRONG_KEY, LlmServer, running

from xray_vqa.cli.doctor import describe_llm, say_model
from xray_vqa.cli.main import main
from xray_vqa.config.llm import load_llm_config
from xray_vqa.core.figures import read_figures, write_figures
from xray_vqa.errors import ConfigError, Incomplete, IntegrityError
from xray_vqa.generation.providers import Unavailable
from xray_vqa.modeling.loading import NANO_DIR, digest_of


def test_nano_is_named_with_its_digest_and_its_figures(capsys):
    say_model("nano")
    said = capsys.readouterr().out
    figures = read_figures(NANO_DIR)
    assert figures is not None
    assert figures.model_digest == digest_of(NANO_DIR)
    assert f"digest {digest_of(NANO_DIR)[:12]}" in said
    assert all(f"{name} {figure}" in said for name, figure in figures.values.items())


def test_figures_of_other_weights_are_not_shown(tmp_path: Path, capsys):
    shutil.copytree(NANO_DIR, tmp_path / "nano")
    figures = read_figures(NANO_DIR)
    assert figures is not None
    write_figures(tmp_path / "nano", figures.model_copy(update={"model_digest": "0" * 64}))
    say_model(str(tmp_path / "nano"))
    said = capsys.readouterr().out
    assert "figures are of other weights" in said
    assert "item F1" not in said


def test_a_damaged_file_is_named(tmp_path: Path):
    shutil.copytree(NANO_DIR, tmp_path / "nano")
    (tmp_path / "nano/tokenizer.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        say_model(str(tmp_path / "nano"))


SERVICES = [("anthropic", "Anthropic", ""), ("openai", "OpenAI", "/v1")]


@pytest.fixture
def services(monkeypatch) -> Iterator[LlmServer]:
    with running() as server:
        for name, _, suffix in SERVICES:
            monkeypatch.setenv(f"{name.upper()}_API_KEY", "a-key")
            monkeypatch.setenv(f"{name.upper()}_BASE_URL", server.url + suffix)
        yield server


@pytest.mark.parametrize(("name", "title", "_suffix"), SERVICES)
def test_a_service_knows_the_configured_model_or_what_is_wrong_is_said(
    services: LlmServer, name: str, title: str, _suffix: str, monkeypatch
):
    pytest.importorskip(name, reason=f"the extra `generate` is not installed: no {name}")
    model = getattr(load_llm_config(), name).model
    assert describe_llm(name).startswith(f"{model}, ")
    services.behaviour.models = ("another-model",)
    with pytest.raises(ConfigError, match=f"{title} does not list the model '{model}'; it has another-model"):
        describe_llm(name)
    monkeypatch.setenv(f"{name.upper()}_API_KEY", WRONG_KEY)
    with pytest.raises(Incomplete, match=f"check {name.upper()}_API_KEY"):
        describe_llm(name)
    monkeypatch.setenv(f"{name.upper()}_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=f"no answer from {title}"):
        describe_llm(name)


def test_the_doctor_names_each_service_and_never_fails(services: LlmServer, capsys):
    for name, _, _ in SERVICES:
        pytest.importorskip(name, reason=f"the extra `generate` is not installed: no {name}")
    services.behaviour.models = (load_llm_config().openai.model,)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert f"OPENAI_API_KEY      set; {load_llm_config().openai.model}, listed" in said
    assert "to mend: Anthropic does not list the model" in said
