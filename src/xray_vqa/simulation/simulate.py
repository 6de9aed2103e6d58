"""The simulator's front door: a scene and a scanner profile in, a picture with exact ground truth out."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.geometry import Box
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.simulation.caption import describe
from xray_vqa.simulation.kernel import has_to_be_compiled, second_process
from xray_vqa.simulation.packing import (
    DEFAULT_CLEAN_SHARE,
    DEFAULT_THREATS_PER_BAG,
    NUM_VARIANTS,
    SceneDraft,
    VariantPool,
    draft_scene,
    sample_scene,
)
from xray_vqa.simulation.palette import Look, draw_look
from xray_vqa.simulation.primitives import rotation_z
from xray_vqa.simulation.profile import PROFILE_NAMES, ScannerProfile, load_profile
from xray_vqa.simulation.raster import LineIntegrals, draw_item
from xray_vqa.simulation.scene import VISIBLE_SHARES, PlacedItem, SceneSpec, location_cell
from xray_vqa.simulation.sensor import Sensor
from xray_vqa.simulation.shadow import MIN_MASK_PIXELS, Shadow, occlusion, visibility
from xray_vqa.simulation.shapes import build_bag, build_item
from xray_vqa.simulation.view import View, ViewName, into_view, open_view

MAX_REDRAWN = 8
"""How often a scene is drawn anew in which a threat finds no place where it can be seen."""


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
    visible: tuple[float, ...]
    """For each threat the share (0 to 1) of its pixels that change the picture noticeably."""
    factors: dict[str, Any]
    co_items: tuple[str, ...]
    """Harmless things in the bag, without repeats, in alphabetical order."""
    caption: str
    profile_name: str
    spec: SceneSpec
    """Replays the scan: simulate(spec, profile)."""
    view: ViewName = "top"


class Renderer:
    """Renders scenes of one size; holds the buffers. Not safe for use from two threads."""

    def __init__(self, size_wh: tuple[int, int]) -> None:
        self.size_wh = size_wh
        self._total = LineIntegrals(size_wh)
        self._single = LineIntegrals(size_wh)
        self._sensor = Sensor(size_wh)

    def render(self, spec: SceneSpec, profile: ScannerProfile, view: ViewName = "top") -> SimulatedScan:
        """Return the picture of a scene, from above or from the side.

        From above a threat that a person could not see is in neither picture nor annotations. From the side everything
        is as the view from above has it.
        """
        look = _look_of(spec, profile)
        self._draw_harmless(spec, view)
        threats = [(placed, shadow) for placed in spec.threats if (shadow := self._cast(placed, spec, view))]
        for _, shadow in threats:
            self._add(shadow)
        return self._finish(spec, profile, look, threats, view)

    def render_draft(self, draft: SceneDraft, profile: ScannerProfile) -> SimulatedScan:
        """Return the picture of a draft, each threat at the place that hides it as far as the draft wants."""
        spec = draft.spec
        look = _look_of(spec, profile)
        self._draw_harmless(spec, "top")
        threats: list[tuple[PlacedItem, Shadow]] = []
        for places in draft.candidates:
            chosen = self._choose_place(places, spec, look)
            if chosen is not None:
                self._add(chosen[1])
                threats.append(chosen)
        return self._finish(spec, profile, look, threats, "top")

    def _choose_place(
        self, places: Sequence[PlacedItem], spec: SceneSpec, look: Look
    ) -> tuple[PlacedItem, Shadow] | None:
        """Return the place at which a threat shows as far as the scene wants, or nearly, with its shadow there.

        The more lies on its rays already, the less of it shows. Places are sorted by that and searched by bisection,
        because finding out how far it does show takes a rendering.
        """
        low, high = VISIBLE_SHARES[spec.concealment]
        sorted_places = sorted(places, key=lambda placed: self._attenuation_around(placed, spec))
        best: tuple[PlacedItem, Shadow] | None = None
        best_miss = np.inf
        first, last = 0, len(sorted_places)
        while first < last and best_miss > 0:
            middle = (first + last) // 2
            shadow = self._cast(sorted_places[middle], spec, "top")
            if shadow is None:
                del sorted_places[middle]
                last -= 1
                continue
            polyethylene, copper = self._around(shadow)
            share = visibility(shadow, polyethylene + shadow.polyethylene, copper + shadow.copper, look).share
            miss = max(low - share, share - high, 0.0)
            if miss < best_miss:
                best, best_miss = (sorted_places[middle], shadow), miss
            if share > high:
                first = middle + 1
            else:
                last = middle
        return best

    def main_concealers(self, scan: SimulatedScan) -> tuple[str | None, ...]:
        """Return for each threat the harmless thing that attenuates most in its mask; None where nothing lies there."""
        most: list[tuple[float, str | None]] = [(0.0, None)] * len(scan.masks)
        for placed in scan.spec.clutter:
            shadow = self._cast(placed, scan.spec, scan.view)
            if shadow is None:
                continue
            for index, mask in enumerate(scan.masks):
                share = float(shadow.weight[mask[shadow.window]].sum())
                if share > most[index][0]:
                    most[index] = (share, placed.label)
        return tuple(label for _, label in most)

    def _draw_harmless(self, spec: SceneSpec, view: ViewName) -> None:
        """Start over with the bag and all harmless things."""
        self._total.clear()
        self._draw(self._total, spec.bag, spec, view)
        for placed in spec.clutter:
            self._draw(self._total, placed, spec, view)

    def _draw(
        self, target: LineIntegrals, placed: PlacedItem, spec: SceneSpec, view: ViewName
    ) -> tuple[int, int, int, int] | None:
        is_bag = placed is spec.bag
        item = build_bag(placed.shape, placed.variant)[0] if is_bag else build_item(placed.shape, placed.variant)
        rotation, position = into_view(view, placed.rotation(), np.array(placed.position_cm))
        return target.draw(item, rotation, position, placed.scale, placed.density, self._rays(spec))

    def _rays(self, spec: SceneSpec) -> View:
        return open_view(self.size_wh, spec.pixel_cm * spec.size_wh[0] / self.size_wh[0])

    def _attenuation_around(self, placed: PlacedItem, spec: SceneSpec) -> float:
        """Return how much has been drawn where an object would come to lie, in cm of polyethylene."""
        hull = build_item(placed.shape, placed.variant).hull
        return self._total.mean_around(hull, placed.rotation(), placed.position_cm, placed.scale, self._rays(spec))

    def _cast(self, placed: PlacedItem, spec: SceneSpec, view: ViewName) -> Shadow | None:
        """Return one object's shadow; None outside the picture."""
        bounds = self._draw(self._single, placed, spec, view)
        if bounds is None:
            return None
        window = slice(bounds[1], bounds[3] + 1), slice(bounds[0], bounds[2] + 1)
        polyethylene, copper = self._single.polyethylene[window], self._single.copper[window]
        shadow = Shadow(bounds[1], bounds[0], polyethylene.copy(), copper.copy())
        polyethylene[:] = 0
        copper[:] = 0
        return shadow

    def _around(self, shadow: Shadow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the two line integrals of everything drawn so far, where an object casts its shadow."""
        return self._total.polyethylene[shadow.window], self._total.copper[shadow.window]

    def _add(self, shadow: Shadow) -> None:
        polyethylene, copper = self._around(shadow)
        polyethylene += shadow.polyethylene
        copper += shadow.copper

    def _finish(
        self,
        spec: SceneSpec,
        profile: ScannerProfile,
        look: Look,
        threats: list[tuple[PlacedItem, Shadow]],
        view: ViewName,
    ) -> SimulatedScan:
        """Take threats out that nobody could see, expose, and put picture and truth together."""
        measured = [self._measure(placed, shadow, look) for placed, shadow in threats]
        kept = [
            threat
            for threat in measured
            if threat.shadow.mask.sum() >= MIN_MASK_PIXELS and (view == "side" or threat.is_seen)
        ]
        if view == "top" and len(kept) < len(threats):
            # Drawn anew and not subtracted: what is left then is exactly the scene without them.
            self._draw_harmless(spec, view)
            for threat in kept:
                self._add(threat.shadow)
            kept = [self._measure(threat.placed, threat.shadow, look) for threat in kept]
        if view == "top":
            spec = spec.model_copy(update={"threats": tuple(threat.placed for threat in kept)})
        image = self.expose(look, spec.noise_seed + (view == "side"))
        width, height = self.size_wh
        masks = np.zeros((len(kept), height, width), bool)
        for mask, threat in zip(masks, kept, strict=True):
            mask[threat.shadow.window] = threat.shadow.mask
        return _assemble(spec, profile, image, masks, kept, view)

    def expose(self, look: Look, noise_seed: int) -> NDArray[np.uint8]:
        """Return the picture of what has been drawn, (height, width, 3) uint8."""
        return self._sensor.develop(self._total.polyethylene, self._total.copper, look, noise_seed)

    def _measure(self, placed: PlacedItem, shadow: Shadow, look: Look) -> _Measured:
        """Return a threat that was added with what shows of it."""
        around = self._around(shadow)
        seen = visibility(shadow, *around, look)
        return _Measured(placed, shadow, occlusion(shadow, *around), round(seen.share, 3), seen.is_seen)


@dataclass(frozen=True, eq=False)
class _Measured:
    """A threat with its truth."""

    placed: PlacedItem
    shadow: Shadow
    occlusion: float
    visible: float
    is_seen: bool
    """Whether a person could see it."""


def _look_of(spec: SceneSpec, profile: ScannerProfile) -> Look:
    return draw_look(profile, spec.look_seed)  # pyright: ignore[reportArgumentType]  (frozen, so hashable)


def _assemble(
    spec: SceneSpec,
    profile: ScannerProfile,
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    threats: list[_Measured],
    view: ViewName,
) -> SimulatedScan:
    annotations = tuple(SimulatedAnnotation(threat.placed.label, threat.shadow.box) for threat in threats)
    co_items = tuple(sorted({placed.label for placed in spec.clutter}))
    _, room = build_bag(spec.bag.shape, spec.bag.variant)
    bag_x, bag_y, _ = spec.bag.position_cm
    poses = []
    for threat in threats:
        placed = threat.placed
        offset = rotation_z(-spec.bag.phi)[:2, :2] @ (placed.position_cm[0] - bag_x, placed.position_cm[1] - bag_y)
        poses.append({
            "shape": placed.shape,
            "cell": location_cell(offset[0], offset[1], room.half_x, room.half_y),
            "phi_deg": round(float(np.rad2deg(placed.phi)) % 360, 1),
            "theta_deg": round(float(np.rad2deg(placed.theta)), 1),
            "visible": threat.visible,
        })  # fmt: skip
    factors = {
        "bag": spec.bag.label,
        "clutter_level": spec.clutter_level,
        "concealment": spec.concealment,
        "threats": poses,
    }
    return SimulatedScan(
        image=image,
        annotations=annotations,
        masks=masks,
        occlusion=tuple(threat.occlusion for threat in threats),
        visible=tuple(threat.visible for threat in threats),
        factors=factors,
        co_items=co_items,
        caption=describe(
            spec.bag.label, spec.clutter_level, [(a.category, a.box) for a in annotations], co_items, spec.size_wh
        ),
        profile_name=profile.name,
        spec=spec,
        view=view,
    )


@lru_cache(maxsize=4)
def shared_renderer(size_wh: tuple[int, int]) -> Renderer:
    """Return this process's renderer of a size; not for use from two threads.

    The first on a machine compiles all kernels, which takes ten seconds: the drawing of objects, half of it, in a
    second process.
    """
    renderer = Renderer(size_wh)
    if has_to_be_compiled(draw_item):
        with second_process("from xray_vqa.simulation.raster import draw_nothing; draw_nothing()"):
            renderer.expose(_look_of(sample_scene(0, size_wh=size_wh), load_profile(PROFILE_NAMES[0])), noise_seed=0)
    return renderer


def simulate(spec: SceneSpec, profile: ScannerProfile | str, view: ViewName = "top") -> SimulatedScan:
    """Return the picture that a scanner takes of a scene, with exact boxes and masks.

    The same spec and profile give the same bytes on one machine; across machines fast floating point may move a value
    by a level. Threats that would not be visible are in neither picture nor annotations.
    """
    chosen = load_profile(profile) if isinstance(profile, str) else profile
    return shared_renderer(spec.size_wh).render(spec, chosen, view)


class RefreshedPool(VariantPool):
    """A pool of a few variants of each shape, replaced one after the other as the stream goes on.

    Building an object costs more than drawing it. A pure function of (seed, index), so a stream may start anywhere.
    """

    def __init__(self, seed: Sequence[int], index: int, num_variants: int, lifetime: int) -> None:
        self._seed = tuple(seed)
        self._index = index
        self._num = num_variants
        self._lifetime = lifetime

    def draw(self, key: str, rng: np.random.Generator) -> int:
        slot = int(rng.integers(self._num))
        generation = (self._index + slot * self._lifetime // self._num) // self._lifetime
        return zlib.crc32(repr((self._seed, slot, generation)).encode()) % NUM_VARIANTS

    def draw_look(self, rng: np.random.Generator) -> int:
        return self.draw("look", rng)


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
        clean_share: float = DEFAULT_CLEAN_SHARE,
        threats_per_bag: Sequence[float] = DEFAULT_THREATS_PER_BAG,
        start: int = 0,
        num_variants: int = 24,
        lifetime: int = 6000,
    ) -> None:
        """Set up the stream; nothing is built yet.

        Args:
            seed: one number or several.
            profiles: scanner profiles, equally likely.
            size_wh: image size in pixels.
            categories: what threats are drawn from, equally likely.
            clean_share: share of bags without a threat.
            threats_per_bag: of the others, the shares with one threat, two, three, ...; they sum to 1.
            start: number of the first scan that draw() returns.
            num_variants: how many variants of each shape are kept at a time.
            lifetime: after how many scans a variant is replaced by a new one.
        """
        self.seed = (seed,) if isinstance(seed, int) else tuple(seed)
        self.profiles = tuple(load_profile(p) if isinstance(p, str) else p for p in profiles)
        self.size_wh = (int(size_wh[0]), int(size_wh[1]))
        self.categories = tuple(categories)
        self.clean_share = clean_share
        self.threats_per_bag = tuple(threats_per_bag)
        self.index = start
        self._num_variants = num_variants
        self._lifetime = lifetime

    def scan(self, index: int) -> SimulatedScan:
        """Return scan number `index`.

        A scene in which a threat finds no place, or none where it can be seen, is drawn anew, so that bags with and
        without threats keep their shares; `factors["num_redrawn"]` counts it.
        """
        renderer = shared_renderer(self.size_wh)
        for attempt in range(MAX_REDRAWN + 1):
            rng = np.random.default_rng((*self.seed, index, attempt) if attempt else (*self.seed, index))
            profile = self.profiles[int(rng.integers(len(self.profiles)))]
            pool = RefreshedPool(self.seed, index, self._num_variants, self._lifetime)
            draft = draft_scene(
                rng,
                size_wh=self.size_wh,
                clean_share=self.clean_share,
                threats_per_bag=self.threats_per_bag,
                categories=self.categories,
                pool=pool,
            )
            scan = renderer.render_draft(draft, profile)
            scan.factors["num_redrawn"] = attempt
            if len(scan.annotations) == draft.num_wanted:
                break
        else:
            scan.factors["num_missing"] = draft.num_wanted - len(scan.annotations)
        return scan

    def draw(self) -> SimulatedScan:
        """Return the next scan."""
        scan = self.scan(self.index)
        self.index += 1
        return scan

    def __iter__(self) -> Iterator[SimulatedScan]:
        while True:
            yield self.draw()
