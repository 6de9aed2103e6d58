"""Packs bags: draws scenes from seeds.

The factors follow the protocol that STCray's sample names show: clutter level, concealment, location cell and two
angles. They are drawn independently of the threat's category, so that no category owns a level, a place or a bag.
How far a threat is hidden shows only in the picture, so a draft holds several places for each and the renderer takes
one that is hidden as far as was drawn.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.simulation.fitting import NUM_NORMAL, NUM_TRIES, NUM_UNIFORM, find_pose, tilt_of
from xray_vqa.simulation.primitives import Item, rotation_z
from xray_vqa.simulation.scene import CLUTTER_LEVELS, DEFAULT_SIZE_WH, PlacedItem, SceneSpec
from xray_vqa.simulation.shapes import (
    BAGS,
    BENIGN,
    CLOTHING,
    THREATS,
    Interior,
    build_bag,
    build_item,
    draw_shape,
    draw_weighted,
    find_shape,
)

T = TypeVar("T")

DEFAULT_THREATS_PER_BAG = (0.72, 0.2, 0.08)
"""Of the bags with threats, the shares with one, two and three."""
DEFAULT_CLEAN_SHARE = 0.2
"""Share of bags without a threat."""
NUM_VARIANTS = 1 << 30
_ANYWHERE = np.zeros(2)
_NUM_OWN = 3
"""Random numbers that an object's own scale, density and mirroring use up."""
_NUM_CANDIDATES = (6, 16, 24)
"""By concealment, how many places are tried for a threat."""
_NUM_COVERS = 4
"""How many of the things that lie nearest are tried to hide it behind."""


class VariantPool:
    """Hands out variant seeds, never the same again; ScanStream has one that repeats, so that objects can be kept."""

    def draw(self, key: str, rng: np.random.Generator) -> int:
        """Return a variant seed for a shape."""
        return int(rng.integers(NUM_VARIANTS))

    def draw_look(self, rng: np.random.Generator) -> int:
        """Return a look seed."""
        return int(rng.integers(NUM_VARIANTS))


@dataclass(frozen=True, slots=True)
class SceneDraft:
    """A packed bag in which each threat has yet to take one of several places."""

    spec: SceneSpec
    """The scene without threats."""
    candidates: tuple[tuple[PlacedItem, ...], ...]
    """Places for each threat."""
    num_wanted: int
    """How many threats were to be put in; more than there are candidates where one fitted nowhere."""

    def settled(self) -> SceneSpec:
        """Return the scene with each threat at its first place, however far that hides it."""
        return self.spec.model_copy(update={"threats": tuple(places[0] for places in self.candidates)})


@lru_cache(maxsize=1)
def _benign_weights() -> tuple[tuple[str, ...], tuple[float, ...]]:
    shapes = [shape for shape in BENIGN.values() if shape.weight > 0]
    return tuple(shape.key for shape in shapes), tuple(shape.weight for shape in shapes)


def _pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """Return one of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def draw_tilt(rng: np.random.Generator, flat_share: float) -> tuple[float, float]:
    """Return two tilts in radians, see tilt_of."""
    return tilt_of(rng.random(2), rng.standard_normal(2), flat_share)


def _as_array(room: Interior) -> NDArray[np.float64]:
    """Return a room as find_pose takes it."""
    return np.array([room.half_x, room.half_y, room.z_low, room.z_high, room.squareness, room.narrowing])


class _Packer:
    """Places objects inside one bag."""

    def __init__(self, rng: np.random.Generator, interior: Interior, bag: PlacedItem, pool: VariantPool) -> None:
        self.rng, self.interior, self.bag, self.pool = rng, interior, bag, pool
        self.packed: list[PlacedItem] = []
        self._places: list[tuple[float, float]] = []
        self._size = interior.half_x * interior.half_y / (23 * 16)
        self._hard_room = _as_array(interior)
        # Cloth gives way: it is pressed flat, and into the corners.
        self._soft_room = _as_array(
            replace(
                interior,
                half_x=_GIVE * interior.half_x,
                half_y=_GIVE * interior.half_y,
                z_high=interior.z_high + _PRESSED_CM,
                squareness=2 * interior.squareness,
            )
        )
        # Not mirrored with the bag: the room inside is symmetric.
        self._cos, self._sin = math.cos(bag.phi), math.sin(bag.phi)

    def place(self, key: str, flat_share: float, near: tuple[float, float] | None = None, spread: float = 2.5,
              variant: int | None = None, *, is_soft: bool = False,
              ) -> tuple[PlacedItem, tuple[float, float]] | None:  # fmt: skip
        """Return the object at a place where it fits, with its place in the bag's frame; None if there is none.

        Args:
            near, spread: a point in the bag's frame that it should lie close to, and how close, cm.
            variant: which object of this shape; drawn if not given.
            is_soft: whether it gives way to the walls and to other things.
        """
        rng, pose = self.rng, np.empty(6)
        room = self._soft_room if is_soft else self._hard_room
        variant = self.pool.draw(key, rng) if variant is None else variant
        item = build_item(key, variant)
        # Drawn at once: what a call costs counts here.
        uniforms, normals = rng.random(_NUM_OWN + NUM_TRIES * NUM_UNIFORM), rng.standard_normal((NUM_TRIES, NUM_NORMAL))
        own, uniforms = uniforms[:_NUM_OWN].tolist(), uniforms[_NUM_OWN:].reshape(NUM_TRIES, NUM_UNIFORM)
        mirrored, scale, density = own[0] < 0.5, 0.93 + (1.07 - 0.93) * own[1], 0.85 + (1.15 - 0.85) * own[2]
        place, spread = (_ANYWHERE, -1.0) if near is None else (np.array(near), spread)
        if not find_pose(item.hull, room, mirrored, scale, flat_share, place, spread, uniforms, normals, pose):
            return None
        x, y, z, phi, theta, pitch = pose.tolist()
        bag_x, bag_y, bag_z = self.bag.position_cm
        placed = PlacedItem(
            shape=key,
            variant=variant,
            position_cm=(
                bag_x + self._cos * x - self._sin * y,
                bag_y + self._sin * x + self._cos * y,
                bag_z + z,
            ),
            phi=phi + self.bag.phi,
            theta=theta,
            pitch=pitch,
            mirrored=mirrored,
            scale=scale,
            density=density,
        )
        return placed, (x, y)

    def add(self, key: str, flat_share: float, near: tuple[float, float] | None = None, spread: float = 2.5, *,
            is_soft: bool = False) -> None:  # fmt: skip
        """Put a harmless thing in where it fits; one that fits nowhere stays out."""
        found = self.place(key, flat_share, near, spread, is_soft=is_soft)
        if found is not None:
            self.packed.append(found[0])
            self._places.append(found[1])

    def pack_clothes(self, *, rigid: bool) -> None:
        """Fill the bag with clothes, as for a journey, or put in a few or none."""
        rng, room = self.rng, self.interior
        packed = rng.random() < (0.15 if rigid else 0.7)
        count = round((rng.integers(7, 13) if packed else rng.integers(0, 4)) * (0.4 + 0.6 * self._size))
        spots = rng.permutation(_SPOTS)  # evenly over the bag: left to chance, large things all lie in the middle
        for spot in spots[np.arange(count) % len(spots)]:
            near = (float(spot[0] * room.half_x), float(spot[1] * room.half_y)) if packed else None
            self.add(f"benign/{_pick(CLOTHING, rng)}", 1.0, near, 2.0, is_soft=True)

    def pack_goods(self, level: int) -> None:
        """Put in goods by the clutter level (1 to 4), now and then with a heap of tools and parts."""
        rng, room = self.rng, self.interior
        keys, weights = _benign_weights()
        large_left = 1 + level
        count = round((rng.integers(2, 7) + 3.0 * level) * (0.45 + 0.55 * self._size))
        for index in [draw_weighted(weights, rng) for _ in range(count)]:
            shape = find_shape(keys[index])
            if shape.large:
                if large_left <= 0:
                    continue
                large_left -= 1
            self.add(shape.key, 0.92 if shape.large else 0.8)
        if rng.random() < 0.18:  # dense metal clutter in one place
            centre = (float(rng.uniform(-0.5, 0.5) * room.half_x), float(rng.uniform(-0.5, 0.5) * room.half_y))
            for _ in range(int(rng.integers(2, 6))):
                self.add(_pick(_TOOL_BAG, rng), 0.6, centre, 5.0)

    def offer(self, category: str, cell: tuple[int, int], hiding: int) -> tuple[PlacedItem, ...]:
        """Return places for one threat in a cell (row, column) of the bag; to hide it far, a cover is laid there first.

        All are of one object, which is another one where the first does not fit.
        """
        rng, room = self.rng, self.interior
        centre = ((cell[1] - 1) * room.half_x * 2 / 3, (cell[0] - 1) * room.half_y * 2 / 3)
        spread = room.half_x / 5
        for _ in range(2 if hiding == 2 else 0):
            self.add(_pick(_COVERS, rng), 0.9, centre, spread)
        centres = [centre]
        if hiding and self._places:  # behind what lies nearest
            by_distance = sorted(self._places, key=lambda at: (at[0] - centre[0]) ** 2 + (at[1] - centre[1]) ** 2)
            centres, spread = by_distance[:_NUM_COVERS], 3.0 if hiding == 1 else 2.0
        for _ in range(4):
            shape = draw_shape(THREATS[category], rng)
            variant = self.pool.draw(shape.key, rng)
            found = [
                self.place(shape.key, 0.8, centres[index % len(centres)], spread, variant)
                for index in range(_NUM_CANDIDATES[hiding])
            ]
            places = tuple(place[0] for place in found if place is not None)
            if places:
                return places
        return ()


def sample_scene(seed: int | Sequence[int] | np.random.Generator, **settings: object) -> SceneSpec:
    """Draw a scene as `draft_scene` does, each threat at the first place that was found for it."""
    return draft_scene(seed, **settings).settled()  # type: ignore[arg-type]


def draft_scene(
    seed: int | Sequence[int] | np.random.Generator,
    *,
    size_wh: tuple[int, int] = DEFAULT_SIZE_WH,
    clean_share: float = DEFAULT_CLEAN_SHARE,
    threats_per_bag: Sequence[float] = DEFAULT_THREATS_PER_BAG,
    categories: Sequence[str] = CATEGORIES,
    threats: Sequence[str] | None = None,
    bag: str | None = None,
    clutter_level: int | None = None,
    concealment: int | None = None,
    pool: VariantPool | None = None,
) -> SceneDraft:
    """Draw a scene, with several places for each threat.

    Args:
        seed: what the scene depends on, together with the other arguments.
        clean_share: share of bags without a threat.
        threats_per_bag: of the others, the shares with one threat, two, three, ...; they sum to 1.
        categories: what threats are drawn from, all equally likely.
        threats: categories to put in, instead of drawing them; () for a clean bag.
        bag, clutter_level, concealment: fix a factor instead of drawing it.
        pool: where variant seeds come from.
    """
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    pool = pool or VariantPool()
    bag_shape = BAGS[bag] if bag else draw_shape(list(BAGS.values()), rng)
    level = clutter_level or _pick(CLUTTER_LEVELS, rng)
    hiding = draw_weighted((0.5, 0.28, 0.22), rng) if concealment is None else concealment
    if threats is None:
        count = 0 if rng.random() < clean_share else 1 + draw_weighted(tuple(threats_per_bag), rng)
        threats = tuple(categories[int(i)] for i in rng.integers(len(categories), size=count))
    cells = [(int(row), int(column)) for row, column in rng.integers(3, size=(len(threats), 2))]

    placed_bag, interior, pixel_cm = _place_bag(rng, bag_shape.key, size_wh, pool)
    packer = _Packer(rng, interior, placed_bag, pool)
    packer.pack_clothes(rigid=bag_shape.label in ("carton", "tray"))
    packer.pack_goods(level)
    candidates = [packer.offer(category, cell, hiding) for category, cell in zip(threats, cells, strict=True)]
    return SceneDraft(
        SceneSpec(
            size_wh=size_wh,
            pixel_cm=pixel_cm,
            bag=placed_bag,
            clutter=tuple(packer.packed),
            threats=(),
            clutter_level=level,
            concealment=hiding,
            noise_seed=int(rng.integers(NUM_VARIANTS)),
            look_seed=pool.draw_look(rng),
        ),
        tuple(places for places in candidates if places),
        len(threats),
    )


def _place_bag(
    rng: np.random.Generator, key: str, size_wh: tuple[int, int], pool: VariantPool
) -> tuple[PlacedItem, Interior, float]:
    """Return a bag as it lies on the belt, the room in it, and the width of a column in cm."""
    variant = pool.draw(key, rng)
    item, interior = build_bag(key, variant)
    yaw = float(rng.normal(0, 0.06) if rng.random() < 0.75 else rng.normal(0, 0.35))
    yaw += (0.0, np.pi, np.pi / 2, -np.pi / 2)[draw_weighted((0.42, 0.42, 0.08, 0.08), rng)]
    pixel_cm, shift = _frame_bag(rng, item, yaw, size_wh)
    placed = PlacedItem(
        shape=key,
        variant=variant,
        position_cm=(*shift, 0.0),
        phi=yaw,
        theta=0.0,
        mirrored=bool(rng.random() < 0.5),
        density=float(rng.uniform(0.7, 1.4)),
    )
    return placed, interior, pixel_cm


_SPOTS = np.array([(x, y) for x in (-0.66, -0.24, 0.24, 0.66) for y in (-0.56, 0.0, 0.56)])
"""Where clothes are laid in a packed bag, in shares of its half sizes."""
_GIVE, _PRESSED_CM = 1.05, 2.0
"""Cloth is pressed into the corners and against the walls: it has this much more room than what is rigid."""
_COVERS = tuple(
    f"benign/{name}"
    for name in (
        "laptop", "radio", "tablet", "cable", "metal parts", "book", "folded clothes", "shoe", "charger",
        "food box", "documents", "socket set", "water bottle",
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
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    extent = (high - low) * 1.04
    fill = float(rng.uniform(0.84, 0.99) if rng.random() < 0.8 else rng.uniform(0.6, 0.84))
    pixel_cm = max(extent[0] / size_wh[0], extent[1] / size_wh[1]) / fill
    pixel_cm = max(pixel_cm, 30.0 / size_wh[0])  # a small bag is not magnified without end
    pixel_cm = round(float(pixel_cm), 4)
    slack = np.maximum(np.array(size_wh) * pixel_cm - extent, 0) / 2
    shift = rng.uniform(-0.6, 0.6, 2) * slack - (low + high) / 2
    return pixel_cm, (float(shift[0]), float(shift[1]))
