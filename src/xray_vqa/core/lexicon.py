"""The words of six languages: to write with, and to read by.

One YAML file a language under `lexicons/` holds what everything here is called. Short answers stay in the taxonomy's
English, so that every language scores alike; a `Reader` finds in a text of its language what such an answer says. What
is doubtful is never guessed: a stray "left" beside a region makes the place unreadable.

A form may use a shell's braces: `нож{,а,у}` are three forms.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import model_validator

from xray_vqa.core.geometry import REGIONS
from xray_vqa.core.inspection import RiskLevel
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES

LANGUAGES = ("en", "zh", "ar", "es", "fr", "ru")

GOODS = (
    "belt", "books", "bottled water", "cables", "camera", "camping gear", "canned drink", "charger", "clothes",
    "cosmetics", "cutlery", "documents", "electronic device", "flask", "food", "gifts", "glasses", "hairdryer",
    "hard disk", "headphones", "household appliance", "jewellery", "keys", "kitchenware", "laptop", "mobile phone",
    "perfume", "perfume or spirits", "shoes", "stationery", "tablet computer", "toiletries", "torch", "towel", "toys",
    "umbrella", "wallet", "watch",
)  # fmt: skip
"""Harmless goods as declarations call them: the simulator's, and those that the plan makes up."""

DECLARATION_WORDS = ("match", "mismatch", "not verified")

TOPICS: Mapping[str, tuple[str, ...]] = {
    "general": ("prohibited", "clean"),
    "concealment": ("clutter", "container", "overlap", "concealer", "orientation"),
    "declaration": ("whole", "item"),
    "unanswerable": (
        "weight", "owner", "age", "price", "colour", "origin", "brand", "destination", "time", "opaque", "charge",
    ),
}  # fmt: skip
"""What questions of a type ask about, each known by words of its own. "Clean" turns a general question round."""

CLUTTER = ("sparse", "moderate", "dense", "heavy")
"""By clutter level, from 1."""
CONTAINERS = ("backpack", "suitcase", "hard suitcase", "briefcase", "handbag", "tray", "shopping bag", "carton")
OVERLAP = ("hardly", "partly", "mostly")
ORIENTATION = ("horizontal", "vertical")
COVERS = (
    "belt", "bolts", "book", "bookmark", "bottle opener", "bracelets", "cable", "camera", "can", "candles", "charger",
    "charging kit", "chocolate", "clothes", "coat hanger", "coins", "comb", "computer mouse", "cosmetics",
    "curtain rings", "cutlery", "documents", "drill", "e-reader", "flask", "folded clothes", "food box", "fruit",
    "gear", "glass bottle", "glasses", "hair straightener", "hairdryer", "hard disk", "headphones", "hex keys",
    "jacket", "jewellery", "keys", "laptop", "lipsticks", "make-up pens", "marker pens", "metal parts",
    "modelling clay", "motor", "padlock", "pens", "perfume spray", "phone", "radio", "rolled clothes", "ruler", "shoe",
    "shower head", "small clothes", "snacks", "soap bar", "socket set", "spatula", "tablet", "tent pegs", "toothbrush",
    "torch", "towel", "toy", "tube", "tweezers", "tyre lever", "umbrella", "wallet", "watch", "water bottle",
    "wire tangle",
)  # fmt: skip
"""Harmless things that lie over others in the simulator's bags, as it calls them."""

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "clutter": CLUTTER,
    "container": CONTAINERS,
    "overlap": OVERLAP,
    "orientation": ORIENTATION,
    "concealer": COVERS,
}
"""The answers to each topic of `concealment`."""

NUMBERS = tuple(str(number) for number in range(11))
RISK_LEVELS = tuple(level.value for level in RiskLevel)

Meaning = TypeVar("Meaning")


class Noun(Strict):
    """What a thing is called, in the forms that sentences need."""

    one: str
    """By itself, as in a list or after a colon."""
    a: str = ""
    """With the indefinite article, where the language has one; else as `one`."""
    negated: str = ""
    """After the language's "there is no": `de couteau`, `ножа`; else as `one`."""
    the: str = ""
    """This one, in the place of an object: `le couteau`; else as `one`."""
    of: str = ""
    """After the language's "of": `du couteau`; else as `negated`, which is the genitive where there are cases."""
    counted: str = ""
    """After the language's "number of": `de couteaux`, `ножей`; else as `one`."""
    forms: list[str] = []
    """Inflected forms and synonyms that are read as this too."""

    @model_validator(mode="after")
    def _fill(self) -> "Noun":
        for name in ("a", "negated", "counted", "the"):
            if not getattr(self, name):
                object.__setattr__(self, name, self.one)
        if not self.of:
            object.__setattr__(self, "of", self.negated)
        return self


class Term(Strict):
    """One word or phrase to write, and others that are read as the same."""

    name: str
    forms: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        """A word alone is a term without other forms."""
        return {"name": value} if isinstance(value, str) else value


class Lexicon(Strict):
    """All words of one language."""

    language: str
    name: str
    """In English."""
    script: str
    """As the Unicode names of its letters begin: `LATIN`, `CJK`, `ARABIC`, `CYRILLIC`."""
    joins: tuple[str, str, str]
    """What stands between the items of a list, before its last one as "and", and as "or"."""
    stop: str = "."
    """What ends a sentence."""
    categories: dict[str, Noun]
    prohibited_item: Noun
    bag: Noun
    """This bag, the one that was scanned."""
    regions: dict[str, Term]
    risk_levels: dict[str, Term]
    numbers: dict[str, Term]
    yes: Term
    no: Term
    none: Term
    undetermined: Term
    declaration: dict[str, Term]
    topics: dict[str, dict[str, list[str]]]
    """By question type and topic the words that a question about it has; a `*` stands for any ending."""
    attributes: dict[str, dict[str, Term]]
    """By topic of `concealment` its answers."""
    goods: dict[str, str]
    negations: list[str]
    """Words that deny what follows in their clause."""
    negations_after: list[str] = []
    """Words that deny what stands before them, back to the comma."""
    scope_ends: list[str]
    """Words that end what a negation reaches, as "but" does."""
    set_phrases: list[str] = []
    """Phrases whose parts mean nothing by themselves, as "yes or no"."""
    stray_directions: list[str] = []
    """Words of place that, beside no region's name, make a place unreadable."""
    leaks: list[str]
    """Words of somebody who has read the annotations."""
    function_words: list[str]
    """Small words by which a language is told from the others of its script."""
    article: str = ""
    """Written onto its noun, as in Arabic; empty where it is a word of its own or there is none."""
    prefixes: list[str] = []
    """All that may be written onto the next word, the longest first."""

    @model_validator(mode="after")
    def _check_complete(self) -> "Lexicon":
        for field, wanted in (
            ("categories", CATEGORIES), ("regions", REGIONS), ("risk_levels", RISK_LEVELS), ("numbers", NUMBERS),
            ("goods", GOODS), ("declaration", DECLARATION_WORDS), ("topics", TOPICS), ("attributes", ATTRIBUTES),
        ):  # fmt: skip
            _check_keys(field, getattr(self, field), wanted)
        for kind, topics in TOPICS.items():
            _check_keys(f"topics of {kind}", self.topics[kind], topics)
        for topic, answers in ATTRIBUTES.items():
            _check_keys(f"answers to {topic}", self.attributes[topic], answers)
        return self

    def joined(self, words: Sequence[str], last: str = "and") -> str:
        """Return words as a list in running text, its last join "and" or "or"."""
        between = self.joins[1 if last == "and" else 2]
        return words[0] if len(words) == 1 else f"{self.joins[0].join(words[:-1])}{between}{words[-1]}"


def _check_keys(what: str, there: Iterable[str], wanted: Iterable[str]) -> None:
    if differing := sorted(set(there) ^ set(wanted)):
        raise ValueError(f"{what} lacks or does not know {', '.join(differing)}")


@cache
def load_lexicon(language: str) -> Lexicon:
    """Return the words of one of `LANGUAGES`. Raises KeyError for another."""
    if language not in LANGUAGES:
        raise KeyError(language)
    path = Path(__file__).parent / "lexicons" / f"{language}.yaml"
    return Lexicon.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


_BRACES = re.compile(r"\{([^{}]*)\}")


class _Folding(dict[int, str | None]):
    """What each letter becomes, found when it is met first."""

    def __missing__(self, code: int) -> str:
        parts = unicodedata.normalize("NFD", chr(code))
        self[code] = "".join(part for part in parts if not unicodedata.combining(part))
        return self[code] or ""


_FOLDED = _Folding(str.maketrans({
    "ё": "е", "ى": "ي", "ة": "ه", "ٱ": "ا", "ـ": None, "’": "'", "‘": "'", "_": " ",
    "й": "й",  # a letter of its own, where é and أ are written without their marks by many
}))  # fmt: skip
_CJK = "\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:-[^\W{_CJK}]+)*|[^\w\s]")
_KEPT_TEXTS = 64
"""Each check of a pair reads the same two texts, and to take them apart is most of the work."""
_CLAUSE_ENDS = frozenset(".;:!?。؛؟…")
_COMMAS = frozenset(",،、")


def expand(form: str) -> list[str]:
    """Return the forms that braces stand for."""
    parts = _BRACES.split(form)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def fold(text: str) -> str:
    """Return a text without what may differ between two spellings of a word: case, accents, vowel marks, width."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_FOLDED)


@lru_cache(maxsize=_KEPT_TEXTS)
def tokens_of(text: str) -> tuple[str, ...]:
    return tuple(_TOKEN.findall(fold(text)))


@lru_cache(maxsize=2**14)
def _name_of(letter: str) -> str:
    return unicodedata.name(letter, "")


class Phrases(Generic[Meaning]):
    """Phrases as words, each with a meaning. Of two that begin at one word the longer one is found."""

    def __init__(self, entries: Iterable[tuple[tuple[str, ...], Meaning]]) -> None:
        self.meaning = dict(entries)
        self._longest: dict[str, int] = {}
        for words in self.meaning:
            self._longest[words[0]] = max(len(words), self._longest.get(words[0], 0))

    def find(self, words: Sequence[str]) -> list[tuple[int, int, Meaning]]:
        """Return start, end and meaning of each phrase in a text; none overlaps another."""
        found: list[tuple[int, int, Meaning]] = []
        if self._longest.keys().isdisjoint(words):  # as most are
            return found
        behind = 0
        for at in [at for at, word in enumerate(words) if word in self._longest]:
            if at < behind:
                continue
            for length in range(self._longest[words[at]], 0, -1):
                phrase = tuple(words[at : at + length])
                if len(phrase) == length and phrase in self.meaning:
                    behind = at + length
                    found.append((at, behind, self.meaning[phrase]))
                    break
        return found


def _blanked(words: Sequence[str], phrases: Phrases[Any]) -> tuple[str, ...]:
    rest = list(words)
    for start, end, _ in phrases.find(words):
        rest[start:end] = ["_"] * (end - start)
    return tuple(rest)


class Reader:
    """Finds in a text of one language what its lexicon has words for."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._reduced = lru_cache(maxsize=2**14)(self._reduce)
        self._words = lru_cache(maxsize=_KEPT_TEXTS)(self._split)
        self._read = lru_cache(maxsize=_KEPT_TEXTS)(self._without_set_phrases)
        self._rest = lru_cache(maxsize=_KEPT_TEXTS)(self._without_items)
        nouns = {category: [n.one, n.a, n.negated, n.counted, *n.forms] for category, n in lexicon.categories.items()}
        self._vocabulary = {word for forms in self._all_forms() for form in forms for word in self._bare(form)}
        self._categories = self._phrases(nouns)
        self._regions = self._phrases(_spellings(lexicon.regions) | {"": lexicon.stray_directions})
        self._levels = self._phrases(_spellings(lexicon.risk_levels))
        self._numbers = self._phrases({int(key): [t.name, *t.forms] for key, t in lexicon.numbers.items()})
        self._said = self._phrases(
            {True: [lexicon.yes.name, *lexicon.yes.forms], False: [lexicon.no.name, *lexicon.no.forms]}
        )
        self._negations = self._phrases(
            {"before": lexicon.negations, "after": lexicon.negations_after, "end": lexicon.scope_ends}
        )
        self._none = self._phrases({True: [lexicon.none.name, *lexicon.none.forms]})
        self._undetermined = self._phrases({True: [lexicon.undetermined.name, *lexicon.undetermined.forms]})
        self._set_phrases = self._phrases({True: lexicon.set_phrases})
        self._leaks = self._phrases({True: lexicon.leaks})
        self._function_words = self._phrases({True: lexicon.function_words})
        self._verdicts = self._phrases(_spellings(lexicon.declaration))
        self._attributes = {topic: self._phrases(_spellings(terms)) for topic, terms in lexicon.attributes.items()}
        self._topics = {
            kind: {topic: self._pattern(words) for topic, words in topics.items()}
            for kind, topics in lexicon.topics.items()
        }

    def _all_forms(self) -> list[list[str]]:
        lexicon = self.lexicon
        terms = [*lexicon.regions.values(), *lexicon.risk_levels.values(), *lexicon.numbers.values(), lexicon.yes,
                 lexicon.no, lexicon.none, lexicon.undetermined, *lexicon.declaration.values(),
                 *(term for answers in lexicon.attributes.values() for term in answers.values())]  # fmt: skip
        nouns = lexicon.categories.values()
        return [
            *([term.name, *term.forms] for term in terms),
            *([noun.one, noun.a, noun.negated, noun.counted, *noun.forms] for noun in nouns),
            lexicon.negations, lexicon.negations_after, lexicon.scope_ends, lexicon.set_phrases, lexicon.leaks,
            lexicon.stray_directions, lexicon.function_words,
        ]  # fmt: skip

    def _bare(self, form: str) -> Iterable[str]:
        """The words of a form, without the article that is written onto them."""
        article = self.lexicon.article
        for spelled in expand(form):
            for word in _TOKEN.findall(fold(spelled)):
                yield word.removeprefix(article) if article and len(word) > len(article) + 2 else word

    def _phrases(self, forms: "dict[Meaning, list[str]]") -> "Phrases[Meaning]":
        return Phrases(
            (words, meaning)
            for meaning, several in forms.items()
            for form in several
            for spelled in expand(form)
            if (words := self._split(spelled))
        )

    def _pattern(self, words: Sequence[str]) -> re.Pattern[str]:
        """Return what finds one of these words in a folded text; those written onto them are passed over."""
        edge = "" if self.lexicon.script == "CJK" else r"\b"  # no blanks between words there
        written_on = f"(?:{'|'.join(map(fold, self.lexicon.prefixes))})?" if self.lexicon.prefixes else ""
        alternatives = (
            r"\s+".join(written_on + re.escape(part).replace(r"\*", r"\w*") for part in fold(spelled).split())
            for word in words
            for spelled in expand(word)
        )
        return re.compile(f"{edge}(?:{'|'.join(alternatives)}){edge}")

    def _split(self, text: str) -> tuple[str, ...]:
        return tuple(map(self._reduced, tokens_of(text)))

    def _reduce(self, word: str) -> str:
        if word in self._vocabulary:
            return word
        for prefix in self.lexicon.prefixes:
            if word.startswith(prefix) and word[len(prefix) :] in self._vocabulary:
                return word[len(prefix) :]
        return word

    def _without_set_phrases(self, text: str) -> tuple[str, ...]:
        """The words of a text, those of set phrases blanked out."""
        return _blanked(self._words(text), self._set_phrases)

    def _without_items(self, text: str) -> tuple[str, ...]:
        """Those of categories blanked out too: `sin clasificar` denies nothing, `3D` is no number."""
        return _blanked(self._read(text), self._categories)

    def mentions(self, text: str) -> frozenset[str]:
        """Return the categories that a text names, whether it denies them or not."""
        return frozenset(category for _, _, category in self._categories.find(self._read(text)))

    def categories(self, text: str) -> frozenset[str]:
        """Return the categories that a text says are there."""
        words = self._read(text)
        marks = {start: kind for start, _, kind in self._negations.find(self._rest(text))}
        items = {start: category for start, _, category in self._categories.find(words)}
        said: list[str] = []
        clause: list[str] = []
        denied = False
        for at, word in enumerate(words):
            if word in _CLAUSE_ENDS or marks.get(at) == "end":
                said, clause, denied = said + clause, [], False
            elif word in _COMMAS:
                said, clause = said + clause, []
            elif marks.get(at) == "before":
                denied = True
            elif marks.get(at) == "after":
                clause, denied = [], True
            if at in items and not denied:
                clause.append(items[at])
        return frozenset(said + clause)

    def yes_no(self, text: str) -> bool | None:
        """Return what an answer begins with, yes or no; None for neither."""
        words = [word for word in self._words(text) if word[0].isalnum()]
        return next((said for start, _, said in self._said.find(words[:6]) if start == 0), None)

    def regions(self, text: str) -> frozenset[str]:
        """Return the regions that a text names; an empty name among them stands for what cannot be read."""
        return frozenset(region for _, _, region in self._regions.find(self._read(text)))

    def risk_levels(self, text: str) -> frozenset[str]:
        return frozenset(level for _, _, level in self._levels.find(self._read(text)))

    def numbers(self, text: str) -> frozenset[int]:
        """Return the numbers that a text says, those inside the names of categories left out."""
        words = self._rest(text)
        digits = {int(word) for word in words if word.isdecimal() and len(word) < 10}
        return frozenset(digits | {number for _, _, number in self._numbers.find(words)})

    def negates(self, text: str) -> bool:
        """Return whether there is any negation in a text."""
        return any(kind != "end" for _, _, kind in self._negations.find(self._rest(text)))

    def denies(self, text: str) -> bool:
        """Return whether a text says that there is none."""
        return self.negates(text) or bool(self._none.find(self._read(text)))

    def is_undetermined(self, text: str) -> bool:
        """Return whether a text says that it cannot be told."""
        return bool(self._undetermined.find(self._read(text)))

    def topics(self, question: str, question_type: str) -> frozenset[str]:
        """Return the topics of a type whose words stand in a question."""
        folded = fold(question)
        return frozenset(
            topic for topic, pattern in self._topics.get(question_type, {}).items() if pattern.search(folded)
        )

    def attributes(self, text: str, topic: str) -> frozenset[str]:
        """Return which answers to a topic of `concealment` a text names."""
        return frozenset(answer for _, _, answer in self._attributes[topic].find(self._words(text)))

    def verdicts(self, text: str) -> frozenset[str]:
        """Return what a text says of a declaration: `match`, `mismatch`, `not verified`."""
        return frozenset(verdict for _, _, verdict in self._verdicts.find(self._words(text)))

    def leak(self, text: str) -> str:
        """Return the first words that only a reader of annotations would use, or nothing."""
        words = self._words(text)
        return next((" ".join(words[start:end]) for start, end, _ in self._leaks.find(words)), "")

    def num_function_words(self, text: str) -> int:
        return len(self._function_words.find(self._words(text)))

    def is_foreign(self, text: str) -> bool:
        """Return whether a text is in another language: by its letters, if these are Latin by its small words."""
        letters = Counter(filter(str.isalpha, text))
        if not letters:
            return False
        script = self.lexicon.script
        own = sum(count for letter, count in letters.items() if _name_of(letter).startswith(script))
        if own < 0.7 * letters.total():
            return True
        if script != "LATIN":
            return False
        score = self.num_function_words(text)
        others = (load_reader(name) for name in LANGUAGES if name != self.lexicon.language)
        most = max(other.num_function_words(text) for other in others if other.lexicon.script == "LATIN")
        return most > score or (score == 0 and len(text.split()) > 5)


def _spellings(terms: Mapping[str, Term]) -> dict[str, list[str]]:
    return {key: [term.name, *term.forms] for key, term in terms.items()}


@cache
def load_reader(language: str) -> Reader:
    """Return the reader of one of `LANGUAGES`. Raises KeyError for another."""
    return Reader(load_lexicon(language))
