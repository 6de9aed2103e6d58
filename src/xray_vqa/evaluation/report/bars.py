"""Bars with intervals: one row a category or a slice, drawn beside the figures of its table row."""

from collections.abc import Sequence
from dataclasses import dataclass

from xray_vqa.evaluation.results import CategoryScores, Estimate

BAR_WIDTH = 200.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A rate and its interval in the units of a bar that is `BAR_WIDTH` long."""

    length: float
    low: float
    high: float
    tick: float | None = None
    """Where a second rate stands: the false alarms of the same category."""


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """A category that occurs, its figures and its bar."""

    name: str
    scores: CategoryScores
    bar: Bar
    allowed_misses: float | None
    """Upper end of the miss rate by the rule of three where nothing was missed, else None."""


def bar_of(estimate: Estimate, tick: float | None = None) -> Bar:
    """Return the bar of a rate; one that could not be measured has no length and may be anything."""
    value = estimate.value or 0.0
    low = value if estimate.low is None else estimate.low
    high = value if estimate.high is None else estimate.high
    return Bar(BAR_WIDTH * value, BAR_WIDTH * low, BAR_WIDTH * high, None if tick is None else BAR_WIDTH * tick)


def category_rows(categories: dict[str, CategoryScores]) -> list[CategoryRow]:
    """Return a row for each category that occurs, worst detected first."""
    shown = [(name, scores) for name, scores in categories.items() if scores.pd.value is not None]
    shown.sort(key=lambda entry: (entry[1].pd.value or 0.0, entry[0]))
    return [
        CategoryRow(
            name=name,
            scores=scores,
            bar=bar_of(scores.pd, scores.pfa.value),
            allowed_misses=min(3 / scores.num_positive, 1.0) if scores.pd.value == 1 else None,
        )
        for name, scores in shown
    ]


def absent_categories(categories: dict[str, CategoryScores]) -> Sequence[str]:
    """Return the categories that are labelled and of which no scan has one: nothing can be said of their detection."""
    return [name for name, scores in categories.items() if scores.pd.value is None]
