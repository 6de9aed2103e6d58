"""One or two plain sentences about a scan, filled from its ground truth."""

from __future__ import annotations

from collections.abc import Sequence

from xray_vqa.core.geometry import Box

CLUTTER_WORDS = {1: "sparsely packed", 2: "moderately packed", 3: "densely packed", 4: "heavily cluttered"}
_ROWS, _COLUMNS = ("upper", "center", "lower"), ("left", "center", "right")


def _region(box: Box, size_wh: tuple[int, int]) -> str:
    column = _COLUMNS[min(int((box.x + box.w / 2) / size_wh[0] * 3), 2)]
    row = _ROWS[min(int((box.y + box.h / 2) / size_wh[1] * 3), 2)]
    return "center" if row == column == "center" else f"{row}-{column}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def describe(
    bag: str, clutter_level: int, threats: Sequence[tuple[str, Box]], co_items: Sequence[str], size_wh: tuple[int, int]
) -> str:
    """Return the caption of a scan."""
    opening = f"X-ray scan of a {CLUTTER_WORDS[clutter_level]} {bag}"
    goods = f" together with {_listed(co_items[:4])}" if co_items else ""
    if not threats:
        return f"{opening}{goods.replace(' together', '')}; no prohibited item is visible."
    found = _listed([f"{category.lower()} in the {_region(box, size_wh)}" for category, box in threats])
    return f"{opening} with {found}{goods}."
