"""From a picture back to what the scanner measured: which palette it was coloured with, and each pixel's place in it.

A colour tells two things: a row of the palette (the displayed atomic number) and a log signal (the displayed
attenuation). The palette is unknown for a picture from outside, so the shipped profiles are tried with a few turns of
hue and saturation, and the one that reproduces the picture best is taken. The rest of a look cannot be seen in the
colours: tone, opaque rule and thin bias come from the middle of the profile's ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from xray_vqa.simulation.detector import NUM_P, NUM_RATIO, P_MAX, RATIO_MAX, RATIO_MIN, log_readings
from xray_vqa.simulation.palette import (
    LEVEL_P_MAX,
    NUM_LEVELS,
    NUM_Z,
    Z_MAX,
    Z_MIN,
    Look,
    colour_by_z,
    colours_by_level,
    draw_look,
)
from xray_vqa.simulation.profile import ScannerProfile, SensorSettings
from xray_vqa.simulation.sensor import LUMINANCE_SHARE_LOW, signal_of, unsharpened

HUES_DEG = (0.0, -9.0, -6.0, -3.0, 3.0, 6.0, 9.0)
SATURATIONS = (1.0, 0.7, 0.8, 0.9, 1.1)
AIR_TOLERANCE = 10
"""Grey levels in any channel by which a pixel must differ from air to be foreground."""
NUM_SAMPLED = 3000
"""Foreground pixels that a palette is fitted to."""
_BIN_SHIFT = 2  # colours are looked up in bins of 4 grey levels
_NUM_BINS = 256 >> _BIN_SHIFT
_TYPICAL_Z = (7.0, 26.0)  # organic matter and steel: what a colour means where a whole range of Z has it
_MIN_AIR_LEVEL, _MAX_AIR_SPREAD = 150, 24
_MIN_AIR_SHARE = 0.005
_MIN_KIND_SHARE = 0.005  # of the sample; fewer pixels of a colour do not vote


def estimate_air(image: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return the RGB of air in a picture: its commonest bright and nearly grey colour, else white.

    Args:
        image: (height, width, 3) uint8.
    """
    pixels = image.reshape(-1, 3)
    spread = pixels.max(1).astype(int) - pixels.min(1)
    bright = pixels[(pixels.min(1) >= _MIN_AIR_LEVEL) & (spread <= _MAX_AIR_SPREAD)]
    if len(bright) < _MIN_AIR_SHARE * len(pixels):
        return (255.0, 255.0, 255.0)
    bins = bright.astype(np.int32) >> _BIN_SHIFT
    keys = (bins[:, 0] * _NUM_BINS + bins[:, 1]) * _NUM_BINS + bins[:, 2]
    commonest = np.bincount(keys).argmax()
    red, green, blue = np.median(bright[keys == commonest], axis=0)
    return (float(red), float(green), float(blue))


def typical_look(profile: ScannerProfile, hue_deg: float = 0.0, saturation: float = 1.0) -> Look:
    """Return the look in the middle of a profile's ranges, its colours turned by an angle and stretched from grey."""
    middle = {
        name: ((value[0] + value[1]) / 2,) * 2
        for name, value in profile.sensor.model_dump().items()
        if isinstance(value, tuple) and name not in ("hue_smoothing", "sharpen_radius")
    }
    whole = {name: (-(-sum(getattr(profile.sensor, name)) // 2),) * 2 for name in ("hue_smoothing", "sharpen_radius")}
    sensor = SensorSettings.model_validate({**profile.sensor.model_dump(), **middle, **whole})
    middling = profile.model_copy(update={"sensor": sensor})
    look = draw_look(middling, 0)  # pyright: ignore[reportArgumentType]  (frozen, so hashable)
    table = colour_by_z(profile.palette, shift_z=0.0, hue_deg=hue_deg, saturation=saturation)
    return replace(look, colours=colours_by_level(table, look.tone))


class InversePalette:
    """Finds the palette entry nearest to a colour; bins are filled as colours are asked for."""

    def __init__(self, profile: ScannerProfile, hue_deg: float, saturation: float) -> None:
        self.look = typical_look(profile, hue_deg, saturation)
        self.background = np.array(profile.palette.orange[-1], np.float32)
        colours = self.look.colours.reshape(NUM_Z, NUM_LEVELS, 3)
        z = np.linspace(Z_MIN, Z_MAX, NUM_Z)
        likely_first = np.argsort(np.min([np.abs(z - typical) for typical in _TYPICAL_Z], axis=0), kind="stable")
        flat = colours[likely_first].reshape(-1, 3).astype(np.int32)
        keys = (flat[:, 0] << 16) | (flat[:, 1] << 8) | flat[:, 2]
        _, first = np.unique(keys, return_index=True)
        rows = likely_first[first // NUM_LEVELS]
        self._entries = (rows * NUM_LEVELS + first % NUM_LEVELS).astype(np.int32)
        self._tree = KDTree(flat[first].astype(np.float32))
        self._table = np.full(_NUM_BINS**3, -1, np.int32)

    def entries(self, colours: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the index into `look.colours` of the nearest palette colour, (...) int32 for (..., 3) uint8."""
        bins = colours.astype(np.int32) >> _BIN_SHIFT
        keys = (bins[..., 0] * _NUM_BINS + bins[..., 1]) * _NUM_BINS + bins[..., 2]
        seen = np.zeros(len(self._table), bool)
        seen[keys] = True
        missing = np.flatnonzero(seen & (self._table < 0))
        if len(missing):
            middle = np.stack([missing // _NUM_BINS**2, missing // _NUM_BINS % _NUM_BINS, missing % _NUM_BINS], 1)
            centre = (middle << _BIN_SHIFT) + (1 << _BIN_SHIFT) / 2 - 0.5
            centre[middle == _NUM_BINS - 1] = 255  # air has to stay air
            self._table[missing] = self._entries[self._tree.query(centre)[1]]
        return self._table[keys]


@lru_cache(maxsize=128)  # some 2 MB each
def _inverse(profile: ScannerProfile, hue_deg: float, saturation: float) -> InversePalette:
    return InversePalette(profile, hue_deg, saturation)


@dataclass(frozen=True, eq=False)
class PaletteFit:
    """The palette that a picture was coloured with, as well as the shipped profiles can tell."""

    profile: ScannerProfile
    hue_deg: float
    saturation: float
    air: tuple[float, float, float]
    """RGB of air in the picture; all its colours are the palette's times air / background."""
    round_trip_error: float
    """Mean absolute difference (grey levels of 255, over foreground pixels and channels) between the picture and what
    the palette makes of its own reading of it."""

    @property
    def look(self) -> Look:
        return self._inverse.look

    @property
    def _inverse(self) -> InversePalette:
        return _inverse(self.profile, self.hue_deg, self.saturation)  # pyright: ignore[reportArgumentType]  (frozen)

    def entries(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return for each pixel, (...) int32, its palette row times NUM_LEVELS plus its level."""
        scale = self._inverse.background / np.array(self.air, np.float32)
        return self._inverse.entries(np.clip(image * scale + 0.5, 0, 255).astype(np.uint8))

    def colours(self, entries: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the colours, (..., 3) float32 RGB, that the picture shows palette entries in."""
        scale = np.array(self.air, np.float32) / self._inverse.background
        return (self.look.colours[entries] * scale).astype(np.float32)


def foreground(image: NDArray[np.uint8], air: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Return where a picture shows more than air, (height, width) bool."""
    return np.any(np.abs(image.astype(np.float32) - np.array(air, np.float32)) > AIR_TOLERANCE, axis=-1)  # type: ignore[return-value]


def fit_palette(image: NDArray[np.uint8], profiles: Sequence[ScannerProfile]) -> PaletteFit:
    """Return the palette with the smallest round-trip error on a picture's foreground.

    Orange, green and blue pixels count alike in the choice, however few they are: most of a bag is orange, and it is
    the blue that tells scanners apart.

    Args:
        image: (height, width, 3) uint8 RGB.
        profiles: which scanners it may come from.
    """
    air = estimate_air(image)
    seen = image[foreground(image, air)]
    sample = seen[:: max(1, len(seen) // NUM_SAMPLED)]
    strongest = (sample / np.array(air)).argmax(1)
    kinds = [sample[strongest == channel] for channel in range(3)]
    kinds = [kind for kind in kinds if len(kind) >= _MIN_KIND_SHARE * len(sample)]

    def error(fit: PaletteFit) -> float:
        return float(np.mean([_error(fit, kind) for kind in kinds])) if kinds else 0.0

    def best_of(fits: Iterable[PaletteFit]) -> PaletteFit:
        return min(fits, key=error)

    rough = sorted((PaletteFit(profile, 0.0, 0.85, air, 0.0) for profile in profiles), key=error)
    refined: list[PaletteFit] = []
    for near in rough[:2]:
        by_hue = best_of(replace(near, hue_deg=hue_deg) for hue_deg in HUES_DEG)
        refined.append(best_of(replace(by_hue, saturation=saturation) for saturation in SATURATIONS))
    best = best_of(refined)
    return replace(best, round_trip_error=round(_error(best, seen), 2))


def _error(fit: PaletteFit, pixels: NDArray[np.uint8]) -> float:
    return float(np.abs(fit.colours(fit.entries(pixels)) - pixels).mean()) if len(pixels) else 0.0


# --- From a palette entry to readings, and from readings to thicknesses ----------------------------------------------

NUM_SIGNAL = 192
SIGNAL_MAX = 7.0
"""Largest displayed log signal that is told apart; the scanner's own scatter hides what lies above."""
_NUM_MIX = 97


def _signal_grid() -> NDArray[np.float64]:
    return np.linspace(0, 1, NUM_SIGNAL) ** 2 * SIGNAL_MAX


@lru_cache(maxsize=1)
def _mixtures() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return ratio, polyethylene and copper, each (NUM_SIGNAL, _NUM_MIX): mixtures from pure polyethylene to copper.

    Every column is one mixture, taken at the thickness that has the row's log signal.
    """
    share = np.linspace(0, 1, _NUM_MIX) ** 2
    depth = np.linspace(0, 1, 1200)[:, None] ** 2
    a = 60.0 * depth * (1 - share)
    b = 8.0 * depth * share
    p = log_readings(a, b).astype(float)
    signal = LUMINANCE_SHARE_LOW * p[0] + (1 - LUMINANCE_SHARE_LOW) * p[1]
    ratio = p[0] / np.maximum(p[1], 1e-9)
    ratio[0] = ratio[1]
    grid = _signal_grid()
    tables = [
        np.stack([np.interp(grid, signal[:, column], values[:, column]) for column in range(_NUM_MIX)], 1)
        for values in (ratio, a, b)
    ]
    tables[0] = np.maximum.accumulate(tables[0], axis=1)
    return tables[0], tables[1], tables[2]


@lru_cache(maxsize=1)
def _thickness_table() -> NDArray[np.float32]:
    """Return (2, NUM_SIGNAL, NUM_RATIO) float32 polyethylene and copper, cm, by log signal and ratio.

    A ratio that no mixture has becomes that of the nearest pure one, at the same log signal.
    """
    ratio, a, b = _mixtures()
    columns = np.linspace(RATIO_MIN, RATIO_MAX, NUM_RATIO)
    rising = ratio + np.arange(_NUM_MIX) * 1e-9
    return np.array(
        [[np.interp(columns, rising[row], values[row]) for row in range(NUM_SIGNAL)] for values in (a, b)], np.float32
    )


def _bilinear(table: NDArray[np.float32], row: NDArray[np.float32], column: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a table's values, (num, ...) float32, at fractional rows and columns of (num, rows, columns)."""
    r = np.clip(row, 0, table.shape[1] - 1.001)
    c = np.clip(column, 0, table.shape[2] - 1.001)
    r0, c0 = r.astype(np.int32), c.astype(np.int32)
    dr, dc = r - r0, c - c0
    above = table[:, r0, c0] * (1 - dc) + table[:, r0, c0 + 1] * dc
    below = table[:, r0 + 1, c0] * (1 - dc) + table[:, r0 + 1, c0 + 1] * dc
    return (above * (1 - dr) + below * dr).astype(np.float32)


def _signal_row(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(np.clip(signal, 0, SIGNAL_MAX) / np.float32(SIGNAL_MAX)) * np.float32(NUM_SIGNAL - 1)


def equivalent_thickness(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the polyethylene and copper, (2, height, width) float32 cm, that would give readings (2, height, width).

    The inverse of detector.log_readings, to about 1 % of the log signal below SIGNAL_MAX.
    """
    ratio = p[0] / np.maximum(p[1], np.float32(2e-3))
    column = (ratio - np.float32(RATIO_MIN)) / np.float32(RATIO_MAX - RATIO_MIN) * np.float32(NUM_RATIO - 1)
    return _bilinear(_thickness_table(), _signal_row(signal_of(p)), column)


@lru_cache(maxsize=64)
def _ratio_table(look: Look) -> NDArray[np.float32]:
    """Return the ratio of readings, (1, NUM_SIGNAL, NUM_Z) float32, that a look shows in a palette row."""
    ratio, _, _ = _mixtures()
    p_high = _signal_grid()[:, None] / (1 - LUMINANCE_SHARE_LOW + LUMINANCE_SHARE_LOW * ratio)
    row = palette_rows(look, np.stack([ratio * p_high, p_high]).astype(np.float32)).astype(float)
    row = np.maximum.accumulate(row, axis=1) + np.arange(_NUM_MIX) * 1e-6
    wanted = np.arange(NUM_Z) + 0.5  # the middle of what was rounded down to this row
    return np.array([[np.interp(wanted, row[k] + 0.5, ratio[k]) for k in range(NUM_SIGNAL)]], np.float32)


def palette_rows(look: Look, p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the palette row that a look shows readings (2, ...) in, (...) uint8, as the sensor does."""
    high = np.maximum(p[1], np.float32(2e-3))
    row = np.minimum(np.sqrt(high / np.float32(P_MAX)) * (NUM_P - 1), NUM_P - 1).astype(np.int32)
    column = (p[0] / high - np.float32(RATIO_MIN)) / np.float32(RATIO_MAX - RATIO_MIN) * (NUM_RATIO - 1)
    return look.z_index[row * NUM_RATIO + np.clip(column, 0, NUM_RATIO - 1).astype(np.int32)]


def shown_signal(entries: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the log signal, (...) float32, that palette entries stand for, sharpened as the picture shows it."""
    return (entries % NUM_LEVELS).astype(np.float32) * np.float32(LEVEL_P_MAX / (NUM_LEVELS - 1))


def readings_of(look: Look, entries: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the readings, (2, height, width) float32, that a look shows as these palette entries.

    The unsharp mask is taken off: its rims around edges, up to MAX_SHARPEN_P deep, are no matter.
    """
    shown = shown_signal(entries)
    signal = unsharpened(shown, look) + np.where(shown > 0, np.float32(look.air_below), np.float32(0))
    ratio = _bilinear(_ratio_table(look), _signal_row(signal), (entries // NUM_LEVELS).astype(np.float32))[0]
    high = signal / (np.float32(1 - LUMINANCE_SHARE_LOW) + np.float32(LUMINANCE_SHARE_LOW) * ratio)
    return np.stack([ratio * high, high])
