import json
import re

import pytest

from xray_vqa.cli.main import main


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["keys", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_key_is_printed_alone_on_stdout_and_never_again(capsys, tmp_path):
    code, out, err = run(capsys, "create", "--name", "scanner 3", "--role", "lane", "--lane", "L3")
    assert code == 0
    key = re.fullmatch(r"(xvqa_([0-9a-f]{12})_([0-9a-f]{64}))\n", out)
    assert key
    assert "it is not shown again" in err
    assert "sqlite:///outputs/audit.sqlite3" in err
    assert key[3] not in err
    for words in (("list",), ("list", "--json")):
        _, listed, _ = run(capsys, *words)
        assert key[2] in listed
        assert key[3] not in listed
    assert key[3].encode() not in (tmp_path / "outputs/audit.sqlite3").read_bytes()


def test_the_list_says_what_each_key_may_do_and_until_when(capsys):
    run(capsys, "create", "--name", "scanner", "--role", "lane", "--lane", "L3", "--lane", "L4", "--days", "7")
    run(capsys, "create", "--name", "prometheus", "--role", "auditor", "--scope", "metrics")
    _, out, _ = run(capsys, "list", "--json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["role"], first["lanes"], first["scopes"]) == ("lane", ["L3", "L4"], None)
    assert (second["role"], second["lanes"], second["scopes"]) == ("auditor", None, ["metrics"])
    run(capsys, "revoke", first["key_id"], "--reason", "lost")
    _, out, _ = run(capsys, "list")
    lines = out.splitlines()
    assert re.search(r"lane +L3,L4 +revoked +until \d{4}-\d\d-\d\d .*scanner$", lines[0])
    assert re.search(r"auditor \(metrics only\) +every lane +valid +until .* prometheus$", lines[1])


def test_a_rotated_key_is_another_for_the_same(capsys):
    _, old, _ = run(capsys, "create", "--name", "scanner", "--role", "lane", "--lane", "L3")
    key_id = old.split("_")[1]
    code, new, err = run(capsys, "rotate", key_id, "--overlap-hours", "0")
    assert code == 0
    assert new != old
    assert f"the key {key_id} ends in 0 hours" in err
    _, out, _ = run(capsys, "list", "--json")
    assert json.loads(out.splitlines()[1])["replaces"] == key_id


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["create", "--name", "x", "--role", "lane"], "name one with --lane"),
        (["create", "--name", "x", "--role", "lane", "--lane", "a b"], "'a b' is no name of a lane"),
        (["create", "--name", " ", "--role", "admin"], "--name has to be one line of visible text"),
        (["create", "--name", "a\nb", "--role", "admin"], "--name has to be one line of visible text"),
        (["create", "--name", "x", "--role", "admin", "--scope", "stop"], "the role admin has no stop"),
        (["revoke", "0123456789ab"], "no key '0123456789ab'"),
        (["rotate", "0123456789ab", "--overlap-hours", "-1"], "--overlap-hours is not negative"),
        (["list", "--database-url", "sqlite://"], "in memory"),
    ],
)
def test_wrong_use_says_what_to_do(capsys, words, message):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
