"""All objects that a bag may hold. Importing this package fills the lists in registry.py."""

from xray_vqa.simulation.shapes import (  # noqa: F401  (imported for what they register)
    bags,
    batteries,
    blades,
    clothing,
    electronics,
    firearms,
    food,
    hardware,
    household,
    improvised,
    lookalikes,
    sharp_small,
    small_threats,
    soft_bags,
    tools,
)
from xray_vqa.simulation.shapes.clothing import CLOTHING
from xray_vqa.simulation.shapes.registry import (
    BAGS,
    BENIGN,
    THREATS,
    Interior,
    Shape,
    build_bag,
    build_item,
    draw_shape,
    draw_weighted,
    find_shape,
)

__all__ = [
    "BAGS",
    "BENIGN",
    "CLOTHING",
    "THREATS",
    "Interior",
    "Shape",
    "build_bag",
    "build_item",
    "draw_shape",
    "draw_weighted",
    "find_shape",
]
