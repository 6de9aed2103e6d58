"""The curves of bags: detection against false alarms in three forms, and how far probabilities can be believed."""

from collections.abc import Sequence
from statistics import NormalDist

from xray_vqa.evaluation.report.plot import Axis, Plot, Point
from xray_vqa.evaluation.results import BagScores, CalibrationScores, Estimate

_DEVIATE = NormalDist().inv_cdf
DET_LOW, DET_HIGH = 0.002, 0.9
DET_TICKS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def roc_plot(bag: BagScores) -> Plot | None:
    """Return the ROC curve as steps with the working point, or None where there are not both threat and clean bags."""
    if not bag.roc:
        return None
    plot = Plot(
        title=f"ROC curve of bags, area {_shown(bag.auc)}",
        x=Axis.shares("clean bags stopped (Pfa), %"),
        y=Axis.shares("threat bags stopped (Pd), %"),
        height=300.0,
        told=f"AUC {_shown(bag.auc)}",
    )
    corners = steps(bag.roc)
    plot.add_area(corners, [(0.0, 0.0), (1.0, 0.0)])
    plot.add_line([(0.0, 0.0), (1.0, 1.0)], "chance")
    plot.add_line(corners)
    if bag.pd.value is not None and bag.pfa.value is not None:
        _add_whiskers(plot, bag.pfa, bag.pd)
        plot.add_ring((bag.pfa.value, bag.pd.value))
    return plot


def det_plot(bag: BagScores) -> Plot | None:
    """Return misses against false alarms on normal-deviate axes, on which equal steps are equally hard to gain.

    Source: Martin et al., The DET curve in assessment of detection task performance, Eurospeech 1997.
    """
    if not bag.det:
        return None
    ticks = tuple((_at(_DEVIATE(value)), f"{100 * value:g}") for value in DET_TICKS)
    plot = Plot(
        title="DET curve of bags: missed threat bags against stopped clean bags",
        x=Axis("clean bags stopped (Pfa), %", ticks),
        y=Axis("threat bags missed, %", ticks),
        height=300.0,
    )
    corners = [(pfa, -miss) for pfa, miss in steps([(pfa, -miss) for pfa, miss in bag.det])]
    plot.add_line([(_at(pfa), _at(miss)) for pfa, miss in corners])
    rates = (bag.pfa.value, bag.pd.value)
    if rates[0] is not None and rates[1] is not None:
        edge = [_DEVIATE(min(max(rate, DET_LOW), 1 - DET_LOW)) for rate in (rates[0], 1 - rates[1])]
        plot.add_ring((_at(edge[0]), _at(edge[1])))
    return plot


def reliability_plot(calibration: CalibrationScores, what: str) -> Plot | None:
    """Return how often items are there against how probable the model says they are, with the bins' intervals."""
    if not calibration.reliability:
        return None
    error = _number(calibration.error_equal_width)
    plot = Plot(
        title=f"Reliability diagram, {what}, expected calibration error {error}",
        x=Axis.shares("said to be there, %"),
        y=Axis.shares("is there, %"),
        told=f"ECE {error}",
    )
    plot.add_line([(0.0, 0.0), (1.0, 1.0)], "chance")
    for part in calibration.reliability:
        if part.share_there.low is not None and part.share_there.high is not None:
            x = part.mean_probability
            plot.add_line([(x, part.share_there.low), (x, part.share_there.high)], "whisker")
    points = [(part.mean_probability, part.share_there.value or 0.0) for part in calibration.reliability]
    plot.add_line(points)
    for point in points:
        plot.add_dot(point)
    return plot


def coverage_plot(points: Sequence[Point]) -> Plot | None:
    """Return the share of wrong decisions among the probes that are decided, the surest first, by their share."""
    if not points:
        return None
    last = next(
        level
        for level in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
        if level >= max(risk for _, risk in points) or level == 1.0
    )
    plot = Plot(
        title="Risk-coverage curve: wrong decisions by how many are made",
        x=Axis.shares("probes decided, the surest first, %"),
        y=Axis.shares("wrong among them, %", last),
    )
    plot.add_line([(coverage, risk / last) for coverage, risk in points])
    return plot


def cost_plot(bag: BagScores) -> Plot | None:
    """Return the expected cost of the working point and of the best threshold for each weight of a miss.

    Both are scaled so that stopping every bag, or none, is the dotted roof. Source: Drummond and Holte, Cost curves,
    Machine Learning 65 (2006).
    """
    if not bag.roc or bag.pd.value is None or bag.pfa.value is None:
        return None
    plot = Plot(
        title="Cost curve of bags: expected cost by how much misses weigh against false alarms",
        x=Axis.shares("weight of a missed threat bag, %"),
        y=Axis.shares("expected cost, % of the worst", 0.5),
    )
    weights = [index / 50 for index in range(51)]
    best = [min(cost_of(pd, pfa, weight) for pfa, pd in bag.roc) for weight in weights]
    plot.add_line([(0.0, 0.0), (0.5, 1.0), (1.0, 0.0)], "chance")
    plot.add_area([(w, 2 * c) for w, c in zip(weights, best, strict=True)], [(0.0, 0.0), (1.0, 0.0)])
    plot.add_line([(w, 2 * c) for w, c in zip(weights, best, strict=True)])
    here = [(w, 2 * cost_of(bag.pd.value, bag.pfa.value, w)) for w in (0.0, 1.0)]
    plot.add_line(here, "point")
    return plot


def cost_of(pd: float, pfa: float, weight: float) -> float:
    """Return the expected cost, 0 to 1, where a missed threat bag weighs `weight` and a false alarm the rest."""
    return weight * (1 - pd) + (1 - weight) * pfa


def steps(points: Sequence[Point]) -> list[Point]:
    """Add the corner under each rise: between two thresholds nothing is interpolated."""
    corners: list[Point] = []
    for pfa, pd in points:
        if corners and pfa > corners[-1][0] and pd > corners[-1][1]:
            corners.append((pfa, corners[-1][1]))
        corners.append((pfa, pd))
    return corners


def _add_whiskers(plot: Plot, pfa: Estimate, pd: Estimate) -> None:
    x, y = pfa.value or 0.0, pd.value or 0.0
    if pfa.low is not None and pfa.high is not None:
        plot.add_line([(pfa.low, y), (pfa.high, y)], "whisker")
    if pd.low is not None and pd.high is not None:
        plot.add_line([(x, pd.low), (x, pd.high)], "whisker")


def _at(deviate: float) -> float:
    """Return where a normal deviate stands on the axes of a DET curve, 0 to 1."""
    low, high = _DEVIATE(DET_LOW), _DEVIATE(DET_HIGH)
    return (deviate - low) / (high - low)


def _shown(estimate: Estimate) -> str:
    return _number(estimate.value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
