"""The geometry of a line chart, in the units of its SVG view box. Drawing is the template's work."""

from collections.abc import Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of a chart: what it shows and where its labels stand, as shares of its length."""

    title: str
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def shares(cls, title: str, last: float = 1.0) -> "Axis":
        """Return an axis from 0 to `last` in percent, with five labels."""
        return cls(title, tuple((part / 4, f"{100 * last * part / 4:g}") for part in range(5)))


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline; `kind` is its class in the style sheet."""

    points: str
    kind: str = "model"


@dataclass(slots=True)
class Plot:
    """A chart whose data run from 0 to 1 on both sides; what lies outside is drawn at the edge."""

    title: str
    """Said to those who cannot see it: what is drawn, with its main figure."""
    x: Axis
    y: Axis
    width: float = 300.0
    height: float = 240.0
    lines: list[Line] = field(default_factory=list[Line])
    areas: list[Line] = field(default_factory=list[Line])
    rings: list[Point] = field(default_factory=list[Point])
    """Where the thresholds stand."""
    dots: list[Point] = field(default_factory=list[Point])
    told: str = ""
    """Written into the corner at the lower right."""

    def place(self, point: Point) -> Point:
        """Return where a point of the data stands, y downwards as SVG counts."""
        x, y = (min(max(value, 0.0), 1.0) for value in point)
        return (x * self.width, (1 - y) * self.height)

    def path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, points))

    def add_line(self, points: Sequence[Point], kind: str = "model") -> None:
        self.lines.append(Line(self.path(points), kind))

    def add_area(self, upper: Sequence[Point], lower: Sequence[Point], kind: str = "under") -> None:
        """Fill what lies between two lines, both given from left to right."""
        self.areas.append(Line(self.path([*upper, *reversed(lower)]), kind))

    def add_ring(self, point: Point) -> None:
        self.rings.append(self.place(point))

    def add_dot(self, point: Point) -> None:
        self.dots.append(self.place(point))
