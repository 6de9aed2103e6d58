"""The words of six languages: complete, without two meanings, and read as they are written."""

import pytest

from xray_vqa.core.geometry import REGIONS
from xray_vqa.core.lexicon import (
    ATTRIBUTES,
    CONTAINERS,
    COVERS,
    GOODS,
    LANGUAGES,
    RISK_LEVELS,
    Lexicon,
    expand,
    fold,
    load_lexicon,
    load_reader,
)
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation.attributes import is_harmless
from xray_vqa.simulation.shapes import BAGS, BENIGN

OTHERS = [language for language in LANGUAGES if language != "en"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_word(language):
    lexicon = load_lexicon(language)
    assert lexicon.language == language
    assert (set(lexicon.categories), set(lexicon.regions)) == (set(CATEGORIES), set(REGIONS))


def test_a_missing_word_or_an_unknown_key_stops_the_loading():
    whole = load_lexicon("fr").model_dump()
    with pytest.raises(ValueError, match="towel"):
        Lexicon.model_validate({**whole, "goods": {k: v for k, v in whole["goods"].items() if k != "towel"}})
    with pytest.raises(ValueError, match="topics of declaration lacks or does not know whole"):
        Lexicon.model_validate({**whole, "topics": {**whole["topics"], "declaration": {"item": ["vérifier"]}}})
    with pytest.raises(ValueError, match="answers to orientation lacks or does not know vertical"):
        Lexicon.model_validate({**whole, "attributes": {**whole["attributes"], "orientation": {"horizontal": "h"}}})
    with pytest.raises(ValueError, match="extra"):
        Lexicon.model_validate({**whole, "colours": []})


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_form_has_two_meanings(language):
    lexicon = load_lexicon(language)
    nouns = {k: [n.one, n.a, n.negated, n.counted, *n.forms] for k, n in lexicon.categories.items()}
    terms = {f"{k}": [t.name, *t.forms] for k, t in (lexicon.regions | lexicon.risk_levels).items()}
    answers = [{k: [t.name, *t.forms] for k, t in terms.items()} for terms in lexicon.attributes.values()]
    verdicts = {k: [t.name, *t.forms] for k, t in lexicon.declaration.items()}
    for group in (nouns, terms, verdicts, *answers, *lexicon.topics.values()):
        meaning: dict[str, str] = {}
        for key, forms in group.items():
            for form in forms:
                for spelled in expand(form):
                    assert meaning.setdefault(fold(spelled), key) == key, spelled


@pytest.mark.parametrize("language", OTHERS)
def test_every_word_that_is_written_is_read_again(language):
    lexicon, reader = load_lexicon(language), load_reader(language)
    for category, noun in lexicon.categories.items():
        for text in (noun.one, noun.a, noun.counted, noun.the, noun.of):
            assert reader.categories(text) == {category}, text
        for name in (spelled for form in noun.forms for spelled in expand(form)):
            assert reader.mentions(name) == {category}, name
    for region, term in lexicon.regions.items():
        for name in (spelled for form in (term.name, *term.forms) for spelled in expand(form)):
            assert reader.regions(name) == {region}, name
    for level in RISK_LEVELS:
        assert reader.risk_levels(lexicon.risk_levels[level].name) == {level}
    for number, term in lexicon.numbers.items():
        assert reader.numbers(term.name) == {int(number)}
    assert (reader.yes_no(lexicon.yes.name), reader.yes_no(lexicon.no.name)) == (True, False)
    assert reader.denies(lexicon.none.name)
    assert all(reader.is_undetermined(form) for form in (lexicon.undetermined.name, *lexicon.undetermined.forms))
    for verdict, term in lexicon.declaration.items():
        for name in (spelled for form in (term.name, *term.forms) for spelled in expand(form)):
            assert reader.verdicts(name) == {verdict}, name


@pytest.mark.parametrize("language", OTHERS)
def test_the_answers_to_concealment_are_read_again_and_name_no_category(language):
    lexicon, reader = load_lexicon(language), load_reader(language)
    for topic in ATTRIBUTES:
        for answer, term in lexicon.attributes[topic].items():
            for name in (spelled for form in (term.name, *term.forms) for spelled in expand(form)):
                assert reader.attributes(name, topic) == {answer}, name
                assert not reader.mentions(name), name
                assert not reader.negates(name), name
    assert not any(reader.mentions(word) for word in lexicon.goods.values())


def test_there_is_a_word_for_all_that_the_simulator_packs():
    harmless = {name: thing for name, thing in BENIGN.items() if is_harmless(name)}
    assert set(COVERS) == set(harmless)
    assert set(CONTAINERS) == set(BAGS)
    assert {thing.declared_as for thing in harmless.values()} - {None} <= set(GOODS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_of_a_topic_are_those_of_no_other_topic(language):
    lexicon, reader = load_lexicon(language), load_reader(language)
    for kind, topics in lexicon.topics.items():
        for topic, words in topics.items():
            for word in (spelled.replace("*", "") for form in words for spelled in expand(form)):
                assert reader.topics(word, kind) == {topic}, word


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("ru", "Ножа и пистолета нет.", set()),
        ("ru", "Есть пистолет, ножа нет.", {"Gun"}),
        ("ru", "Рядом с ножницами лежит канцелярским ножом вскрытая пачка патронов.", {"Scissors", "Cutter", "Bullet"}),
        ("zh", "包里没有刀，但是有剪刀和3D打印枪。", {"Scissors", "3D Gun"}),
        ("zh", "有一把螺丝刀。", {"Screwdriver"}),
        ("ar", "يوجد السِّكِّين وبطاريةٌ في الحقيبة.", {"Knife", "Battery"}),
        ("ar", "لا يوجد مسدس.", set()),
        ("ar", "مشرط وولاعة.", {"Cutter", "Lighter"}),
        ("es", "No hay ninguna pistola, pero hay una batería externa.", {"Powerbank"}),
        ("es", "Un objeto punzante sin clasificar y unas tijeras.", {"Other Sharp Item", "Scissors"}),
        ("fr", "Il n’y a pas d’arme à feu.", set()),
        ("fr", "Il n'y a qu'un couteau.", {"Knife"}),
    ],
)
def test_denied_items_are_not_said_to_be_there(language, text, found):
    assert load_reader(language).categories(text) == found


def test_a_place_with_a_stray_direction_cannot_be_read():
    assert "" in load_reader("fr").regions("En bas, au centre.")
    assert load_reader("fr").regions("En bas au centre.") == {"lower-center"}


@pytest.mark.parametrize("language", OTHERS)
def test_english_is_foreign_to_every_other_language(language):
    assert load_reader(language).is_foreign("Yes, there is a knife in the upper part of this bag.")
