"""What a question asks, and what an English answer says, for the types that `topics.py` knows."""

import re
import unicodedata
from collections.abc import Collection

from xray_vqa.core.answers import parse_categories, parse_yes_no
from xray_vqa.core.lexicon import Reader
from xray_vqa.core.records import VQAPair
from xray_vqa.core.taxonomy import canonical_category
from xray_vqa.errors import AnswerUnreadable
from xray_vqa.generation.attributes import covers_of, names_in
from xray_vqa.generation.facts import Facts
from xray_vqa.generation.foreign import reader_of
from xray_vqa.generation.topics import LETTERED, LETTERS, MATCH, MISMATCH, NOT_VERIFIED, TOPICS, UNKNOWABLE

_CHOICE = re.compile(rf"\(([{LETTERS}])\)([^()]*)")
_CHOSEN = re.compile(rf"\(([{LETTERS}])\)|\b(?:option|choice|answer|letter) ([{LETTERS}])\b|^([{LETTERS}])[.:),،、。]")

_VERDICTS = (
    (NOT_VERIFIED, re.compile(r"\b(not|cannot be|never) (be )?(verified|confirmed)\b|\bunverified\b")),
    (MISMATCH, re.compile(r"\bmismatch\b|\bdoes not (match|agree|fit)\b|\bno match\b")),
    (MATCH, re.compile(r"\bmatch(es)?\b")),
)


def categories_in(text: str, language: str) -> frozenset[str]:
    """Return the categories that a text names, whether it denies them or not."""
    reader = None if language == "en" else reader_of(language)
    return reader.mentions(text) if reader else parse_categories(text)


def topic_faults(pair: VQAPair, facts: Facts, reader: Reader) -> list[str]:
    """Return why a question does not ask what its type and topic say."""
    about = pair.metadata
    asked = reader.topics(pair.question, about.question_type)
    if about.question_type == "general" and asked != {"prohibited"}:
        return ["the question does not ask whether something prohibited is there"]
    if about.question_type in TOPICS and asked != ({about.topic} if about.topic else set()):
        return [f"the question asks about {', '.join(sorted(asked)) or 'no topic'}, its topic is {about.topic!r}"]
    if about.topic == "concealer":
        if about.language == "en":
            offered = names_in(pair.question, covers_of(facts.record))
        else:
            offered = set(reader.attributes(pair.question, about.topic))
        if len(offered) < 2 or about.short_answer not in offered:
            return [
                f"the question offers {sorted(offered)}; the choices have to name {about.short_answer!r} and others"
            ]
    if about.question_type == "identification":
        return _letter_faults(pair)
    return []


def letters_of(question: str, language: str = "en") -> dict[str, str]:
    """Return the category behind each letter of a question that offers `(A) a gun, (B) a knife`."""
    choices: dict[str, str] = {}
    for letter, text in _CHOICE.findall(question):
        named = categories_in(text, language)
        choices[letter] = next(iter(named)) if len(named) == 1 else ""
    return choices


def _letter_faults(pair: VQAPair) -> list[str]:
    """Return what is wrong with lettered choices: letters out of order or double, and an answer with another one."""
    # Chinese brackets are as wide as its signs.
    question, answer = (unicodedata.normalize("NFKC", text) for text in (pair.question, pair.answer))
    choices = letters_of(question, pair.metadata.language)
    if not choices:
        return ["the choices have no letters"] if pair.metadata.topic == LETTERED else []
    if "".join(choices) != LETTERS[: len(choices)] or len(_CHOICE.findall(question)) != len(choices):
        return [f"the letters of the choices are {', '.join(choices)}"]
    if "" in choices.values() or len(set(choices.values())) != len(choices):
        return ["not every letter stands for a category of its own"]
    chosen = {next(filter(None, groups)) for groups in _CHOSEN.findall(answer)}
    meant = {choices.get(letter) for letter in chosen}
    if meant != {canonical_category(pair.metadata.short_answer)}:
        return [f"the answer chooses {', '.join(sorted(chosen)) or 'no letter'}, which is not the item that is there"]
    return []


def says(answer: str, question_type: str, topic: str, short_answer: str, target: str, facts: Facts) -> bool:
    """Return whether an English answer says this and names no item that is not there."""
    lowered, named = answer.lower(), parse_categories(answer)
    match question_type:
        case "general":
            try:
                said = parse_yes_no(answer)
            except AnswerUnreadable:
                return False
            return said is (short_answer == "yes") and named <= (set(facts.present) if said else set())
        case "concealment":
            vocabulary: Collection[str] = TOPICS[question_type][topic].answers or covers_of(facts.record)
            return names_in(lowered, vocabulary) == {short_answer} and named <= {target}
        case "declaration":
            verdict = next((name for name, pattern in _VERDICTS if pattern.search(lowered)), "")
            return verdict == short_answer and named <= {*facts.present, target}
        case _:
            return UNKNOWABLE in lowered and named <= {target}
