"""Pairs from templates in other languages than English: phrasings and words are data, this fills them in.

`phrases/<language>.yaml` holds questions and the forms of their answers, `core/lexicons/` the words that go into them.
A question type without phrases in a language is not planned for it: nobody could fall back to a template there.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from xray_vqa.core.lexicon import LANGUAGES, Lexicon, Noun, load_lexicon
from xray_vqa.core.records import QUESTION_TYPES, ScanRecord, Strict
from xray_vqa.core.taxonomy import CATEGORIES, canonical_category
from xray_vqa.generation.draws import Draws
from xray_vqa.generation.facts import NONE
from xray_vqa.generation.topics import LETTERED

WORDING_VERSION = "1"
"""Raised with every change of a lexicon or of phrases that pairs already written in another language should follow."""


class Phrasing(Strict):
    """A question and the form of its answer. Both get the slot's words by name."""

    question: str
    answer: str
    """Where the answer affirms: yes, a place, items, a number."""
    denial: str = ""
    """Where it denies: no, none, a false premise."""


@cache
def load_phrasings(language: str) -> dict[str, tuple[Phrasing, ...]]:
    """Return the phrasings of a language by kind of question."""
    path = Path(__file__).parent / "phrases" / f"{language}.yaml"
    return TypeAdapter(dict[str, tuple[Phrasing, ...]]).validate_python(
        yaml.safe_load(path.read_text(encoding="utf-8"))
    )


@cache
def askable_types(language: str) -> frozenset[str]:
    """Return the question types that can be asked in a language."""
    if language == "en":
        return frozenset(QUESTION_TYPES)
    return frozenset(kind.split(" ")[0] for kind in load_phrasings(language))


def is_askable(cell: str, language: str) -> bool:
    """Return whether a cell of the plan, a type or a type and a kind of it, can be asked in a language."""
    question_type, _, part = cell.partition("/")
    letters = f"{question_type} among {LETTERED}"
    return question_type in askable_types(language) and (
        language == "en" or part != LETTERED or letters in load_phrasings(language)
    )


def draw_languages(languages: Sequence[str], count: int, seed: int) -> list[str]:
    """Return a language for each place in the plan: evenly mixed, and a longer list begins with the shorter one."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += Draws(seed, "languages", len(drawn)).order(languages)
    return drawn[:count]


def fill(
    language: str,
    kind: str,
    draws: Draws,
    record: ScanRecord,
    short_answer: str,
    target: str,
    options: Sequence[str],
    region: str,
    evidence: Sequence[int],
) -> tuple[str, str]:
    """Return question and answer of a slot in a language."""
    lexicon = load_lexicon(language)
    phrasing = draws.pick(load_phrasings(language)[kind])
    words = _target_words(lexicon, target)
    if options:
        nouns = [lexicon.categories[category] for category in options]
        words |= {
            "options": lexicon.joined([noun.one for noun in nouns], "or"),
            "options_and": lexicon.joined([noun.one for noun in nouns]),
        }
    if region:
        words["region"] = lexicon.regions[region].name
    question_type = kind.split(" ")[0]
    if question_type in ("listing", "identification") and short_answer != NONE:
        words |= _listed(lexicon, [canonical_category(name) for name in short_answer.split(", ")], "listed")
    elif question_type in ("location", "absent") and short_answer != NONE:
        places = lexicon.joined([lexicon.regions[name].name for name in short_answer.split(", ")])
        words |= {"places": places, "Places": _sentence(places)}
    elif question_type == "count":
        words["digits"] = short_answer
    elif question_type == "risk":
        level = lexicon.risk_levels[short_answer].name
        there = {record.categories[index] for index in evidence}
        words |= {"level": level, "Level": _sentence(level)}
        if there:
            words |= _listed(lexicon, [category for category in CATEGORIES if category in there], "causes")
    form = phrasing.denial if phrasing.denial and short_answer in ("no", NONE, "0", "low") else phrasing.answer
    return phrasing.question.format(**words), form.format(**words)


def _target_words(lexicon: Lexicon, target: str) -> dict[str, str]:
    noun: Noun = lexicon.categories[target] if target else lexicon.prohibited_item
    return {"one": noun.one, "a": noun.a, "negated": noun.negated, "counted": noun.counted}


def _listed(lexicon: Lexicon, categories: Sequence[str], name: str) -> dict[str, str]:
    plain = lexicon.joined([lexicon.categories[category].one for category in categories])
    with_article = lexicon.joined([lexicon.categories[category].a for category in categories])
    return {
        name: plain,
        name.capitalize(): _sentence(plain),
        f"a_{name}": with_article,
        f"A_{name}": _sentence(with_article),
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


__all__ = ["LANGUAGES", "WORDING_VERSION", "askable_types", "draw_languages", "fill", "is_askable", "load_phrasings"]
