"""The geometry of the page's charts, in the units of their SVG view boxes. Drawing is the template's work."""

from collections.abc import Sequence
from dataclasses import dataclass

from xray_vqa.evaluation.results import BagScores, CategoryScores

ROC_SIDE = 300.0
BAR_WIDTH = 260.0
BAR_STEP = 26.0


@dataclass(frozen=True, slots=True)
class RocChart:
    """A ROC curve in a square of `ROC_SIDE`, origin at the lower left, y downwards as SVG counts."""

    side: float
    line: str
    """Points of a polyline."""
    area: str
    """Points of the polygon under it."""
    point: tuple[float, float] | None
    """Where the thresholds stand."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One category's detection rate with its interval, and its false alarm rate."""

    label: str
    num_positive: int
    y: float
    length: float
    low: float
    high: float
    pfa_x: float
    value: float
    auc: float | None
    covered: bool


def roc_chart(bag: BagScores) -> RocChart | None:
    """Return the curve of bags as steps, or None where there are not both threat and clean ones."""
    if not bag.roc:
        return None
    corners = _steps(bag.roc)
    points = [(pfa * ROC_SIDE, (1 - pd) * ROC_SIDE) for pfa, pd in corners]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    point = None
    if bag.pfa.value is not None and bag.pd.value is not None:
        point = (bag.pfa.value * ROC_SIDE, (1 - bag.pd.value) * ROC_SIDE)
    return RocChart(ROC_SIDE, line, f"{line} {ROC_SIDE:.1f},{ROC_SIDE:.1f} 0.0,{ROC_SIDE:.1f}", point)


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Add the corner under each rise: between two thresholds nothing is interpolated."""
    corners: list[tuple[float, float]] = []
    for pfa, pd in points:
        if corners and pfa > corners[-1][0] and pd > corners[-1][1]:
            corners.append((pfa, corners[-1][1]))
        corners.append((pfa, pd))
    return corners


def category_bars(categories: dict[str, CategoryScores]) -> list[Bar]:
    """Return a bar for each category that occurs, best detected first."""
    shown = [(name, row) for name, row in categories.items() if row.pd.value is not None]
    shown.sort(key=lambda entry: (-(entry[1].pd.value or 0.0), entry[0]))
    return [
        Bar(
            label=name,
            num_positive=row.num_positive,
            y=index * BAR_STEP,
            length=BAR_WIDTH * (row.pd.value or 0.0),
            low=BAR_WIDTH * (row.pd.low or 0.0),
            high=BAR_WIDTH * (row.pd.high if row.pd.high is not None else 1.0),
            pfa_x=BAR_WIDTH * (row.pfa.value or 0.0),
            value=row.pd.value or 0.0,
            auc=row.auc,
            covered=row.covered,
        )
        for index, (name, row) in enumerate(shown)
    ]
