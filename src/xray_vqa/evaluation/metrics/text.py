"""How an answer in words compares with its reference.

Each text is normalised once, on both sides alike, under a name that stands in the results. References are single, so
VQAv2's vote of ten people does not apply; its normalisation does.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xray_vqa.core.answers import parse_categories, parse_yes_no
from xray_vqa.core.geometry import REGIONS
from xray_vqa.core.inspection import RiskLevel
from xray_vqa.core.lexicon import ATTRIBUTES, DECLARATION_WORDS, LANGUAGES, Reader, load_reader
from xray_vqa.errors import AnswerUnreadable
from xray_vqa.evaluation.metrics.bootstrap import DRAWS, ratio_over_groups, ratios_over_groups
from xray_vqa.evaluation.records import AnswerRecord
from xray_vqa.evaluation.results import CorpusScore, ItemScores, TextScores

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

NORMALISER = "vqa_v2-without-apostrophes"
"""VQAv2's rules (Antol et al. 2015, the published evaluation), but for its table of contractions: an apostrophe inside
a word is dropped on both sides, which makes "dont" and "don't" equal as the table does, for every word."""

LISTING_TYPES = frozenset({"general", "listing", "identification", "detailed"})
"""Questions whose answers name the items that are there; of `general` ones those that are not for yes or no."""

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


def normalise(text: str) -> str:
    """Return a text as VQAv2 compares it: lower case, no punctuation but inside numbers, no articles, digits for
    number words. Not to be applied twice.
    """  # noqa: D205
    text = _APOSTROPHE.sub("", text.replace("\n", " ").replace("\t", " ").strip())
    stripped = text
    for mark in _PUNCTUATION:
        # Beside a space, or in a text with a number like 1,000, a mark vanishes; inside a word it becomes a space.
        beside_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside_space or _DIGITS_COMMA.search(text) else " ")
    words = (_NUMBER_WORDS.get(word, word) for word in _PERIOD.sub("", stripped).lower().split())
    return " ".join(word for word in words if word not in _ARTICLES)


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


def _named(answer: AnswerRecord) -> frozenset[str]:
    """Return the items that an answer names, read in the question's language."""
    if answer.language != "en" and answer.language in LANGUAGES:
        return load_reader(answer.language).categories(answer.said)
    return parse_categories(answer.said)


def _there(answer: AnswerRecord) -> frozenset[str]:
    """Return the items that the reference names: the short one is English in any language."""
    if not answer.short_truth and answer.language != "en" and answer.language in LANGUAGES:
        return load_reader(answer.language).categories(answer.truth)
    return parse_categories(answer.short_truth or answer.truth)


def _polarity(said: str) -> bool | None:
    try:
        return parse_yes_no(said)
    except AnswerUnreadable:
        return None


def is_long(truth: str) -> bool:
    """Return whether a reference is a text, which BLEU and ROUGE can judge."""
    return len(tokens(truth)) >= LONG_ANSWER_WORDS


def tokens(text: str) -> list[str]:
    """Return the words of a text in any script, for ROUGE; rouge-score's own keeps only a-z and 0-9."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


class _UnicodeTokenizer:
    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@cache
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_UnicodeTokenizer())


def rouge_l(said: str, truth: str) -> float:
    """Return ROUGE-L's F1 of an answer, 0 to 1."""
    return float(_rouge().score(truth, said)["rougeL"].fmeasure)


def corpus_bleu(said: Sequence[str], truths: Sequence[str], languages: Sequence[str]) -> CorpusScore:
    """Return corpus BLEU, 0 to 1, never a mean over sentences.

    Each language is tokenised as it needs; with several tokenizers the value is the mean weighted by answers.
    """
    from sacrebleu.metrics.bleu import BLEU

    parts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for hypothesis, reference, language in zip(said, truths, languages, strict=True):
        parts[_bleu_tokenizer(language)].append((hypothesis, reference))
    total, signatures = 0.0, []
    for tokenizer, pairs in sorted(parts.items()):
        bleu = BLEU(tokenize=tokenizer)
        score = bleu.corpus_score([h for h, _ in pairs], [[r for _, r in pairs]]).score / 100
        total += min(score, 1.0) * len(pairs)  # sacrebleu gives 100.00000000000004 for a perfect corpus
        signatures.append(str(bleu.get_signature()))
    return CorpusScore(value=total / len(said) if said else None, n=len(said), signatures=signatures)


def corpus_chrf(said: Sequence[str], truths: Sequence[str]) -> CorpusScore:
    """Return corpus chrF2++ (Popovic 2017: letters up to six in a row, words up to two), 0 to 1."""
    from sacrebleu.metrics.chrf import CHRF

    if not said:
        return CorpusScore(value=None, n=0, signatures=[])
    chrf = CHRF(word_order=2)
    score = chrf.corpus_score(list(said), [list(truths)]).score / 100
    return CorpusScore(value=min(score, 1.0), n=len(said), signatures=[str(chrf.get_signature())])


def _bleu_tokenizer(language: str) -> str:
    family = language.lower().split("-")[0]
    return "zh" if family == "zh" else "char" if family in ("ja", "th", "lo", "km", "my") else "13a"


def item_scores(
    named: Sequence[frozenset[str]], there: Sequence[frozenset[str]], groups: Sequence[str], *, draws: int = DRAWS
) -> ItemScores:
    """Return micro precision, recall and F1 of named items; null where nothing is there and nothing was named."""
    hits = [len(a & b) for a, b in zip(named, there, strict=True)]
    num_named, num_there = sum(map(len, named)), sum(map(len, there))
    both = [len(a) + len(b) for a, b in zip(named, there, strict=True)]
    return ItemScores(
        precision=sum(hits) / num_named if num_named else None,
        recall=sum(hits) / num_there if num_there else None,
        f1=ratio_over_groups([2 * count for count in hits], both, groups, num_there, draws=draws),
    )


def score_answers(answers: Sequence[AnswerRecord], groups: Sequence[str], *, draws: int = DRAWS) -> TextScores:
    """Return all text metrics of some answers.

    Args:
        answers: In any order; the numbers do not depend on it.
        groups: The bag that each answer is about.
        draws: Of the bootstrap.
    """
    judged = [_judged(a.said, a.short_truth, a.truth, a.language) for a in answers]
    long = [k for k, each in enumerate(judged) if each.is_long]
    listing = [
        k for k, a in enumerate(answers) if a.question_type in LISTING_TYPES and a.short_truth not in ("yes", "no")
    ]
    counted = np.array([[1.0, 1.0, each.is_long, 1.0] for each in judged]).reshape(-1, 4)
    values = np.array([[e.exact, e.lenient, e.rouge * e.is_long, e.rouge] for e in judged], dtype=float).reshape(-1, 4)
    sizes = [len(answers), len(answers), len(long), len(answers)]
    exact, lenient, rouge, rouge_all = ratios_over_groups(values, counted, groups, sizes, draws=draws)
    said, truths = [answers[k].said for k in long], [answers[k].truth for k in long]
    return TextScores(
        num_questions=len(answers),
        num_unreadable=sum(a.failure is not None for a in answers),
        exact_match=exact,
        lenient_match=lenient,
        item_f1=item_scores(
            [_named(answers[k]) for k in listing],
            [_there(answers[k]) for k in listing],
            [groups[k] for k in listing],
            draws=draws,
        )
        if listing
        else None,
        bleu=corpus_bleu(said, truths, [answers[k].language for k in long]),
        chrf=corpus_chrf(said, truths),
        rouge_l=rouge,
        rouge_l_all=rouge_all,
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    exact: bool
    lenient: bool
    rouge: float
    is_long: bool


@lru_cache(maxsize=2**15)  # short answers repeat, and each is scored whole, by its type and by its language
def _judged(said: str, short_truth: str, truth: str, language: str) -> _Judged:
    return _Judged(
        exact=is_exact(said, short_truth, truth),
        lenient=is_lenient(said, short_truth, truth, language),
        rouge=rouge_l(said, truth),
        is_long=is_long(truth),
    )
