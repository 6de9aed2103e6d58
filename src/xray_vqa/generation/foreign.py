"""Does a pair in another language than English say what it should? What cannot be read there is refused.

Stricter than the English check: an answer that affirms has no negation at all, one that denies names nothing but what
was asked about, and a question has no negation.
"""

import re
import unicodedata
from collections.abc import Collection

from xray_vqa.core.lexicon import LANGUAGES, Reader, load_reader
from xray_vqa.core.records import PairMetadata, VQAPair
from xray_vqa.core.taxonomy import canonical_category
from xray_vqa.generation.facts import NONE
from xray_vqa.generation.topics import LETTERS, MATCH

_CHOICE_MARK = re.compile(rf"\([{LETTERS}]\)")
"""The letter of a choice, which is Latin in every language."""


def reader_of(language: str) -> Reader | None:
    """Return the reader of a language; None for one that cannot be checked."""
    return load_reader(language) if language in LANGUAGES else None


def check_form(pair: VQAPair, reader: Reader) -> list[str]:
    """Return what is wrong with the language of a pair, whatever it is about."""
    faults: list[str] = []
    for name, text in (("question", pair.question), ("answer", pair.answer)):
        if reader.is_foreign(_CHOICE_MARK.sub("", unicodedata.normalize("NFKC", text))):
            faults.append(f"the {name} {text!r} is not in {reader.lexicon.name}")
        if leak := reader.leak(text):
            faults.append(f"the {name} says {leak!r}")
    if reader.negates(pair.question):
        faults.append(f"the question {pair.question!r} has a negation")
    return faults


def says(answer: str, about: PairMetadata, short_answer: str, present: Collection[str], reader: Reader) -> bool:
    """Return whether an answer says the true short answer to what it is about, and nothing that was not asked."""
    target, topic = about.target, about.topic
    named, regions = reader.mentions(answer), reader.regions(answer)
    negated = reader.negates(answer)
    asked = {target} if target else set[str]()
    match about.question_type:
        case "presence" | "general":
            said = reader.yes_no(answer)
            if about.question_type == "general" and said:
                asked = set(present)
            if said is None or said is not (short_answer == "yes") or not named <= asked:
                return False
            # "No, there is a knife": what stands behind the first word has to agree with it.
            return not negated if said else not reader.categories(_without_first_clause(answer))
        case "count":
            number = int(short_answer)
            said_numbers = reader.numbers(answer)
            denied = number == 0 and not said_numbers and reader.denies(answer)
            return (said_numbers == {number} or denied) and named <= asked and not (number and negated)
        case "location" | "absent":
            if short_answer == NONE:
                return reader.denies(answer) and not reader.categories(answer) and named <= asked and not regions
            return regions == set(short_answer.split(", ")) and named <= asked and not negated
        case "listing" | "identification":
            if short_answer == NONE:
                return reader.denies(answer) and not named
            return named == {canonical_category(name) for name in short_answer.split(", ")} and not negated
        case "risk":
            return reader.risk_levels(answer) == {short_answer} and named <= set(present)
        case "concealment":
            return reader.attributes(answer, topic) == {short_answer} and named <= asked and not negated
        case "declaration":
            said_right = reader.verdicts(answer) == {short_answer}
            return said_right and named <= {*present, *asked} and not (negated and short_answer == MATCH)
        case "unanswerable":
            return reader.is_undetermined(answer) and named <= asked
        case _:
            return False


def _without_first_clause(answer: str) -> str:
    """Return what follows a leading "no," or the like."""
    for mark in (",", "，", "،", ".", "。", ":", ";"):
        first, found, rest = answer.partition(mark)
        if found and len(first.split()) == 1 and len(first) < 8:
            return rest
    return answer
