"""From log readings to the picture: point spread, scatter, noise, row gain, hue smoothing, unsharp mask, colour.

Everything is one pass of simple arithmetic over float32 rows, so that the compiler vectorises it; exp and ln are short
polynomials on the bits of the float (error below 1e-5), because the library calls do not vectorise.
"""

# ruff: noqa: D417  (arguments that belong together are described together, obvious ones not at all)

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from xray_vqa.simulation.detector import NUM_P, NUM_RATIO, P_MAX, RATIO_MAX, RATIO_MIN
from xray_vqa.simulation.kernel import kernel
from xray_vqa.simulation.palette import LEVEL_P_MAX, NUM_LEVELS, Look

LUMINANCE_SHARE_LOW = 0.4
"""Share of the front detector in the brightness; the rest is the rear one's."""
MAX_SHARPEN_P = 0.6
"""Largest change of the log signal by the unsharp mask, so that edges of metal do not ring."""
QUIET_P = 0.06
"""A pixel above this is shown even where its surroundings are empty: the point of a needle."""
_NUM_NOISE = 1 << 20


@cache
def noise_table() -> NDArray[np.float32]:
    """Return a million standard normal numbers; a scan starts at a place of its own.

    A true Poisson draw differs below some 20 counts only.
    """
    return np.random.default_rng(9).standard_normal(_NUM_NOISE).astype(np.float32)


@kernel
def exp_of_negative(p, out, out_bits):
    """Write exp(-p), float32; out_bits is the int32 view of out."""
    num = p.size
    x = p.reshape(num)
    y = out.reshape(num)
    bits = out_bits.reshape(num)
    for k in range(num):
        t = max(x[k] * np.float32(-1.4426950408889634), np.float32(-120.0)) + np.float32(128.0)
        whole = np.int32(t)
        f = t - np.float32(whole)
        q = np.float32(1.0) + f * (
            np.float32(0.69314718)
            + f
            * (
                np.float32(0.24022651)
                + f * (np.float32(0.05550411) + f * (np.float32(0.00961813) + f * np.float32(0.00133336)))
            )
        )
        bits[k] = (whole - np.int32(1)) << np.int32(23)  # 2^(whole - 128)
        y[k] *= q


@kernel
def blur(signal, out, side_x, side_y):
    """Write the three-tap blur of (2, height, width) float32; the sides weigh side_x and side_y."""
    channels, height, width = signal.shape
    cx = np.float32(1 - 2 * side_x)
    sx = np.float32(side_x)
    cy = np.float32(1 - 2 * side_y)
    sy = np.float32(side_y)
    row = np.empty(width, np.float32)
    for c in range(channels):
        for v in range(height):
            above = signal[c, max(v - 1, 0)]
            here = signal[c, v]
            below = signal[c, min(v + 1, height - 1)]
            for u in range(width):
                row[u] = cy * here[u] + sy * (above[u] + below[u])
            for u in range(1, width - 1):
                out[c, v, u] = cx * row[u] + sx * (row[u - 1] + row[u + 1])
            out[c, v, 0] = row[0]
            out[c, v, width - 1] = row[width - 1]


@kernel
def add_noise_and_log(signal, noise, offset, quantum, electronic, scatter, gain, p):
    """Write -ln of the noisy signal.

    Args:
        signal: (2, height, width) float32 transmissions. noise: (n,) float32 standard normal, read from `offset` on.
        quantum, electronic, scatter: (2,) float32 by detector. gain: (2, height) float32.
        p: (2, height, width) float32, written.
    """
    channels, height, width = signal.shape
    room = noise.shape[0] - 2 * width - 2
    z = np.empty(width, np.float32)
    bits = z.view(np.int32)
    for v in range(height):
        for c in range(channels):
            start = (offset + v * 7919 + c * 104729) % room
            q2 = quantum[c] * quantum[c]
            e2 = electronic[c] * electronic[c]
            floor = scatter[c]
            g = gain[c, v]
            for u in range(width):
                t = signal[c, v, u] + floor
                z[u] = max((t + np.sqrt(q2 * t + e2) * noise[start + u]) * g, np.float32(1e-5))
            for u in range(width):
                k = bits[u]
                exponent = (k >> np.int32(23)) - np.int32(127)
                bits[u] = (k & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
                m = z[u] - np.float32(1.0)
                ln = m * (
                    np.float32(0.99997)
                    + m * (np.float32(-0.49918144) + m * (np.float32(0.32685405) + m * (np.float32(-0.2240556)
                    + m * (np.float32(0.13224462) + m * (np.float32(-0.05312023) + m * np.float32(0.0104364))))))
                )  # fmt: skip
                p[c, v, u] = -(ln + np.float32(exponent) * np.float32(0.69314718))


@kernel
def box_mean(values, out, radius):
    """Write the mean over (2 * radius + 1)^2 pixels of (channels, height, width) float32; edges repeat."""
    channels, height, width = values.shape
    column = np.zeros(width, np.float32)
    inverse = np.float32(1.0 / ((2 * radius + 1) * (2 * radius + 1)))
    for c in range(channels):
        column[:] = 0
        for d in range(-radius, radius + 1):
            line = values[c, min(max(d, 0), height - 1)]
            for u in range(width):
                column[u] += line[u]
        for v in range(height):
            total = np.float32(0)
            for d in range(-radius, radius + 1):
                total += column[min(max(d, 0), width - 1)]
            for u in range(width):
                out[c, v, u] = total * inverse
                total += column[min(u + radius + 1, width - 1)] - column[max(u - radius, 0)]
            entering = values[c, min(v + radius + 1, height - 1)]
            leaving = values[c, max(v - radius, 0)]
            for u in range(width):
                column[u] += entering[u] - leaving[u]


@kernel
def mix(p, share_low, offset, out):
    """Write the brightness signal of (2, height, width) log readings, less an offset, to (1, height, width)."""
    num = p[0].size
    low = p[0].reshape(num)
    high = p[1].reshape(num)
    result = out[0].reshape(num)
    rest = np.float32(1) - share_low
    for i in range(num):
        result[i] = share_low * low[i] + rest * high[i] - offset


@kernel
def colour(luminance, local_mean, hue_p, z_index, colours, gain, limit, quiet, image):
    """Write the picture.

    Args:
        luminance, local_mean: (1, height, width) float32 log signal and its mean for the unsharp mask.
        hue_p: (2, height, width) float32 log readings that the atomic number is taken from.
        z_index, colours: of a Look. gain, limit: strength and bound of the unsharp mask.
        quiet: local mean below which a pixel is empty belt, whatever its noise.
        image: (height, width, 3) uint8, written.
    """
    _, height, width = hue_p.shape
    p_scale = np.float32((NUM_P - 1) / np.sqrt(P_MAX))
    ratio_scale = np.float32((NUM_RATIO - 1) / (RATIO_MAX - RATIO_MIN))
    level_scale = np.float32((NUM_LEVELS - 1) / LEVEL_P_MAX)
    z_at = np.empty(width, np.int32)
    level = np.empty(width, np.int32)
    for v in range(height):
        for u in range(width):
            high = max(hue_p[1, v, u], np.float32(2e-3))
            ratio = hue_p[0, v, u] / high
            x = min(np.sqrt(high) * p_scale, np.float32(NUM_P - 1))
            y = min(max((ratio - np.float32(RATIO_MIN)) * ratio_scale, np.float32(0)), np.float32(NUM_RATIO - 1))
            z_at[u] = np.int32(x) * np.int32(NUM_RATIO) + np.int32(y)
            here = luminance[0, v, u]
            mean = local_mean[0, v, u]
            p = here + gain * min(max(here - mean, -limit), limit)
            if mean < quiet and here < np.float32(QUIET_P):
                p = np.float32(0)
            level[u] = np.int32(min(max(p * level_scale + np.float32(0.5), np.float32(0)), np.float32(NUM_LEVELS - 1)))
        for u in range(width):
            k = np.int32(z_index[z_at[u]]) * np.int32(NUM_LEVELS) + level[u]
            image[v, u, 0] = colours[k, 0]
            image[v, u, 1] = colours[k, 1]
            image[v, u, 2] = colours[k, 2]


class Sensor:
    """Turns log readings into pictures of one size, with buffers that are used again and again."""

    def __init__(self, size_wh: tuple[int, int]) -> None:
        width, height = size_wh
        self._height = height
        self._signal = np.empty((2, height, width), np.float32)
        self._blurred = np.empty((2, height, width), np.float32)
        self._p = np.empty((2, height, width), np.float32)
        self._luminance = np.empty((1, height, width), np.float32)
        self._mean = np.empty((1, height, width), np.float32)

    def develop(self, p: NDArray[np.float32], look: Look, noise_seed: int) -> NDArray[np.uint8]:
        """Return the picture of noiseless log readings.

        Args:
            p: (2, height, width) float32, front and rear detector.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        rng = np.random.default_rng(noise_seed)
        exp_of_negative(p, self._signal, self._signal.view(np.int32))
        blur(self._signal, self._blurred, look.blur_x, look.blur_y)
        gain = (1 + look.row_gain * rng.standard_normal((2, self._height))).astype(np.float32)
        if rng.random() < look.bad_row_chance:
            gain[:, rng.integers(self._height)] *= rng.uniform(0.90, 0.97)
        rear_share = np.array([1.0, 0.8], np.float32)  # the rear detector sees more photons and scatters less
        add_noise_and_log(
            self._blurred,
            noise_table(),
            int(rng.integers(_NUM_NOISE)),
            look.quantum_noise * rear_share,
            look.electronic_noise * rear_share,
            look.scatter * np.array([1.0, 0.7], np.float32),
            gain,
            self._p,
        )
        hue_p = self._p
        if look.hue_smoothing > 0:
            hue_p = self._blurred  # free again
            box_mean(self._p, hue_p, look.hue_smoothing)
        mix(self._p, np.float32(LUMINANCE_SHARE_LOW), np.float32(look.air_below), self._luminance)
        box_mean(self._luminance, self._mean, look.sharpen_radius)
        image = np.empty((*p.shape[1:], 3), np.uint8)
        colour(
            self._luminance,
            self._mean,
            hue_p,
            look.z_index,
            look.colours,
            np.float32(look.sharpen_gain),
            np.float32(MAX_SHARPEN_P),
            np.float32(look.quiet_p),
            image,
        )
        return image
