"""Pairs by the batch: the vendors' own SDKs against a server that keeps a ledger, with a run killed at every point."""

import json
import os
import signal
import time
from collections import Counter
from multiprocessing import get_context

import pytest
from bags import NUM_IMAGES, config_of, make_records, write_scans
from PIL import Image
from stand_ins.llm import running

from xray_vqa.cli.main import main
from xray_vqa.config.generate import ProviderSettings
from xray_vqa.config.llm import LlmSettings
from xray_vqa.errors import ConfigError, Incomplete
from xray_vqa.generation import batches
from xray_vqa.generation.batches import BatchesOpen, status_of
from xray_vqa.generation.journal import Journal, journal_path, read_events
from xray_vqa.generation.providers import open_provider
from xray_vqa.generation.providers.template import TemplateProvider
from xray_vqa.generation.run import generate

pytest.importorskip("anthropic", reason="the extra `generate` is not installed: no anthropic")
pytest.importorskip("openai", reason="the extra `generate` is not installed: no openai")

from xray_vqa.generation.providers.anthropic import AnthropicProvider
from xray_vqa.generation.providers.openai import OpenAIProvider

KINDS = {"anthropic": (AnthropicProvider, "claude-haiku-5-5", ""), "openai": (OpenAIProvider, "gpt-6-luna", "/v1")}
each = pytest.mark.parametrize("name", list(KINDS))


@pytest.fixture
def server():
    with running() as found:
        yield found


@pytest.fixture(autouse=True)
def _quick(monkeypatch, dataset):
    monkeypatch.setattr(batches, "FIRST_POLL_S", 0.01)
    monkeypatch.setattr(batches, "SETTLE_S", 0.2)
    for record in make_records(NUM_IMAGES):
        Image.new("L", record.size_wh, record.image_id).save(dataset / record.image_path)
    records = [r.model_copy(update={"sha256": None}) for r in make_records(NUM_IMAGES)]
    write_records(dataset, records)


def write_records(dataset, records):
    kept = {r.image_path: (dataset / r.image_path).read_bytes() for r in records}
    write_scans(dataset, records)
    for path, data in kept.items():
        (dataset / path).write_bytes(data)


def provider_of(server, name, *, in_batches=True, key="a-key"):
    kind, model, suffix = KINDS[name]
    settings = LlmSettings(model=model, base_url=server.url + suffix, timeout_s=10.0)
    return kind(settings, price=server.behaviour.price, api_key=key, in_batches=in_batches)


def write(server, name, config, mode="run", key="a-key", **options):
    return generate(config, provider_of(server, name, key=key), fallbacks=[TemplateProvider()], batch=mode, **options)


def paid_twice(server):
    """Contents that were billed more than once though their first reply was good."""
    return [content for content, n in Counter(b.content for b in server.ledger if not b.fault).items() if n > 1]


def whole_of(server, name, dataset):
    config = config_of(dataset, output_path=dataset.parent / "single" / "pairs.jsonl")
    generate(config, provider_of(server, name, in_batches=False), fallbacks=[TemplateProvider()])
    server.ledger.clear()
    return config.output_path.read_bytes()


@each
def test_batches_end_with_the_bytes_of_single_calls_at_half_the_price(server, dataset, name):
    whole = whole_of(server, name, dataset)
    config = config_of(dataset, batch_requests=5)
    outcome = write(server, name, config)
    assert config.output_path.read_bytes() == whole
    assert len(server.desk.batches) == 3
    assert (paid_twice(server), len(server.ledger), outcome.num_lost) == ([], NUM_IMAGES, 0)
    assert outcome.cost_usd == pytest.approx(server.sums()["delivered_usd"], abs=1e-6)


@each
def test_what_is_refused_expired_or_failed_is_asked_again_and_only_that(server, dataset, name):
    server.behaviour.script.extend(["expired", "overloaded", "refusal", "malformed", "policy"])
    config = config_of(dataset)
    outcome = write(server, name, config)
    assert (outcome.failed, outcome.num_lost, outcome.quality.num_images) == ({}, 0, NUM_IMAGES)
    assert paid_twice(server) == []
    assert outcome.cost_usd == pytest.approx(server.sums()["delivered_usd"], abs=1e-6)
    assert len(server.ledger) == NUM_IMAGES + 2  # the refusal and what was no JSON


@each
def test_what_is_refused_everywhere_is_worded_by_templates_between_the_rounds(server, dataset, name):
    server.behaviour.shares = {"refusal": 1.0}
    outcome = write(server, name, config_of(dataset))
    assert (outcome.failed, outcome.quality.num_images) == ({}, NUM_IMAGES)
    assert len(server.desk.batches) == 2  # with the image, and without


@each
def test_a_batch_whose_answer_was_lost_is_adopted(server, dataset, name):
    server.behaviour.lose_batch_replies = 1
    outcome = write(server, name, config_of(dataset))
    assert (outcome.failed, len(server.desk.batches), len(server.ledger)) == ({}, 1, NUM_IMAGES)


def test_a_lost_batch_that_is_still_in_progress_is_not_submitted_again(server, dataset):
    server.behaviour.lose_batch_replies, server.behaviour.batch_s = 1, 3600
    config = config_of(dataset)
    with pytest.raises(Incomplete, match="not all is submitted"):
        write(server, "anthropic", config, "submit")
    time.sleep(0.3)
    for mode in ("submit", "collect"):
        with pytest.raises(Incomplete, match="shows whose requests a batch holds only when it has ended"):
            write(server, "anthropic", config, mode)
    assert len(server.desk.batches) == 1
    server.behaviour.batch_s = 0
    write(server, "anthropic", config)
    assert (len(server.desk.batches), len(server.ledger)) == (1, NUM_IMAGES)


@each
def test_submit_status_and_collect_are_steps_of_one_way(server, dataset, name):
    server.behaviour.batch_s = 3600
    config = config_of(dataset)
    with pytest.raises(BatchesOpen, match=f"{NUM_IMAGES} images are open: {NUM_IMAGES} in 1 batches"):
        write(server, name, config, "submit")
    [state] = status_of(config.output_path, [provider_of(server, name)])
    assert state["waiting_requests"] == NUM_IMAGES
    assert state["state"].startswith("in_progress")
    with pytest.raises(BatchesOpen):
        write(server, name, config, "collect")
    with pytest.raises(ConfigError, match="--batch collect first"):
        generate(config, provider_of(server, name, in_batches=False), fallbacks=[TemplateProvider()])
    server.behaviour.batch_s = 0
    assert write(server, name, config, "collect").quality.num_images == NUM_IMAGES
    assert status_of(config.output_path, [provider_of(server, name)]) == []
    assert len(server.ledger) == NUM_IMAGES
    generate(config, provider_of(server, name, in_batches=False), fallbacks=[TemplateProvider()])
    assert len(server.ledger) == NUM_IMAGES


@each
def test_no_more_is_submitted_than_the_cap_can_pay_at_its_worst(server, dataset, name):
    config = config_of(dataset)
    provider = provider_of(server, name)
    from xray_vqa.config.loading import load_policy
    from xray_vqa.generation.source import make_plan, open_source

    source = open_source(config.annotations_path)
    requests = [source.request(image) for image in make_plan(config, source, load_policy())]
    most_usd = max(provider.most_usd(request) for request in requests)
    capped = config_of(dataset, max_cost_usd=most_usd * 4.2)
    with pytest.raises(Incomplete, match="incomplete: budget"):
        write(server, name, capped, "submit")
    assert 4 <= len(server.ledger) < NUM_IMAGES
    with pytest.raises(Incomplete, match="incomplete: budget"):
        write(server, name, config_of(dataset, max_cost_usd=most_usd * 1.2))
    assert server.sums()["delivered_usd"] <= most_usd * 4.2
    assert write(server, name, config_of(dataset, max_cost_usd=1.0)).failed == {}
    assert paid_twice(server) == []


def test_batches_are_packed_by_bytes(server, dataset):
    write(server, "anthropic", config_of(dataset, batch_bytes=60_000))
    sizes = [batch["total"] for batch in server.desk.batches.values()]
    assert len(sizes) > 1
    assert sum(sizes) == NUM_IMAGES


def test_what_the_service_never_gets_to_is_named_and_tried_by_the_next_command(server, dataset):
    server.behaviour.shares = {"expired": 1.0}
    outcome = write(server, "anthropic", config_of(dataset))
    assert (len(outcome.failed), len(server.desk.batches), outcome.cost_usd) == (NUM_IMAGES, batches.TRIES, 0.0)
    server.behaviour.shares = {}
    assert write(server, "anthropic", config_of(dataset)).failed == {}


def test_from_the_command_line(server, dataset, monkeypatch, capsys):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    output = dataset.parent / "pairs.jsonl"
    words = ["--annotations", str(dataset / "train" / "annotations.json"), "--output", str(output)]
    words = ["generate", "--provider", "anthropic", *words]
    prices = []
    for more in ([], ["--batch"]):
        assert main([*words, *more, "--dry-run", "--json"]) == 0
        prices.append(json.loads(capsys.readouterr().out)["estimated_cost_usd"])
    assert prices[1] < prices[0]
    server.behaviour.batch_s = 3600
    assert main([*words, "--batch", "submit", "--yes"]) == 0
    assert f"{NUM_IMAGES} images are open" in capsys.readouterr().out
    assert main([*words, "--batch", "status"]) == 0
    assert "1 open batches" in (told := capsys.readouterr().out)
    assert f"in_progress, {NUM_IMAGES} requests, 0 done" in told
    assert main([*words, "--batch", "collect"]) == 3
    assert main([*words, "--yes"]) == 2
    server.behaviour.batch_s = 0
    assert main([*words, "--batch", "collect"]) == 0
    assert main([*words, "--batch", "--provider", "template"]) == 2


def test_a_service_that_takes_no_batch_now_is_asked_later(server, dataset):
    server.behaviour.batch_script.append("queue is full")
    assert write(server, "anthropic", config_of(dataset)).failed == {}
    assert len(server.ledger) == NUM_IMAGES


def test_a_batch_that_is_not_taken_costs_nothing_and_says_why(server, dataset):
    server.behaviour.batch_script.append("enqueued tokens")
    with pytest.raises(Incomplete, match=r"enqueued tokens.*--batch-size"):
        write(server, "openai", config_of(dataset))
    assert write(server, "openai", config_of(dataset)).num_lost == 0


def test_a_provider_without_batches_is_refused():
    with pytest.raises(ConfigError, match="template provider has no batches"):
        open_provider(ProviderSettings(provider="template"), in_batches=True)


def write_and_die(server, name, config, point, count):
    """Run in a process of its own, that ends (-9) before an event is journaled for the nth time, or while it polls."""
    left = count
    append = Journal.append

    def kill_before(self, event):
        nonlocal left
        left -= event.event == point
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, event)

    Journal.append = kill_before
    if point == "polling":
        batches.describe_state = lambda state: os.kill(os.getpid(), signal.SIGKILL)
    write(server, name, config)


POINTS = [
    ("sent", 5),  # while it is announced
    ("submitting", 1),  # before the service hears of it
    ("submitted", 1),  # the service has it, and the journal does not know
    ("submitted", 2),
    ("polling", 1),
    ("answer", 1),
    ("answer", 7),  # in the middle of the results
    ("collected", 1),
    ("done", 3),
]


@each
@pytest.mark.parametrize(("point", "count"), POINTS)
def test_killed_at_any_point_the_same_command_goes_on_and_nothing_is_paid_twice(server, dataset, name, point, count):
    whole = whole_of(server, name, dataset)
    config = config_of(dataset, batch_requests=8)
    # Forked: it has the vendors' SDKs already, whose import would take longer than the rest.
    process = get_context("fork").Process(target=write_and_die, args=(server, name, config, point, count))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    outcome = write(server, name, config)
    assert config.output_path.read_bytes() == whole
    assert (paid_twice(server), len(server.ledger), outcome.num_lost) == ([], NUM_IMAGES, 0)
    calls = [event.call for event in read_events(journal_path(config.output_path)) if event.event == "answer"]
    assert len(set(calls)) == NUM_IMAGES
    assert json.loads(config.output_path.with_name("pairs_stats.json").read_text())["failed_images"] == 0
