"""What scores are worth for screening: detection and false alarm rates by category, by item and by bag.

Pure NumPy and SciPy over arrays with one row a scan and one column a category. A score that is missing or unsure is NaN
and counts against the model everywhere: a miss where the item is there, a false alarm where it is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_vqa.evaluation.metrics.bootstrap import (
    DETAIL_DRAWS,
    DRAWS,
    FloatArray,
    Statistic,
    Weights,
    over_groups,
    shares,
    weighted_sums,
)
from xray_vqa.evaluation.metrics.calibration import brier_score, calibration_error
from xray_vqa.evaluation.metrics.intervals import effective_size, rate_over_groups
from xray_vqa.evaluation.metrics.prevalence import at_prevalences, cost_points, proof_of
from xray_vqa.evaluation.metrics.ranking import (
    PD_LEVELS,
    PFA_LEVELS,
    BoolArray,
    Ranking,
    auc,
    average_precision,
    d_prime,
    det_points,
    independent_groups,
    roc_points,
    thinned,
    worst_case,
)
from xray_vqa.evaluation.records import ThresholdOrigin
from xray_vqa.evaluation.results import (
    BagScores,
    CategoryScores,
    Estimate,
    ItemScores,
    Proof,
    ScreeningScores,
    WorstCategory,
)

CATEGORY_ROC_POINTS = 50


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Corrected scores of some scans."""

    categories: tuple[str, ...]
    scores: FloatArray
    """(scans, categories) float64, 0 to 1; NaN where there is no usable score."""
    truth: BoolArray
    """(scans, categories): whether the item is there."""
    annotated: BoolArray
    """(scans, categories): whether the scan's source labels the category at all. Nothing else is scored."""
    unlisted: BoolArray
    """(scans,): whether the scan has items outside the taxonomy."""
    groups: NDArray[np.intp]
    """(scans,): the number of the bag, in the order of the bags' names."""

    @property
    def present(self) -> BoolArray:
        return self.truth & self.annotated

    def flagged(self, limits: FloatArray) -> BoolArray:
        """Return what is flagged at thresholds, (scans, categories); without a usable score, what is wrong."""
        return (worst_case(self.scores, self.truth) >= limits) & self.annotated


@dataclass(frozen=True, slots=True)
class BagTable:
    """Scans that are threat or clean, each with the largest margin over a category's threshold."""

    counted: BoolArray
    """(scans,): which scans these are; a scan with nothing but items outside the taxonomy is neither."""
    margins: FloatArray
    truth: BoolArray
    groups: NDArray[np.intp]

    @property
    def flagged(self) -> BoolArray:
        return self.margins >= 0


def bag_table(table: ScoreTable, limits: FloatArray) -> BagTable:
    """Return scans as bags: threat if any annotated category is there, clean if nothing is."""
    is_threat: BoolArray = np.any(table.present, axis=1)
    counted = (is_threat | ~table.unlisted) & table.annotated.any(axis=1)
    truth = is_threat[counted]
    margins = np.where(table.annotated, table.scores - limits, -np.inf)[counted]
    margins = worst_case(margins, truth[:, None])
    return BagTable(
        counted=counted,
        margins=margins.max(axis=1, initial=-np.inf),
        truth=truth,
        groups=table.groups[counted],
    )


def score_screening(
    table: ScoreTable,
    thresholds: Mapping[str, float],
    origins: Mapping[str, ThresholdOrigin],
    covered: frozenset[str] = frozenset(),
    *,
    draws: int = DRAWS,
) -> ScreeningScores:
    """Return the screening scores of a table, category by category, over all items, and by bag.

    Categories take at most `DETAIL_DRAWS` draws of whole groups, what is told of all items and bags all `draws`.
    """
    limits = np.array([thresholds[name] for name in table.categories])
    bags = bag_table(table, limits)
    drawn = _draw(table, bags, limits, draws)
    categories: dict[str, CategoryScores] = {}
    for column, name in enumerate(table.categories):
        if table.annotated[:, column].any():
            categories[name] = _score_category(
                table, column, float(limits[column]), origins[name], name in covered, drawn.by_category[column]
            )
    aucs = {name: row.auc for name, row in categories.items() if row.auc is not None}
    precisions = [row.average_precision for row in categories.values() if row.average_precision is not None]
    rates = {name: row.pd.value for name, row in categories.items() if row.pd.value is not None}
    usable = table.annotated & ~np.isnan(table.scores)
    return ScreeningScores(
        bag=_score_bags(bags, drawn.bag),
        item_f1=_item_scores(table, limits, drawn.item_f1),
        macro_f1=drawn.macro_f1,
        calibration_error=calibration_error(table.scores[usable], table.truth[usable]),
        macro_auc=_mean(list(aucs.values())),
        macro_average_precision=_mean(precisions),
        macro_pd=_mean(list(rates.values())),
        worst_auc=_worst(aucs),
        worst_pd=_worst(rates),
        categories=categories,
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _worst(values: Mapping[str, float]) -> WorstCategory | None:
    if not values:
        return None
    name = min(values, key=lambda key: (values[key], key))
    return WorstCategory(category=name, value=values[name])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What the bootstrap gives, each ranking's estimates by `Ranking.names`."""

    item_f1: Estimate
    macro_f1: Estimate
    bag: dict[str, Estimate]
    by_category: list[dict[str, Estimate]]


def _draw(table: ScoreTable, bags: BagTable, limits: FloatArray, draws: int) -> _Drawn:
    flagged, present = table.flagged(limits), table.present
    num_there = int(present.sum())
    f1 = _f1(flagged & present, flagged, present)
    item_f1, macro_f1 = over_groups(f1, table.groups, [num_there, num_there], draws=draws)
    statistics: list[Statistic] = []
    sizes: list[int] = []
    independent: list[int] = []
    for column in range(len(table.categories)):
        rows = np.flatnonzero(table.annotated[:, column])
        scores, truth = table.scores[rows, column], table.truth[rows, column]
        groups = table.groups[rows]
        statistics.append(_at_rows(Ranking(worst_case(scores, truth), truth), rows))
        _extend(sizes, independent, truth, groups)
    estimates: list[Estimate] = []
    if statistics:
        few = min(draws, DETAIL_DRAWS)
        estimates = over_groups(_stacked(statistics), table.groups, sizes, num_independent=independent, draws=few)
    width = len(Ranking.names)
    rankings = [
        dict(zip(Ranking.names, estimates[at : at + width], strict=True)) for at in range(0, len(estimates), width)
    ]
    bag_sizes: list[int] = []
    bag_independent: list[int] = []
    _extend(bag_sizes, bag_independent, bags.truth, bags.groups)
    of_bags = over_groups(
        Ranking(bags.margins, bags.truth), bags.groups, bag_sizes, num_independent=bag_independent, draws=draws
    )
    return _Drawn(item_f1, macro_f1, dict(zip(Ranking.names, of_bags, strict=True)), rankings)


def _extend(sizes: list[int], independent: list[int], truth: BoolArray, groups: NDArray[np.integer]) -> None:
    """Add what a ranking's numbers rest on, in the order of their names."""
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    positive_groups, negative_groups = independent_groups(truth, groups)
    sizes += [len(truth)] + [num_positive] * len(PFA_LEVELS) + [num_negative] * len(PD_LEVELS)
    independent += [min(positive_groups, negative_groups)]
    independent += [positive_groups] * len(PFA_LEVELS) + [negative_groups] * len(PD_LEVELS)


def _at_rows(statistic: Statistic, rows: NDArray[np.intp]) -> Statistic:
    def at(weights: Weights) -> FloatArray:
        return statistic(weights if len(rows) == weights.shape[1] else weights.take(rows, axis=1))

    return at


def _stacked(statistics: Sequence[Statistic]) -> Statistic:
    return lambda weights: np.hstack([statistic(weights) for statistic in statistics])


def _f1(hits: BoolArray, flagged: BoolArray, present: BoolArray) -> Statistic:
    """Return the F1 of all items together, and its mean over the categories that are there or flagged."""
    columns = [np.flatnonzero(either) for either in (flagged | present).T]  # most scans have nothing to say of most
    parts = [
        (rows, np.stack([2.0 * hits[rows, k], flagged[rows, k] + 1.0 * present[rows, k]], axis=1))
        for k, rows in enumerate(columns)
    ]

    def statistic(weights: Weights) -> FloatArray:
        sums = np.array([weighted_sums(weights.take(rows, axis=1), counts) for rows, counts in parts])
        top, there = sums.reshape(len(parts), len(weights), 2).transpose(2, 1, 0)
        macro = np.nan_to_num(shares(top, there)).sum(axis=1), (there > 0).sum(axis=1).astype(float)
        return np.stack([shares(top.sum(axis=1), there.sum(axis=1)), shares(*macro)], axis=1)

    return statistic


def _score_category(
    table: ScoreTable,
    column: int,
    threshold: float,
    origin: ThresholdOrigin,
    covered: bool,
    drawn: Mapping[str, Estimate],
) -> CategoryScores:
    rows = table.annotated[:, column]
    scores, truth = table.scores[rows, column], table.truth[rows, column]
    groups = table.groups[rows]
    filled, usable = worst_case(scores, truth), ~np.isnan(scores)
    flagged = filled >= threshold
    hits, alarms = int((flagged & truth).sum()), int((flagged & ~truth).sum())
    num_positive, num_negative = int(truth.sum()), int((~truth).sum())
    either = hits + alarms + num_positive
    return CategoryScores(
        num_positive=num_positive,
        num_negative=num_negative,
        num_unscored=int(np.isnan(scores).sum()),
        covered=covered,
        threshold=threshold,
        threshold_from=origin,
        auc=auc(filled[truth], filled[~truth]),
        auc_interval=drawn["auc"],
        average_precision=average_precision(filled, truth),
        pd=rate_over_groups(flagged[truth], groups[truth]),
        pfa=rate_over_groups(flagged[~truth], groups[~truth]),
        pd_at_pfa=_by_level(drawn, "pd@", PFA_LEVELS),
        pfa_at_pd=_by_level(drawn, "pfa@", PD_LEVELS),
        d_prime=d_prime(hits, num_positive, alarms, num_negative),
        calibration_error=calibration_error(scores[usable], truth[usable]),
        brier=brier_score(scores[usable], truth[usable]),
        roc=thinned(roc_points(filled, truth), CATEGORY_ROC_POINTS),
        proof=_proof(flagged, truth, groups),
        f1=2 * hits / either if either else None,
    )


def _by_level(drawn: Mapping[str, Estimate], prefix: str, levels: Sequence[float]) -> dict[str, Estimate]:
    return {f"{level:g}": drawn[f"{prefix}{level:g}"] for level in levels}


def _proof(flagged: BoolArray, truth: BoolArray, groups: NDArray[np.integer]) -> Proof:
    return proof_of(
        hits=int((flagged & truth).sum()),
        num_positive=int(truth.sum()),
        positive_size=effective_size(flagged[truth], groups[truth]),
        alarms=int((flagged & ~truth).sum()),
        num_negative=int((~truth).sum()),
        negative_size=effective_size(flagged[~truth], groups[~truth]),
    )


def _item_scores(table: ScoreTable, limits: FloatArray, f1: Estimate) -> ItemScores:
    flagged = table.flagged(limits)
    hits, num_flagged, num_there = (int(part.sum()) for part in (flagged & table.present, flagged, table.present))
    return ItemScores(
        precision=hits / num_flagged if num_flagged else None,
        recall=hits / num_there if num_there else None,
        f1=f1,
    )


def _score_bags(bags: BagTable, drawn: Mapping[str, Estimate]) -> BagScores:
    truth, flagged, groups = bags.truth, bags.flagged, bags.groups
    num_threat, num_clean = int(truth.sum()), int((~truth).sum())
    hits, alarms = int((flagged & truth).sum()), int((flagged & ~truth).sum())
    roc = roc_points(bags.margins, truth)
    pd, pfa = rate_over_groups(flagged[truth], groups[truth]), rate_over_groups(flagged[~truth], groups[~truth])
    return BagScores(
        num_threat=num_threat,
        num_clean=num_clean,
        num_left_out=int((~bags.counted).sum()),
        auc=drawn["auc"],
        pd=pd,
        pfa=pfa,
        pd_at_pfa=_by_level(drawn, "pd@", PFA_LEVELS),
        roc=thinned(roc),
        det=det_points(thinned(roc)),
        pfa_at_pd=_by_level(drawn, "pfa@", PD_LEVELS),
        d_prime=d_prime(hits, num_threat, alarms, num_clean),
        proof=_proof(flagged, truth, groups),
        at_prevalence=at_prevalences(pd.value, pfa.value),
        costs=cost_points(roc, pd.value, pfa.value),
    )
