import importlib.util
import socket

import pytest

from xray_vqa.cli.main import main


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.json").write_text("[{}]")


def test_more_than_one_gpu_needs_vllm_and_says_what_to_install(monkeypatch, capsys):
    without(monkeypatch, "vllm")
    monkeypatch.setenv("TENSOR_PARALLEL_SIZE", "4")
    assert main(["serve", "--model", "nano"]) == 2
    message = capsys.readouterr().err
    assert "TENSOR_PARALLEL_SIZE=4" in message
    assert "pip install -e '.[vllm]'" in message
    assert "one server for each GPU" in message
    monkeypatch.delenv("TENSOR_PARALLEL_SIZE")
    monkeypatch.setenv("XRAY_VQA_TENSOR_PARALLEL_SIZE", "2")
    assert main(["inspect", "--model", "nano", "--engine", "transformers", "script.json"]) == 2
    assert "TENSOR_PARALLEL_SIZE=2" in capsys.readouterr().err


def test_more_than_one_gpu_is_refused_aloud_where_it_means_nothing(monkeypatch, capsys):
    monkeypatch.setenv("TENSOR_PARALLEL_SIZE", "4")
    assert main(["serve", "--engine", "scripted", "--model", "script.json"]) == 2
    assert "TENSOR_PARALLEL_SIZE=4" in capsys.readouterr().err
    for value in ("many", "0"):
        monkeypatch.setenv("TENSOR_PARALLEL_SIZE", value)
        assert main(["serve", "--engine", "scripted", "--model", "script.json"]) == 2
        assert f"TENSOR_PARALLEL_SIZE={value}" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["openai", "vllm"])
def test_an_engine_without_its_package_says_what_to_install(monkeypatch, capsys, engine):
    without(monkeypatch, engine)
    assert main(["serve", "--engine", engine, "--model", "nano", "--server-url", "http://localhost:8000/v1"]) == 2
    assert f"pip install -e '.[{engine}]'" in capsys.readouterr().err


def without(monkeypatch, package: str) -> None:
    """Let a package look as if it was not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )


def test_a_taken_port_is_wrong_use_and_names_the_way_out(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["serve", "--engine", "scripted", "--model", "script.json", "--port", port]) == 2
    message = capsys.readouterr().err
    assert f"port {port}" in message
    assert "--port takes another" in message


@pytest.mark.parametrize("package", ["fastapi", "sqlalchemy", "fastapi_offline"])
def test_without_the_extra_its_name_is_said(monkeypatch, capsys, package):
    without(monkeypatch, package)
    assert main(["serve", "--engine", "scripted", "--model", "script.json"]) == 2
    message = capsys.readouterr().err
    assert package in message
    assert "[serve]" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "tensorrt"], "--engine"),
        (["--engine", "openai", "--model", "nano"], "XRAY_VQA_SERVER_URL"),
        (["--engine", "scripted", "--model", "script.json", "--policy", "none.yaml"], "none.yaml"),
        (["--engine", "scripted", "--model", "script.json", "--port", "0", "--database-url", "sqlite://"], "in memory"),
    ],
)
def test_what_cannot_be_served_stops_before_anything_is_started(words, message, capsys):
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err
