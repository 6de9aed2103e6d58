"""Heat maps: which parts of a scan a finding rests on, for people who look at it.

A map says what moved this model's answer. It is no proof that an item is there, no outline of it, and no part of the
decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.relevance import relevance


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How much each part of a scan speaks for a category."""

    values: NDArray[np.float32]
    """(rows, columns) of visual tokens, 0 to 1, the hottest is 1. All 0 where nothing speaks for it."""
    size_wh: tuple[int, int]
    """Of the scan as it was sent."""

    @property
    def cell_wh(self) -> tuple[float, float]:
        """Width and height in pixels of the scan of what the map can tell apart; anything finer is interpolated."""
        rows, columns = self.values.shape
        return self.size_wh[0] / columns, self.size_wh[1] / rows

    def at_pixels(self) -> NDArray[np.float32]:
        """Return (height, width) values for each pixel of the scan, interpolated between the cells' centres."""
        image = Image.fromarray(self.values).resize(self.size_wh, Image.Resampling.BILINEAR)
        return np.asarray(image, dtype=np.float32).clip(0.0, 1.0)

    def picture(self) -> Image.Image:
        """Return the map by itself as a grey picture of the scan's size; white is hottest."""
        return Image.fromarray(np.rint(self.at_pixels() * 255).astype(np.uint8))


def explain(loaded: LoadedModel, image: Image.Image, categories: Sequence[str]) -> dict[str, HeatMap]:
    """Return a heat map for each category.

    Args:
        loaded: The model that inspected the scan.
        image: RGB, of any size.
        categories: What to explain, as a rule the findings' categories.

    Raises:
        ModelUnavailable: The model's family cannot be explained.
    """
    frame = torch.from_numpy(np.array(loaded.processor.resize(image)))
    asked = list(dict.fromkeys(categories))
    return {
        category: HeatMap(_normalised(added.numpy()), image.size)
        for category, added in relevance(loaded, frame, asked).items()
    }


def _normalised(added: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scaled to 0 to 1; what speaks against the category, and what is no number, counts as nothing."""
    heat = np.nan_to_num(added, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    top = float(heat.max())
    return (heat / top if top > 0 else heat).astype(np.float32)
