"""Patterns of uneven thickness: folds of cloth, grain, weave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TEXTURE_SIZE = 256
TEXTURE_CELL_CM = 0.12
"""Side of one texture cell at scale 1."""


def _make_textures(seed: int = 0) -> NDArray[np.float32]:
    """Return six patterns of unit-like spread about 0: folds, cloud, streaked folds, streaks, weave, crumple."""
    rng = np.random.default_rng(seed)
    fy = np.fft.fftfreq(TEXTURE_SIZE)[:, None]
    fx = np.fft.fftfreq(TEXTURE_SIZE)[None]

    def cloud(power: float, stretch: float = 1.0) -> NDArray[np.floating]:
        frequency = np.sqrt((fx * stretch) ** 2 + fy**2)
        frequency[0, 0] = 1
        noise = np.fft.fft2(rng.normal(size=(TEXTURE_SIZE, TEXTURE_SIZE)))
        field = np.real(np.fft.ifft2(noise * frequency**-power * (frequency > 0.008)))
        return (field - field.mean()) / field.std()

    wave = np.sin(np.arange(TEXTURE_SIZE) * np.pi / 2)
    patterns = np.array([
        -np.abs(cloud(1.5)), cloud(1.3), -np.abs(cloud(1.7, 0.4)), cloud(1.2, 0.3),
        wave[:, None] * wave[None] + 0.2 * cloud(0.5), -1.6 * np.abs(cloud(1.4)) ** 0.6,
    ])  # fmt: skip
    patterns -= patterns.mean((1, 2), keepdims=True)
    patterns /= patterns.std((1, 2), keepdims=True)
    return np.clip(patterns * 0.5, -1.2, 1.2).astype(np.float32)


TEXTURES = _make_textures()
"""(patterns, TEXTURE_SIZE, TEXTURE_SIZE) float32."""
