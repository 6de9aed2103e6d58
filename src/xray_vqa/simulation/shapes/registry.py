"""The list of all objects. A builder function joins it through a decorator; a scene names it and gives a seed.

An object is a pure function of its name and its variant seed, so a scene can be replayed from a few strings and
numbers.
Silhouette and material only: enough for a detector to learn from, and nothing about how a threat is made or works.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from xray_vqa.simulation.primitives import Builder, Item

BuildFunction = Callable[[Builder], object]


@dataclass(frozen=True)
class Interior:
    """Room for things inside a bag, centred on the bag's origin, centimetres."""

    half_x: float
    half_y: float
    z_low: float
    z_high: float
    squareness: float = 6.0
    """Exponent of the superellipse that a thing must stay in: 2 is an ellipse, 10 nearly a rectangle."""
    narrowing: float = 0.0
    """Share by which the room is narrower at its +x end than in the middle, as in the dome of a backpack."""


@dataclass(frozen=True)
class Shape:
    """One kind of object."""

    key: str
    """Unique name, `Gun/revolver`, `benign/laptop`, `bag/suitcase`."""
    label: str
    """What it is called: the threat's category, or a plain noun."""
    build: BuildFunction
    weight: float = 1.0
    """How often it is drawn among its like."""
    large: bool = False
    """Lies flat and only a few fit."""
    declared_as: str | None = None
    """What a traveller would call it on a declaration; None if nobody would name it."""
    resembles: tuple[str, ...] = ()
    """Threat categories that a harmless thing can be mistaken for; a hard negative has at least one."""


THREATS: dict[str, list[Shape]] = {}
"""Sub-types by category."""
BENIGN: dict[str, Shape] = {}
BAGS: dict[str, Shape] = {}
_ALL: dict[str, Shape] = {}


def _register(shape: Shape) -> Shape:
    if shape.key in _ALL:
        raise ValueError(f"two shapes are called {shape.key}")
    _ALL[shape.key] = shape
    return shape


def threat(category: str, sub_type: str, weight: float = 1.0) -> Callable[[BuildFunction], BuildFunction]:
    """Register a builder as one sub-type of a threat category."""

    def add(build: BuildFunction) -> BuildFunction:
        THREATS.setdefault(category, []).append(_register(Shape(f"{category}/{sub_type}", category, build, weight)))
        return build

    return add


def benign(label: str, weight: float = 1.0, large: bool = False, declared_as: str | None = None,
           resembles: tuple[str, ...] = ()) -> Callable[[BuildFunction], BuildFunction]:  # fmt: skip
    """Register a builder as a harmless thing, with the threat categories that it can be mistaken for."""

    def add(build: BuildFunction) -> BuildFunction:
        BENIGN[label] = _register(Shape(f"benign/{label}", label, build, weight, large, declared_as, resembles))
        return build

    return add


def bag(label: str, weight: float = 1.0) -> Callable[[BuildFunction], BuildFunction]:
    """Register a builder as a bag; it returns its Interior."""

    def add(build: BuildFunction) -> BuildFunction:
        BAGS[label] = _register(Shape(f"bag/{label}", label, build, weight))
        return build

    return add


def find_shape(key: str) -> Shape:
    """Return a shape by its key. Raises KeyError, naming the key, if there is none."""
    try:
        return _ALL[key]
    except KeyError:
        raise KeyError(f"no shape is called {key!r}") from None


def draw_shape(shapes: Sequence[Shape], rng: np.random.Generator) -> Shape:
    """Return one of some shapes, by their weights."""
    return shapes[draw_weighted(tuple([shape.weight for shape in shapes]), rng)]


def draw_weighted(weights: tuple[float, ...], rng: np.random.Generator) -> int:
    """Return an index, by the weights: the one that Generator.choice draws, in a tenth of its time."""
    return bisect_right(_cumulative(weights), rng.random())


@cache
def _cumulative(weights: tuple[float, ...]) -> list[float]:
    total = np.cumsum(np.array(weights) / np.sum(weights))
    return (total / total[-1]).tolist()


@lru_cache(maxsize=4096)
def build_item(key: str, variant: int) -> Item:
    """Return the object that a key and a variant seed stand for; recent ones are kept."""
    return _build(key, variant)[0]


@lru_cache(maxsize=512)
def build_bag(key: str, variant: int) -> tuple[Item, Interior]:
    """Return the bag that a key and a variant seed stand for, and the room inside."""
    item, interior = _build(key, variant)
    assert isinstance(interior, Interior), f"{key} does not return its Interior"
    return item, interior


def _build(key: str, variant: int) -> tuple[Item, object]:
    shape = find_shape(key)
    builder = Builder(np.random.default_rng((zlib.crc32(key.encode()), variant)))
    extra = shape.build(builder)
    return builder.finish(shape.label), extra
