"""What lies in a bag and how: a scene is plain data, drawn from a seed and replayed from JSON.

The factors follow the protocol that STCray's sample names show: clutter level, concealment, location cell and two
angles. They are drawn independently of the threat's category, so that no category owns a level, a place or a bag.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.simulation.fitting import stays_inside, turn_hull
from xray_vqa.simulation.primitives import Array, Item, rotation_z, turn_of
from xray_vqa.simulation.shapes import BAGS, BENIGN, THREATS, Interior, build_bag, build_item, find_shape

GENERATOR_VERSION = 1
"""Raised when the same spec and profile give another picture."""

CLUTTER_LEVELS = (1, 2, 3, 4)
DEFAULT_SIZE_WH = (512, 384)
NUM_VARIANTS = 1 << 30
_PLACING_TRIES = 12


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlacedItem(_Record):
    """One object in the bag."""

    shape: str
    """Key of the shape, `Gun/pistol`."""
    variant: int
    """Seed of its free parameters."""
    position_cm: tuple[float, float, float]
    """Where its origin lies; x along the belt, y across, z up; the image's centre is x = y = 0."""
    phi: float
    """Angle in the plane of the belt, radians."""
    theta: float
    """Tilt out of that plane about the object's own length, radians."""
    pitch: float = 0.0
    """Tilt about its width, radians."""
    mirrored: bool = False
    scale: float = 1.0
    density: float = 1.0
    """Factor on the material's density; bulk densities vary by some 15 %."""

    @property
    def label(self) -> str:
        return find_shape(self.shape).label

    def rotation(self) -> Array:
        """Return the object-to-world matrix, (3, 3); its determinant is -1 if mirrored."""
        return turn_of(self.phi, self.theta, self.pitch, self.mirrored)


class SceneSpec(_Record):
    """Everything that one picture depends on, apart from the scanner profile."""

    size_wh: tuple[int, int] = DEFAULT_SIZE_WH
    pixel_cm: float = Field(gt=0)
    """Width of one column on the belt."""
    bag: PlacedItem
    clutter: tuple[PlacedItem, ...]
    """Harmless things."""
    threats: tuple[PlacedItem, ...]
    clutter_level: int = Field(ge=1, le=4)
    concealment: int = Field(ge=0, le=2)
    """0: threats lie anywhere; 1: near other things; 2: a covering thing was laid over each."""
    noise_seed: int
    look_seed: int


class VariantPool:
    """Hands out variant seeds, never the same again; ScanStream has one that repeats, so that objects can be kept."""

    def draw(self, key: str, rng: np.random.Generator) -> int:
        """Return a variant seed for a shape."""
        return int(rng.integers(NUM_VARIANTS))

    def draw_look(self, rng: np.random.Generator) -> int:
        """Return a look seed."""
        return int(rng.integers(NUM_VARIANTS))


def location_cell(x: float, y: float, half_x: float, half_y: float) -> str:
    """Return the name of the third-by-third cell of the bag that a point in the bag's frame lies in."""
    row = ("upper", "center", "lower")[int(np.clip((y / half_y + 1) * 1.5, 0, 2))]
    column = ("left", "center", "right")[int(np.clip((x / half_x + 1) * 1.5, 0, 2))]
    return "center" if row == column == "center" else f"{row}-{column}"


@lru_cache(maxsize=1)
def _benign_weights() -> tuple[tuple[str, ...], NDArray[np.float64]]:
    shapes = [shape for shape in BENIGN.values() if shape.weight > 0]
    weights = np.array([shape.weight for shape in shapes])
    return tuple(shape.key for shape in shapes), weights / weights.sum()


def _draw_tilt(rng: np.random.Generator, flat_share: float) -> tuple[float, float]:
    """Return two tilts: most things lie flat (sigma 7 degrees), some lean, a few stand on edge."""
    if rng.random() < flat_share:
        return float(rng.normal(0, 0.12)), float(rng.normal(0, 0.12))
    if rng.random() < 0.6:
        return float(rng.normal(0, 0.55)), float(rng.normal(0, 0.4))
    return float(np.pi / 2 + rng.normal(0, 0.2)), float(rng.normal(0, 0.2))


class _Packer:
    """Places objects inside one bag."""

    def __init__(self, rng: np.random.Generator, interior: Interior, bag: PlacedItem, pool: VariantPool) -> None:
        self.rng, self.interior, self.bag, self.pool = rng, interior, bag, pool
        self._bag_turn = rotation_z(bag.phi)  # not mirrored with the bag: the room inside is symmetric
        self._bag_shift = np.array(bag.position_cm)

    def place(self, key: str, flat_share: float, near: tuple[float, float] | None = None, spread: float = 2.5
              ) -> tuple[PlacedItem, tuple[float, float]] | None:  # fmt: skip
        """Return the object at a place where it fits, with its place in the bag's frame; None if there is none.

        Args:
            near: a point in the bag's frame that it should lie close to.
        """
        rng, room = self.rng, self.interior
        variant = self.pool.draw(key, rng)
        item = build_item(key, variant)
        mirrored = bool(rng.random() < 0.5)
        scale = float(rng.uniform(0.93, 1.07))
        for attempt in range(_PLACING_TRIES):
            theta, pitch = _draw_tilt(rng, flat_share if attempt < _PLACING_TRIES // 2 else 1.0)
            phi = float(rng.uniform(0, 2 * np.pi))
            if attempt >= _PLACING_TRIES // 2:  # a long thing fits along the bag
                phi = float(np.pi * rng.integers(2) + rng.normal(0, 0.12))
            points, low, high = turn_hull(item.hull, turn_of(phi, theta, pitch, mirrored), scale)
            if high[2] - low[2] > room.z_high - room.z_low + 1.0 and attempt < _PLACING_TRIES - 1:
                continue
            x_range, y_range = (
                (-room.half_x - low[0], room.half_x - high[0]),
                (-room.half_y - low[1], room.half_y - high[1]),
            )
            if x_range[0] > x_range[1] or y_range[0] > y_range[1]:
                continue
            if near is not None:
                x, y = rng.normal(near, spread * (1 + 0.3 * attempt))
                x, y = min(max(x, x_range[0]), x_range[1]), min(max(y, y_range[0]), y_range[1])
            else:
                x, y = rng.uniform(*x_range), rng.uniform(*y_range)
            if not stays_inside(points, x, y, room.half_x, room.half_y, room.squareness):
                continue
            z_low, z_high = room.z_low - low[2], room.z_high - high[2]
            z = rng.uniform(z_low, z_high) if z_high > z_low else (z_low + z_high) / 2
            position = self._bag_turn @ np.array([x, y, z]) + self._bag_shift
            placed = PlacedItem(
                shape=key,
                variant=variant,
                position_cm=(float(position[0]), float(position[1]), float(position[2])),
                phi=phi + self.bag.phi,
                theta=theta,
                pitch=pitch,
                mirrored=mirrored,
                scale=scale,
                density=float(rng.uniform(0.85, 1.15)),
            )
            return placed, (float(x), float(y))
        return None


def sample_scene(
    seed: int | Sequence[int] | np.random.Generator,
    *,
    size_wh: tuple[int, int] = DEFAULT_SIZE_WH,
    clean_share: float = 0.25,
    categories: Sequence[str] = CATEGORIES,
    threats: Sequence[str] | None = None,
    bag: str | None = None,
    clutter_level: int | None = None,
    concealment: int | None = None,
    pool: VariantPool | None = None,
) -> SceneSpec:
    """Draw a scene.

    Args:
        seed: what the scene depends on, together with the other arguments.
        clean_share: share of bags without a threat.
        categories: what threats are drawn from, all equally likely.
        threats: categories to put in, instead of drawing them; () for a clean bag.
        bag, clutter_level, concealment: fix a factor instead of drawing it.
        pool: where variant seeds come from.
    """
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    pool = pool or VariantPool()
    bag_names = tuple(BAGS)
    bag_weights = np.array([BAGS[name].weight for name in bag_names])
    bag_name = bag or bag_names[int(rng.choice(len(bag_names), p=bag_weights / bag_weights.sum()))]
    level = int(clutter_level or rng.choice(CLUTTER_LEVELS))
    hiding = int(rng.choice((0, 1, 2), p=(0.45, 0.3, 0.25)) if concealment is None else concealment)
    if threats is None:
        count = 0 if rng.random() < clean_share else int(rng.choice((1, 2, 3), p=(0.72, 0.2, 0.08)))
        threats = tuple(categories[int(i)] for i in rng.integers(len(categories), size=count))

    key = BAGS[bag_name].key
    variant = pool.draw(key, rng)
    bag_item, interior = build_bag(key, variant)
    yaw = float(rng.normal(0, 0.06) if rng.random() < 0.75 else rng.normal(0, 0.35))
    yaw += float(rng.choice((0.0, np.pi, np.pi / 2, -np.pi / 2), p=(0.42, 0.42, 0.08, 0.08)))
    pixel_cm, shift = _frame_bag(rng, bag_item, yaw, size_wh)
    placed_bag = PlacedItem(
        shape=key,
        variant=variant,
        position_cm=(*shift, 0.0),
        phi=yaw,
        theta=0.0,
        mirrored=bool(rng.random() < 0.5),
        density=float(rng.uniform(0.6, 1.4)),
    )
    packer = _Packer(rng, interior, placed_bag, pool)

    clutter: list[PlacedItem] = []
    places: list[tuple[float, float]] = []

    def add(shape_key: str, flat_share: float, near: tuple[float, float] | None = None, spread: float = 2.5) -> None:
        found = packer.place(shape_key, flat_share, near, spread)
        if found is not None:
            clutter.append(found[0])
            places.append(found[1])

    room = interior.half_x * interior.half_y / (23 * 16)
    rigid = bag_name in ("carton", "tray")
    if rigid:
        num_clothes = int(rng.integers(0, 2))
    elif rng.random() < 0.5:  # packed for a journey: clothes fill the bag
        num_clothes = int(rng.integers(4, 6 + level))
    else:
        num_clothes = int(rng.integers(0, 2 + level))
    for _ in range(num_clothes):
        add("benign/clothes", 1.0)
    keys, weights = _benign_weights()
    large_left = 1 + level
    num_goods = round((rng.integers(2, 7) + 3.0 * level) * (0.45 + 0.55 * room))
    for index in rng.choice(len(keys), num_goods, p=weights):
        shape = find_shape(keys[int(index)])
        if shape.large:
            if large_left <= 0:
                continue
            large_left -= 1
        add(shape.key, 0.92 if shape.large else 0.8)
    if rng.random() < 0.18 and not rigid:  # a bag of tools and parts: dense metal clutter in one place
        centre = (float(rng.uniform(-0.5, 0.5) * interior.half_x), float(rng.uniform(-0.5, 0.5) * interior.half_y))
        for _ in range(int(rng.integers(2, 6))):
            add(str(rng.choice(_TOOL_BAG)), 0.6, centre, 5.0)

    placed_threats: list[PlacedItem] = []
    for category in threats:
        sub_types = THREATS[category]
        sub_weights = np.array([shape.weight for shape in sub_types])
        near = places[int(rng.integers(len(places)))] if hiding >= 1 and places else None
        for _ in range(4):  # another variant may fit where one was too large
            shape = sub_types[int(rng.choice(len(sub_types), p=sub_weights / sub_weights.sum()))]
            found = packer.place(shape.key, 0.8, near, 3.0)
            if found is not None:
                placed_threats.append(found[0])
                if hiding == 2:
                    add(str(rng.choice(_COVERS)), 0.9, found[1], 3.0)
                break
    return SceneSpec(
        size_wh=size_wh,
        pixel_cm=pixel_cm,
        bag=placed_bag,
        clutter=tuple(clutter),
        threats=tuple(placed_threats),
        clutter_level=level,
        concealment=hiding,
        noise_seed=int(rng.integers(NUM_VARIANTS)),
        look_seed=pool.draw_look(rng),
    )


_COVERS = tuple(
    f"benign/{name}"
    for name in (
        "laptop", "radio", "tablet", "cable", "metal parts", "book", "clothes", "clothes", "shoe", "charger",
        "food box", "documents",
    )
)  # fmt: skip
_TOOL_BAG = tuple(
    f"benign/{name}" for name in ("metal parts", "metal parts", "bolts", "socket set", "cable", "keys", "gear", "motor")
)


def _frame_bag(
    rng: np.random.Generator, bag: Item, yaw: float, size_wh: tuple[int, int]
) -> tuple[float, tuple[float, float]]:
    """Return the pixel width at which the bag fills most of the frame, and where it lies."""
    points = bag.hull @ rotation_z(yaw).T
    extent = np.ptp(points[:, :2], axis=0) * 1.04
    fill = float(rng.uniform(0.74, 0.97))
    pixel_cm = max(extent[0] / size_wh[0], extent[1] / size_wh[1]) / fill
    pixel_cm = max(pixel_cm, 44.0 / size_wh[0])  # a small bag is not magnified without end
    pixel_cm = round(float(pixel_cm), 4)
    slack = np.maximum(np.array(size_wh) * pixel_cm - extent, 0) / 2
    middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2
    shift = rng.uniform(-0.6, 0.6, 2) * slack - middle
    return pixel_cm, (float(shift[0]), float(shift[1]))
