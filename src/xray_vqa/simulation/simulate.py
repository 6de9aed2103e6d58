"""The simulator's front door: a scene and a scanner profile in, a picture with exact ground truth out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.geometry import Box
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.simulation.caption import describe
from xray_vqa.simulation.detector import attenuate, coefficients, log_readings
from xray_vqa.simulation.palette import Look, draw_look
from xray_vqa.simulation.profile import PROFILE_NAMES, ScannerProfile, load_profile
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.scene import NUM_VARIANTS, PlacedItem, SceneSpec, VariantPool, location_cell, sample_scene
from xray_vqa.simulation.sensor import LUMINANCE_SHARE_LOW, Sensor
from xray_vqa.simulation.shapes import build_bag, build_item
from xray_vqa.simulation.view import open_view

MASK_P_HIGH = 0.012
"""A threat's mask is where its own log signal in the rear detector exceeds this."""
NOTICEABLE_LEVELS = 8.0
"""Change of brightness (of 255) by which a pixel of a threat counts as visible."""
MIN_VISIBLE_SHARE = 0.25
"""A threat of which less is visible is taken out of picture and annotation."""
MIN_MASK_PIXELS = 24
_COPPER_WEIGHT = 15.0  # thin copper attenuates the front detector this many times as much as polyethylene


@dataclass(frozen=True)
class SimulatedAnnotation:
    """One visible threat."""

    category: str
    box: Box


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """One picture with its ground truth."""

    image: NDArray[np.uint8]
    """(height, width, 3) uint8 RGB."""
    annotations: tuple[SimulatedAnnotation, ...]
    masks: NDArray[np.bool_]
    """(threats, height, width) bool, in the order of the annotations; an annotation's box bounds its mask."""
    occlusion: tuple[float, ...]
    """For each threat the share (0 to 1) of the attenuation along its pixels that other things own."""
    factors: dict[str, Any]
    co_items: tuple[str, ...]
    """Harmless things in the bag, without repeats, in alphabetical order."""
    caption: str
    profile_name: str
    spec: SceneSpec


class Renderer:
    """Renders scenes of one size; holds the buffers. Not safe for use from two threads."""

    def __init__(self, size_wh: tuple[int, int]) -> None:
        self.size_wh = size_wh
        width, height = size_wh
        self._total = LineIntegrals(size_wh)
        self._single = LineIntegrals(size_wh)
        self._p = np.empty((2, height, width), np.float32)
        self._sensor = Sensor(size_wh)

    def render(self, spec: SceneSpec, profile: ScannerProfile) -> SimulatedScan:
        """Return the picture of a scene."""
        look = draw_look(profile, spec.look_seed)  # pyright: ignore[reportArgumentType]  (frozen, so hashable)
        self._total.clear()
        self._draw(self._total, spec.bag, spec, is_bag=True)
        for placed in spec.clutter:
            self._draw(self._total, placed, spec)
        threats = self._add_threats(spec, look)
        attenuate(self._total.polyethylene, self._total.copper, coefficients(), self._p)
        image = self._sensor.develop(self._p, look, spec.noise_seed)
        width, height = self.size_wh
        masks = np.zeros((len(threats), height, width), bool)
        for index, threat in enumerate(threats):
            masks[index, threat.rows, threat.columns] = threat.mask
        return _assemble(spec, profile, image, masks, threats)

    def _draw(
        self, target: LineIntegrals, placed: PlacedItem, spec: SceneSpec, is_bag: bool = False
    ) -> tuple[int, int, int, int] | None:
        item = build_bag(placed.shape, placed.variant)[0] if is_bag else build_item(placed.shape, placed.variant)
        view = open_view(self.size_wh, spec.pixel_cm * spec.size_wh[0] / self.size_wh[0])
        return target.draw(item, placed.rotation(), np.array(placed.position_cm), placed.scale, placed.density, view)

    def _add_threats(self, spec: SceneSpec, look: Look) -> list[_RenderedThreat]:
        """Add those threats to the total that stay visible among all else, and return them."""
        candidates = []
        for placed in spec.threats:
            bounds = self._draw(self._single, placed, spec)
            if bounds is None:
                continue
            rows, columns = slice(bounds[1], bounds[3] + 1), slice(bounds[0], bounds[2] + 1)
            own_a, own_b = self._single.polyethylene[rows, columns].copy(), self._single.copper[rows, columns].copy()
            self._single.polyethylene[rows, columns] = 0
            self._single.copper[rows, columns] = 0
            self._total.polyethylene[rows, columns] += own_a
            self._total.copper[rows, columns] += own_b
            candidates.append(_RenderedThreat(placed, rows, columns, own_a, own_b))
        kept = []
        for threat in candidates:
            measured = self._measure(threat, look)
            if measured is None:
                self._total.polyethylene[threat.rows, threat.columns] -= threat.polyethylene
                self._total.copper[threat.rows, threat.columns] -= threat.copper
            else:
                kept.append(measured)
        return kept

    def _measure(self, threat: _RenderedThreat, look: Look) -> _RenderedThreat | None:
        """Return the threat with its mask, box and occlusion; None if a person could not see it."""
        own_p = log_readings(threat.polyethylene, threat.copper)
        mask = own_p[1] > MASK_P_HIGH
        columns = np.flatnonzero(mask.any(0))
        rows = np.flatnonzero(mask.any(1))
        if not len(rows) or mask.sum() < MIN_MASK_PIXELS:
            return None
        total_a = self._total.polyethylene[threat.rows, threat.columns]
        total_b = self._total.copper[threat.rows, threat.columns]
        with_it = look.brightness(_luminance(log_readings(total_a, total_b)))
        without = look.brightness(_luminance(log_readings(total_a - threat.polyethylene, total_b - threat.copper)))
        alone = 255 - look.brightness(_luminance(own_p))
        could_show = mask & (alone > NOTICEABLE_LEVELS)
        num_shown = int((could_show & (np.abs(without - with_it) > NOTICEABLE_LEVELS)).sum())
        num_could = int(could_show.sum())
        if num_shown < MIN_MASK_PIXELS or num_shown < MIN_VISIBLE_SHARE * num_could:
            return None
        box = Box(
            float(threat.columns.start + columns[0]),
            float(threat.rows.start + rows[0]),
            float(columns[-1] - columns[0] + 1),
            float(rows[-1] - rows[0] + 1),
        )
        own, total = threat.polyethylene + _COPPER_WEIGHT * threat.copper, total_a + _COPPER_WEIGHT * total_b
        occlusion = 1 - float(own[mask].sum() / max(total[mask].sum(), 1e-6))
        return replace(
            threat,
            mask=mask,
            box=box,
            occlusion=round(min(max(occlusion, 0.0), 1.0), 3),
            hidden=round(1 - num_shown / num_could, 3),
        )


@dataclass(frozen=True, eq=False)
class _RenderedThreat:
    placed: PlacedItem
    rows: slice
    columns: slice
    polyethylene: NDArray[np.float32]
    copper: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None
    box: Box | None = None
    occlusion: float = 0.0
    hidden: float = 0.0


def _luminance(p: NDArray[np.float32]) -> NDArray[np.float32]:
    return LUMINANCE_SHARE_LOW * p[0] + (1 - LUMINANCE_SHARE_LOW) * p[1]


def _assemble(
    spec: SceneSpec,
    profile: ScannerProfile,
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    threats: list[_RenderedThreat],
) -> SimulatedScan:
    annotations = tuple(SimulatedAnnotation(t.placed.label, t.box) for t in threats if t.box is not None)
    co_items = tuple(sorted({placed.label for placed in spec.clutter}))
    _, room = build_bag(spec.bag.shape, spec.bag.variant)
    bag_x, bag_y, _ = spec.bag.position_cm
    poses = []
    for threat in threats:
        x, y = threat.placed.position_cm[0] - bag_x, threat.placed.position_cm[1] - bag_y
        poses.append({
            "shape": threat.placed.shape,
            "cell": location_cell(x, y, room.half_x, room.half_y),
            "phi_deg": round(float(np.rad2deg(threat.placed.phi)) % 360, 1),
            "theta_deg": round(float(np.rad2deg(threat.placed.theta)), 1),
            "hidden": threat.hidden,
        })  # fmt: skip
    factors = {
        "bag": spec.bag.label,
        "clutter_level": spec.clutter_level,
        "concealment": spec.concealment,
        "threats": poses,
        "num_taken_out": len(spec.threats) - len(threats),
    }
    return SimulatedScan(
        image=image,
        annotations=annotations,
        masks=masks,
        occlusion=tuple(t.occlusion for t in threats),
        factors=factors,
        co_items=co_items,
        caption=describe(
            spec.bag.label, spec.clutter_level, [(a.category, a.box) for a in annotations], co_items, spec.size_wh
        ),
        profile_name=profile.name,
        spec=spec,
    )


@lru_cache(maxsize=4)
def _shared_renderer(size_wh: tuple[int, int]) -> Renderer:
    return Renderer(size_wh)


def simulate(spec: SceneSpec, profile: ScannerProfile | str) -> SimulatedScan:
    """Return the picture that a scanner takes of a scene, with exact boxes and masks.

    The same spec and profile give the same bytes on one machine; across machines fast floating point may move a value
    by a level. Threats that would not be visible are in neither picture nor annotations.
    """
    return _shared_renderer(spec.size_wh).render(spec, load_profile(profile) if isinstance(profile, str) else profile)


class RefreshedPool(VariantPool):
    """A pool of a few variants of each shape, replaced one after the other as the stream goes on.

    Building an object costs more than drawing it. A pure function of (seed, index), so a stream may start anywhere.
    """

    def __init__(self, seed: Sequence[int], index: int, num_variants: int, lifetime: int) -> None:
        self._seed = tuple(seed)
        self._index = index
        self._num = num_variants
        self._lifetime = lifetime

    def _slot(self, rng: np.random.Generator, num: int, lifetime: int, salt: int) -> int:
        slot = int(rng.integers(num))
        generation = (self._index + slot * lifetime // num) // lifetime
        return zlib.crc32(repr((self._seed, slot, generation, salt)).encode()) % NUM_VARIANTS

    def draw(self, key: str, rng: np.random.Generator) -> int:
        return self._slot(rng, self._num, self._lifetime, 0)

    def draw_look(self, rng: np.random.Generator) -> int:
        return self._slot(rng, 16, 400, 1)


class ScanStream:
    """An endless stream of scans for training; scan i is a function of (seed, i) alone.

    Holds nothing but numbers and settings until the first scan, so it pickles into worker processes. Give every worker
    a seed of its own, such as (seed, worker), rather than every n-th index: then each keeps its own pool of shapes.
    """

    def __init__(
        self,
        seed: int | Sequence[int] = 0,
        profiles: Sequence[str | ScannerProfile] = PROFILE_NAMES,
        size_wh: tuple[int, int] = (504, 392),
        *,
        categories: Sequence[str] = CATEGORIES,
        clean_share: float = 0.25,
        start: int = 0,
        num_variants: int = 24,
        lifetime: int = 2400,
    ) -> None:
        """Set up the stream; nothing is built yet.

        Args:
            seed: one number or several.
            profiles: scanner profiles, equally likely.
            size_wh: image size in pixels.
            categories: what threats are drawn from, equally likely.
            clean_share: share of bags without a threat.
            start: number of the first scan that draw() returns.
            num_variants: how many variants of each shape are kept at a time.
            lifetime: after how many scans a variant is replaced by a new one.
        """
        self.seed = (seed,) if isinstance(seed, int) else tuple(seed)
        self.profiles = tuple(load_profile(p) if isinstance(p, str) else p for p in profiles)
        self.size_wh = (int(size_wh[0]), int(size_wh[1]))
        self.categories = tuple(categories)
        self.clean_share = clean_share
        self.index = start
        self._num_variants = num_variants
        self._lifetime = lifetime

    def scan(self, index: int) -> SimulatedScan:
        """Return scan number `index`."""
        rng = np.random.default_rng((*self.seed, index))
        profile = self.profiles[int(rng.integers(len(self.profiles)))]
        pool = RefreshedPool(self.seed, index, self._num_variants, self._lifetime)
        spec = sample_scene(
            rng, size_wh=self.size_wh, clean_share=self.clean_share, categories=self.categories, pool=pool
        )
        return simulate(spec, profile)

    def draw(self) -> SimulatedScan:
        """Return the next scan."""
        scan = self.scan(self.index)
        self.index += 1
        return scan

    def __iter__(self) -> Iterator[SimulatedScan]:
        while True:
            yield self.draw()
