"""What a run does on a provider's bad days: repairs, the refusal ladder, other tries, and money."""

import asyncio
import hashlib
import json
import threading

import pytest
from bags import NUM_IMAGES, config_of, read

from xray_vqa.errors import Incomplete
from xray_vqa.generation import calling
from xray_vqa.generation.journal import Event, Journal, journal_path
from xray_vqa.generation.providers import Reply
from xray_vqa.generation.providers.scripted import ScriptedProvider, Step
from xray_vqa.generation.providers.template import TemplateProvider
from xray_vqa.generation.run import generate


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(calling, "FIRST_WAIT_S", 0.001)


def script(*steps, **options):
    return ScriptedProvider([Step(fault=each) if isinstance(each, str) else each for each in (*steps, "")], **options)


def stats_of(config):
    return json.loads(config.output_path.with_name("pairs_stats.json").read_text())


class Recording(ScriptedProvider):
    """Remembers what it was asked."""

    def __init__(self, steps, **options):
        super().__init__(steps, **options)
        self.requests = []

    async def generate(self, request):
        self.requests.append(request)
        return await super().generate(request)


def test_a_repair_asks_for_what_is_wrong_alone_and_says_why(dataset):
    provider = Recording([Step(fault="leak"), Step()])
    outcome = generate(config_of(dataset), provider)
    first, second = provider.requests[:2]
    assert (len(first.slots), first.complaint) == (3, "")
    assert second.slots == first.slots[:1]
    assert second.complaint.startswith("slot 0: ")
    assert (outcome.num_rejected, outcome.quality.num_pairs) == (0, 3 * NUM_IMAGES)


def test_what_a_model_refuses_is_asked_without_the_image_then_of_the_next_one(dataset):
    config = config_of(dataset)
    provider = Recording([Step(fault="refusal"), Step(fault="refusal"), Step()])
    outcome = generate(config, provider, fallbacks=[TemplateProvider()])
    assert [request.with_image for request in provider.requests[:3]] == [True, False, True]
    assert outcome.failed == {}
    assert [pair.metadata.generated_by for pair in read(config.output_path)].count("template") == 3
    rungs = {name.split(": ")[0] for name in stats_of(config)["refusals"]}
    assert rungs == {"scripted", "scripted, facts alone"}


class Citing(ScriptedProvider):
    """Cites evidence: at first what `first` makes of it, then what it should."""

    def __init__(self, first, *, disagrees=False):
        super().__init__([Step()])
        self._first, self._disagrees = first, disagrees

    async def generate(self, request):
        reply = await super().generate(request)
        told = json.loads(reply.text)
        for pair, slot in zip(told["pairs"], request.slots, strict=True):
            pair["evidence"] = self._first(list(slot.evidence)) if self.calls == 1 else list(slot.evidence)
        return reply.model_copy(update={"text": json.dumps({**told, "disagree": self._disagrees and self.calls == 1})})


def test_an_answer_that_rests_on_other_facts_is_sent_back(dataset):
    provider = Citing(lambda evidence: [*evidence, 7])
    outcome = generate(config_of(dataset), provider)
    assert provider.calls == NUM_IMAGES + 1
    assert (outcome.failed, outcome.num_rejected) == ({}, 0)


def test_a_writer_that_sees_something_else_is_heard(dataset):
    config = config_of(dataset)
    outcome = generate(config, Citing(lambda evidence: evidence, disagrees=True))
    assert outcome.disputed == [read(config.output_path)[0].image_path]
    assert stats_of(config)["disputed_annotations"] == outcome.disputed


def test_too_fast_is_tried_again_after_the_wait_and_fails_nobody(dataset):
    provider = script(Step(fault="throttled", retry_after_s=0.05), Step(fault="throttled", retry_after_s=0.0))
    assert generate(config_of(dataset), provider).failed == {}
    assert provider.calls == NUM_IMAGES + 2


def test_a_service_that_is_away_for_a_moment_fails_nobody(dataset):
    provider = script(*["unavailable"] * (calling.TRIES - 1))
    assert generate(config_of(dataset), provider).failed == {}
    assert provider.calls == NUM_IMAGES + calling.TRIES - 1


def test_an_image_that_nobody_answers_about_is_named_and_keeps_what_it_has(dataset):
    config = config_of(dataset)
    first = generate(config, script(Step(fault="missing", cost_usd=0.01), *["unavailable"] * calling.TRIES))
    assert list(first.failed.values()) == ["the script says that nobody answers"]
    provider = script()
    assert generate(config, provider).failed == {}
    assert provider.calls == 1  # the one slot that was missing; the others' words were paid for and kept


def test_a_service_that_is_away_for_good_ends_the_run(dataset):
    with pytest.raises(Incomplete, match="more than half of the last 20 calls failed"):
        generate(config_of(dataset), ScriptedProvider([Step(fault="unavailable")], concurrency=4))


def test_a_reply_that_never_came_is_booked_at_its_worst_and_told_apart(dataset):
    config = config_of(dataset)
    outcome = generate(config, script(Step(fault="lost", cost_usd=0.5), Step(cost_usd=0.25)))
    assert (outcome.num_lost, outcome.lost_usd, outcome.cost_usd) == (1, 0.5, 0.25)
    stats = stats_of(config)
    assert (stats["calls_without_reply"], stats["calls_without_reply_usd_at_most"]) == (1, 0.5)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_cap_is_never_passed_and_the_run_goes_on_with_a_higher_one(dataset, concurrency):
    provider = ScriptedProvider([Step(cost_usd=0.1, delay_s=0.001)], concurrency=concurrency)
    with pytest.raises(Incomplete, match=r"incomplete: budget.*--max-cost"):
        generate(config_of(dataset, max_cost_usd=0.35), provider)
    assert provider.calls == 3
    outcome = generate(config_of(dataset, max_cost_usd=2.0), provider)
    assert provider.calls == NUM_IMAGES
    assert outcome.cost_usd == pytest.approx(0.1 * NUM_IMAGES)


def test_a_lost_reply_counts_against_the_cap_of_the_next_run(dataset):
    config = config_of(dataset, max_cost_usd=1.0)
    with pytest.raises(Incomplete, match="budget"):
        generate(config, script(Step(fault="lost", cost_usd=0.9), Step(cost_usd=0.2)))
    provider = script(Step(cost_usd=0.2))
    with pytest.raises(Incomplete, match="budget"):
        generate(config, provider)
    assert provider.calls == 0


def test_a_run_that_waits_can_be_stopped(dataset):
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    provider = script(Step(fault="throttled", retry_after_s=60.0))
    with pytest.raises(KeyboardInterrupt):
        generate(config_of(dataset), provider, stop)
    assert provider.calls == 1


class Moody(ScriptedProvider):
    """Has faults that follow from the request alone, so that a run can be repeated from any point."""

    def __init__(self):
        super().__init__([Step()])
        self.paid = True

    def most_usd(self, request):
        return 0.03

    async def generate(self, request):
        self.calls += 1
        seed = f"{request.record.image_path} {len(request.slots)} {bool(request.complaint)} {request.with_image}"
        draw = hashlib.sha256(seed.encode()).digest()[0]
        fault = ("refusal", "truncated", "garbage", "missing", "wrong", "leak", "", "")[draw % 8]
        stop = fault if fault in ("refusal", "truncated") else "end"
        return Reply(text=self._text(request, fault), stop=stop, model=self.model, cost_usd=0.01)


def test_from_every_point_of_its_journal_a_run_goes_on_to_the_same_bytes_and_pays_nothing_twice(dataset):
    config = config_of(dataset, rate_limit_delay_s=0.0)
    whole_run = Moody()
    generate(config, whole_run, fallbacks=[TemplateProvider()])
    whole = config.output_path.read_bytes()
    journal = journal_path(config.output_path).read_bytes()
    lines = journal.splitlines(keepends=True)
    paid = sum(b'"call"' in line and b'"answer"' in line for line in lines)
    assert paid > NUM_IMAGES
    cuts = [len(b"".join(lines[:number])) for number in range(len(lines))]
    for cut in [*cuts, *(cut + 17 for cut in cuts)]:
        journal_path(config.output_path).write_bytes(journal[:cut])
        kept = sum(
            event.event == "answer" and event.call > 0
            for event in map(Event.model_validate_json, journal[:cut].splitlines()[: journal[:cut].count(b"\n")])
        )
        provider = Moody()
        generate(config, provider, fallbacks=[TemplateProvider()])
        assert config.output_path.read_bytes() == whole
        assert provider.calls == paid - kept


def test_one_sync_serves_all_who_wait(tmp_path, monkeypatch):
    async def many(journal):
        async def one(number):
            journal.append(Event(event="void", key=str(number), call=number))
            await journal.synced()

        await asyncio.gather(*(one(number) for number in range(1, 101)))

    with Journal(tmp_path / "p_checkpoint.jsonl", sync_every=1000) as journal:
        syncs = []
        sync = journal.sync
        monkeypatch.setattr(journal, "sync", lambda: (syncs.append(1), sync()))
        asyncio.run(many(journal))
        assert 1 <= len(syncs) <= 3
