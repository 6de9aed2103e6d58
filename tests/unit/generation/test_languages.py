"""Pairs in other languages: true ones pass, anything turned round in them fails, and runs never mix."""

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from bags import NUM_IMAGES, POLICY, config_of, make_record, make_records, read
from test_templates import pairs_of

import xray_vqa
from xray_vqa.core.lexicon import LANGUAGES, load_lexicon, load_reader
from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.records import PairMetadata
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.foreign import says
from xray_vqa.generation.journal import journal_path, key_of
from xray_vqa.generation.plan import Slot, plan_images
from xray_vqa.generation.providers.prompt import LANGUAGE_RULES, SYSTEM_PROMPT, write_prompt
from xray_vqa.generation.providers.provider import Request
from xray_vqa.generation.providers.scripted import ScriptedProvider, Step
from xray_vqa.generation.providers.template import PHRASINGS, TemplateProvider
from xray_vqa.generation.run import generate
from xray_vqa.generation.validation import check_image
from xray_vqa.generation.wording import WORDING_VERSION, draw_languages, is_wordable, load_phrasings

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
def test_each_kind_of_question_has_several_phrasings_and_all_types_are_asked(language):
    phrasings = load_phrasings(language)
    assert set(phrasings) == set(PHRASINGS)
    for kind, several in phrasings.items():
        # The eleven topics that cannot be told have two phrasings each, as in English.
        assert len({each.question for each in several}) >= (2 if kind.startswith("unanswerable ") else 4), kind
    pairs = [pair.metadata for _, pairs in worded(language) for pair in pairs]
    assert {pair.question_type for pair in pairs} == {kind.split(" ")[0] for kind in PHRASINGS}
    assert "letters" in {pair.topic for pair in pairs}


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
                for form in ("of", "the", "a", "negated", "counted", "one"):
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


def test_an_answer_in_another_language_fails():
    """However short, where the letters are others; of one alphabet, all but words that two languages share."""
    pairs = {language: list(itertools.islice(worded(language), 25)) for language in LANGUAGES}
    for language, other in itertools.permutations(LANGUAGES, 2):
        if language == "en":
            continue
        scripts = {load_lexicon(name).script for name in (language, other)}
        for (facts, own), (_, strange) in zip(pairs[language], pairs[other], strict=True):
            for pair, foreign in zip(own, strange, strict=True):
                answer = foreign.answer
                if len(answer.split()) > 4 or (len(scripts) == 2 and any(sign.isalpha() for sign in answer)):
                    mixed = pair.model_copy(update={"answer": answer})
                    assert check_image([mixed], facts, POLICY), (language, pair.question, answer)


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
        ("es", "general", "no", "No, hay un cuchillo."),
        ("zh", "general", "yes", "是的，但没有违禁品。"),
        ("ar", "general", "yes", "لا، لا يوجد شيء."),
        ("ru", "general", "yes", "Да, есть пистолет."),
        ("fr", "concealment/clutter", "dense", "Dense ou extrême."),
        ("ru", "concealment/clutter", "dense", "Очень плотное."),
        ("es", "concealment/overlap", "partly", "No está parcialmente oculto."),
        ("zh", "concealment/overlap", "partly", "大部分。"),
        ("zh", "concealment/container", "suitcase", "硬壳行李箱。"),
        ("ar", "declaration/whole", "match", "غير مطابق."),
        ("fr", "declaration/whole", "match", "L'image n'est guère conforme."),
        ("zh", "declaration/whole", "match", "并不相符。"),
        ("ru", "declaration/whole", "mismatch", "Соответствует."),
        ("es", "declaration/item", "not verified", "Coincide."),
        ("fr", "declaration/item", "match", "Conforme, ainsi qu'un pistolet."),
        ("ru", "unanswerable/age", "cannot be determined", "Ему два года."),
        ("zh", "unanswerable/age", "cannot be determined", "手枪的年限无法判断。"),
    ],
)
def test_an_answer_that_says_it_and_takes_it_back_is_refused(language, kind, short_answer, answer):
    kind, _, topic = kind.partition("/")
    target = "Knife" if kind in ("presence", "location", "count") or topic in ("overlap", "age") else ""
    about = PairMetadata(
        image_id=0, question_type=kind, categories=["Knife"], num_categories=1, generated_by="llm", target=target,
        topic=topic, language=language,
    )  # fmt: skip
    assert not says(answer, about, short_answer, ("Knife",), load_reader(language))


def test_a_language_that_nobody_can_check_is_refused():
    facts, pairs = next(worded("fr"))
    assert check_image([changed(pairs[0], language="de")], facts, POLICY)


def test_languages_are_mixed_evenly_and_a_longer_plan_begins_with_the_shorter_one():
    drawn = draw_languages(LANGUAGES, 60, seed=3)
    assert {drawn.count(language) for language in LANGUAGES} == {10}
    assert drawn[:20] == draw_languages(LANGUAGES, 20, seed=3)
    assert drawn != draw_languages(LANGUAGES, 60, seed=4)


LETTERED = {
    "zh": ("以下哪一件在包里？（A）刀具、（B）手枪。", "（B）手枪。", "(A)手枪。"),
    "ar": ("أي غرض في الحقيبة: (A) سكين، (B) مسدس؟", "(B) مسدس.", "(A) مسدس."),
    "es": ("¿Cuál está en la bolsa: (A) un cuchillo, (B) una pistola?", "Es (B), la pistola.", "Es (A), la pistola."),
    "fr": ("Lequel est dans le bagage : (A) un couteau, (B) un pistolet ?", "(B) un pistolet.", "(A) un pistolet."),
    "ru": ("Что лежит в сумке: (A) нож, (B) пистолет?", "(B) пистолет.", "(A) пистолет."),
}


@pytest.mark.parametrize("language", OTHERS)
def test_the_letter_has_to_be_that_of_the_item(language):
    facts, pair = next(
        (facts, pair)
        for facts, pairs in worded(language)
        for pair in pairs
        if facts.record.categories == ["Gun"] and pair.metadata.topic == "letters"
    )
    question, right, wrong = LETTERED[language]
    without = right.replace("(B)", "").replace("（B）", "").strip()
    faults = {
        answer: check_image([pair.model_copy(update={"question": question, "answer": answer})], facts, POLICY)
        for answer in (right, wrong, without)
    }
    assert faults[right] == []
    assert "chooses A" in faults[wrong][0][1]
    assert "chooses no letter" in faults[without][0][1]


@pytest.mark.parametrize("language", OTHERS)
def test_a_question_about_another_topic_fails(language):
    """The words of another topic of the type are refused under a topic, whatever the answer says."""
    by_topic = {}
    for facts, pairs in worded(language):
        for pair in pairs:
            by_topic.setdefault((pair.metadata.question_type, pair.metadata.topic), (facts, pair))
    tried = 0
    for ((kind, topic), (facts, pair)), ((other_kind, other), (_, strange)) in itertools.permutations(
        by_topic.items(), 2
    ):
        if kind == other_kind and topic not in ("", "letters") and other not in ("", "letters"):
            asked = pair.model_copy(update={"question": strange.question})
            assert any("asks about" in message for _, message in check_image([asked], facts, POLICY)), asked
            tried += 1
    assert tried > 50


def test_goods_without_a_word_are_named_in_english_alone():
    records = [record.model_copy(update={"declared_items": ["didgeridoo"]}) for record in make_records(40)]
    declared = {
        language: {
            slot.goods
            for image in plan_images(records, CATEGORIES, POLICY, samples_per_image=12, languages=(language,))
            for slot in image.slots
            if slot.question_type == "declaration"
        }
        for language in LANGUAGES
    }
    assert declared.pop("en") == {("didgeridoo",)}
    assert not any(declared.values())
    assert not is_wordable(Slot("concealment", "didgeridoo", topic="concealer", goods=("didgeridoo",)), "fr")


def test_changed_words_raise_their_version():
    package = Path(xray_vqa.__file__).parent
    files = [
        package / folder / f"{language}.yaml"
        for folder in ("core/lexicons", "generation/phrases")
        for language in sorted(OTHERS)
    ]
    digest = hashlib.sha256(LANGUAGE_RULES.encode())
    for file in files:
        digest.update(file.read_bytes())
    assert {WORDING_VERSION: digest.hexdigest()[:16]} == {"2": "38f4dd6a6d170ee7"}, (
        "lexicons, phrases or LANGUAGE_RULES changed, and a journal would go on with replies to the old ones: raise "
        "WORDING_VERSION in generation/wording.py and write it here with its digest"
    )


def test_a_mixed_run_counts_its_languages_and_goes_on_to_the_same_bytes(dataset):
    config = config_of(dataset, languages=("en", "zh", "ar"))
    generate(config, TemplateProvider())
    whole = config.output_path.read_bytes()
    num = dict.fromkeys(("ar", "en", "zh"), NUM_IMAGES)  # three pairs an image, a third of the images each
    stats = json.loads((dataset.parent / "pairs_stats.json").read_text())
    counts = read_manifest(config.output_path).counts
    assert stats["quality"]["languages"] == num
    assert {name: counts[f"pairs_{name}"] for name in num} == num
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
    request = Request(record, slots, Path("scan.jpg"), CATEGORIES)
    assert "language" not in json.loads(write_prompt(request, (300, 300)))
    told = json.loads(write_prompt(replace(request, language="ar"), (300, 300)))["language"]
    assert told["name"] == "Modern Standard Arabic"
    assert (told["glossary"]["Gun"], told["glossary"]["yes"]) == ("مسدس", "نعم")
    assert "Arabic" not in SYSTEM_PROMPT


def test_a_language_model_gets_the_words_of_the_topics_that_its_slots_have():
    slots = (
        Slot("general", "yes", (0,)),
        Slot("concealment", "towel", (0,), "Gun", topic="concealer", goods=("book", "towel")),
        Slot("declaration", "not verified", topic="item", goods=("keys",)),
        Slot("unanswerable", "cannot be determined", (), "Gun", topic="age"),
    )
    request = Request(make_record(1, ["Gun"]), slots, Path("scan.jpg"), CATEGORIES, language="es")
    told = json.loads(write_prompt(request, (300, 300)))["language"]
    assert set(told["topics"]) == {
        "prohibited", "clean", "concealment, concealer", "declaration, item", "unanswerable, age",
    }  # fmt: skip
    assert "antigüedad" in told["topics"]["unanswerable, age"]
    words = {name: told["glossary"][name] for name in ("towel", "book", "keys", "mismatch", "cannot be determined")}
    assert words == {
        "towel": "toalla",
        "book": "libro",
        "keys": "llaves",
        "mismatch": "no coincide con la declaración",
        "cannot be determined": "no se puede determinar",
    }


@pytest.mark.parametrize("languages", [(), ("de",), ("en", "en")])
def test_an_unknown_or_repeated_language_stops_the_run(dataset, languages):
    with pytest.raises(ValueError, match="no list of different languages"):
        config_of(dataset, languages=languages)
