"""From line integrals to the picture: spectrum, point spread, scatter, noise, row gain, hue, unsharp mask, colour.

Two passes over the rows of the image, `detect` and `paint`, each a chain of short loops over one float32 row that stays
in the cache. The compiler vectorises these; exp and ln are short polynomials on the bits of the float (error below
1e-5), because the library calls do not vectorise. Means are summed anew for every pixel: no rounding travels along the
image, and a pixel depends on its neighbourhood alone.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from xray_vqa.simulation.detector import NUM_P, NUM_RATIO, P_MAX, RATIO_MAX, RATIO_MIN, coefficients, log_reading
from xray_vqa.simulation.kernel import kernel, part_of_kernel
from xray_vqa.simulation.palette import LEVEL_P_MAX, NUM_LEVELS, Look

LUMINANCE_SHARE_LOW = 0.4
"""Share of the front detector in the brightness; the rest is the rear one's."""
MAX_SHARPEN_P = 0.6
"""Largest change of the log signal by the unsharp mask, so that edges of metal do not ring."""
QUIET_P = 0.06
"""A pixel above this is shown even where its surroundings are empty: the point of a needle."""
_NUM_NOISE = 1 << 20
_NUM_ROUNDS = 8  # of taking an unsharp mask off; more change the mean error of 0.006 by 3 %


@cache
def noise_table() -> NDArray[np.float32]:
    """Return a million standard normal numbers; a scan starts at a place of its own.

    A true Poisson draw differs below some 20 counts only.
    """
    return np.random.default_rng(9).standard_normal(_NUM_NOISE).astype(np.float32)


def signal_of(p: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the log signal that brightness follows, (...) float32, of (2, ...) readings."""
    return np.float32(LUMINANCE_SHARE_LOW) * p[0] + np.float32(1 - LUMINANCE_SHARE_LOW) * p[1]


@part_of_kernel
def exp_of_negative(p):
    """Return exp(-p), float32, for p >= 0."""
    f, i = np.float32, np.int32
    t = max(p * f(-1.4426950408889634), f(-120.0)) + f(128.0)
    whole = i(t)
    x = t - f(whole)
    power = i((whole - i(1)) << i(23)).view(f)  # 2^(whole - 128)
    return power * (
        f(1.0)
        + x * (f(0.69314718) + x * (f(0.24022651) + x * (f(0.05550411) + x * (f(0.00961813) + x * f(0.00133336)))))
    )


@part_of_kernel
def negative_log(z):
    """Return -ln(z), float32, for z > 0."""
    f, i = np.float32, np.int32
    bits = f(z).view(i)
    m = i((bits & i(0x7FFFFF)) | i(0x3F800000)).view(f) - f(1.0)
    return f((bits >> i(23)) - i(127)) * f(-0.69314718) - m * (
        f(0.99997)
        + m * (f(-0.49918144) + m * (f(0.32685405) + m * (f(-0.2240556)
        + m * (f(0.13224462) + m * (f(-0.05312023) + m * f(0.0104364))))))
    )  # fmt: skip


@part_of_kernel
def blur_row(above, here, below, side_x, side_y, row, out):
    """Write the three-tap blur of one row; the sides weigh side_x and side_y. row: (width + 2,), room to work in."""
    num = here.size
    centre_x, centre_y = np.float32(1) - 2 * side_x, np.float32(1) - 2 * side_y
    inner = row[1 : num + 1]
    for u in range(num):
        inner[u] = centre_y * here[u] + side_y * (above[u] + below[u])
    row[0], row[num + 1] = row[1], row[num]
    left, right = row[:num], row[2 : num + 2]
    for u in range(num):
        out[u] = centre_x * inner[u] + side_x * (left[u] + right[u])


@part_of_kernel
def mean_row(values, v, radius, row, out):
    """Write row v of the mean over (2 * radius + 1)^2 pixels of (height, width) float32; edges repeat.

    row: (width + 2 * radius or more,) float32, room to work in.
    """
    height, width = values.shape
    inner = row[radius : radius + width]
    here = values[v]
    for u in range(width):
        inner[u] = here[u]
    for d in range(1, radius + 1):
        above, below = values[max(v - d, 0)], values[min(v + d, height - 1)]
        for u in range(width):
            inner[u] += above[u] + below[u]
    for d in range(radius):
        row[d] = row[radius]
        row[width + radius + d] = row[width + radius - 1]
    share = np.float32(1.0 / ((2 * radius + 1) * (2 * radius + 1)))
    for u in range(width):
        out[u] = inner[u] * share
    for d in range(1, radius + 1):
        left, right = row[radius - d : radius - d + width], row[radius + d : radius + d + width]
        for u in range(width):
            out[u] += (left[u] + right[u]) * share


@kernel
def detect(polyethylene, copper, model, blur_x, blur_y, noise, offset, quantum, electronic, scatter, gain, p):
    """Write what the detectors read: attenuation, point spread, scatter, photon and electronic noise, gain of each row.

    Args:
        polyethylene, copper: (height, width) float32, cm; negative values count as 0.
        model: (2, 14) float32, see coefficients().
        noise: (n,) float32 standard normal, read from `offset` on and, past its end, from its start.
        quantum, electronic, scatter: (2,) float32 by detector. gain: (2, height) float32.
        p: (2, height, width) float32 log readings, written.
    """
    channels, height, width = p.shape
    start = offset
    row, blurred = np.empty(width + 2, np.float32), np.empty(width, np.float32)
    signal = np.empty((3, width), np.float32)  # row v is kept in line v % 3
    for c in range(channels):
        quantum2, electronic2, scattered = quantum[c] * quantum[c], electronic[c] * electronic[c], scatter[c]
        _transmit_row(polyethylene[0], copper[0], model[c], signal[0])
        for v in range(height):
            below = min(v + 1, height - 1)
            if below > v:
                _transmit_row(polyethylene[below], copper[below], model[c], signal[below % 3])
            blur_row(signal[max(v - 1, 0) % 3], signal[v % 3], signal[below % 3], blur_x, blur_y, row, blurred)
            start = start if start + width <= noise.size else np.int64(0)
            draw, out, gain_here = noise[start : start + width], p[c, v], gain[c, v]
            start += width
            for u in range(width):
                t = blurred[u] + scattered
                t = (t + np.sqrt(quantum2 * t + electronic2) * draw[u]) * gain_here
                out[u] = negative_log(max(t, np.float32(1e-5)))


@part_of_kernel
def _transmit_row(polyethylene, copper, model, out):
    """Write the signal of one row, 1 in air."""
    nothing = np.float32(0)
    for u in range(out.size):
        out[u] = exp_of_negative(log_reading(max(polyethylene[u], nothing), max(copper[u], nothing), model))


@kernel
def paint(p, share_low, air_below, hue_radius, sharpen_radius, z_index, colours, gain, limit, quiet, luminance, image):
    """Write the picture: hue from the ratio of the readings, brightness from their mix, edges sharpened.

    Args:
        p: (2, height, width) float32 log readings.
        share_low: share of the front detector in the brightness. air_below: log signal shown as empty.
        hue_radius, sharpen_radius: of the means that the atomic number and the unsharp mask are taken from.
        z_index, colours: of a Look. gain, limit: strength and bound of the unsharp mask.
        quiet: local mean below which a pixel is empty belt, whatever its noise.
        luminance: (height, width) float32, room to work in.
        image: (height, width, 3) uint8, written.
    """
    f, i = np.float32, np.int32
    _, height, width = p.shape
    p_scale = f((NUM_P - 1) / np.sqrt(P_MAX))
    ratio_scale = f((NUM_RATIO - 1) / (RATIO_MAX - RATIO_MIN))
    level_scale = f((NUM_LEVELS - 1) / LEVEL_P_MAX)
    row = np.empty(width + 2 * max(hue_radius, sharpen_radius), np.float32)
    low, high, mean = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    z_at, level = np.empty(width, np.int32), np.empty(width, np.int32)
    for v in range(height):
        front, rear, line = p[0, v], p[1, v], luminance[v]
        for u in range(width):
            line[u] = share_low * front[u] + (f(1) - share_low) * rear[u] - air_below
    for v in range(height):
        mean_row(p[0], v, hue_radius, row, low)
        mean_row(p[1], v, hue_radius, row, high)
        mean_row(luminance, v, sharpen_radius, row, mean)
        for u in range(width):
            rear_p = max(high[u], f(2e-3))
            x = min(np.sqrt(rear_p) * p_scale, f(NUM_P - 1))
            y = min(max((low[u] / rear_p - f(RATIO_MIN)) * ratio_scale, f(0)), f(NUM_RATIO - 1))
            z_at[u] = i(x) * i(NUM_RATIO) + i(y)
        line = luminance[v]
        for u in range(width):
            here = line[u]
            shown = here + gain * min(max(here - mean[u], -limit), limit)
            shown = f(0) if mean[u] < quiet and here < f(QUIET_P) else shown
            level[u] = i(min(max(shown * level_scale + f(0.5), f(0)), f(NUM_LEVELS - 1)))
        pixels = image[v]
        for u in range(width):
            k = np.uint64(z_index[np.uint64(z_at[u])]) * np.uint64(NUM_LEVELS) + np.uint64(level[u])
            pixels[u, 0], pixels[u, 1], pixels[u, 2] = colours[k, 0], colours[k, 1], colours[k, 2]


@kernel
def blur(signal, out, side_x, side_y):
    """Write the three-tap blur of (channels, height, width) float32; the sides weigh side_x and side_y."""
    channels, height, width = signal.shape
    row = np.empty(width + 2, np.float32)
    for c in range(channels):
        for v in range(height):
            above, below = signal[c, max(v - 1, 0)], signal[c, min(v + 1, height - 1)]
            blur_row(above, signal[c, v], below, np.float32(side_x), np.float32(side_y), row, out[c, v])


@kernel
def box_mean(values, out, radius):
    """Write the mean over (2 * radius + 1)^2 pixels of (channels, height, width) float32; edges repeat."""
    channels, height, width = values.shape
    row = np.empty(width + 2 * radius, np.float32)
    for c in range(channels):
        for v in range(height):
            mean_row(values[c], v, radius, row, out[c, v])


def sharpened(signal: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
    """Return a log signal, (height, width) float32, after a look's unsharp mask, as paint() applies it."""
    gain, limit = np.float32(look.sharpen_gain), np.float32(MAX_SHARPEN_P)
    return np.add(signal, gain * np.clip(signal - _mean(signal, look), -limit, limit), dtype=np.float32)


def unsharpened(shown: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
    """Return the log signal, (height, width) float32, that sharpened() makes this of.

    For a given mean the mask has a closed inverse; the mean settles in a few rounds, because a mask hardly changes it.
    """
    gain, limit = np.float32(look.sharpen_gain), np.float32(MAX_SHARPEN_P)
    signal = shown
    for _ in range(_NUM_ROUNDS):
        mean = _mean(signal, look)
        above = shown - mean
        signal = np.where(
            np.abs(above) <= (1 + gain) * limit, mean + above / (1 + gain), shown - np.sign(above) * gain * limit
        )
    return np.maximum(signal, np.float32(0))


def _mean(values: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
    mean = np.empty((1, *values.shape), np.float32)
    box_mean(np.ascontiguousarray(values)[None], mean, look.sharpen_radius)
    return mean[0]


class Sensor:
    """Turns line integrals into pictures of one size, with buffers that are used again and again."""

    def __init__(self, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        self._height = height
        self._p = np.empty((2, height, width), np.float32)
        self._luminance = np.empty((height, width), np.float32)

    def develop(
        self, polyethylene: NDArray[np.float32], copper: NDArray[np.float32], look: Look, noise_seed: int
    ) -> NDArray[np.uint8]:
        """Return the picture of two line integrals.

        Args:
            polyethylene, copper: (height, width) float32, cm.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        f = np.float32
        rng = np.random.default_rng(noise_seed)
        gain = (1 + look.row_gain * rng.standard_normal((2, self._height))).astype(f)
        if rng.random() < look.bad_row_chance:
            gain[:, rng.integers(self._height)] *= rng.uniform(0.90, 0.97)
        rear_share = np.array([1.0, 0.8], f)  # the rear detector sees more photons and scatters less
        detect(
            polyethylene,
            copper,
            coefficients(),
            f(look.blur_x),
            f(look.blur_y),
            noise_table(),
            int(rng.integers(_NUM_NOISE)),
            f(look.quantum_noise) * rear_share,
            f(look.electronic_noise) * rear_share,
            f(look.scatter) * np.array([1.0, 0.7], f),
            gain,
            self._p,
        )
        image = np.empty((*polyethylene.shape, 3), np.uint8)
        paint(
            self._p,
            f(LUMINANCE_SHARE_LOW),
            f(look.air_below),
            look.hue_smoothing,
            look.sharpen_radius,
            look.z_index,
            look.colours,
            f(look.sharpen_gain),
            f(MAX_SHARPEN_P),
            f(look.quiet_p),
            self._luminance,
            image,
        )
        return image
