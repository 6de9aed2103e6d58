"""What `xray-vqa doctor` says of a model."""

import shutil
from pathlib import Path

import pytest

from xray_vqa.cli.doctor import say_model
from xray_vqa.core.figures import read_figures, write_figures
from xray_vqa.errors import IntegrityError
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
