"""The template provider: every phrasing of every slot is read back as what it should say."""

import asyncio
import itertools
from pathlib import Path

from bags import POLICY, make_record, make_records

from xray_vqa.core.records import PairMetadata, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.plan import plan_images
from xray_vqa.generation.providers import Request, read_reply
from xray_vqa.generation.providers.template import PHRASINGS, TemplateProvider, word_slots
from xray_vqa.generation.validation import check_image


def pairs_of(image, seed=0):
    facts = read_facts(image.record, CATEGORIES)
    for slot, words in zip(image.slots, word_slots(image.record, image.slots, seed, image.language), strict=True):
        about = PairMetadata(
            image_id=image.record.image_id,
            question_type=slot.question_type,
            categories=list(facts.present),
            num_categories=len(facts.present),
            generated_by="template",
            evidence=list(slot.evidence),
            short_answer=slot.short_answer,
            target=slot.target,
            topic=slot.topic,
            language=image.language,
        )
        yield VQAPair(image_path=image.record.image_path, question=words.question, answer=words.answer, metadata=about)


def test_the_validator_finds_nothing_in_what_templates_say():
    records = [*make_records(300), *(make_record(1000 + k, [c]) for k, c in enumerate(CATEGORIES))]
    for image in plan_images(records, CATEGORIES, POLICY, samples_per_image=12):
        pairs = list(pairs_of(image))
        assert check_image(pairs, read_facts(image.record, CATEGORIES), POLICY) == [], pairs


def test_every_phrasing_is_used():
    questions = {
        pair.question
        for seed in range(3)
        for image in plan_images(make_records(300), CATEGORIES, POLICY, samples_per_image=8)
        for pair in pairs_of(image, seed)
    }
    for kind, phrasings in PHRASINGS.items():
        for phrasing in phrasings:
            beginning = phrasing.question.split("{")[0]
            assert any(question.startswith(beginning) for question in questions), (kind, phrasing.question)


def test_texts_are_plain_sentences():
    for image in itertools.islice(plan_images(make_records(200), CATEGORIES, POLICY, samples_per_image=9), 200):
        for pair in pairs_of(image):
            for text in (pair.question, pair.answer):
                assert "{" not in text
                assert "  " not in text
                assert text[0].isupper() or text[0].isdigit() or text[0] == "("
                assert text[-1] in ".?"


def test_words_are_the_same_each_time_and_follow_the_seed():
    image = plan_images(make_records(5), CATEGORIES, POLICY, samples_per_image=8)[0]
    assert list(pairs_of(image)) == list(pairs_of(image))
    assert len({tuple(pair.question for pair in pairs_of(image, seed)) for seed in range(6)}) > 1


def test_a_reply_can_be_read_and_costs_nothing():
    image = plan_images(make_records(5), CATEGORIES, POLICY)[0]
    request = Request(image.record, image.slots, Path(image.record.image_path), CATEGORIES)
    reply = asyncio.run(TemplateProvider().generate(request))
    assert [pair.slot for pair in read_reply(reply).pairs] == [0, 1, 2]
    assert reply.cost_usd == 0
