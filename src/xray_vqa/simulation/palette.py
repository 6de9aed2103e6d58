"""Colour: a Look is one draw from a scanner profile, with its colour table ready for the sensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from xray_vqa.simulation import detector
from xray_vqa.simulation.kernel import kernel
from xray_vqa.simulation.profile import PaletteSettings, Range, ScannerProfile

NUM_Z, Z_MIN, Z_MAX = 64, 5.0, 30.0
NUM_LEVELS, LEVEL_P_MAX = 1024, 9.0
METAL_Z = 28.0
TONE_COMPRESSION = 0.09
"""Of the dynamic range, per log signal; mild, so that dense metal keeps its structure."""


@dataclass(frozen=True, eq=False)
class Look:
    """All numbers of one scanner on one day, and its colours."""

    blur_x: float
    blur_y: float
    quantum_noise: float
    electronic_noise: float
    scatter: float
    row_gain: float
    bad_row_chance: float
    hue_smoothing: int
    sharpen_radius: int
    sharpen_gain: float
    tone: float
    air_below: float
    quiet_p: float
    z_index: NDArray[np.uint8]
    """(NUM_P * NUM_RATIO,) uint8, palette row for each pair of readings."""
    colours: NDArray[np.uint8]
    """(NUM_Z * NUM_LEVELS, 3) uint8 RGB by palette row and log signal."""

    def brightness(self, p: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the displayed brightness, 0 to 255, of a log signal."""
        return (255 * np.exp(-self.tone * p / (1 + TONE_COMPRESSION * p))).astype(np.float32)

    def log_signal(self, brightness: float) -> float:
        """Return the log signal that is displayed with a brightness, 0 to 255: the inverse of brightness()."""
        exponent = -np.log(brightness / 255)
        return float(exponent / (self.tone - TONE_COMPRESSION * exponent))


def _smoothstep(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def colour_turn(hue_deg: float, saturation: float) -> NDArray[np.float64]:
    """Return the matrix that turns RGB about the grey axis and stretches it from that axis, (3, 3)."""
    angle = np.deg2rad(hue_deg)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return grey + saturation * (np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * cross)


def colour_by_z(palette: PaletteSettings, shift_z: float, hue_deg: float, saturation: float) -> NDArray[np.float64]:
    """Return the palette, (NUM_Z, 256, 3) float64 RGB, by atomic number and brightness; air keeps its colour."""
    level = np.arange(256.0)
    knots = np.array(palette.brightness_knots)
    ramps = []
    for ramp in (palette.orange, palette.green, palette.blue):
        colours = np.array(ramp, float)
        ramps.append(np.stack([np.interp(level, knots, colours[:, c]) for c in range(3)], 1))
    z = np.linspace(Z_MIN, Z_MAX, NUM_Z)
    orange_z, green_z, blue_z = (
        edge + shift_z for edge in (palette.orange_below_z, palette.green_at_z, palette.blue_above_z)
    )
    to_green = _smoothstep((z - orange_z) / (green_z - orange_z))[:, None, None]
    to_blue = _smoothstep((z - green_z - 1.5) / (blue_z - green_z - 1.5))[:, None, None]
    colours = (1 - to_green) * ramps[0] + to_green * ramps[1]
    colours = (1 - to_blue) * colours + to_blue * ramps[2]
    background = np.array(palette.orange[-1], float)
    shaded = background * level[:, None] / 255  # a grey of the same brightness; the turn acts on the distance from it
    turned = shaded + (colours - shaded) @ colour_turn(hue_deg, saturation).T
    turned[:, 255] = background
    return np.clip(turned, 0, 255)


def z_index_table(opaque_from: float, thin_bias: float, thin_below: float) -> NDArray[np.uint8]:
    """Return the palette row for (p_high, ratio), flattened, with the display's two rules.

    Behind too much matter the ratio means nothing and the colour fades to metal; very thin matter is read too high.
    """
    p = detector.p_grid()[:, None]
    opaque = _smoothstep((p - opaque_from) / 1.3)
    z = detector.atomic_number_table() * (1 - opaque) + METAL_Z * opaque + thin_bias * np.exp(-p / thin_below)
    return np.clip((z - Z_MIN) / (Z_MAX - Z_MIN) * (NUM_Z - 1), 0, NUM_Z - 1).astype(np.uint8).ravel()


def colours_by_level(table: NDArray[np.float64], tone: float) -> NDArray[np.uint8]:
    """Return the colours of a Look, (NUM_Z * NUM_LEVELS, 3) uint8, from a palette by brightness, (NUM_Z, 256, 3)."""
    p = np.linspace(0, LEVEL_P_MAX, NUM_LEVELS)
    level = np.clip(255 * np.exp(-tone * p / (1 + TONE_COMPRESSION * p)), 0, 255)
    return _colours_at(table, level)


@kernel
def _colours_at(table, levels):
    """Return (len(table) * len(levels), 3) uint8 RGB: a (NUM_Z, 256, 3) palette at fractional brightnesses."""
    colours = np.empty((table.shape[0] * levels.size, 3), np.uint8)
    for z in range(table.shape[0]):
        for i in range(levels.size):
            below = min(int(levels[i]), 254)
            part = levels[i] - below
            for c in range(3):
                colours[z * levels.size + i, c] = int(
                    table[z, below, c] * (1 - part) + table[z, below + 1, c] * part + 0.5
                )
    return colours


@lru_cache(maxsize=128)
def draw_look(profile: ScannerProfile, look_seed: int) -> Look:
    """Return the look that a seed draws from a profile's ranges."""
    rng = np.random.default_rng(look_seed)
    settings, palette = profile.sensor, profile.palette

    def draw(bounds: Range) -> float:
        return float(rng.uniform(*bounds))

    tone = draw(settings.tone)
    table = colour_by_z(
        palette,
        shift_z=float(rng.uniform(-palette.shift_z, palette.shift_z)),
        hue_deg=float(rng.uniform(-palette.hue_jitter_deg, palette.hue_jitter_deg)),
        saturation=draw(palette.saturation),
    )
    return Look(
        blur_x=draw(settings.blur_x),
        blur_y=draw(settings.blur_y),
        quantum_noise=draw(settings.quantum_noise),
        electronic_noise=draw(settings.electronic_noise),
        scatter=draw(settings.scatter),
        row_gain=draw(settings.row_gain),
        bad_row_chance=settings.bad_row_chance,
        hue_smoothing=int(rng.integers(settings.hue_smoothing[0], settings.hue_smoothing[1] + 1)),
        sharpen_radius=int(rng.integers(settings.sharpen_radius[0], settings.sharpen_radius[1] + 1)),
        sharpen_gain=draw(settings.sharpen_gain),
        tone=tone,
        air_below=settings.air_below,
        quiet_p=draw(settings.quiet_p),
        z_index=z_index_table(draw(settings.opaque_from), draw(settings.thin_bias), draw(settings.thin_below)),
        colours=colours_by_level(table, tone),
    )
