"""Many answers as columns: each different answer is judged once, and then counted whole, by type and by language."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_vqa.evaluation.metrics.bootstrap import DRAWS, FloatArray, ratio_over_groups, ratios_over_groups
from xray_vqa.evaluation.metrics.intervals import Names
from xray_vqa.evaluation.metrics.judging import ITEMS_WIDTH, MATCHES_WIDTH, Pair, judge_all
from xray_vqa.evaluation.metrics.ranking import BoolArray
from xray_vqa.evaluation.metrics.text import BLEU_WIDTH, bleu_of, bleu_tokenizer, chrf_of
from xray_vqa.evaluation.records import AnswerRecord
from xray_vqa.evaluation.results import CorpusScore, ItemScores, TextScores

LISTING_TYPES = frozenset({"general", "listing", "identification", "detailed"})
"""Questions whose answers name the items that are there; of `general` ones those that are not for yes or no."""

IntArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Answers as rows that point at what their texts are worth."""

    pair: IntArray
    """(answers,), which pair of texts each is."""
    matches: FloatArray
    """(pairs, 4): exact, lenient, ROUGE-L, whether the reference is long."""
    items: FloatArray
    """(pairs, 3): items rightly named, named, there; nothing for questions that do not ask for items."""
    asks_items: BoolArray
    """(pairs,)"""
    statistics: FloatArray
    """(pairs, sacrebleu's counts for BLEU and then for chrF2++); nothing for short references."""
    tokenizer: NDArray[np.str_]
    """(pairs,), BLEU's for the language."""
    group: IntArray
    """(answers,), in the order of the groups' names."""
    failed: BoolArray
    """(answers,)"""
    kind: NDArray[np.str_]
    """(answers,), type of question."""
    language: NDArray[np.str_]
    """(answers,)"""

    @classmethod
    def of(cls, answers: Sequence[AnswerRecord], groups: Sequence[str], *, workers: int = 1) -> "AnswerTable":
        """Judge some answers.

        Args:
            answers: In any order.
            groups: The bag that each answer is about.
            workers: Processes that judge many different answers; the numbers do not depend on it.
        """
        places: dict[Pair, int] = {}
        pair = [places.setdefault(_pair_of(answer), len(places)) for answer in answers]
        pairs = list(places)
        judged = judge_all(pairs, workers)
        return cls(
            pair=np.array(pair, dtype=np.intp),
            matches=judged[:, :MATCHES_WIDTH],
            items=judged[:, MATCHES_WIDTH : MATCHES_WIDTH + ITEMS_WIDTH],
            asks_items=np.array([each.asks_items for each in pairs], dtype=bool),
            statistics=judged[:, MATCHES_WIDTH + ITEMS_WIDTH :],
            tokenizer=np.array([bleu_tokenizer(each.language) for each in pairs], dtype=str),
            group=np.unique(np.array(groups, dtype=str), return_inverse=True)[1],
            failed=np.array([answer.failure is not None for answer in answers], dtype=bool),
            kind=np.array([answer.question_type for answer in answers], dtype=str),
            language=np.array([answer.language for answer in answers], dtype=str),
        )

    def scores(self, rows: BoolArray | None = None, *, draws: int = DRAWS) -> TextScores:
        """Return all text metrics, of all answers or of some."""
        kept = np.arange(len(self.pair)) if rows is None else np.flatnonzero(rows)
        pair, groups = self.pair[kept], self.group[kept]
        values, long = self.matches[pair], self.matches[pair, 3]
        values[:, 3] = values[:, 2]
        values[:, 2] *= long
        counted = np.ones_like(values)
        counted[:, 2] = long
        num, num_long = len(kept), int(long.sum())
        exact, lenient, rouge, rouge_all = ratios_over_groups(
            values, counted, groups, [num, num, num_long, num], draws=draws
        )
        listing = self.asks_items[pair]
        return TextScores(
            num_questions=num,
            num_unreadable=int(self.failed[kept].sum()),
            exact_match=exact,
            lenient_match=lenient,
            item_f1=item_scores(self.items[pair[listing]], groups[listing], draws=draws) if listing.any() else None,
            bleu=self._bleu(pair),
            chrf=self._chrf(pair),
            rouge_l=rouge,
            rouge_l_all=rouge_all,
        )

    def by(self, names: NDArray[np.str_], *, draws: int = DRAWS) -> dict[str, TextScores]:
        """Return the scores of the answers with each of some names, as their kinds or languages."""
        return {str(name): self.scores(names == name, draws=draws) for name in np.unique(names)}

    def _bleu(self, pair: IntArray) -> CorpusScore:
        times = np.bincount(pair, minlength=len(self.matches)) * self.matches[:, 3]
        return bleu_of({
            str(name): (int(times[of].sum()), times[of] @ self.statistics[of, :BLEU_WIDTH])
            for name in np.unique(self.tokenizer[times > 0])
            for of in [self.tokenizer == name]
        })  # fmt: skip

    def _chrf(self, pair: IntArray) -> CorpusScore:
        times = np.bincount(pair, minlength=len(self.matches)) * self.matches[:, 3]
        return chrf_of(int(times.sum()), times @ self.statistics[:, BLEU_WIDTH:])


def score_answers(answers: Sequence[AnswerRecord], groups: Sequence[str], *, draws: int = DRAWS) -> TextScores:
    """Return all text metrics of some answers.

    Args:
        answers: In any order; the numbers do not depend on it.
        groups: The bag that each answer is about.
        draws: Of the bootstrap.
    """
    return AnswerTable.of(answers, groups).scores(draws=draws)


def item_scores(counts: FloatArray, groups: Names, *, draws: int = DRAWS) -> ItemScores:
    """Return micro precision, recall and F1 of named items; null where nothing is there and nothing was named.

    Args:
        counts: (answers, 3): items rightly named, named, there.
        groups: The bag that each answer is about.
        draws: Of the bootstrap.
    """
    hits, num_named, num_there = (int(total) for total in counts.sum(axis=0))
    both = counts[:, 1] + counts[:, 2]
    return ItemScores(
        precision=hits / num_named if num_named else None,
        recall=hits / num_there if num_there else None,
        f1=ratio_over_groups(2 * counts[:, 0], both, groups, num_there, draws=draws),
    )


def _pair_of(answer: AnswerRecord) -> Pair:
    asks_items = answer.question_type in LISTING_TYPES and answer.short_truth not in ("yes", "no")
    return Pair(answer.said, answer.short_truth, answer.truth, answer.language, asks_items)
