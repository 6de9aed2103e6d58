"""Takes the pairs of a set one by one, keeps each different text once, and measures at the end."""

import heapq
import re
import statistics
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xray_vqa.config.quality import PairGates
from xray_vqa.core.answers import parse_categories
from xray_vqa.core.records import VQAPair
from xray_vqa.core.taxonomy import canonical_category
from xray_vqa.generation.draws import Draws
from xray_vqa.generation.plan import SHARES
from xray_vqa.generation.quality.blind import num_right_blind, question_features
from xray_vqa.generation.quality.choices import LETTERS, right_choice
from xray_vqa.generation.quality.duplicates import NearCopies
from xray_vqa.generation.quality.gates import judge
from xray_vqa.generation.quality.majority import Majority
from xray_vqa.generation.quality.report import (
    BlindScore,
    Checks,
    Choices,
    Diversity,
    Duplicates,
    LengthSpread,
    Making,
    Quality,
    YesRatio,
    Yield,
)
from xray_vqa.generation.quality.words import distinct_share, entropy_bits, type_token_ratio, words
from xray_vqa.generation.topics import NOT_VERIFIED, UNKNOWABLE
from xray_vqa.generation.validation import DERIVED_TYPES, kind_of

NUM_SAMPLED = 1000
"""Pairs on which the variety of words is measured, the same number for each set."""
NUM_SHOWN = 3
"""Pairs of each type that the page shows."""
NUM_FAULTY_SHOWN = 8
MOST_PAIRS_OF_AN_IMAGE = 64
"""Pairs of one image that each question is compared with."""

_FILE_WORDS = re.compile(r"\b[\w-]+\.(?:jpe?g|png|bmp|tiff?|webp|dcm)\b|\b(?:train|test)/images\b|\b\w+_\w+\b", re.I)
"""File names, and names with an underscore such as STCray's `3DGun1_B5_L1`: nobody who looks at a scan says those."""


class QualityMeter:
    """Counts pairs. Of each pair it keeps some numbers, so that a large set fits.

    Args:
        items: The annotated categories of each image by path, which `evidence` points into; without them the answers
            are held against the categories that the pair itself names.
    """

    def __init__(self, items: Mapping[str, Sequence[str]] | None = None) -> None:
        self._items = items
        self._images: dict[str, int] = {}
        self._types: dict[str, int] = {}
        self._questions: dict[str, int] = {}
        self._answers: dict[str, int] = {}
        self._shorts: dict[str, int] = {}
        self._columns = [array("i") for _ in range(5)]
        """For each pair its image, type, question, answer and short answer, by number."""
        self._keys = array("L")
        """For each pair a number that follows from its text and image alone, to sample by."""
        self._named: dict[str, frozenset[str]] = {}
        self._categories: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._writers: Counter[str] = Counter()
        self._yes: Counter[str] = Counter()
        self._no: Counter[str] = Counter()
        self._threats: Counter[bool] = Counter()
        self._premises: Counter[bool] = Counter()
        self._majority = Majority()
        self._by_target: dict[tuple[int, str, str], Counter[str]] = defaultdict(Counter)
        """Short answers by half, type and subject: topic and target."""
        self._faults: Counter[str] = Counter()
        self._contradicting: set[str] = set()
        self._num_invalid = self._num_checkable = self._num_agreeing = self._num_unsupported = self._num_leaks = 0
        self._samples: dict[str, list[tuple[int, str, VQAPair]]] = defaultdict(list)
        self.faulty: list[tuple[VQAPair, tuple[str, ...]]] = []
        """The first pairs with faults, for the page."""

    @property
    def samples(self) -> dict[str, list[VQAPair]]:
        """A few pairs of each type, the same ones in whatever order they came."""
        return {
            name: [pair for _, _, pair in sorted(self._samples[name], key=lambda entry: -entry[0])]
            for name in sorted(self._samples)
        }

    def add_invalid(self, count: int = 1) -> None:
        """Count lines that are no pairs."""
        if not count:
            return
        self._num_invalid += count
        self._faults["invalid"] += count

    def add(self, pair: VQAPair, faults: Sequence[str] = ()) -> None:
        """Take a pair and what the validator says is wrong with it."""
        about = pair.metadata
        numbers = (
            self._images.setdefault(pair.image_path, len(self._images)),
            self._types.setdefault(about.question_type, len(self._types)),
            self._questions.setdefault(pair.question, len(self._questions)),
            self._answers.setdefault(pair.answer, len(self._answers)),
            self._shorts.setdefault(about.short_answer, len(self._shorts)),
        )
        for column, number in zip(self._columns, numbers, strict=True):
            column.append(number)
        self._categories.update(about.categories)
        self._languages[about.language] += 1
        self._writers[f"{about.generated_by} {about.model}".strip()] += 1
        if about.question_type == "presence":
            (self._yes if about.short_answer == "yes" else self._no)[about.target] += 1
        if about.question_type == "general" and about.short_answer in ("yes", "no"):
            self._threats[about.short_answer == "yes"] += 1
        if about.question_type == "absent":
            self._premises[about.short_answer != "none"] += 1
        if about.short_answer:
            self._majority.add(pair)
        half = Draws("half", pair.image_path).below(2)
        subject = f"{about.topic} {about.target}".strip()
        self._by_target[half, about.question_type, subject][about.short_answer] += 1
        self._check(pair, faults)
        self._sample(pair, faults)

    def _check(self, pair: VQAPair, faults: Sequence[str]) -> None:
        about = pair.metadata
        kinds = {kind_of(fault) for fault in faults}
        unsupported, leaks = self._names_too_much(pair), "leak" in kinds or self._leaks(pair)
        if about.question_type in DERIVED_TYPES:
            self._num_checkable += 1
            self._num_agreeing += "disagreement" not in kinds
        if "contradiction" in kinds:
            self._contradicting.add(pair.image_path)
        self._num_unsupported += unsupported or "unsupported" in kinds
        self._num_leaks += leaks
        self._faults.update(kinds)

    def _names_too_much(self, pair: VQAPair) -> bool:
        """Whether an English answer names an item that its evidence lacks.

        One to an open question, or one that leaves the item undecided, may repeat its question's.
        """
        about = pair.metadata
        if about.language != "en" or not (named := self._names(pair.answer)):
            return False
        items = self._items.get(pair.image_path) if self._items is not None else None
        if items is None:
            held = set(about.categories)
        else:
            held = {items[index] for index in about.evidence if 0 <= index < len(items)}
        if named <= held:
            return False
        may_repeat = about.question_type not in DERIVED_TYPES or about.short_answer in (NOT_VERIFIED, UNKNOWABLE)
        return not (may_repeat and named <= held | self._names(pair.question))

    def _leaks(self, pair: VQAPair) -> bool:
        about = pair.metadata
        if _FILE_WORDS.search(pair.question) or _FILE_WORDS.search(pair.answer):
            return True
        # "What is the knife in the upper left?": who asks what something is does not name it.
        if about.question_type != "identification" or about.target or about.language != "en":
            return False
        return self._names(pair.question) == {canonical_category(about.short_answer)}

    def _names(self, text: str) -> frozenset[str]:
        if (found := self._named.get(text)) is None:
            if len(self._named) > 20_000:
                self._named.clear()
            found = self._named[text] = parse_categories(text)
        return found

    def _sample(self, pair: VQAPair, faults: Sequence[str]) -> None:
        key = zlib.crc32(f"{pair.image_path}\n{pair.question}".encode())
        self._keys.append(key)
        entry = (-key, pair.image_path, pair)
        heap = self._samples[pair.metadata.question_type]
        if len(heap) < NUM_SHOWN:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
        if faults and len(self.faulty) < NUM_FAULTY_SHOWN:
            self.faulty.append((pair, tuple(faults)))

    def result(self, gates: PairGates | None = None, making: Making | None = None) -> Quality:
        """Measure what was taken, and hold it against gates (the default ones where none are given)."""
        count = len(self._keys)
        image, kind, question, answer, short = (np.array(column, np.int64) for column in self._columns)
        gates = gates or PairGates()
        types = {name: int((kind == number).sum()) for name, number in sorted(self._types.items())}
        texts = [words(text) for text in self._questions]
        lengths = np.array([len(text.split()) for text in self._answers], np.int64)[answer] if count else answer
        yes_ratio = _yes_ratio(self._yes.total(), self._no.total()) if self._yes or self._no else None
        premises = self._premises.total()
        wanted: Counter[str] = Counter()
        for cell, share in SHARES.items():
            wanted[cell.partition("/")[0]] += share  # pyright: ignore[reportArgumentType] - a counter of shares
        quality = Quality(
            num_pairs=count,
            num_images=len(self._images),
            question_types=types,
            type_shares={name: round(number / count, 4) for name, number in types.items()},
            type_shares_wanted={name: round(share / sum(wanted.values()), 4) for name, share in sorted(wanted.items())},
            category_counts=dict(sorted(self._categories.items())),
            languages=dict(sorted(self._languages.items())),
            writers=dict(sorted(self._writers.items())),
            yes_ratio=yes_ratio,
            yes_ratio_by_category={
                name: _yes_ratio(self._yes[name], self._no[name]) for name in sorted({*self._yes, *self._no})
            },
            any_threat_ratio=_yes_ratio(self._threats[True], self._threats[False]) if self._threats else None,
            premise_true_ratio=round(self._premises[True] / premises, 4) if premises else None,
            blind_accuracy=self._blind(texts, image, kind, question, short),
            choices=self._choices(question, short),
            checks=self._checks(count),
            duplicates=_duplicates(texts, image, question, gates.near_similarity),
            diversity=self._diversity(texts, question, answer, types),
            answer_words=_spread(lengths),
            distinct_question_ratio=round(len(self._questions) / max(count, 1), 4),
            distinct_answer_ratio=round(len(self._answers) / max(count, 1), 4),
            mean_answer_words=round(float(lengths.mean()), 2) if count else 0.0,
            making=self._yield(count, making) if making else None,
        )
        judged = judge(quality, gates)
        return quality.model_copy(
            update={"gates": judged, "warnings": [gate.breach for gate in judged if gate.passed is False]}
        )

    def _checks(self, count: int) -> Checks:
        return Checks(
            validity=_share(count, count + self._num_invalid, 1.0),
            num_checkable=self._num_checkable,
            agreement=_share(self._num_agreeing, self._num_checkable) if self._num_checkable else None,
            contradiction_rate=_share(len(self._contradicting), len(self._images)),
            unsupported_rate=_share(self._num_unsupported, count),
            leak_rate=_share(self._num_leaks, count),
            faults=dict(sorted(self._faults.items())),
        )

    def _blind(
        self,
        texts: Sequence[list[str]],
        image: NDArray[np.int64],
        kind: NDArray[np.int64],
        question: NDArray[np.int64],
        short: NDArray[np.int64],
    ) -> dict[str, BlindScore]:
        if not len(kind):
            return {}
        features = question_features(texts)
        halves = np.array([Draws("half", path).below(2) for path in self._images], np.int64)[image]
        # Answers in the order of their text, so that ties are broken alike in whatever order they came.
        answers = sorted(self._shorts)
        rank = np.empty(len(answers), np.int64)
        rank[[self._shorts[text] for text in answers]] = np.arange(len(answers))
        empty = self._shorts.get("", -1)
        scores: dict[str, BlindScore] = {}
        for name, number in sorted(self._types.items()):
            rows = np.flatnonzero((kind == number) & (short != empty))
            if not len(rows):  # an open type: there is no answer to guess
                continue
            right = num_right_blind(features, question[rows], rank[short[rows]], halves[rows])
            scores[name] = self._score(name, len(rows), right)
        return scores

    def _score(self, name: str, count: int, right: int) -> BlindScore:
        overall: Counter[str] = Counter()
        halves: list[Counter[str]] = [Counter(), Counter()]
        for (half, kind, _), answers in self._by_target.items():
            if kind == name:
                overall.update(answers)
                halves[half].update(answers)
        by_target = 0
        for (half, kind, target), answers in self._by_target.items():
            if kind == name:
                learned = self._by_target.get((1 - half, kind, target)) or halves[1 - half]
                by_target += answers[_commonest(learned)]
        commonest = _commonest(overall)
        return BlindScore(
            n=count,
            accuracy=round(by_target / overall.total(), 4),
            commonest=commonest,
            commonest_share=round(overall[commonest] / overall.total(), 4),
            classifier=round(right / count, 4),
            majority=round(self._majority.share(name), 4),
        )

    def _placed(self, question: NDArray[np.int64], short: NDArray[np.int64]) -> list[tuple[int, int, int]]:
        """Return number of choices, place of the right one and number of pairs, where questions offer choices."""
        if not len(question):
            return []
        asked, shorts = list(self._questions), list(self._shorts)
        both, counts = np.unique(np.stack([question, short]), axis=1, return_counts=True)
        found: Counter[tuple[int, int]] = Counter()
        for (number, answer), count in zip(both.T.tolist(), counts.tolist(), strict=True):
            if shorts[answer] and (placed := right_choice(asked[number], shorts[answer])):
                found[placed[1], placed[0]] += count
        return [(size, place, count) for (size, place), count in sorted(found.items())]

    def _choices(self, question: NDArray[np.int64], short: NDArray[np.int64]) -> dict[str, Choices]:
        by_size: dict[int, dict[str, int]] = defaultdict(dict)
        for size, place, count in self._placed(question, short):
            if size <= len(LETTERS):
                by_size[size][LETTERS[place]] = count
        return {
            str(size): Choices(
                n=sum(counts.values()),
                by_place={letter: counts.get(letter, 0) for letter in LETTERS[:size]},
                lead=round(max(counts.values()) / sum(counts.values()) - 1 / size, 4),
            )
            for size, counts in sorted(by_size.items())
        }

    def _diversity(
        self,
        texts: Sequence[list[str]],
        question: NDArray[np.int64],
        answer: NDArray[np.int64],
        types: Mapping[str, int],
    ) -> Diversity:
        sampled = np.argsort(np.array(self._keys, np.uint64), kind="stable")[:NUM_SAMPLED]
        answers = list(self._answers)
        asked = [texts[number] for number in question[sampled].tolist()]
        said = [words(answers[number]) for number in answer[sampled].tolist()]
        openings: Counter[str] = Counter()
        for text, number in zip(texts, np.bincount(question, minlength=len(texts)).tolist(), strict=True):
            openings[" ".join(text[:3])] += number
        commonest = sorted(openings.items(), key=lambda item: (-item[1], item[0]))[:10]
        return Diversity(
            num_sampled=len(sampled),
            question_distinct_1=distinct_share(asked, 1),
            question_distinct_2=distinct_share(asked, 2),
            answer_distinct_1=distinct_share(said, 1),
            answer_distinct_2=distinct_share(said, 2),
            question_type_token_ratio=type_token_ratio(asked),
            answer_type_token_ratio=type_token_ratio(said),
            opening_entropy_bits=entropy_bits(openings.values()),
            num_openings=len(openings),
            question_type_entropy_bits=entropy_bits(types.values()),
            commonest_openings=dict(commonest),
        )

    def _yield(self, count: int, making: Making) -> Yield:
        rejected = making.rejected_by_category
        return Yield(
            num_rejected=making.num_rejected,
            rejected=_share(making.num_rejected, making.num_rejected + count),
            rejected_by_category={
                name: _share(number, number + self._categories[name]) for name, number in sorted(rejected.items())
            },
            refusals_by_category=dict(sorted(making.refused_by_category.items())),
            tokens_per_pair=round(sum(making.num_tokens.values()) / max(count, 1), 1),
            usd_per_pair=round(making.cost_usd / max(count, 1), 8),
        )


def measure(pairs: Iterable[VQAPair], gates: PairGates | None = None) -> Quality:
    """Return the quality of some pairs that are taken to be true."""
    meter = QualityMeter()
    for pair in pairs:
        meter.add(pair)
    return meter.result(gates)


def _share(part: int, whole: int, default: float = 0.0) -> float:
    """Rounded, but never to 0 or 1 where it is not exactly that: a gate may want none at all."""
    share = part / whole if whole else default
    return share if share in (0.0, 1.0) else min(max(round(share, 6), 1e-6), 1 - 1e-6)


def _commonest(answers: Counter[str]) -> str:
    return min(answers, key=lambda answer: (-answers[answer], answer), default="")


def _yes_ratio(yes: int, no: int) -> YesRatio:
    return YesRatio(yes=yes, no=no, ratio=round(yes / (yes + no), 4))


def _spread(lengths: NDArray[np.int64]) -> LengthSpread:
    if not len(lengths):
        return LengthSpread(mean=0.0, deviation=0.0, p5=0, median=0, p95=0)
    low, middle, high = (int(value) for value in np.percentile(lengths, (5, 50, 95), method="lower"))
    deviation = statistics.pstdev(lengths.tolist()) if len(lengths) < 1000 else float(lengths.std())
    return LengthSpread(
        mean=round(float(lengths.mean()), 2), deviation=round(deviation, 2), p5=low, median=middle, p95=high
    )


def _duplicates(
    texts: Sequence[list[str]], image: NDArray[np.int64], question: NDArray[np.int64], similarity: float
) -> Duplicates:
    different = sorted({tuple(text) for text in texts})
    number_of = {text: number for number, text in enumerate(different)}
    asked = np.array([number_of[tuple(text)] for text in texts], np.int64)[question] if len(question) else question
    copies = NearCopies(different, similarity)
    near = copies.have_copies()
    order = np.argsort(image, kind="stable")
    image, asked = image[order], asked[order]
    again, nearly = np.zeros(len(asked), np.bool_), np.zeros(len(asked), np.bool_)
    for distance in range(1, min(MOST_PAIRS_OF_AN_IMAGE, len(asked))):
        together = np.flatnonzero(image[:-distance] == image[distance:])
        if not len(together):
            break
        left, right = asked[together], asked[together + distance]
        again[together[left == right] + distance] = True
        other = left != right
        close = copies.are_near(left[other], right[other])
        nearly[together[other][close] + distance] = True
    return Duplicates(
        num_different=len(different),
        repeated=_share(len(asked) - len(different), len(asked)),
        near=_share(int(near.sum()), len(different)),
        repeated_in_image=_share(int(again.sum()), len(asked)),
        near_in_image=_share(int((nearly & ~again).sum()), len(asked)),
    )
