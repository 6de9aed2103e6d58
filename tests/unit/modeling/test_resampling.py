"""Resizing on a device gives Pillow's pixels, whatever the sizes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.modeling import resampling
from xray_vqa.modeling.resampling import resize_bicubic

sides = st.integers(4, 120)


@settings(max_examples=150)
@given(sides, sides, sides, sides, st.integers(0, 2**32 - 1), st.booleans())
def test_every_pixel_equals_pillows(width: int, height: int, to_width: int, to_height: int, seed: int, hard: bool):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if hard:  # edges overshoot, and are cut off
        pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((to_width, to_height), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_bicubic(torch.from_numpy(pixels), (to_width, to_height)).numpy(), expected)


def test_a_pillow_that_resizes_in_another_way_does_it_itself(monkeypatch: pytest.MonkeyPatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    monkeypatch.setattr(resampling, "_ORDERS", ())
    resampling._order.cache_clear()
    expected = np.asarray(Image.fromarray(pixels).resize((28, 28), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_bicubic(torch.from_numpy(pixels), (28, 28)).numpy(), expected)
    resampling._order.cache_clear()
