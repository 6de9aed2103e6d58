"""Which of the choices that a question offers is the right one: its letter, or its place where they have none."""

import re
from collections.abc import Sequence

from xray_vqa.core.answers import parse_categories
from xray_vqa.core.taxonomy import UNLISTED, canonical_category
from xray_vqa.generation.quality.words import words

LETTERS = "ABCDEFGHIJKL"
_LETTERED = re.compile(r"(?:^|(?<=[\s(\[]))([A-L])[).:\]]\s*")
_BETWEEN = re.compile(r"[,;:]|\bor\b|\band\b")


def right_choice(question: str, short_answer: str) -> tuple[int, int] | None:
    """Return the place of the right choice from 0 and the number of choices; None where no single one is right.

    >>> right_choice("Which is it? A) knife B) gun C) hammer", "gun")
    (1, 3)
    >>> right_choice("Which is it? A) knife B) gun C) hammer", "C")
    (2, 3)
    >>> right_choice("Which is it? (A) a knife, (B) a syringe", "injection")
    (1, 2)
    >>> right_choice("Which of these is in the bag: knife, gun or hammer?", "gun")
    (1, 3)
    """
    marks = list(_LETTERED.finditer(question))
    if len(marks) > 1 and "".join(mark.group(1) for mark in marks) == LETTERS[: len(marks)]:
        ends = [*(mark.start() for mark in marks[1:]), len(question)]
        texts = [words(question[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]
        letter = LETTERS.find(short_answer.strip(" ().").upper()) if len(short_answer.strip(" ().")) == 1 else -1
        if letter < 0:
            letter = _index(texts, words(short_answer))
        if letter < 0 and (category := canonical_category(short_answer)) != UNLISTED:
            letter = _index([parse_categories(" ".join(text)) for text in texts], {category})
        return _placed(letter, len(marks))
    category = canonical_category(short_answer)
    if category == UNLISTED:
        return None
    named = [parse_categories(part) for part in _BETWEEN.split(question)]
    choices = [next(iter(found)) for found in named if len(found) == 1]
    if any(len(found) > 1 for found in named) or len(set(choices)) != len(choices):
        return None
    return _placed(_index(choices, category), len(choices))


def _index(choices: Sequence[object], wanted: object) -> int:
    return choices.index(wanted) if wanted in choices else -1


def _placed(place: int, count: int) -> tuple[int, int] | None:
    return (place, count) if count > 1 and 0 <= place < count else None
