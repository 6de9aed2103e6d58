"""Threat Image Projection: put a simulated threat physically into a scan from outside.

Line integrals add. The scan is read back into polyethylene and copper (palette_inverse.py, or raw readings where the
scanner gave them), the threat's thicknesses are added, and the forward model says by how much that changes each
reading. The change goes through what the scanner does to everything: point spread, the noise of the photons that are
now missing, hue smoothing, unsharp mask, colour. What the palette could not explain of a pixel (texture, compression,
a slightly different palette) stays on it, dimmed by what now lies over it. So where a threat is infinitely thin,
nothing changes, and beyond the threat's margin no byte does. Where threats go is placement.py's affair.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xray_vqa.errors import DatasetError
from xray_vqa.simulation.detector import log_readings
from xray_vqa.simulation.palette import LEVEL_P_MAX, NUM_LEVELS, Look
from xray_vqa.simulation.palette_inverse import (
    PaletteFit,
    equivalent_thickness,
    fit_palette,
    foreground,
    palette_rows,
    readings_of,
    shown_signal,
)
from xray_vqa.simulation.profile import ScannerProfile
from xray_vqa.simulation.sensor import LUMINANCE_SHARE_LOW, blur, box_mean, sharpened, signal_of
from xray_vqa.simulation.shadow import Shadow

MAX_ROUND_TRIP_ERROR = 12.0
"""Grey levels; a scan whose colours no shipped palette explains better than this is refused."""
MIN_COLOUR = 6.0
"""Mean spread between the channels of the foreground, grey levels; below it a picture shows no material."""
MIN_FOREGROUND_SHARE, MAX_FOREGROUND_SHARE = 0.01, 0.98
"""Less shows nothing, and more shows no air, whose colour is the zero of all readings."""
_REAR_SHARE = np.array([1.0, 0.8], np.float32)[:, None, None]  # noise by detector, as in sensor.py
_MIN_NOISE, _MAX_NOISE = 0.002, 0.06


class ScanRefused(DatasetError):
    """A scan into which no threat can be projected truthfully; the message says why."""


@dataclass(frozen=True, eq=False)
class Host:
    """A scan from outside, read back into what its scanner measured."""

    image: NDArray[np.uint8]
    """(height, width, 3) uint8 RGB."""
    fit: PaletteFit
    entries: NDArray[np.int32]
    """(height, width) int32, palette row times NUM_LEVELS plus level of each pixel."""
    p: NDArray[np.float32]
    """(2, height, width) float32 readings, front and rear."""
    hue_p: NDArray[np.float32]
    """(2, height, width) float32, the readings that the hue was taken from: smoothed as the scanner does for it."""
    noise: float
    """Standard deviation of the air signal due to photon statistics, as a share of it, as seen in the picture."""

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]


def open_host(
    image: NDArray[np.uint8], profiles: Sequence[ScannerProfile], readings: NDArray[np.float32] | None = None
) -> Host:
    """Return a scan read back into readings.

    Args:
        image: (height, width, 3) uint8 RGB.
        profiles: scanners whose palettes are tried.
        readings: (2, height, width) float32, -ln(signal / air signal) of the front and rear detector, where the
            scanner gave them; else they are taken from the colours.

    Raises:
        ScanRefused: Hardly anything but air, no air, no colour, or colours that no palette explains.
    """
    fit = fit_palette(image, profiles)
    seen = foreground(image, fit.air)
    if seen.mean() < MIN_FOREGROUND_SHARE:
        raise ScanRefused(f"shows nothing but air (foreground {seen.mean():.1%})")
    if seen.mean() > MAX_FOREGROUND_SHARE:
        raise ScanRefused(f"shows no air (foreground {seen.mean():.1%}), so its colours have no zero")
    pixels = image[seen]
    colour = float((pixels.max(1).astype(np.int16) - pixels.min(1)).mean())
    if colour < MIN_COLOUR:
        raise ScanRefused(f"is greyscale (mean spread of the channels {colour:.1f}), so its colours tell no material")
    if fit.round_trip_error > MAX_ROUND_TRIP_ERROR:
        raise ScanRefused(
            f"palette round trip {fit.round_trip_error:.1f} grey levels, more than {MAX_ROUND_TRIP_ERROR:g}: it was "
            f"coloured by none of the scanner profiles tried (nearest {fit.profile.name}); describe its scanner in a "
            "profile of its own"
        )
    entries = fit.entries(image)
    if readings is None:
        p = hue_p = readings_of(fit.look, entries)  # the ratio behind a colour has been smoothed already
    elif readings.shape != (2, *image.shape[:2]):
        raise ScanRefused(f"its readings have shape {readings.shape}, its picture wants {(2, *image.shape[:2])}")
    else:
        p = readings.astype(np.float32)
        hue_p = _smoothed_for_hue(p, fit.look)
    return Host(image, fit, entries, p, hue_p, _estimate_noise(image, fit))


def _smoothed_for_hue(values: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
    """Return (2, height, width) values averaged over the pixels that a look takes the hue of one from."""
    mean = np.empty_like(values)
    box_mean(np.ascontiguousarray(values), mean, look.hue_smoothing)
    return mean


def _estimate_noise(image: NDArray[np.uint8], fit: PaletteFit) -> float:
    """Return the photon noise that explains the fine grain of a picture's smoothest parts.

    After Immerkaer (CVIU 1996): a mask blind to planes, here by blocks of 8 pixels, of which the calmer quarter counts,
    since texture adds to noise everywhere else.
    """
    grey = image.astype(np.float32).mean(-1) / float(np.mean(fit.air))
    kernel = np.outer((1, -2, 1), (1, -2, 1)).astype(np.float32)
    response = np.abs(ndimage.convolve(grey, kernel, mode="nearest")) * (np.sqrt(np.pi / 2) / 6)
    height, width = (side // 8 * 8 for side in grey.shape)
    blocks = [
        values[:height, :width].reshape(height // 8, 8, width // 8, 8).mean((1, 3)) for values in (response, grey)
    ]
    deviation, level = (values.ravel() for values in blocks)
    usable = (level > 0.35) & (level < 0.93)
    if not usable.any():
        return _MIN_NOISE
    deviation, level = deviation[usable], level[usable]
    look = fit.look
    signal = -np.log(level) / look.tone
    by_photons = deviation / (look.tone * level) * np.exp(-signal / 2)
    mixing = np.hypot(LUMINANCE_SHARE_LOW, (1 - LUMINANCE_SHARE_LOW) * 0.8)
    return float(np.clip(np.quantile(by_photons, 0.25) / mixing / (1 + look.sharpen_gain), _MIN_NOISE, _MAX_NOISE))


def margin_pixels(look: Look) -> int:
    """Return how far beyond a threat's mask a look spreads it: point spread, and hue smoothing or unsharp mask."""
    return 1 + max(look.hue_smoothing, look.sharpen_radius)


@dataclass(frozen=True, eq=False)
class Projection:
    """A scan with threats in it."""

    image: NDArray[np.uint8]
    """(height, width, 3) uint8 RGB; equal to the host's where `touched` is false."""
    p: NDArray[np.float32]
    """(2, height, width) float32 readings; equal to the host's where `touched` is false."""
    touched: NDArray[np.bool_]
    """(height, width) bool, the threats' masks and their margin."""


def project(host: Host, threats: Sequence[Shadow], noise_seed: int) -> Projection:
    """Return what the scanner would have shown with these threats in the bag.

    Args:
        threats: in any order; they may overlap.
        noise_seed: of the noise that lost photons add.
    """
    image, p = host.image.copy(), host.p.copy()
    width, height = host.size_wh
    own = np.zeros((2, height, width), np.float32)
    mask = np.zeros((height, width), bool)
    for threat in threats:
        own[(0, *threat.window)] += threat.polyethylene
        own[(1, *threat.window)] += threat.copper
        mask[threat.window] |= threat.mask
    if not mask.any():
        return Projection(image, p, mask)
    look = host.fit.look
    margin = margin_pixels(look)
    touched = np.asarray(ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=margin), bool)
    rows, columns = (np.flatnonzero(touched.any(axis)) for axis in (1, 0))
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    window = slice(top, rows[-1] + margin + 1), slice(left, columns[-1] + margin + 1)
    rng = np.random.default_rng(noise_seed)
    change = _change_of_readings(p[(slice(None), *window)], own[(slice(None), *window)], look, host.noise, rng)
    here = touched[window]
    image[window][here] = _recolour(host, window, change)[here]
    p[(slice(None), *window)] += change * here
    return Projection(image, p, touched)


def _change_of_readings(
    p: NDArray[np.float32], own: NDArray[np.float32], look: Look, noise: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return by how much readings (2, height, width) rise when thicknesses (2, height, width) are added."""
    behind = equivalent_thickness(p)
    rise = log_readings(behind[0] + own[0], behind[1] + own[1]) - log_readings(behind[0], behind[1])
    passing = np.exp(-rise)
    blurred = np.empty_like(passing)
    blur(passing, blurred, look.blur_x, look.blur_y)
    scatter = np.float32(look.scatter) * np.array([1.0, 0.7], np.float32)[:, None, None]
    before = np.maximum(np.exp(-p), np.float32(1e-4))
    direct = np.maximum(before - scatter, 0)
    after = before - direct * (1 - blurred)
    quantum, electronic = np.float32(noise) * _REAR_SHARE, np.float32(look.electronic_noise) * _REAR_SHARE
    variance_before = (quantum**2 * before + electronic**2) / before**2
    variance_after = (quantum**2 * after + electronic**2) / after**2
    extra = np.sqrt(np.maximum(variance_after - variance_before, 0))
    grain = rng.standard_normal(p.shape).astype(np.float32)
    return (np.log(before / after) + np.minimum(extra, np.float32(0.5)) * grain).astype(np.float32)


def _recolour(host: Host, window: tuple[slice, slice], change: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a part of the picture, (height, width, 3) uint8, after a change of its readings (2, height, width)."""
    look, entries = host.fit.look, host.entries[window]
    shown = shown_signal(entries)
    signal = np.maximum(signal_of(host.p[(slice(None), *window)]) - np.float32(look.air_below), 0)
    shown_now = shown + sharpened(signal + signal_of(change), look) - sharpened(signal, look)
    hue_p = host.hue_p[(slice(None), *window)]
    turn = palette_rows(look, hue_p + _smoothed_for_hue(change, look)).astype(np.int32) - palette_rows(look, hue_p)
    row_now = np.clip(entries // NUM_LEVELS + turn, 0, len(look.colours) // NUM_LEVELS - 1)
    level_now = np.clip(shown_now * ((NUM_LEVELS - 1) / LEVEL_P_MAX) + 0.5, 0, NUM_LEVELS - 1).astype(np.int32)
    dimmed = np.minimum(look.brightness(np.maximum(shown_now, 0)) / look.brightness(shown), 1)[..., None]
    unexplained = host.image[window] - host.fit.colours(entries)
    colours = host.fit.colours(row_now * NUM_LEVELS + level_now) + unexplained * dimmed
    return np.clip(colours + 0.5, 0, 255).astype(np.uint8)
