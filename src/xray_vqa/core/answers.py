"""The only place that gives a meaning to text that a model wrote. What has no meaning raises AnswerUnreadable."""

import re
from functools import lru_cache

from xray_vqa.core.geometry import Box
from xray_vqa.core.prompts import BOX_FRAME_LIMIT, DIGITS_PER_NUMBER, NUMBERS_PER_BOX
from xray_vqa.core.taxonomy import CATEGORIES, names_of
from xray_vqa.errors import AnswerUnreadable

_YES = re.compile(r"^\W*(yes|yeah|correct|true)\b", re.IGNORECASE)
_NO = re.compile(r"^\W*(no|none|not|false|nothing)\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(no|not|none|neither|nor|without|never|isn't|aren't|doesn't|don't|cannot|absence of|free of|lacks?)\b"
)
_SCOPE_END = re.compile(r"[.;:!?]|\bbut\b|\bhowever\b|\bexcept\b|\balthough\b|\bthough\b|\bonly\b|\byet\b")


def parse_yes_no(text: str) -> bool:
    """Return whether an answer says yes. Raises AnswerUnreadable where it begins with neither yes nor no."""
    if _YES.match(text):
        return True
    if _NO.match(text):
        return False
    raise AnswerUnreadable(f"answer is neither yes nor no: {text[:80]!r}", text=text)


def _lexicon() -> tuple[re.Pattern[str], dict[str, str]]:
    meaning = {name: category for category in CATEGORIES for name in names_of(category)}
    meaning |= {f"{name}s": category for name, category in tuple(meaning.items()) if not name.endswith("s")}
    # Longest first, so that "3d printed gun" is read before "gun" and "utility knife" before "knife".
    alternatives = "|".join(re.escape(name) for name in sorted(meaning, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])({alternatives})(?![\w-])"), meaning


_NAMES, _MEANING = _lexicon()


@lru_cache(maxsize=64)  # each check of a pair reads the same two texts
def parse_categories(text: str) -> frozenset[str]:
    """Return the categories that a text says are there. A negated one ("no knife, but a gun") is not.

    A negation reaches to the end of its clause: to a full stop, a semicolon or a word like "but".
    """
    found: set[str] = set()
    lowered = text.lower().replace("_", " ")
    for clause in _clauses(lowered):
        negation = _NEGATION.search(clause)
        for match in _NAMES.finditer(clause):
            if negation is None or match.start() < negation.start():
                found.add(_MEANING[match.group(1)])
    return frozenset(found)


def _clauses(text: str) -> list[str]:
    ends = [match.start() for match in _SCOPE_END.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def parse_box_digits(digits: str, frame_wh: tuple[int, int]) -> Box:
    """Return the box that twelve digits name (x0, y0, x1, y1 in the model's frame), clipped to the frame.

    Raises:
        AnswerUnreadable: Not twelve digits, or the corners span no area inside the frame.
    """
    expected = DIGITS_PER_NUMBER * NUMBERS_PER_BOX
    if len(digits) != expected or not digits.isascii() or not digits.isdigit():
        raise AnswerUnreadable(f"a box is {expected} digits, found {digits[:40]!r}", text=digits)
    x0, y0, x1, y1 = (int(digits[at : at + DIGITS_PER_NUMBER]) for at in range(0, expected, DIGITS_PER_NUMBER))
    if x1 <= x0 or y1 <= y0:
        raise AnswerUnreadable(f"box {x0},{y0},{x1},{y1} has no area", text=digits)
    box = Box.from_xyxy(x0, y0, x1, y1).clipped(frame_wh)
    if box is None:
        raise AnswerUnreadable(f"box {x0},{y0},{x1},{y1} lies outside the {frame_wh} frame", text=digits)
    return box


def format_box_digits(box: Box) -> str:
    """Return the twelve digits that name a box given in the model's frame; the inverse of `parse_box_digits`.

    A box thinner than a unit of the frame is told one unit wide, so that it can be read back. What lies beyond the last
    number that three digits can name is told as that number: the right edge of a frame of 1000 thousandths is 999.
    """
    x0, y0, x1, y1 = (min(round(value), BOX_FRAME_LIMIT) for value in box.as_xyxy())
    x0, y0 = min(x0, BOX_FRAME_LIMIT - 1), min(y0, BOX_FRAME_LIMIT - 1)
    corners = (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
    return "".join(f"{value:0{DIGITS_PER_NUMBER}d}" for value in corners)
