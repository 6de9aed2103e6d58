"""The curves as one SVG picture without anything from outside: a panel for each kind, drawn alike in light and dark."""

from collections.abc import Sequence
from html import escape

from xray_vqa.evaluation.results import Estimate
from xray_vqa.evaluation.robustness.results import Curve

PANEL_WH = (250.0, 150.0)
MARGINS = (42.0, 34.0, 20.0, 44.0)
"""Left, top, right, bottom of each panel."""
COLUMNS = 3
LINES = (("pd", "Pd at the thresholds", "#1f6fb4"), ("auc", "AUC", "#2c8a4b"), ("pfa", "Pfa", "#c4472d"))
INK, FAINT = "#222", "#d8d8d8"


def draw_curves(curves: Sequence[Curve]) -> str:
    """Return an SVG document with a panel for each curve."""
    left, top, right, bottom = MARGINS
    cell_w, cell_h = PANEL_WH[0] + left + right, PANEL_WH[1] + top + bottom
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    width, height = max(columns * cell_w, 480.0), rows * cell_h + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="sans-serif" font-size="11" role="img" '
        'aria-label="Detection against the strength of perturbations">',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
    ]
    for index, (_, label, colour) in enumerate(LINES):
        x = 16 + index * 150
        parts.append(f'<line x1="{x}" x2="{x + 20}" y1="15" y2="15" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 26}" y="19" fill="{INK}">{label}</text>')
    for index, curve in enumerate(curves):
        x, y = index % columns * cell_w + left, index // columns * cell_h + top + 30
        parts.append(f'<g transform="translate({x:g} {y:g})">{_panel(curve)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(curve: Curve) -> str:
    width, height = PANEL_WH
    largest = curve.points[-1].strength
    parts = [f'<text x="0" y="-16" font-weight="bold" fill="{INK}">{escape(curve.kind)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = height * (1 - share)
        parts.append(f'<line x1="0" x2="{width:g}" y1="{y:g}" y2="{y:g}" stroke="{FAINT}"/>')
        parts.append(f'<text x="-6" y="{y + 4:g}" text-anchor="end" fill="{INK}">{share:g}</text>')
    for point in curve.points:
        x = width * point.strength / largest
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{height:g}" y2="{height + 4:g}" stroke="{INK}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{height + 16:g}" text-anchor="middle" fill="{INK}">{point.strength:g}</text>'
        )
    parts.append(
        f'<text x="{width / 2:g}" y="{height + 32:g}" text-anchor="middle" fill="{INK}">{escape(curve.unit)}</text>'
    )
    for name, _, colour in LINES:
        parts += _line(
            [(width * point.strength / largest, getattr(point, name)) for point in curve.points], colour, height
        )
    if curve.drop.strength is not None:
        x = width * curve.drop.strength / largest
        label_x = min(max(x, 38.0), width - 38)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:g}" stroke="{INK}" stroke-dasharray="3 3"/>')
        parts.append(
            f'<text x="{label_x:.1f}" y="-4" text-anchor="middle" font-size="9" fill="{INK}">Pd - 5 points</text>'
        )
    return "".join(parts)


def _line(points: Sequence[tuple[float, Estimate]], colour: str, height: float) -> list[str]:
    """A line with its points, and its interval as a band where every point has one."""
    known = [(x, cell) for x, cell in points if cell.value is not None]
    if not known:
        return []
    line = " ".join(f"{x:.1f},{height * (1 - (cell.value or 0)):.1f}" for x, cell in known)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>']
    if all(cell.low is not None and cell.high is not None for _, cell in known):
        upper = [f"{x:.1f},{height * (1 - (cell.high or 0)):.1f}" for x, cell in known]
        lower = [f"{x:.1f},{height * (1 - (cell.low or 0)):.1f}" for x, cell in reversed(known)]
        parts.insert(0, f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" opacity="0.14"/>')
    places = [(x, height * (1 - (cell.value or 0))) for x, cell in known]
    circles = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in places]
    return [*parts, *circles]
