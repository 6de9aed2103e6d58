"""Every object: enough kinds, true sizes, sound outlines, a function of its seed, and visible when alone."""

import numpy as np
import pytest

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.simulation.detector import log_readings
from xray_vqa.simulation.primitives import KIND, PRISM, VERTEX_COUNT, VERTEX_START, Item
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.shadow import MASK_P_HIGH, MIN_MASK_PIXELS
from xray_vqa.simulation.shapes import BENIGN, THREATS, build_item
from xray_vqa.simulation.view import open_view

KEYS = [shape.key for shapes in THREATS.values() for shape in shapes] + [shape.key for shape in BENIGN.values()]
NUM_VARIANTS = 6

LONGEST_CM = {
    "Explosive": (10, 32), "Gun": (9, 28), "3D Gun": (13, 22), "Knife": (8, 36), "Cutter": (7, 24), "Blade": (4, 16),
    "Shaving Razor": (8, 21), "Lighter": (5, 24), "Injection": (7, 24), "Battery": (3.5, 14), "Nail Cutter": (4.5, 16),
    "Other Sharp Item": (5, 31), "Powerbank": (8, 17), "Scissors": (7, 33), "Hammer": (13, 33), "Pliers": (9, 28),
    "Wrench": (9, 34), "Screwdriver": (8, 30), "Handcuffs": (11, 25), "Bullet": (2, 22),
}  # fmt: skip
"""Shortest and longest extent that an object of the category may have, loose groups and folded-out parts included."""


def variants(key: str) -> list[Item]:
    return [build_item(key, variant) for variant in range(NUM_VARIANTS)]


def alone(item: Item, size: int = 128) -> LineIntegrals:
    """Return the object's shadow when it lies flat and fills most of a small frame."""
    low, high = item.hull.min(0), item.hull.max(0)
    shadow = LineIntegrals((size, size))
    shadow.clear()
    width_cm = max(1.2 * float((high - low)[:2].max()), 3.0)
    middle = (low + high) / 2
    place = np.array([-middle[0], -middle[1], 3.0])
    shadow.draw(item, np.eye(3), place, 1.0, 1.0, open_view((size, size), width_cm / size))
    return shadow


def crosses_itself(outline: np.ndarray) -> bool:
    """Return whether two edges of a polygon properly cross."""
    start, end = outline, np.roll(outline, -1, 0)

    def side(origin: np.ndarray, to: np.ndarray, point: np.ndarray) -> np.ndarray:
        one, two = to - origin, point - origin
        return one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]

    a, b, c, d = start[:, None], end[:, None], start[None], end[None]
    return bool(((side(a, b, c) * side(a, b, d) < -1e-9) & (side(c, d, a) * side(c, d, b) < -1e-9)).any())


def test_every_category_has_at_least_three_sub_types():
    assert set(THREATS) == set(CATEGORIES)
    assert {category: len(shapes) for category, shapes in THREATS.items() if len(shapes) < 3} == {}


def test_there_are_enough_harmless_things_and_hard_negatives():
    assert len(BENIGN) >= 35
    hard = [shape for shape in BENIGN.values() if shape.resembles]
    assert len(hard) >= 10
    for shape in hard:
        assert set(shape.resembles) <= set(CATEGORIES), shape.key


def test_most_categories_have_a_hard_negative():
    resembled = {category for shape in BENIGN.values() for category in shape.resembles}
    assert set(CATEGORIES) - resembled <= {"Battery", "Cutter"}


@pytest.mark.parametrize("key", KEYS)
def test_solids_are_finite_and_have_mass(key):
    for item in variants(key):
        assert np.isfinite(item.primitives).all()
        assert np.isfinite(item.vertices).all()
        shadow = alone(item)
        assert shadow.polyethylene.sum() + shadow.copper.sum() > 0


@pytest.mark.parametrize("key", KEYS)
def test_hollows_lie_inside_what_they_hollow(key):
    """A hollow that reaches beyond its solid would take attenuation from whatever lies behind."""
    for item in variants(key):
        shadow = alone(item)
        assert min(shadow.polyethylene.min(), shadow.copper.min()) > -0.02


@pytest.mark.parametrize("key", KEYS)
def test_outlines_do_not_cross_themselves(key):
    for item in variants(key):
        for row in item.primitives[item.primitives[:, KIND] == PRISM]:
            start, count = int(row[VERTEX_START]), int(row[VERTEX_COUNT])
            assert not crosses_itself(item.vertices[start : start + count].astype(np.float64))


@pytest.mark.parametrize("category", CATEGORIES)
def test_threats_are_as_large_as_real_ones(category):
    shortest, longest = LONGEST_CM[category]
    for shape in THREATS[category]:
        for item in variants(shape.key):
            assert shortest <= np.ptp(item.hull, axis=0).max() <= longest, shape.key


@pytest.mark.parametrize("key", KEYS)
def test_a_seed_fixes_an_object_and_another_seed_gives_another(key):
    first, again, other = build_item(key, 1), build_item.__wrapped__(key, 1), build_item(key, 2)
    assert np.array_equal(first.primitives, again.primitives)
    assert np.array_equal(first.vertices, again.vertices)
    assert first.primitives.shape != other.primitives.shape or not np.array_equal(first.primitives, other.primitives)


@pytest.mark.parametrize("key", KEYS)
def test_an_object_alone_is_visible(key):
    for item in variants(key)[:2]:
        shadow = alone(item)
        mask = log_readings(shadow.polyethylene, shadow.copper)[1] > MASK_P_HIGH
        assert mask.sum() > MIN_MASK_PIXELS
