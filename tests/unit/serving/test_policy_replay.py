import json
from pathlib import Path

import pytest
from service_kit import CLEAN, make_request

from xray_vqa.cli.main import main
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading


@pytest.fixture
def inspected(open_client, tmp_path):
    """An audit store with three bags: a clean one, one with a score close to a gun's threshold, one with a knife."""
    engine = ScriptedEngine([CLEAN, ScriptedReading({"Gun": 0.4}), ScriptedReading({"Knife": 0.9})])
    client = open_client(engine)
    answers = [
        client.post("/api/v1/inspect", json=make_request(scan_id=name)).json() for name in ("clean", "almost", "knife")
    ]
    assert [answer["action"] for answer in answers] == ["clear", "clear", "manual_inspection"]
    return client.app.state.service.settings.database_url


def replay(capsys, url, path, *words):
    assert main(["policy", "replay", str(path), "--database-url", url, *words]) == 0
    streams = capsys.readouterr()
    return json.loads(streams.out), streams.err


def test_a_replay_names_the_bags_that_another_policy_would_not_have_cleared(inspected, tmp_path, capsys):
    strict = tmp_path / "strict.yaml"
    strict.write_text(f"{{extends: {Path('configs/policy.yaml').resolve()}, clear_share: 0.5}}")
    found, table = replay(capsys, inspected, strict)
    assert found["actions"] == {
        "clear": {"clear": 1, "manual_inspection": 1},
        "manual_inspection": {"manual_inspection": 1},
    }
    assert (found["clear_to_manual"], found["manual_to_clear"]) == (["almost"], [])
    assert "clear -> not clear: 1 (almost)" in table
    assert "3 inspections since" in table


def test_the_policy_of_the_record_replayed_changes_nothing(inspected, capsys):
    found, _ = replay(capsys, inspected, "configs/policy.yaml", "--since", "1h")
    assert found["moved"] == []
    assert found["num_inspections"] == 3


def test_what_is_older_than_the_span_is_left_out(inspected, capsys):
    found, table = replay(capsys, inspected, "configs/policy.yaml", "--since", "2999-01-01")
    assert found["num_inspections"] == 0
    assert "0 inspections since 2999-01-01" in table


def test_without_a_store_the_command_says_so_and_makes_none(tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/none.sqlite3"
    assert main(["policy", "replay", "configs/policy.yaml", "--database-url", url]) == 2
    assert "no such audit store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
