"""Paid runs on their worst days: a key that moved, results that are gone, Ctrl-C, a full disk, a clock that jumps."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from bags import NUM_IMAGES, config_of
from test_batches import _quick, each, paid_twice, provider_of, server, whole_of, write

from xray_vqa.cli.main import main
from xray_vqa.config.generate import ProviderSettings
from xray_vqa.core.jsonl import write_json
from xray_vqa.errors import ConfigError, Incomplete
from xray_vqa.generation import on_ray
from xray_vqa.generation.batches import BatchesOpen, status_of
from xray_vqa.generation.journal import Event, Journal, journal_path, read_events
from xray_vqa.generation.providers.anthropic_batches import AnthropicBatches
from xray_vqa.generation.providers.template import TemplateProvider
from xray_vqa.generation.run import generate
from xray_vqa.generation.shards import Shard, merge_journals

__all__ = ["_quick", "server"]

KEY = "sk-first-0123456789"


def lose(server, name, config):
    """Submit a batch of which the service's answer is lost."""
    server.behaviour.lose_batch_replies = 1
    with pytest.raises(Incomplete, match="not all is submitted"):
        write(server, name, config, "submit", key=KEY)


# --- keys


@each
@pytest.mark.parametrize("told", [True, False])
def test_a_lost_batch_is_not_paid_again_with_the_key_of_another_project(server, dataset, name, told):
    server.behaviour.projects, server.behaviour.names_projects = {"sk-other": "second"}, told
    config = config_of(dataset)
    lose(server, name, config)
    assert KEY not in journal_path(config.output_path).read_text()
    whose = "organization acme and project first" if told else "an account that the service does not name"
    for mode in ("submit", "run"):
        with pytest.raises(Incomplete, match=rf"with a key of {whose}: .*--forget-batches.*up to \$0\.\d+") as said:
            write(server, name, config, mode, key="sk-other")
        assert f"{NUM_IMAGES} requests" in str(said.value)
    assert len(server.ledger) == NUM_IMAGES
    outcome = write(server, name, config, key=KEY)
    assert (len(server.ledger), paid_twice(server), outcome.num_lost) == (NUM_IMAGES, [], 0)


@each
def test_a_lost_batch_that_is_given_up_stays_booked(server, dataset, name):
    server.behaviour.projects = {"sk-other": "second"}
    config = config_of(dataset, forget_batches=True)
    lose(server, name, config)
    lost = [event.most_usd for event in read_events(journal_path(config.output_path)) if event.event == "sent"]
    outcome = write(server, name, config, key="sk-other")
    assert (len(server.ledger), outcome.num_lost) == (2 * NUM_IMAGES, NUM_IMAGES)
    assert outcome.lost_usd == pytest.approx(sum(lost), abs=1e-6)


@each
@pytest.mark.parametrize("told", [True, False])
def test_a_new_key_of_the_same_project_is_trusted_where_the_service_says_so(server, dataset, name, told):
    server.behaviour.names_projects = told
    config = config_of(dataset)
    lose(server, name, config)
    server.desk.batches.clear()  # as if it had never arrived
    server.ledger.clear()
    if told:
        assert write(server, name, config, key="sk-new").num_lost == 0
        assert len(server.ledger) == NUM_IMAGES
    else:
        with pytest.raises(Incomplete, match="--forget-batches"):
            write(server, name, config, key="sk-new")
        assert server.ledger == []


@each
def test_a_batch_that_this_key_does_not_see_is_named_and_can_be_given_up(server, dataset, name):
    server.behaviour.projects, server.behaviour.batch_s = {"sk-other": "second"}, 3600
    config = config_of(dataset)
    with pytest.raises(BatchesOpen):
        write(server, name, config, "submit", key=KEY)
    with pytest.raises(
        Incomplete, match=r"does not know the batch .* with a key of organization acme and project first"
    ):
        write(server, name, config, "collect", key="sk-other")
    [state] = status_of(config.output_path, [provider_of(server, name, key="sk-other")])
    assert "does not know the batch" in state["state"]
    server.behaviour.batch_s = 0
    assert write(server, name, config_of(dataset, forget_batches=True), key="sk-other").num_lost == NUM_IMAGES


# --- results that never come


@each
def test_results_that_the_service_has_deleted_stay_booked_and_are_asked_for_again(server, dataset, name):
    config = config_of(dataset)
    with pytest.raises(BatchesOpen):
        write(server, name, config, "submit")
    server.behaviour.results_are_gone = True
    with pytest.raises(Incomplete, match=rf"are deleted\. .*{NUM_IMAGES} more were billed.*up to \$0\.\d+ stay booked"):
        write(server, name, config, "collect")
    server.behaviour.results_are_gone = False
    outcome = write(server, name, config)
    assert (outcome.failed, outcome.num_lost, len(server.ledger)) == ({}, NUM_IMAGES, 2 * NUM_IMAGES)


@each
def test_a_cancelled_batch_keeps_its_replies_and_is_not_submitted_again_unasked(server, dataset, name):
    whole = whole_of(server, name, dataset)
    server.behaviour.script.extend(["cancelled"] * 3)
    config = config_of(dataset)
    with pytest.raises(Incomplete, match=rf"cancelled.*{NUM_IMAGES - 3} have replies, .*nothing else of it was billed"):
        write(server, name, config)
    assert len(server.desk.batches) == 1
    outcome = write(server, name, config)
    assert (outcome.num_lost, len(server.ledger), paid_twice(server)) == (0, NUM_IMAGES, [])
    assert config.output_path.read_bytes() == whole


def test_a_batch_that_was_not_taken_holds_up_no_other(server, dataset):
    server.behaviour.batch_script.extend(["enqueued tokens", ""])
    config = config_of(dataset, batch_requests=6)
    with pytest.raises(BatchesOpen):
        write(server, "openai", config, "submit")
    with pytest.raises(Incomplete, match=r"token_limit_exceeded.*--batch-size.*nothing else of it was billed"):
        write(server, "openai", config, "collect")
    assert sum(event.event == "answer" for event in read_events(journal_path(config.output_path))) == 6
    assert write(server, "openai", config).num_lost == 0
    assert (len(server.ledger), paid_twice(server)) == (NUM_IMAGES, [])


# --- shards


@each
def test_shards_written_by_the_batch_become_the_file_of_one_run(server, dataset, name):
    whole = whole_of(server, name, dataset)
    config = config_of(dataset)
    parts = [
        config_of(dataset, output_path=Shard(number, 2).path_for(config.output_path), shard=f"{number}/2")
        for number in (1, 2)
    ]
    server.behaviour.script.extend(["expired", "malformed"])
    write(server, name, parts[0])
    server.behaviour.batch_s = 3600
    with pytest.raises(BatchesOpen):
        write(server, name, parts[1], "submit")
    merge_journals(config.output_path)
    with pytest.raises(Incomplete, match="let each shard finish first"):
        write(server, name, config, None, may_ask=False)
    server.behaviour.batch_s = 0
    write(server, name, parts[1], "collect")
    for _ in range(2):  # merging again changes nothing
        merge_journals(config.output_path)
        outcome = write(server, name, config, None, may_ask=False)
        assert config.output_path.read_bytes() == whole
        assert (outcome.num_lost, paid_twice(server)) == (0, [])
        assert outcome.cost_usd == pytest.approx(server.sums()["delivered_usd"], abs=1e-6)


def test_replies_that_the_merged_file_alone_has_are_not_merged_away(server, dataset):
    config = config_of(dataset)
    part = config_of(dataset, output_path=Shard(1, 1).path_for(config.output_path), shard="1/1")
    server.behaviour.shares = {"expired": 1.0}
    write(server, "openai", part)
    merge_journals(config.output_path)
    server.behaviour.shares = {}
    write(server, "openai", config)
    with pytest.raises(ConfigError, match="holds replies that none of the shards has"):
        merge_journals(config.output_path)


# --- signals


@contextmanager
def running(server, dataset, *words):
    environment = os.environ | {"ANTHROPIC_API_KEY": "a-key", "ANTHROPIC_BASE_URL": server.url}
    command = [sys.executable, "-m", "xray_vqa", *words_of(dataset), "--yes", *words]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        yield run
        if run.poll() is None:
            run.kill()


def words_of(dataset):
    config = config_of(dataset)
    files = ["--annotations", str(config.annotations_path), "--output", str(config.output_path)]
    return ["generate", "--provider", "anthropic", *files, "--rate-limit-delay", "0"]


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_event(config, kind):
    path = journal_path(config.output_path)
    wait_until(lambda: path.exists() and any(event.event == kind for event in read_events(path)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_waits_for_a_batch_ends_at_once_and_says_how_to_go_on(server, dataset, number):
    server.behaviour.batch_s, config = 3600, config_of(dataset)
    with running(server, dataset, "--batch") as run:
        wait_for_event(config, "submitted")
        run.send_signal(number)
        said = run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert f"1 batches with {NUM_IMAGES} requests go on at the service" in said
    assert "`--batch collect` fetches what has ended" in said
    assert "Traceback" not in said
    server.behaviour.batch_s = 0
    assert write(server, "anthropic", config, "collect").failed == {}
    assert (len(server.desk.batches), len(server.ledger)) == (1, NUM_IMAGES)


@pytest.mark.parametrize("twice", [False, True])
def test_the_first_signal_waits_for_a_submission_and_the_second_does_not(server, dataset, twice):
    server.behaviour.latency_s, config = 2.0, config_of(dataset)
    with running(server, dataset, "--batch") as run:
        wait_for_event(config, "submitting")
        wait_until(lambda: server.seen["submission"])
        run.send_signal(signal.SIGINT)
        assert "once more ends at once" in run.stderr.readline() + run.stderr.readline() + run.stderr.readline()
        if twice:
            run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert "go on at the service" in said
    assert "Traceback" not in said
    events = [event.event for event in read_events(journal_path(config.output_path))]
    assert ("submitted" in events) is not twice
    wait_until(lambda: server.desk.batches)  # what was aborted reaches the service all the same
    assert write(server, "anthropic", config).failed == {}
    assert (len(server.desk.batches), len(server.ledger)) == (1, NUM_IMAGES)


def test_a_second_signal_in_the_middle_of_a_submission_tells_of_the_batch_too(server, dataset, monkeypatch, caplog):
    async def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(AnthropicBatches, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(server, "anthropic", config_of(dataset))
    assert f"1 batches with {NUM_IMAGES} requests go on at the service" in caplog.text


# --- disk, clock, input


@contextmanager
def largest_file(num_bytes):
    """Let no file grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def check_intact(config):
    for line in journal_path(config.output_path).read_bytes().splitlines():
        json.loads(line)


@each
def test_a_disk_that_fills_during_paid_calls_leaves_a_whole_journal(server, dataset, name):
    whole = whole_of(server, name, dataset)
    config, provider = config_of(dataset), provider_of(server, name, in_batches=False)
    with largest_file(9_000), pytest.raises(Incomplete, match="make room and start the same command again"):
        generate(config, provider, fallbacks=[TemplateProvider()])
    check_intact(config)
    outcome = generate(config, provider_of(server, name, in_batches=False), fallbacks=[TemplateProvider()])
    assert config.output_path.read_bytes() == whole
    assert len(server.ledger) <= NUM_IMAGES + outcome.num_lost  # what nobody could write down is booked


@each
def test_a_disk_that_fills_while_a_batch_is_fetched_costs_nothing(server, dataset, name):
    whole = whole_of(server, name, dataset)
    config = config_of(dataset)
    with pytest.raises(BatchesOpen):
        write(server, name, config, "submit")
    room = journal_path(config.output_path).stat().st_size + 5_000
    with largest_file(room), pytest.raises(Incomplete, match="make room and start the same command again"):
        write(server, name, config, "collect")
    check_intact(config)
    outcome = write(server, name, config, "collect")
    assert config.output_path.read_bytes() == whole
    assert (len(server.ledger), outcome.num_lost) == (NUM_IMAGES, 0)


def test_a_batch_that_the_disk_has_no_room_for_is_not_submitted(server, dataset):
    config = config_of(dataset)
    with largest_file(12_000), pytest.raises(Incomplete, match="make room and start the same command again"):
        write(server, "openai", config)
    check_intact(config)
    assert (server.ledger, server.desk.files) == ([], {})
    assert write(server, "openai", config).num_lost == 0


def test_what_is_written_after_a_torn_line_is_not_lost_with_it(tmp_path):
    path = tmp_path / "p_checkpoint.jsonl"
    with Journal(path) as journal:
        journal.append(Event(event="done", key="a"))
        with largest_file(path.stat().st_size + 40), pytest.raises(Incomplete, match="the disk is full"):
            journal.append(Event(event="failed", key="b", error="x" * 100))
        journal.append(Event(event="done", key="c"))
    assert [event.key for event in read_events(path)] == ["a", "c"]


@pytest.fixture
def jumping_clock(monkeypatch):
    """Turn the clock on the wall by a week at each look, forth and back."""
    real, looks = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(looks) * 7 * 86400.0)


@each
def test_a_clock_that_jumps_neither_doubles_nor_loses_a_batch(server, dataset, name, jumping_clock):
    whole = whole_of(server, name, dataset)
    server.behaviour.lose_batch_replies = 1
    config = config_of(dataset)
    outcome = write(server, name, config)
    assert (len(server.desk.batches), len(server.ledger), outcome.num_lost) == (1, NUM_IMAGES, 0)
    assert config.output_path.read_bytes() == whole


@each
def test_a_clock_that_jumps_stretches_no_wait(server, dataset, name, jumping_clock):
    server.behaviour.script.extend(["throttled", "overloaded", "throttled"])
    server.behaviour.retry_after_s = 0.05
    outcome = generate(config_of(dataset), provider_of(server, name, in_batches=False), fallbacks=[TemplateProvider()])
    assert (outcome.failed, len(server.ledger)) == ({}, NUM_IMAGES)


@pytest.mark.parametrize("mode", [None, "run"])
@each
def test_an_annotation_without_image_fails_alone_and_unpaid(server, dataset, name, mode):
    config = config_of(dataset)
    image = min((dataset / "train" / "images").iterdir())
    data = image.read_bytes()
    image.unlink()

    def go():
        return generate(config, provider_of(server, name, in_batches=bool(mode)), fallbacks=[TemplateProvider()],
                        batch=mode)  # fmt: skip

    assert go().failed == {f"train/images/{image.name}": "the image file is missing"}
    assert len(server.ledger) == NUM_IMAGES - 1
    image.write_bytes(data)
    assert go().failed == {}
    assert (len(server.ledger), paid_twice(server)) == (NUM_IMAGES, [])


@pytest.mark.parametrize("mode", [None, "run"])
@each
def test_an_image_over_the_services_limit_is_worded_from_its_facts(server, dataset, name, mode):
    server.behaviour.script.append("too_large")
    outcome = generate(
        config_of(dataset), provider_of(server, name, in_batches=bool(mode)), fallbacks=[TemplateProvider()], batch=mode
    )
    answers = [e.answer for e in read_events(journal_path(config_of(dataset).output_path)) if e.event == "answer"]
    assert sum("413" in answer.error for answer in answers) == 1
    assert (outcome.failed, outcome.num_lost, len(server.ledger)) == ({}, 0, NUM_IMAGES)


@pytest.mark.parametrize("batch", [[], ["--batch"]])
@pytest.mark.parametrize(
    ("key", "more", "code", "said"),
    [
        ("", [], 2, "ANTHROPIC_API_KEY"),
        ("wrong-key", [], 3, "the key is not accepted: check ANTHROPIC_API_KEY"),
        ("a-key", ["--model", "claude-none", "--price", "1,5"], 3, "is there a model 'claude-none'"),
        ("a-key", ["--model", "claude-none"], 2, "--price"),
    ],
)
def test_key_and_model_are_named_cost_nothing_and_can_be_mended(
    server, dataset, monkeypatch, capsys, batch, key, more, code, said
):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    words = [*words_of(dataset), "--yes", *batch]
    assert main([*words, *more]) == code
    assert said in capsys.readouterr().err
    assert server.ledger == []
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    assert main(words) == 0
    assert (len(server.ledger), "without a reply" in capsys.readouterr().out) == (NUM_IMAGES, False)


# --- other machines


def test_parts_find_their_scripts_from_another_working_directory(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    write_json(dataset.parent / "refusals.json", [{"fault": "refusal"}])
    write_json(dataset.parent / "words.json", [{}])
    scripted = [ProviderSettings(provider="scripted", script_path=name) for name in ("refusals.json", "words.json")]
    files = {"annotations_path": "scans/train/annotations.json", "output_path": "pairs.jsonl"}
    config = config_of(dataset, provider=scripted[0], fallbacks=scripted[1:], **files)
    [part] = on_ray.parts_of(config, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told = on_ray.Part.model_validate_json(on_ray._write_part({"config": part.model_dump_json()})["part"])
    assert (told.error, told.num_pairs > 0) == ("", True)
