"""Takes the pairs of a set one by one, keeps a few numbers of each and no text, and measures at the end."""

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
from xray_vqa.core.draws import Draws
from xray_vqa.core.records import VQAPair
from xray_vqa.core.taxonomy import canonical_category
from xray_vqa.generation.plan import SHARES
from xray_vqa.generation.quality.blind import num_right_blind, question_features
from xray_vqa.generation.quality.choices import LETTERS, right_choice
from xray_vqa.generation.quality.duplicates import count_duplicates
from xray_vqa.generation.quality.gates import judge
from xray_vqa.generation.quality.majority import Majority
from xray_vqa.generation.quality.report import (
    BlindScore,
    Checks,
    Choices,
    Diversity,
    LengthSpread,
    Making,
    Quality,
    YesRatio,
    Yield,
    share_of,
)
from xray_vqa.generation.quality.sample import Sample
from xray_vqa.generation.quality.texts import Texts, hash_of
from xray_vqa.generation.quality.words import distinct_share, entropy_bits, type_token_ratio, words
from xray_vqa.generation.topics import NOT_VERIFIED, UNKNOWABLE
from xray_vqa.generation.validation import DERIVED_TYPES, kind_of

NUM_SAMPLED = 1000
"""Pairs on which the variety of words is measured, the same number for each set."""
NUM_SHOWN = 3
"""Pairs of each type that the page shows."""
NUM_FAULTY_SHOWN = 8

_FILE_WORDS = re.compile(r"\b[\w-]+\.(?:jpe?g|png|bmp|tiff?|webp|dcm)\b|\b(?:train|test)/images\b|\b\w+_\w+\b", re.I)
"""File names, and names with an underscore such as STCray's `3DGun1_B5_L1`: nobody who looks at a scan says those."""


class QualityMeter:
    """Counts pairs. Of each it keeps some 40 bytes, and 8 bytes a word of each different question.

    Args:
        items: The annotated categories of each image by path, which `evidence` points into; without them the answers
            are held against the categories that the pair itself names.
    """

    def __init__(self, items: Mapping[str, Sequence[str]] | None = None) -> None:
        self._items = items
        self._images: dict[str, int] = {}
        self._halves = array("b")
        """For each image the half of the set that it belongs to, 0 or 1."""
        self._types: dict[str, int] = {}
        self._shorts: dict[str, int] = {}
        self._questions = Texts()
        self._columns = [array("i") for _ in range(4)]
        """For each pair its image, type, question and short answer, by number."""
        self._asked, self._said = array("Q"), array("Q")
        """For each pair what stands for its question and its answer to the letter."""
        self._lengths = array("i")
        """For each pair the words of its answer."""
        self._openings: Counter[str] = Counter()
        self._placed: Counter[tuple[str, int, int]] = Counter()
        """Pairs whose question offers choices, by type, number of choices and place of the right one."""
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
        self._sampled: Sample[tuple[list[str], list[str]]] = Sample(NUM_SAMPLED)
        """Questions and answers as words, to measure variety on."""
        self._shown: dict[str, Sample[VQAPair]] = defaultdict(lambda: Sample(NUM_SHOWN))
        self.faulty: list[tuple[VQAPair, tuple[str, ...]]] = []
        """The first pairs with faults, for the page."""

    @property
    def samples(self) -> dict[str, list[VQAPair]]:
        """A few pairs of each type, the same ones in whatever order they came."""
        return {name: self._shown[name].items() for name in sorted(self._shown)}

    def add_invalid(self) -> None:
        """Count a line that is no pair."""
        self._num_invalid += 1
        self._faults["invalid"] += 1

    def add(self, pair: VQAPair, faults: Sequence[str] = ()) -> None:
        """Take a pair and what the validator says is wrong with it."""
        about, asked = pair.metadata, words(pair.question)
        image = self._images.setdefault(pair.image_path, len(self._images))
        if image == len(self._halves):
            self._halves.append(Draws("half", pair.image_path).below(2))
        numbers = (
            image,
            self._types.setdefault(about.question_type, len(self._types)),
            self._questions.add(asked),
            self._shorts.setdefault(about.short_answer, len(self._shorts)),
        )
        for column, number in zip(self._columns, numbers, strict=True):
            column.append(number)
        self._asked.append(hash_of(pair.question))
        self._said.append(hash_of(pair.answer))
        self._lengths.append(len(pair.answer.split()))
        self._openings[" ".join(asked[:3])] += 1
        placed = right_choice(pair.question, about.short_answer) if about.short_answer else None
        if placed:
            self._placed[about.question_type, placed[1], placed[0]] += 1
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
            self._majority.add(pair, placed)
        subject = f"{about.topic} {about.target}".strip()
        self._by_target[self._halves[image], about.question_type, subject][about.short_answer] += 1
        self._check(pair, faults)
        self._sample(pair, asked, faults)

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

    def _sample(self, pair: VQAPair, asked: list[str], faults: Sequence[str]) -> None:
        key = zlib.crc32(f"{pair.image_path}\n{pair.question}".encode())
        self._sampled.add(key, pair.answer, (asked, words(pair.answer)))
        self._shown[pair.metadata.question_type].add(key, pair.image_path, pair)
        if faults and len(self.faulty) < NUM_FAULTY_SHOWN:
            self.faulty.append((pair, tuple(faults)))

    def result(self, gates: PairGates | None = None, making: Making | None = None) -> Quality:
        """Measure what was taken, and hold it against gates (the default ones where none are given)."""
        count = len(self._asked)
        image, kind, question, short = (np.array(column, np.int64) for column in self._columns)
        gates = gates or PairGates()
        types = {name: int((kind == number).sum()) for name, number in sorted(self._types.items())}
        lengths = np.array(self._lengths, np.int64)
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
            blind_accuracy=self._blind(image, kind, question, short),
            choices=self._choices(),
            checks=self._checks(count),
            duplicates=count_duplicates(self._questions, image, question, gates.near_similarity),
            diversity=self._diversity(types),
            answer_words=_spread(lengths),
            distinct_question_ratio=round(_num_different(self._asked) / max(count, 1), 4),
            distinct_answer_ratio=round(_num_different(self._said) / max(count, 1), 4),
            mean_answer_words=round(float(lengths.mean()), 2) if count else 0.0,
            making=self._yield(count, making) if making else None,
        )
        judged = judge(quality, gates)
        return quality.model_copy(
            update={"gates": judged, "warnings": [gate.breach for gate in judged if gate.passed is False]}
        )

    def _checks(self, count: int) -> Checks:
        return Checks(
            validity=share_of(count, count + self._num_invalid, 1.0),
            num_checkable=self._num_checkable,
            agreement=share_of(self._num_agreeing, self._num_checkable) if self._num_checkable else None,
            contradiction_rate=share_of(len(self._contradicting), len(self._images)),
            unsupported_rate=share_of(self._num_unsupported, count),
            leak_rate=share_of(self._num_leaks, count),
            faults=dict(sorted(self._faults.items())),
        )

    def _blind(
        self, image: NDArray[np.int64], kind: NDArray[np.int64], question: NDArray[np.int64], short: NDArray[np.int64]
    ) -> dict[str, BlindScore]:
        if not len(kind):
            return {}
        features = question_features(self._questions)
        halves = np.array(self._halves, np.int64)[image]
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

    def _choices(self) -> dict[str, Choices]:
        by_size: dict[int, Counter[str]] = defaultdict(Counter)
        for (_, size, place), count in self._placed.items():
            if size <= len(LETTERS):
                by_size[size][LETTERS[place]] += count
        return {
            str(size): Choices(
                n=counts.total(),
                by_place={letter: counts[letter] for letter in LETTERS[:size]},
                lead=round(max(counts.values()) / counts.total() - 1 / size, 4),
            )
            for size, counts in sorted(by_size.items())
        }

    def _diversity(self, types: Mapping[str, int]) -> Diversity:
        sampled = self._sampled.items()
        asked, said = [question for question, _ in sampled], [answer for _, answer in sampled]
        commonest = sorted(self._openings.items(), key=lambda item: (-item[1], item[0]))[:10]
        return Diversity(
            num_sampled=len(sampled),
            question_distinct_1=distinct_share(asked, 1),
            question_distinct_2=distinct_share(asked, 2),
            answer_distinct_1=distinct_share(said, 1),
            answer_distinct_2=distinct_share(said, 2),
            question_type_token_ratio=type_token_ratio(asked),
            answer_type_token_ratio=type_token_ratio(said),
            opening_entropy_bits=entropy_bits(self._openings.values()),
            num_openings=len(self._openings),
            question_type_entropy_bits=entropy_bits(types.values()),
            commonest_openings=dict(commonest),
        )

    def _yield(self, count: int, making: Making) -> Yield:
        rejected = making.rejected_by_category
        return Yield(
            num_rejected=making.num_rejected,
            rejected=share_of(making.num_rejected, making.num_rejected + count),
            rejected_by_category={
                name: share_of(number, number + self._categories[name]) for name, number in sorted(rejected.items())
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


def _num_different(hashes: Sequence[int]) -> int:
    return len(np.unique(np.array(hashes, np.uint64)))


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
