"""`xray-vqa generate --engine ray` on a Ray of this machine: the set that one process writes, in parts."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_generate import command, dataset, environment, options, run

pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
ON_RAY = ("--engine", "ray", "--parts", "3")

__all__ = ["dataset"]


def script(tmp_path, *steps):
    path = tmp_path / "script.json"
    path.write_text(json.dumps(steps))
    return ("--provider", "scripted", "--script", path)


def parts_of(output):
    return sorted(output.parent.glob(f"{output.stem}_shard*of3_checkpoint.jsonl"))


def test_parts_all_over_a_cluster_become_the_file_that_one_process_writes(dataset, tmp_path):
    alone, on_ray = tmp_path / "alone.jsonl", tmp_path / "ray.jsonl"
    assert run(*options(dataset, alone), "--provider", "template").returncode == 0
    done = run(*options(dataset, on_ray), *ON_RAY, "--provider", "template")
    assert done.returncode == 0, done.stderr
    assert "pairs              72 about 24 images" in done.stdout
    assert on_ray.read_bytes() == alone.read_bytes()
    assert len(parts_of(on_ray)) == 3


@pytest.mark.slow
def test_the_same_command_once_more_changes_nothing(dataset, tmp_path):
    on_ray = tmp_path / "ray.jsonl"
    assert run(*options(dataset, on_ray), *ON_RAY, "--provider", "template").returncode == 0
    pairs = on_ray.read_bytes()
    before = [path.read_bytes() for path in parts_of(on_ray)]
    again = run(*options(dataset, on_ray), *ON_RAY, "--provider", "template")
    assert again.returncode == 0, again.stderr
    assert [path.read_bytes() for path in parts_of(on_ray)] == before
    assert on_ray.read_bytes() == pairs


def test_a_part_that_cannot_go_on_ends_the_command_by_its_own_code(dataset, tmp_path):
    output = tmp_path / "pairs.jsonl"
    done = run(*options(dataset, output), *ON_RAY, *script(tmp_path, {"fault": "incomplete"}), "--yes")
    assert done.returncode == 3, done.stderr
    assert "3 of 3 parts did not end" in done.stderr
    assert not output.exists()
    assert run(*options(dataset, output), *ON_RAY, "--shard", "1/2", "--provider", "template").returncode == 2


def test_a_killed_worker_is_started_again_and_nothing_is_lost_or_doubled(dataset, tmp_path):
    alone, output = tmp_path / "alone.jsonl", tmp_path / "pairs.jsonl"
    assert run(*options(dataset, alone), "--provider", "template").returncode == 0
    slow = (*options(dataset, output), *ON_RAY, *script(tmp_path, {"delay_s": 0.4}), "--yes")
    running = subprocess.Popen(
        command(*slow, "--rate-limit-delay", "0"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 90
    while not (workers := [pid for pid in workers_beneath(running.pid) if any(map(has_answers, parts_of(output)))]):
        assert time.monotonic() < deadline
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors.decode()
    shown = [json.loads(line)["image_path"] for line in output.read_text().splitlines()]
    assert sorted(set(shown)) == sorted({json.loads(line)["image_path"] for line in alone.read_text().splitlines()})
    assert len(shown) == 72


def has_answers(journal: Path) -> bool:
    return b'"answer"' in journal.read_bytes()


def workers_beneath(pid: int) -> list[int]:
    """Processes of Ray that write a part now, beneath a process."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"ray::" in title and b"_write_part" in title and pid in ancestors(int(entry.name)):
            found.append(int(entry.name))
    return found


def ancestors(pid: int) -> list[int]:
    chain = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
        chain.append(pid)
    return chain
