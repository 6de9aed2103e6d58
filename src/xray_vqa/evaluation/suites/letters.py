"""Multiple-choice questions whose options stand in the question's text, one letter each."""

import re

from xray_vqa.errors import AnswerUnreadable

_OPTION = re.compile(r"^\s*\(?([A-H])[.):]\s+(.+?)\s*$", re.MULTILINE)
_WHOLE = re.compile(r"^\W*([A-H])\W*$", re.IGNORECASE)
_MARKED = re.compile(r"(?:^\W*|\b(?:answer|option)\s*(?:is|:)?\s*)\(?([A-H])(?:[.):]|$)", re.IGNORECASE)


def options_of(question: str) -> dict[str, str]:
    r"""Return the options of a question by letter, in order; empty where it offers none.

    >>> options_of("Which item?\nA. Gun\nB. Knife\nOnly provide the option letter as the answer.")
    {'A': 'Gun', 'B': 'Knife'}
    """
    return {match[1]: match[2] for match in _OPTION.finditer(question)}


def parse_letter(answer: str, options: dict[str, str]) -> str:
    """Return which option an answer chooses: by its letter, or by an option's text and nothing else.

    An answer that could mean two options means none.

    Raises:
        AnswerUnreadable: It chooses no option.
    """
    match = _WHOLE.match(answer) or _MARKED.search(answer.strip())
    if match and match[1].upper() in options:
        return match[1].upper()
    said = _plain(answer)
    meant = [letter for letter, text in options.items() if _plain(text) == said]
    if len(meant) == 1:
        return meant[0]
    raise AnswerUnreadable(f"answer chooses none of {', '.join(options)}: {answer[:80]!r}", text=answer)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
