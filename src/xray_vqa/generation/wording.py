"""Pairs from templates in other languages than English: phrasings and words are data, this fills them in.

`phrases/<language>.yaml` holds questions and the forms of their answers, `core/lexicons/` the words that go into them.
A question that names something the lexicon has no word for is not planned: nobody could fall back to a template there.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import TypeAdapter

from xray_vqa.core.draws import Draws
from xray_vqa.core.lexicon import Lexicon, Noun, load_lexicon
from xray_vqa.core.records import ScanRecord, Strict
from xray_vqa.core.taxonomy import CATEGORIES, canonical_category
from xray_vqa.generation.facts import NONE
from xray_vqa.generation.topics import LETTERED, LETTERS, MISMATCH, NOT_VERIFIED

if TYPE_CHECKING:
    from xray_vqa.generation.plan import Slot  # the planner asks this module what can be worded

WORDING_VERSION = "2"
"""Raised with every change of a lexicon or of phrases that pairs already written in another language should follow."""


class Phrasing(Strict):
    """A question and the form of its answer. Both get the slot's words by name."""

    question: str
    answer: str
    """Where the answer affirms: yes, a place, items, a number."""
    denial: str = ""
    """Where it denies: no, none, a false premise."""


_DENIALS = frozenset({"no", NONE, "0", "low", MISMATCH, NOT_VERIFIED})
"""The short answers that take a phrasing's `denial`."""


@cache
def load_phrasings(language: str) -> dict[str, tuple[Phrasing, ...]]:
    """Return the phrasings of a language by kind of question."""
    path = Path(__file__).parent / "phrases" / f"{language}.yaml"
    phrasings = TypeAdapter(dict[str, tuple[Phrasing, ...]]).validate_python(
        yaml.safe_load(path.read_text(encoding="utf-8"))
    )
    # A category that the source does not label is asked for in the very words of those that it does.
    unknown = tuple(Phrasing(question=each.question, answer="{Undetermined}") for each in phrasings["presence"])
    return {**phrasings, "unanswerable": unknown}


def is_wordable(slot: "Slot", language: str) -> bool:
    """Return whether a language has words for all that a question names: goods are free in English."""
    if language == "en":
        return True
    lexicon = load_lexicon(language)
    return all(goods_word(lexicon, thing, slot.topic) for thing in slot.goods)


def goods_word(lexicon: Lexicon, thing: str, topic: str) -> str:
    """Return what a harmless thing is called where a question of this topic names it; empty for an unknown one."""
    if topic == "concealer":
        covers = lexicon.attributes["concealer"]
        return covers[thing].name if thing in covers else ""
    return lexicon.goods.get(thing, "")


def draw_languages(languages: Sequence[str], count: int, seed: int) -> list[str]:
    """Return a language for each place in the plan: evenly mixed, and a longer list begins with the shorter one."""
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += Draws(seed, "languages", len(drawn)).order(languages)
    return drawn[:count]


def fill(language: str, kind: str, draws: Draws, record: ScanRecord, slot: "Slot") -> tuple[str, str]:
    """Return question and answer of a slot in a language."""
    lexicon = load_lexicon(language)
    phrasing = draws.pick(load_phrasings(language)[kind])
    words = _target_words(lexicon, slot.target)
    if slot.options:
        nouns = [lexicon.categories[category].one for category in slot.options]
        words |= {"options": lexicon.joined(nouns, "or"), "options_and": lexicon.joined(nouns)}
    if slot.region:
        words["region"] = lexicon.regions[slot.region].name
    match slot.question_type:
        case "listing" | "identification" if slot.short_answer != NONE:
            words |= _listed(lexicon, [canonical_category(name) for name in slot.short_answer.split(", ")], "listed")
            if slot.topic == LETTERED:
                words |= _lettered(lexicon, slot)
        case "location" | "absent" if slot.short_answer != NONE:
            places = lexicon.joined([lexicon.regions[name].name for name in slot.short_answer.split(", ")])
            words |= {"places": places, "Places": _sentence(places)}
        case "count":
            words["digits"] = slot.short_answer
        case "risk":
            level = lexicon.risk_levels[slot.short_answer].name
            words |= {"level": level, "Level": _sentence(level)} | _listed(lexicon, _causes(record, slot), "causes")
        case "concealment":
            word = lexicon.attributes[slot.topic][slot.short_answer].name
            things = [goods_word(lexicon, thing, slot.topic) for thing in slot.goods]
            words |= {"word": word, "Word": _sentence(word), "things": lexicon.joined(things, "or") if things else ""}
        case "declaration":
            words |= _declared(lexicon, slot) | _listed(lexicon, _causes(record, slot), "undeclared")
        case "unanswerable":
            words["Undetermined"] = f"{_sentence(lexicon.undetermined.name)}{lexicon.stop}"
        case _:
            pass
    form = phrasing.denial if phrasing.denial and slot.short_answer in _DENIALS else phrasing.answer
    return phrasing.question.format(**words), form.format(**words)


def _target_words(lexicon: Lexicon, target: str) -> dict[str, str]:
    noun: Noun = lexicon.categories[target] if target else lexicon.prohibited_item
    of_which: Noun = lexicon.categories[target] if target else lexicon.bag
    return {
        "one": noun.one, "a": noun.a, "negated": noun.negated, "counted": noun.counted,
        "the": of_which.the, "of": of_which.of,
    }  # fmt: skip


def _causes(record: ScanRecord, slot: "Slot") -> list[str]:
    there = {record.categories[index] for index in slot.evidence}
    return [category for category in CATEGORIES if category in there]


def _lettered(lexicon: Lexicon, slot: "Slot") -> dict[str, str]:
    options = [category.lower() for category in slot.options]
    choices = zip(LETTERS, slot.options, strict=False)
    return {
        "lettered": lexicon.joins[0].join(f"({letter}) {lexicon.categories[name].one}" for letter, name in choices),
        "letter": LETTERS[options.index(slot.short_answer)],
    }


def _declared(lexicon: Lexicon, slot: "Slot") -> dict[str, str]:
    items = [lexicon.categories[category].one for category in (*slot.options, slot.target) if category]
    goods = [goods_word(lexicon, thing, slot.topic) for thing in slot.goods]
    return {"declared": lexicon.joined(sorted([*goods, *items])), "asked": (items or goods)[0]}


def _listed(lexicon: Lexicon, categories: Sequence[str], name: str) -> dict[str, str]:
    nouns = [lexicon.categories[category] for category in categories]
    plain = lexicon.joined([noun.one for noun in nouns] or [lexicon.none.name])
    with_article = lexicon.joined([noun.a for noun in nouns] or [lexicon.none.name])
    return {
        name: plain,
        name.capitalize(): _sentence(plain),
        f"a_{name}": with_article,
        f"A_{name}": _sentence(with_article),
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
