"""A run of the generation with a provider that has good and bad days."""

import json
import logging
import threading
import time

import pytest
from bags import NUM_IMAGES, config_of, make_record, make_records, read, write_scans

from xray_vqa.config.generate import ProviderSettings
from xray_vqa.core.manifest import read_manifest, sha256_file
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED
from xray_vqa.errors import ConfigError, Incomplete
from xray_vqa.generation.journal import Answer, Event, Journal, journal_path
from xray_vqa.generation.providers import Reply, open_provider, provider_from_environment
from xray_vqa.generation.providers.scripted import ScriptedProvider, Step
from xray_vqa.generation.providers.template import TemplateProvider
from xray_vqa.generation.run import generate
from xray_vqa.generation.shards import Shard, merge_journals


def scripted(*faults, **options):
    return ScriptedProvider([Step(fault=fault) for fault in (*faults, "")], **options)


def test_a_run_writes_pairs_stats_and_manifest(dataset):
    config = config_of(dataset)
    outcome = generate(config, TemplateProvider())
    assert len(read(config.output_path)) == 3 * NUM_IMAGES
    stats = json.loads((dataset.parent / "pairs_stats.json").read_text())
    assert (stats["total_vqa_pairs"], stats["total_images"], stats["failed_images"]) == (36, NUM_IMAGES, 0)
    assert (stats["samples_per_image"], stats["model"]) == (3, "template-2")
    assert sum(stats["question_types"].values()) == 36
    assert set(stats["category_counts"]) <= set(CATEGORIES)
    manifest = read_manifest(config.output_path)
    assert (manifest.dataset_root, manifest.split, manifest.seed) == ("scans", "train", 0)
    assert manifest.outputs == {"pairs.jsonl": sha256_file(config.output_path)}
    assert manifest.inputs[str(config.annotations_path)] == sha256_file(config.annotations_path)
    assert outcome.failed == {}


def test_a_second_run_asks_nothing_and_changes_nothing(dataset):
    config = config_of(dataset)
    provider = scripted()
    generate(config, provider)
    before = config.output_path.read_bytes()
    assert generate(config, provider).num_kept == NUM_IMAGES
    assert provider.calls == NUM_IMAGES
    assert config.output_path.read_bytes() == before


def test_an_image_that_fails_is_named_and_tried_again(dataset):
    config = config_of(dataset)
    generate(config, scripted())
    whole = config.output_path.read_bytes()
    journal_path(config.output_path).unlink()
    config.output_path.unlink()

    first = generate(config, scripted("", "error", "error"))
    assert list(first.failed.values()) == ["the script says that this image fails"]
    assert len(read(config.output_path)) == 3 * (NUM_IMAGES - 1)
    failed = json.loads((dataset.parent / "pairs_failed.json").read_text())
    assert [entry["image_path"] for entry in failed] == list(first.failed)

    assert generate(config, scripted()).failed == {}
    assert config.output_path.read_bytes() == whole
    assert not (dataset.parent / "pairs_failed.json").exists()


@pytest.mark.parametrize("faults", [["refusal"] * 2, ["truncated"] * 3, ["garbage"] * 3])
def test_an_image_of_which_no_reply_can_be_read_fails_alone(dataset, faults):
    outcome = generate(config_of(dataset), scripted(*faults))
    assert len(outcome.failed) == 1
    assert outcome.quality.num_images == NUM_IMAGES - 1
    provider = scripted()
    assert generate(config_of(dataset), provider).failed == {}
    assert provider.calls == 1


@pytest.mark.parametrize("fault", ["wrong", "leak", "missing"])
def test_a_pair_that_is_never_true_is_rejected_and_counted(dataset, fault):
    outcome = generate(config_of(dataset), scripted(*[fault] * 3))
    assert outcome.num_rejected == 1
    assert outcome.quality.num_pairs == 3 * NUM_IMAGES - 1
    assert json.loads((dataset.parent / "pairs_stats.json").read_text())["rejected_pairs"] == 1


def test_a_run_that_cannot_go_on_keeps_what_it_has(dataset):
    config = config_of(dataset)
    with pytest.raises(Incomplete):
        generate(config, scripted("", "", "", "incomplete"))
    assert len(read(config.output_path)) == 9
    assert not (dataset.parent / "pairs_stats.json").exists()
    provider = scripted()
    assert generate(config, provider).num_kept == 3
    assert provider.calls == NUM_IMAGES - 3


def test_a_stopped_run_goes_on_to_the_same_bytes(dataset):
    config = config_of(dataset)
    generate(config, scripted())
    whole = config.output_path.read_bytes()
    journal_path(config.output_path).unlink()
    config.output_path.unlink()
    stop = threading.Event()
    provider = scripted()
    ask = provider.generate

    async def stop_after_five(request):
        if provider.calls == 4:
            stop.set()
        return await ask(request)

    provider.generate = stop_after_five
    with pytest.raises(KeyboardInterrupt):
        generate(config, provider, stop)
    assert len(read(config.output_path)) == 15
    assert whole.startswith(config.output_path.read_bytes())
    generate(config, scripted())
    assert config.output_path.read_bytes() == whole


def test_replies_out_of_order_are_written_in_order(dataset):
    config = config_of(dataset)
    generate(config, scripted())
    whole = config.output_path.read_bytes()
    journal_path(config.output_path).unlink()
    config.output_path.unlink()
    steps = [Step(delay_s=0.03), Step(), Step(delay_s=0.01), Step()]
    generate(config, ScriptedProvider(steps, concurrency=4))
    assert config.output_path.read_bytes() == whole
    first = journal_path(config.output_path).read_text().splitlines()[0]
    assert read(config.output_path)[0].image_path not in first


def test_a_larger_run_keeps_the_replies_of_a_smaller_one(dataset):
    generate(config_of(dataset, max_images=5), scripted())
    assert generate(config_of(dataset), scripted()).num_kept == 5


def test_another_plan_is_said_aloud_and_never_mixed(dataset, caplog):
    generate(config_of(dataset, samples_per_image=2), scripted())
    provider = scripted()
    with caplog.at_level(logging.WARNING):
        outcome = generate(config_of(dataset, samples_per_image=4), provider)
    assert "are written anew, nothing is mixed" in caplog.text
    assert (outcome.num_kept, provider.calls) == (0, NUM_IMAGES)
    assert outcome.quality.num_pairs == 4 * NUM_IMAGES


def test_another_provider_writes_everything_itself(dataset):
    config = config_of(dataset)
    generate(config, scripted())
    assert generate(config, TemplateProvider()).num_kept == 0
    assert {pair.metadata.generated_by for pair in read(config.output_path)} == {"template"}


def test_only_the_scans_whose_annotations_changed_are_written_anew(dataset):
    config = config_of(dataset, samples_per_image=1)
    generate(config, scripted())
    records = make_records(NUM_IMAGES)
    last = generate_order_last(config)
    changed = [
        r.model_copy(update={"bboxes": [(1.0, 1.0, 9.0, 9.0) for _ in r.bboxes], "width": 301})
        if r.image_path == last
        else r
        for r in records
    ]
    write_scans(dataset, changed)
    provider = scripted()
    assert generate(config, provider).num_kept == NUM_IMAGES - 1
    assert provider.calls == 1


def generate_order_last(config):
    return read(config.output_path)[-1].image_path


def test_an_output_without_its_checkpoint_is_not_overwritten(dataset):
    config = config_of(dataset)
    config.output_path.write_text("paid for\n")
    with pytest.raises(ConfigError, match="move it away"):
        generate(config, TemplateProvider())
    assert config.output_path.read_text() == "paid for\n"


def test_a_missing_image_fails_without_being_asked_about(dataset):
    (dataset / "train" / "images" / "000003.jpg").unlink()
    provider = scripted()
    outcome = generate(config_of(dataset), provider)
    assert outcome.failed == {"train/images/000003.jpg": "the image file is missing"}
    assert provider.calls == NUM_IMAGES - 1


def test_scans_about_which_nothing_can_be_asked_are_counted(dataset):
    write_scans(dataset, [*make_records(NUM_IMAGES), make_record(NUM_IMAGES, [UNLISTED])])
    outcome = generate(config_of(dataset), scripted())
    assert (outcome.num_silent, outcome.failed) == (1, {})


@pytest.mark.parametrize("count", [1, 3])
def test_shards_become_the_file_that_one_run_would_have_written(dataset, count):
    config = config_of(dataset)
    whole = dataset.parent / "whole.jsonl"
    generate(config_of(dataset, output_path=whole), scripted("missing"))
    for number in range(1, count + 1):
        shard = Shard(number, count)
        part = config_of(dataset, output_path=shard.path_for(config.output_path), shard=f"{number}/{count}")
        generate(part, ScriptedProvider([Step(cost_usd=0.5)]))
    for _ in range(2):  # merging again changes nothing
        assert len(merge_journals(config.output_path)) == count
        outcome = generate(config, scripted(), may_ask=False)
        assert outcome.cost_usd == 0.5 * NUM_IMAGES
        assert sorted(read(config.output_path), key=str) == sorted(read(whole), key=str)
        assert [pair.image_path for pair in read(config.output_path)] == [pair.image_path for pair in read(whole)]


def test_a_shard_that_is_missing_or_unfinished_is_named(dataset):
    config = config_of(dataset)
    with pytest.raises(ConfigError, match="shard1of2"):
        merge_journals(config.output_path)
    for number in (1, 2):
        part = config_of(dataset, output_path=Shard(number, 2).path_for(config.output_path), shard=f"{number}/2")
        with pytest.raises(Incomplete):
            generate(part, scripted("", "incomplete"))
        if number == 1:
            with pytest.raises(ConfigError, match=r"shards \[2\] are missing"):
                merge_journals(config.output_path)
    merge_journals(config.output_path)
    with pytest.raises(Incomplete, match=f"{NUM_IMAGES - 2} of {NUM_IMAGES} images are not in the journals"):
        generate(config, scripted(), may_ask=False)


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b"])
def test_what_is_no_part_of_a_whole_is_refused(text):
    with pytest.raises(ValueError, match=r"part of a whole|invalid literal"):
        Shard.parse(text)


def test_byte_equal_scans_under_two_names_are_two_images(dataset):
    first, *others = make_records(NUM_IMAGES)
    twin = first.model_copy(update={"image_path": "train/images/000099.jpg", "image_filename": "000099.jpg"})
    write_scans(dataset, [first, twin, *others])
    outcome = generate(config_of(dataset), scripted(concurrency=4))
    assert (outcome.failed, outcome.quality.num_images) == ({}, NUM_IMAGES + 1)


def test_calls_of_a_paid_provider_keep_their_distance(dataset):
    provider = ScriptedProvider([Step(cost_usd=0.01)])
    started = time.monotonic()
    outcome = generate(config_of(dataset, max_images=4, rate_limit_delay_s=0.05), provider)
    assert time.monotonic() - started >= 3 * 0.05
    assert outcome.cost_usd == 0.04


def test_a_reply_that_was_paid_for_and_useless_is_in_the_bill(dataset):
    script = [Step(fault="refusal", cost_usd=0.5), Step(fault="refusal"), Step()]
    assert generate(config_of(dataset), ScriptedProvider(script)).cost_usd == 0.5
    assert generate(config_of(dataset), ScriptedProvider([Step(cost_usd=0.25)])).cost_usd == 0.75


def test_a_kept_reply_that_is_no_longer_good_enough_is_asked_for_again(dataset):
    config = config_of(dataset)
    generate(config, scripted())
    path = journal_path(config.output_path)
    lines = path.read_text().splitlines()
    broken = Event.model_validate_json(lines[0])
    broken = broken.model_copy(update={"answer": Answer(slots=[0, 1, 2], reply=Reply(text="{}", model="scripted"))})
    path.write_text("\n".join([broken.model_dump_json(), *lines[1:]]) + "\n")
    assert list(generate(config, scripted()).failed) == [broken.image_path]
    assert generate(config, scripted()).failed == {}


def event(key):
    answer = Answer(slots=[0], reply=Reply(text="{}", model="m"))
    return Event(event="answer", key=key, image_path="train/images/0.jpg", answer=answer)


def test_a_torn_last_line_loses_that_line_alone(tmp_path, caplog):
    path = tmp_path / "p_checkpoint.jsonl"
    with Journal(path) as journal:
        journal.append(event("a"))
        journal.append(event("b"))
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING), Journal(path) as journal:
        assert set(journal.answers) == {"a"}
        journal.append(event("c"))
    assert "1 lines are cut off" in caplog.text
    with Journal(path) as journal:
        assert set(journal.answers) == {"a", "c"}


def test_a_reply_after_a_failure_counts(tmp_path):
    path = tmp_path / "p_checkpoint.jsonl"
    with Journal(path) as journal:
        journal.append(Event(event="failed", key="a", image_path="x", error="bad day"))
        assert journal.failures == {"a": "bad day"}
        journal.append(event("a"))
    with Journal(path) as journal:
        assert (set(journal.answers), journal.failures) == ({"a"}, {})


def test_two_processes_do_not_write_one_journal(tmp_path):
    path = tmp_path / "p_checkpoint.jsonl"
    with Journal(path), pytest.raises(ConfigError, match="another process"):
        Journal(path)


def test_the_provider_comes_from_the_environment_and_never_silently():
    assert provider_from_environment({"PROVIDER": "template", "OPENAI_API_KEY": "k"}) == "template"
    assert provider_from_environment({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}) == "anthropic"
    assert provider_from_environment({"OPENAI_API_KEY": "k"}) == "openai"
    with pytest.raises(ConfigError, match="PROVIDER=template"):
        provider_from_environment({"ANTHROPIC_API_KEY": ""})


def test_an_unknown_model_is_not_paid_for_blindly(monkeypatch):
    pytest.importorskip("anthropic", reason="the extra `generate` is not installed")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    with pytest.raises(ConfigError, match=r"claude-of-tomorrow of anthropic costs.*--price IN,OUT"):
        open_provider(ProviderSettings(provider="anthropic", model="claude-of-tomorrow"))
    stated = ProviderSettings(provider="anthropic", model="claude-of-tomorrow", price=(1.0, 5.0))
    assert open_provider(stated).model == "claude-of-tomorrow"


def test_a_misspelt_provider_and_a_broken_script_are_named(tmp_path):
    with pytest.raises(ConfigError, match="unknown provider 'templates'"):
        open_provider(ProviderSettings(provider="templates"))
    (tmp_path / "script.json").write_text('[{"fualt": "error"}]')
    with pytest.raises(ConfigError, match=r"script\.json: no script"):
        open_provider(ProviderSettings(provider="scripted", script_path=tmp_path / "script.json"))
