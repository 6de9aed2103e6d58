import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from xray_vqa.core.jsonl import read_json, read_jsonl, replacing, replacing_folder, write_json, write_jsonl
from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError, DatasetError, Incomplete


class Entry(Strict):
    number: int


def crash_while_replacing(path, error):
    with replacing(path) as stream:
        stream.write(b"half of the n")
        raise error


def test_a_crash_inside_the_block_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        crash_while_replacing(path, RuntimeError())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_before_there_was_a_file_leaves_none(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        crash_while_replacing(tmp_path / "a.json", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    code = (
        "import os, pathlib, signal, sys\nfrom xray_vqa.core.jsonl import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'x' * 100_000)\n    stream.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_folders_are_made_and_others_may_read_the_file(tmp_path):
    path = tmp_path / "deep/er/a.json"
    before = os.umask(0o022)
    try:
        write_json(path, {"a": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_json_comes_back_as_it_was_written(tmp_path):
    value = {"place": "Zürich", "list": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Zürich" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("data", [b"{", b"", b'{"a": 1} x', b"\xff\xfe\x00"])
def test_what_is_no_json_is_named(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.json: not JSON"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="no such file"):
        read_jsonl(tmp_path / "a.jsonl", Entry)


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "a.jsonl"
    assert write_jsonl(path, ({"number": n} for n in range(3))) == 3
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"number": n} for n in range(3)]
    records, faults = read_jsonl(path, Entry)
    assert ([record.number for record in records], faults) == ([0, 1, 2], [])


def test_a_failing_source_of_lines_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"number": 1}])

    def values():
        yield {"number": 2}
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_jsonl(path, values())
    assert path.read_text() == '{"number": 1}\n'


def test_bad_lines_are_named_by_their_number_and_the_rest_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"number": 1}\n\n{"number": "x"}\n{"number": 2, "more": 3}\n\xff\n{"number": 4}\n{"number": 5')
    records, faults = read_jsonl(path, Entry)
    assert [record.number for record in records] == [1, 4]
    assert [fault.position for fault in faults] == [3, 4, 5, 7]
    assert str(faults[1]) == f"{path}:4: more: Extra inputs are not permitted"


def stop_half_way(path, error):
    with replacing_folder(path) as folder:
        (folder / "a").write_text("a")
        raise error


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with replacing_folder(tmp_path / "model") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "a").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), Incomplete),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), Incomplete),  # Rust's
    ],
)
def test_what_stops_a_folder_half_way_leaves_none(tmp_path, raised, expected):
    with pytest.raises(expected):
        stop_half_way(tmp_path / "model", raised)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_of_a_folder_is_not_taken_for_part_of_it(tmp_path):
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "old").write_text("half")
    with replacing_folder(tmp_path / "model") as folder:
        (folder / "new").write_text("whole")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]


def test_a_folder_that_holds_something_is_not_replaced(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("mine")
    with pytest.raises(ConfigError), replacing_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model" / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
