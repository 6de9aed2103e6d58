"""Pairs in other languages: true ones pass, anything turned round in them fails, and runs never mix."""

import itertools
import json
from dataclasses import replace

import pytest
from bags import NUM_IMAGES, POLICY, config_of, make_record, make_records, read
from test_templates import pairs_of

from xray_vqa.core.lexicon import LANGUAGES, load_lexicon, load_reader
from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.foreign import says
from xray_vqa.generation.journal import journal_path, key_of
from xray_vqa.generation.plan import plan_images
from xray_vqa.generation.providers.prompt import SYSTEM_PROMPT, write_prompt
from xray_vqa.generation.providers.provider import Request
from xray_vqa.generation.providers.scripted import ScriptedProvider, Step
from xray_vqa.generation.providers.template import TemplateProvider
from xray_vqa.generation.reports import types_without_phrases
from xray_vqa.generation.run import generate
from xray_vqa.generation.validation import check_image
from xray_vqa.generation.wording import askable_types, draw_languages, load_phrasings

OTHERS = [language for language in LANGUAGES if language != "en"]
RECORDS = [*make_records(60), *(make_record(1000 + k, [c]) for k, c in enumerate(CATEGORIES))]


def worded(language):
    """The facts and the template's pairs of each scan."""
    for image in plan_images(RECORDS, CATEGORIES, POLICY, samples_per_image=9, languages=(language,)):
        yield read_facts(image.record, CATEGORIES), list(pairs_of(image))


def changed(pair, **metadata):
    return pair.model_copy(update={"metadata": pair.metadata.model_copy(update=metadata)})


@pytest.mark.parametrize("language", OTHERS)
def test_the_validator_finds_nothing_in_what_templates_say(language):
    for facts, pairs in worded(language):
        assert check_image(pairs, facts, POLICY) == [], pairs


@pytest.mark.parametrize("language", OTHERS)
def test_each_type_has_four_phrasings_and_all_are_asked(language):
    assert all(len(phrasings) >= 4 for phrasings in load_phrasings(language).values())
    kinds = {pair.metadata.question_type for _, pairs in worded(language) for pair in pairs}
    assert kinds == askable_types(language)


@pytest.mark.parametrize("language", OTHERS)
def test_an_answer_turned_round_fails(language):
    """The answer of another pair of the same type with another short answer is refused, however it is worded."""
    by_type: dict[str, list] = {}
    for facts, pairs in worded(language):
        for pair in pairs:
            by_type.setdefault(pair.metadata.question_type, []).append((facts, pair))
    tried = 0
    for of_type in by_type.values():
        for (facts, pair), (_, other) in itertools.pairwise(of_type):
            if pair.metadata.short_answer != other.metadata.short_answer:
                swapped = pair.model_copy(update={"answer": other.answer})
                assert check_image([swapped], facts, POLICY), (pair.question, other.answer, pair.metadata)
                tried += 1
    assert tried > 100


@pytest.mark.parametrize("language", OTHERS)
def test_a_flipped_short_answer_or_another_target_fails(language):
    flip = {"yes": "no", "no": "yes", "none": "knife", "0": "1", "low": "high"}
    for facts, pairs in worded(language):
        for pair in pairs:
            short = pair.metadata.short_answer
            assert check_image([changed(pair, short_answer=flip.get(short, "none"))], facts, POLICY)
            if pair.metadata.target:
                other = next(c for c in CATEGORIES if c != pair.metadata.target)
                assert check_image([changed(pair, target=other)], facts, POLICY)


@pytest.mark.parametrize("language", OTHERS)
def test_a_category_swapped_in_the_question_fails(language):
    lexicon = load_lexicon(language)
    for facts, pairs in worded(language):
        for pair in pairs:
            if target := pair.metadata.target:
                noun, other = lexicon.categories[target], lexicon.categories["Hammer" if target != "Hammer" else "Gun"]
                question = pair.question
                for form in ("a", "counted", "one"):
                    question = question.replace(getattr(noun, form), getattr(other, form))
                assert question != pair.question
                assert check_image([pair.model_copy(update={"question": question})], facts, POLICY), question


@pytest.mark.parametrize("language", OTHERS)
def test_words_in_another_language_fail(language):
    for other in (name for name in OTHERS if name != language):
        for (facts, pairs), (_, strange) in zip(list(worded(language))[:25], list(worded(other))[:25], strict=True):
            for pair, foreign in zip(pairs, strange, strict=True):
                assert pair.metadata.short_answer == foreign.metadata.short_answer  # one plan in all languages
                mixed = pair.model_copy(update={"question": foreign.question, "answer": foreign.answer})
                assert check_image([mixed], facts, POLICY), mixed


@pytest.mark.parametrize(
    ("language", "question"),
    [
        ("zh", "根据标注，这个包里有手枪吗？"),
        ("ar", "بحسب مجموعة البيانات، هل يوجد مسدس؟"),
        ("es", "Según la etiqueta, ¿hay una pistola en la bolsa?"),
        ("fr", "Selon l'annotation, y a-t-il un pistolet dans le bagage ?"),
        ("ru", "Есть ли по аннотации пистолет?"),
    ],
)
def test_words_of_somebody_who_read_the_annotations_fail(language, question):
    facts, pair = next(
        (facts, pair)
        for facts, pairs in worded(language)
        for pair in pairs
        if (pair.metadata.question_type, pair.metadata.target) == ("presence", "Gun")
    )
    assert any(
        "says" in message for _, message in check_image([pair.model_copy(update={"question": question})], facts, POLICY)
    )


@pytest.mark.parametrize(
    ("language", "kind", "short_answer", "answer"),
    [
        ("fr", "presence", "no", "Non, il y a un couteau."),
        ("fr", "presence", "yes", "Oui, il n'y a pas de couteau."),
        ("ru", "presence", "yes", "Да, ножа нет."),
        ("es", "presence", "no", "No hay una pistola, pero hay un cuchillo."),
        ("zh", "presence", "no", "否，包里有刀。"),
        ("ar", "presence", "no", "لا، يوجد سكين."),
        ("fr", "location", "center", "En bas, au centre."),
        ("zh", "location", "center", "在左侧，中央。"),
        ("ru", "listing", "none", "Пистолет есть, ножа нет."),
        ("es", "listing", "none", "No hay nada más que un cuchillo."),
        ("zh", "count", "2", "共12件。"),
        ("ar", "count", "1", "يوجد سكينان، أي 2."),
        ("ru", "risk", "high", "Высокий или критический."),
    ],
)
def test_an_answer_that_says_it_and_takes_it_back_is_refused(language, kind, short_answer, answer):
    target = "" if kind in ("listing", "risk") else "Knife"
    assert not says(answer, kind, short_answer, target, frozenset({"Knife"}), load_reader(language))


def test_a_language_that_nobody_can_check_is_refused():
    facts, pairs = next(worded("fr"))
    assert check_image([changed(pairs[0], language="de")], facts, POLICY)


def test_languages_are_mixed_evenly_and_a_longer_plan_begins_with_the_shorter_one():
    drawn = draw_languages(LANGUAGES, 60, seed=3)
    assert {drawn.count(language) for language in LANGUAGES} == {10}
    assert drawn[:20] == draw_languages(LANGUAGES, 20, seed=3)
    assert drawn != draw_languages(LANGUAGES, 60, seed=4)


UNWORDED = ["concealment", "declaration", "general", "unanswerable"]
"""Types that have phrases in English alone."""


def test_a_type_without_phrases_is_not_planned_and_reported():
    plan = plan_images(RECORDS, CATEGORIES, POLICY, samples_per_image=9, languages=("en", "fr"))
    planned = {
        language: {slot.question_type for image in plan if image.language == language for slot in image.slots}
        for language in ("en", "fr")
    }
    assert planned["en"] - planned["fr"] >= {"general", "declaration"}
    assert not planned["fr"] & set(UNWORDED)
    lettered = {image.language for image in plan for slot in image.slots if slot.topic == "letters"}
    assert lettered == {"en"}
    assert types_without_phrases(("en", "fr")) == {"fr": UNWORDED}


def test_a_mixed_run_counts_its_languages_and_goes_on_to_the_same_bytes(dataset):
    config = config_of(dataset, languages=("en", "zh", "ar"))
    generate(config, TemplateProvider())
    whole = config.output_path.read_bytes()
    num = dict.fromkeys(("ar", "en", "zh"), NUM_IMAGES)  # three pairs an image, a third of the images each
    stats = json.loads((dataset.parent / "pairs_stats.json").read_text())
    counts = read_manifest(config.output_path).counts
    assert stats["quality"]["languages"] == num
    assert {name: counts[f"pairs_{name}"] for name in num} == num
    assert stats["types_without_phrases"] == {"zh": UNWORDED, "ar": UNWORDED}
    assert {pair.metadata.language for pair in read(config.output_path)} == {"en", "zh", "ar"}
    lines = journal_path(config.output_path).read_bytes().splitlines(keepends=True)
    journal_path(config.output_path).write_bytes(b"".join(lines[: len(lines) // 2])[:-7])
    assert generate(config, TemplateProvider()).num_kept > 0
    assert config.output_path.read_bytes() == whole


def test_languages_never_share_a_reply_and_english_keeps_its_keys():
    image = plan_images(RECORDS, CATEGORIES, POLICY)[0]
    keys = {key_of(replace(image, language=language), [TemplateProvider()]) for language in LANGUAGES}
    assert len(keys) == len(LANGUAGES)


def test_an_english_reply_to_another_language_is_rejected(dataset):
    class Deaf(ScriptedProvider):
        async def generate(self, request):
            return await super().generate(replace(request, language="en"))

    outcome = generate(config_of(dataset, languages=("ru",)), Deaf([Step()]))
    assert len(outcome.failed) == NUM_IMAGES


def test_a_language_model_gets_the_words_and_the_same_prefix():
    record = make_record(1, ["Gun"])
    slots = plan_images([record], CATEGORIES, POLICY)[0].slots
    request = Request(record, slots, "scan.jpg", CATEGORIES)
    assert "language" not in json.loads(write_prompt(request, (300, 300)))
    told = json.loads(write_prompt(replace(request, language="ar"), (300, 300)))["language"]
    assert told["name"] == "Modern Standard Arabic"
    assert (told["glossary"]["Gun"], told["glossary"]["yes"]) == ("مسدس", "نعم")
    assert "Arabic" not in SYSTEM_PROMPT


@pytest.mark.parametrize("languages", [(), ("de",), ("en", "en")])
def test_an_unknown_or_repeated_language_stops_the_run(dataset, languages):
    with pytest.raises(ValueError, match="no list of different languages"):
        config_of(dataset, languages=languages)
