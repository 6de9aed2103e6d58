"""Which category is said where another one is there: what a reader of a miss wants to know first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from xray_vqa.evaluation.records import PredictionsHeader, ScanPrediction

NOTHING = "(nothing)"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of scans with a single category in them, by what is there and what is said.

    Scans with several categories are left out: nobody could say which of them a wrong word was meant for.
    """

    there: tuple[str, ...]
    """Of the rows; the last may be `NOTHING`: clean bags."""
    said: tuple[str, ...]
    counts: dict[tuple[str, str], int]
    """A scan with several flags counts once in each column."""
    totals: dict[str, int]
    """Scans of each row."""
    num_left_out: int

    def share(self, there: str, said: str) -> float:
        return self.counts.get((there, said), 0) / self.totals[there]


def confusion_of(predictions: Sequence[ScanPrediction], header: PredictionsHeader) -> Confusion:
    """Return the confusion at the thresholds, over annotated categories. Unreadable scores say nothing here."""
    counts: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    num_left_out = 0
    for prediction in predictions:
        if len(prediction.present) > 1 or prediction.num_unlisted:
            num_left_out += 1
            continue
        there = next(iter(prediction.present), NOTHING)
        totals[there] += 1
        flagged = [
            name
            for name in prediction.annotated_categories
            if (raw := prediction.probability(name)) is not None
            and header.point.correct(raw) >= header.point.thresholds[name]
        ]
        counts.update((there, said) for said in flagged or [NOTHING])
    order = [*header.point.thresholds, NOTHING]
    heard = {said for _, said in counts}
    return Confusion(
        there=tuple(name for name in order if totals[name]),
        said=tuple(name for name in order if name in heard or (totals[name] and name != NOTHING)),
        counts=dict(counts),
        totals=dict(totals),
        num_left_out=num_left_out,
    )
