"""Reads what was declared: the category or good that a line names, in six languages or by HS heading, and how many.

A line is a traveller's or a shipper's text and nothing else: it can name things and never give an order. What ends a
phrase is what is declared ("kitchen knife"); what only stands in it ("knife block") is mentioned, which is enough to
keep a bag from being cleared and not enough to explain a finding.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import yaml

from xray_vqa.core.lexicon import LANGUAGES, Phrases, expand, load_lexicon, tokens_of
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES, names_of

_SEPARATORS = re.compile(r"[,;/&+、،；]|\s(?:and|et|y|и|و)\s")
_HEADING = re.compile(
    r"(?:\b(?:hs|hts|cn|taric|heading)\b[\s:#.]*(?:code\b[\s:#.]*)?|^\s*(?=\d{4}))(\d{2}(?:\.?\d{2}){0,4})(?!\d)", re.I
)
_COUNT = re.compile(
    r"^\s*(\d{1,3})\s*(?:[x×*]\s*|(?:pcs|pieces|units)\b\.?\s*(?:of\s)?|\s(?!\d)|$)"
    r"|[x×*]\s*(\d{1,3})\s*$|[(:]\s*(\d{1,3})\s*(?:pcs|pieces|units)?\.?\)?\s*$|\s(\d{1,3})\s*(?:pcs|pieces|units)\.?\s*$",
    re.I,
)
_NUMBER_WORDS = {"a": 1, "an": 1, "the": 1, "without": 0, "not": 0}
"""Besides the lexicons' own, which have "no" and "none" too."""


class Entry(Strict):
    """What one category or good is called."""

    headings: list[str] = []
    """HS headings: 2, 4 or 6 digits without dots."""
    names: list[str]
    """In English, singular; the taxonomy's and the lexicons' words come on top."""


class Ontology(Strict):
    """The file `ontology.yaml`."""

    categories: dict[str, Entry]
    goods: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class DeclaredLine:
    """One line of a declaration, as it was understood. Concepts are categories and goods, by name."""

    text: str
    quantities: dict[str, int | None]
    """What it declares and how many of each; None where it gives no number. "No batteries" declares nothing."""
    mentioned: frozenset[str]
    """What is named in it among other words."""
    understood: bool
    """Whether each of its parts names something."""


@cache
def load_ontology() -> Ontology:
    """Return the ontology that ships."""
    return Ontology.model_validate(yaml.safe_load(Path(__file__).with_name("ontology.yaml").read_text("utf-8")))


@cache
def goods() -> frozenset[str]:
    """Return the names of all goods that are no category."""
    return frozenset(load_ontology().goods)


@lru_cache(maxsize=4096)
def read_line(text: str) -> DeclaredLine:
    """Return what a declared line names. Any text is a line; one that names nothing known is not understood."""
    quantities: dict[str, int | None] = {}
    mentioned: set[str] = set()
    understood = True
    last: frozenset[str] = frozenset()
    for part in _SEPARATORS.split(text):
        named, among, count, is_bare = _read_part(part)
        if is_bare:  # "power bank, 2 pcs"
            quantities |= dict.fromkeys(last, count)
            continue
        mentioned |= among
        understood = understood and bool(named or among)
        last = named if count != 0 else frozenset[str]()
        for concept in last:
            known = quantities.get(concept, 0)
            quantities[concept] = None if known is None or count is None else known + count
    return DeclaredLine(text, quantities, frozenset(mentioned), understood)


def _read_part(part: str) -> tuple[frozenset[str], frozenset[str], int | None, bool]:
    """Return what a part declares, what it mentions, the number it gives and whether it is a number and no more."""
    heading = _HEADING.search(part)
    rest = part if heading is None else part[: heading.start()] + part[heading.end() :]
    given = _COUNT.search(rest)
    if given:
        rest = rest[: given.start()] + rest[given.end() :]
    words = [word for word in tokens_of(rest.replace("-", " ")) if word[0].isalnum()]
    count = int(next(filter(None, given.groups()))) if given else None
    while words and count is None and words[0] in _number_words():
        count = _number_words()[words.pop(0)]
    named, among = set(_of_heading(heading[1]) if heading else ()), set[str]()
    for _, end, concepts in _phrases().find(words):
        (named if end == len(words) else among).update(concepts)
    return frozenset(named), frozenset(among - named), count, not heading and not words and count is not None


def _of_heading(code: str) -> frozenset[str]:
    digits, table = code.replace(".", ""), _headings()
    fitting = [digits[:length] for length in (6, 4, 2) if digits[:length] in table]
    return table[fitting[0]] if fitting else frozenset[str]()


@cache
def _headings() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for concept, entry in (load_ontology().categories | load_ontology().goods).items():
        for heading in entry.headings:
            found[heading].add(concept)
    return {heading: frozenset(concepts) for heading, concepts in found.items()}


@cache
def _phrases() -> Phrases[frozenset[str]]:
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for concept, names in _names():
        for name in names:
            found[tokens_of(name.replace("-", " "))].add(concept)
    return Phrases((words, frozenset(concepts)) for words, concepts in found.items())


def _names() -> Iterable[tuple[str, list[str]]]:
    ontology, lexicons = load_ontology(), [load_lexicon(language) for language in LANGUAGES]
    for category in CATEGORIES:
        english = [*names_of(category), *ontology.categories[category].names]
        nouns = [lexicon.categories[category] for lexicon in lexicons]
        forms = [form for noun in nouns for spelt in (noun.one, noun.counted, *noun.forms) for form in expand(spelt)]
        yield category, [*english, *(f"{name}s" for name in english), *filter(None, forms)]
    for good, entry in ontology.goods.items():
        english = [good, *entry.names]
        foreign = [lexicon.goods[good] for lexicon in lexicons if good in lexicon.goods]
        yield good, [*english, *(f"{name}s" for name in english), *foreign]


@cache
def _number_words() -> dict[str, int]:
    words = dict(_NUMBER_WORDS)
    for lexicon in map(load_lexicon, LANGUAGES):
        for number, term in lexicon.numbers.items():
            spelt = [form for name in (term.name, *term.forms) for form in expand(name)]
            words |= {tokens_of(form)[0]: int(number) for form in spelt}  # of "ни одного", "not one", the first says it
    return words
