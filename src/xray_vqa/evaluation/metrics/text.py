"""How an answer in words compares with its reference.

Each text is normalised once, on both sides alike, under a name that stands in the results. References are single, so
VQAv2's vote of ten people does not apply; its normalisation does.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.answers import parse_categories, parse_yes_no
from xray_vqa.core.geometry import REGIONS
from xray_vqa.core.inspection import RiskLevel
from xray_vqa.core.lexicon import ATTRIBUTES, DECLARATION_WORDS, LANGUAGES, Reader, load_reader
from xray_vqa.errors import AnswerUnreadable
from xray_vqa.evaluation.results import CorpusScore
from xray_vqa.evaluation.suites.letters import parse_letter

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

NORMALISER = "vqa_v2-without-apostrophes-2"
"""VQAv2's rules (Antol et al. 2015, the published evaluation) but for two. Its table of contractions: an apostrophe
inside a word is dropped on both sides, which makes "dont" and "don't" equal as the table does, for every word. And an
answer of nothing but articles keeps them: "A" is the letter of an option, and would be no answer at all."""

LONG_ANSWER_WORDS = 6
"""A reference from this length on is a text; a shorter one is a word or a list, which BLEU cannot judge."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_REGION = re.compile(
    "|".join(sorted((rf"\b{region.replace('-', ' ')}\b" for region in REGIONS), key=len, reverse=True))
)
_RISK_LEVELS = frozenset(level.value for level in RiskLevel)
_NOTHING = frozenset({"no", "none", "not", "nothing", "0"})
_NEGATIONS = frozenset({"no", "not", "never", "without", "cannot"})
# A letter of a script written without spaces is a token of its own; any other run of word characters is one.
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


@lru_cache(maxsize=2**12)
def normalise(text: str) -> str:
    """Return a text as VQAv2 compares it. Not to be applied twice.

    Lower case, no punctuation but inside numbers, digits for number words, no articles beside other words.
    """
    text = _APOSTROPHE.sub("", text.replace("\n", " ").replace("\t", " ").strip())
    stripped = text
    for mark in _PUNCTUATION:
        # Beside a space, or in a text with a number like 1,000, a mark vanishes; inside a word it becomes a space.
        beside_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside_space or _DIGITS_COMMA.search(text) else " ")
    words = [_NUMBER_WORDS.get(word, word) for word in _PERIOD.sub("", stripped).lower().split()]
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(kept or words)


def is_exact(said: str, short_truth: str, truth: str) -> bool:
    """Return whether an answer equals the short or the full reference after normalisation. An empty one never does."""
    words = normalise(said)
    return bool(words) and words in {normalise(reference) for reference in (short_truth, truth) if reference}


def is_lenient(said: str, short_truth: str, truth: str, language: str = "en") -> bool:
    """Return whether an answer says the same as the short reference: its yes or no, number, items, places or risk.

    A reference of another kind ("cannot be determined") has to stand in the answer word for word, and not negated.
    Without a short reference the full one counts. An answer in another language than English is read by its lexicon.
    """
    if is_exact(said, short_truth, truth):
        return True
    if language != "en" and language in LANGUAGES:
        return bool(short_truth) and _says(load_reader(language), said, short_truth.lower())
    words, wanted = normalise(said), normalise(short_truth or truth)
    if not words or not wanted:
        return False
    if wanted in ("yes", "no"):
        return _polarity(said) is (wanted == "yes")
    if wanted in _ARTICLES:  # the letter of an option, which stands in any text as a word
        return _chooses(said, wanted.upper())
    items, places = parse_categories(short_truth or truth), set(_REGION.findall(wanted))
    if items or places:
        same_items = not items or parse_categories(said) == items
        return same_items and (not places or set(_REGION.findall(words)) == places)
    plain = tokens(said)
    if wanted == "0" and _NOTHING & {*plain, *words.split()}:
        return not parse_categories(said) and not _REGION.search(words)
    if wanted.isdigit():
        return {word for word in words.split() if word.isdigit()} == {wanted}
    if wanted in _RISK_LEVELS:
        return _RISK_LEVELS & set(plain) == {wanted} and f" not {wanted} " not in f" {' '.join(plain)} "
    phrase = tokens(short_truth or truth)
    negated = (_NEGATIONS & set(plain)) - set(phrase)
    return not negated and f" {' '.join(phrase)} " in f" {' '.join(plain)} "


def _says(reader: Reader, said: str, wanted: str) -> bool:
    """Return whether an answer in another language says a short answer, which is English in any language."""
    if wanted in ("yes", "no"):
        return reader.yes_no(said) is (wanted == "yes")
    if wanted in ("none", "0"):
        named = reader.categories(said) or reader.regions(said)
        return not named and (reader.denies(said) or reader.numbers(said) == {0})
    if wanted.isdigit():
        return reader.numbers(said) == {int(wanted)}
    if wanted in _RISK_LEVELS:
        return reader.risk_levels(said) == {wanted}
    places = {part for part in wanted.split(", ") if part in REGIONS}
    if places:
        return reader.regions(said) == places
    if wanted in DECLARATION_WORDS:
        return reader.verdicts(said) == {wanted}
    if topic := next((topic for topic, answers in ATTRIBUTES.items() if wanted in answers), ""):
        return reader.attributes(said, topic) == {wanted} and not reader.negates(said)
    items = parse_categories(wanted)
    if items:
        return reader.categories(said) == items
    return wanted == "cannot be determined" and reader.is_undetermined(said)


def _polarity(said: str) -> bool | None:
    try:
        return parse_yes_no(said)
    except AnswerUnreadable:
        return None


def _chooses(said: str, letter: str) -> bool:
    try:
        return parse_letter(said, {letter: letter}) == letter
    except AnswerUnreadable:
        return False


def is_long(truth: str) -> bool:
    """Return whether a reference is a text, which BLEU and ROUGE can judge."""
    return len(tokens(truth)) >= LONG_ANSWER_WORDS


def tokens(text: str) -> list[str]:
    """Return the words of a text in any script, for ROUGE; rouge-score's own keeps only a-z and 0-9."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def rouge_l(said: str, truth: str) -> float:
    """Return ROUGE-L's F1 of an answer (Lin 2004), 0 to 1: twice the longest common subsequence in all words."""
    words, wanted = tokens(said), tokens(truth)
    if not words or not wanted:
        return 0.0
    common = _common_length(words, wanted)
    precision, recall = common / len(words), common / len(wanted)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def _common_length(words: Sequence[str], others: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, a row of the usual table at a time (Crochemore 2001).

    The bits of `row` that are 0 are the places in `words` where the length grows.
    """
    places: dict[str, int] = {}
    for at, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << at
    row = full = (1 << len(words)) - 1
    for other in others:
        met = row & places.get(other, 0)
        row = ((row + met) | (row - met)) & full
    return len(words) - row.bit_count()


def corpus_bleu(said: Sequence[str], truths: Sequence[str], languages: Sequence[str]) -> CorpusScore:
    """Return corpus BLEU, 0 to 1, never a mean over sentences.

    Each language is tokenised as it needs; with several tokenizers the value is the mean weighted by answers.
    """
    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for hypothesis, reference, language in zip(said, truths, languages, strict=True):
        parts[bleu_tokenizer(language)].append((hypothesis, reference))
    return bleu_of({
        name: (len(pairs), bleu_statistics([s for s, _ in pairs], [t for _, t in pairs], name).sum(axis=0))
        for name, pairs in sorted(parts.items())
    })  # fmt: skip


def corpus_chrf(said: Sequence[str], truths: Sequence[str]) -> CorpusScore:
    """Return corpus chrF2++ (Popovic 2017: letters up to six in a row, words up to two), 0 to 1."""
    return chrf_of(len(said), chrf_statistics(said, truths).sum(axis=0) if said else np.zeros(CHRF_WIDTH))


FloatArray = NDArray[np.float64]

BLEU_WIDTH = 10
"""Both lengths, and matches and totals of one to four words in a row."""
CHRF_WIDTH = 24
"""Totals of both sides and matches of one to six letters and one to two words in a row."""


def bleu_statistics(said: Sequence[str], truths: Sequence[str], tokenizer: str) -> FloatArray:
    """Return what sacrebleu's BLEU counts in each answer, (answers, BLEU_WIDTH); corpus BLEU is made from the sums.

    `corpus_score` itself would take every text apart again for each of its subsets, most of the time that scoring
    takes. The two inner methods have been there since sacrebleu 2.0, and a test compares with the outer one.
    """
    return np.array(_bleu(tokenizer)._extract_corpus_statistics(said, [truths]), dtype=float).reshape(-1, BLEU_WIDTH)


def chrf_statistics(said: Sequence[str], truths: Sequence[str]) -> FloatArray:
    """Return what sacrebleu's chrF2++ counts in each answer, (answers, CHRF_WIDTH)."""
    return np.array(_chrf()._extract_corpus_statistics(said, [truths]), dtype=float).reshape(-1, CHRF_WIDTH)


def bleu_of(sums: Mapping[str, tuple[int, FloatArray]]) -> CorpusScore:
    """Return BLEU from the number of answers and the sum of their statistics by tokenizer, in that order."""
    num = sum(count for count, _ in sums.values())
    total = sum(_score(_bleu(name), part) * count for name, (count, part) in sums.items())
    signatures = [str(_bleu(name).get_signature()) for name in sums]
    return CorpusScore(value=total / num if num else None, n=num, signatures=signatures)


def chrf_of(num: int, total: FloatArray) -> CorpusScore:
    """Return chrF2++ from the number of answers and the sum of their statistics."""
    if not num:
        return CorpusScore(value=None, n=0, signatures=[])
    return CorpusScore(value=_score(_chrf(), total), n=num, signatures=[str(_chrf().get_signature())])


def _score(metric: "Metric", total: FloatArray) -> float:
    # sacrebleu gives 100.00000000000004 for a perfect corpus
    return min(metric._aggregate_and_compute([[int(count) for count in total]]).score / 100, 1.0)


@cache
def _bleu(tokenizer: str) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize=tokenizer)
    bleu.num_refs = 1
    return bleu


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF(word_order=2)
    chrf.num_refs = 1
    return chrf


def bleu_tokenizer(language: str) -> str:
    """Return the name of sacrebleu's tokenizer for a language."""
    family = language.lower().split("-")[0]
    return "zh" if family == "zh" else "char" if family in ("ja", "th", "lo", "km", "my") else "13a"
