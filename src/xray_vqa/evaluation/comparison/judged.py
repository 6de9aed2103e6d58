"""What one model made of the scans of a test set: flagged or not, found or not, answered right or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xray_vqa.evaluation.comparison.paired import BoolArray, FloatArray, IntArray, Side, ranking, ratio
from xray_vqa.evaluation.metrics.screening import bag_table
from xray_vqa.evaluation.metrics.text import is_exact, is_long, rouge_l
from xray_vqa.evaluation.records import PredictionsHeader, ScanPrediction
from xray_vqa.evaluation.score import score_table


@dataclass(frozen=True, slots=True)
class Judged:
    """What one model made of the scans, in the order of their paths."""

    member: IntArray
    """Which bag each scan is of."""
    truth: BoolArray
    """Scans with an annotated threat."""
    clean: BoolArray
    margins: FloatArray
    """The largest margin over a category's threshold, the worst case where a score is missing; -inf for a scan that
    is neither a threat nor clean.
    """
    hits: FloatArray
    """Items rightly flagged, a scan."""
    named: FloatArray
    """Items flagged and items there, a scan."""
    found: dict[str, tuple[BoolArray, BoolArray]]
    """By category: scans with it, and those flagged for it."""
    answers: tuple[tuple[int, str, bool, float | None], ...]
    """(scan, question type, exact, ROUGE-L on a long reference)."""

    @classmethod
    def of(cls, predictions: Sequence[ScanPrediction], header: PredictionsHeader) -> "Judged":
        table = score_table(predictions, header.point)
        limits = np.array([header.point.thresholds[name] for name in table.categories])
        bags, flagged = bag_table(table, limits), table.flagged(limits)
        truth, margins = np.zeros(len(bags.counted), dtype=bool), np.full(len(bags.counted), -np.inf)
        truth[bags.counted], margins[bags.counted] = bags.truth, bags.margins
        return cls(
            member=table.groups,
            truth=truth,
            clean=bags.counted & ~truth,
            margins=margins,
            hits=(flagged & table.present).sum(axis=1).astype(float),
            named=(flagged.sum(axis=1) + table.present.sum(axis=1)).astype(float),
            found={
                name: (table.present[:, column], flagged[:, column]) for column, name in enumerate(table.categories)
            },
            answers=tuple(
                (
                    row,
                    answer.question_type,
                    is_exact(answer.said, answer.short_truth, answer.truth),
                    rouge_l(answer.said, answer.truth) if is_long(answer.truth) else None,
                )
                for row, prediction in enumerate(predictions)
                for answer in prediction.answers
            ),
        )

    @property
    def flagged(self) -> BoolArray:
        return self.margins >= 0

    @property
    def size(self) -> int:
        """How many bags there are."""
        return len(np.unique(self.member))

    def right(self, rows: BoolArray, *, flagged_is_right: bool) -> BoolArray:
        """Return for each bag among some scans whether it is judged rightly; one flagged scan flags its bag."""
        bags = np.unique(self.member[rows])
        flagged = np.bincount(self.member[rows], self.flagged[rows], self.size)[bags] > 0
        return flagged if flagged_is_right else ~flagged

    def found_of(self, category: str) -> BoolArray:
        """Return for each bag with an item of a category whether it is flagged for it."""
        there, flagged = self.found[category]
        bags = np.unique(self.member[there])
        return np.bincount(self.member[there], flagged[there], self.size)[bags] > 0

    def answers_right(self, question_type: str) -> BoolArray:
        """Return for each bag with questions of a type whether more than half of the answers are exact."""
        kept = [(self.member[row], exact) for row, kind, exact, _ in self.answers if kind == question_type]
        member, exact = np.array([who for who, _ in kept]), np.array([right for _, right in kept], dtype=float)
        bags = np.unique(member)
        return (np.bincount(member, exact, self.size) > np.bincount(member, minlength=self.size) / 2)[bags]

    def mean(self, values: FloatArray, rows: BoolArray) -> Side:
        return ratio(values * rows, rows.astype(float), self.member, self.size)

    def ranked(self, pfa: float | None = None) -> Side:
        rows = self.truth | self.clean
        return ranking(self.margins[rows], self.truth[rows], self.member[rows], self.size, pfa)

    def answered(self, value: Callable[[bool, float | None], float | None]) -> Side:
        """The mean over answers of what `value` makes of one; None is left out."""
        kept = [(self.member[row], v) for row, _, e, r in self.answers if (v := value(e, r)) is not None]
        member = np.array([who for who, _ in kept], dtype=np.intp)
        above = np.array([v for _, v in kept], dtype=float)
        return ratio(above, np.ones(len(kept)), member, self.size)

    def item_f1(self) -> Side:
        return ratio(2 * self.hits, self.named, self.member, self.size)


METRICS: dict[str, Callable[[Judged], Side]] = {
    "exact_match_accuracy": lambda side: side.answered(lambda exact, _: float(exact)),
    "item_f1": Judged.item_f1,
    "bag_auc": lambda side: side.ranked(),
    "pd": lambda side: side.mean(side.flagged.astype(float), side.truth),
    "pfa": lambda side: side.mean(side.flagged.astype(float), side.clean),
    "pd_at_pfa_5": lambda side: side.ranked(0.05),
    "rouge_l": lambda side: side.answered(lambda _, rouge: rouge),
}
"""The headline numbers. All but `pfa` are better when higher."""
