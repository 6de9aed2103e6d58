from pathlib import Path

import pytest
import yaml

from xray_vqa.cli.main import main

CONFIGS = Path(__file__).parents[3] / "configs"
POLICIES = sorted(CONFIGS.glob("policy*.yaml"))


def policy(*words) -> int:
    return main(["policy", *map(str, words)])


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_that_ships_has_no_fault(path, capsys):
    assert policy("check", path) == 0
    assert ": 0 faults, " in capsys.readouterr().out


def test_a_fault_is_told_and_makes_the_exit_code_1(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    (tmp_path / "policy.yaml").write_text((CONFIGS / "policy.yaml").read_text())
    path.write_text("{extends: policy.yaml, name: mine, action_for: {high: detain, critical: manual_inspection}}")
    assert policy("check", path) == 1
    assert "fault: action_for" in capsys.readouterr().err


def test_a_file_of_another_form_is_wrong_use(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine")
    assert policy("check", path) == 2
    assert "mine.yaml" in capsys.readouterr().err


def test_thresholds_are_looked_at_beside_a_calibration(tmp_path, capsys):
    nano = CONFIGS.parent / "src/xray_vqa/modeling/assets/nano"
    for calibration in (nano, nano / "calibration.json"):
        assert policy("check", CONFIGS / "policy.yaml", "--calibration", calibration) == 0
        assert "from simulated scans, so no bag can be cleared" in capsys.readouterr().err
    assert policy("check", CONFIGS / "policy.yaml", "--calibration", tmp_path) == 2
    assert "no such calibration file" in capsys.readouterr().err


def test_the_resolved_policy_loads_by_itself_and_is_the_same(tmp_path, capsys):
    assert policy("check", CONFIGS / "policy_customs.yaml", "--resolved") == 0
    whole = tmp_path / "whole.yaml"
    whole.write_text(capsys.readouterr().out)
    assert "extends" not in yaml.safe_load(whole.read_text())
    assert policy("diff", CONFIGS / "policy_customs.yaml", whole) == 0
    assert "nothing changes for anyone" in capsys.readouterr().out


def test_a_difference_is_told_in_words(capsys):
    assert policy("diff", CONFIGS / "policy.yaml", CONFIGS / "policy_cabin.yaml") == 0
    told = capsys.readouterr().out
    assert "stricter  who declares a hammer: declaring it is prohibited" in told
    assert "stricter  every bag: cleared only below 0.5 of each threshold, was 1" in told


@pytest.mark.parametrize("span", ["30x", "yesterday", "-3d"])
def test_a_span_that_cannot_be_read_is_wrong_use(span, capsys):
    with pytest.raises(SystemExit) as stopped:
        policy("replay", CONFIGS / "policy.yaml", f"--since={span}")
    assert stopped.value.code == 2
    assert "neither a span" in capsys.readouterr().err


def test_a_base_that_extends_another_is_refused(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("extends: b.yaml")
    (tmp_path / "b.yaml").write_text("extends: c.yaml")
    assert policy("check", tmp_path / "a.yaml") == 2
    assert "one base is all there is" in capsys.readouterr().err
    (tmp_path / "a.yaml").write_text("extends: none.yaml")
    assert policy("check", tmp_path / "a.yaml") == 2
    assert "none.yaml" in capsys.readouterr().err
