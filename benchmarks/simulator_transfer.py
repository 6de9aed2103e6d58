"""What simulated scans teach about real ones: a small classifier that has seen simulated crops alone, on real crops.

    python benchmarks/simulator_transfer.py --real-dir DIR [--crops 12000] [--seeds 3] [--final] [--json FILE]

DIR holds `sixray_coco` (real SIXray scans with boxes; the data set's terms allow academic use alone, so it is not part
of this repository), by default what XRAY_VQA_REAL_DIR names. Gun, Knife and Wrench are told apart on crops around given
boxes; the figure is balanced accuracy, chance is 1/3. Every choice was made on the real crops of the `train` part.
`--final` looks at the `val` part too, once, and adds a 95 % interval from resampling its groups of neighbouring scans.
"""

import argparse
import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import nn

from xray_vqa.simulation.profile import PROFILE_NAMES
from xray_vqa.simulation.scene import GENERATOR_VERSION, sample_scene
from xray_vqa.simulation.simulate import RefreshedPool, simulate

CATEGORIES = ("Gun", "Knife", "Wrench")
SIDE = 72
"""Pixels of a classified crop; stored crops are larger by CONTEXT on every side, so that they can be shifted."""
MARGIN = 1.15
"""A crop's side as a multiple of its box's longer side."""
CONTEXT = 1.6
"""A stored crop shows this multiple of the box's longer side, CONTEXT_SIDE pixels wide."""
CONTEXT_SIDE = 100
SCAN_SIZE_WH = (504, 392)


@dataclass(frozen=True)
class Crops:
    """Squares around boxes, with context."""

    pixels: NDArray[np.uint8]
    """(crops, CONTEXT_SIDE, CONTEXT_SIDE, 3) uint8 RGB; white beyond the image."""
    labels: NDArray[np.int64]
    """(crops,) index into CATEGORIES."""
    groups: NDArray[np.str_]
    """(crops,) scans of one group may show the same bag."""

    def __len__(self) -> int:
        return len(self.labels)


def cut(image: Image.Image, box_xywh: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """Return the square around a box, with context."""
    x, y, width, height = box_xywh
    reach = max(width, height) * CONTEXT / 2
    centre_x, centre_y = x + width / 2, y + height / 2
    corners = (centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach)
    left, top, right, bottom = (round(edge) for edge in corners)
    square = Image.new("RGB", (right - left, bottom - top), "white")
    square.paste(image, (-left, -top))
    return np.asarray(square.resize((CONTEXT_SIDE, CONTEXT_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def real_crops(folder: Path, split: str) -> Crops:
    """Return the crops of one part of the real set."""
    document = json.loads((folder / "annotations.json").read_text())
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    images = {entry["id"]: entry for entry in document["images"] if entry["split"] == split}
    found = []
    for annotation in document["annotations"]:
        entry = images.get(annotation["image_id"])
        if entry is not None:
            with Image.open(folder / "images" / entry["file_name"]) as image:
                pixels = cut(image.convert("RGB"), annotation["bbox"])
            found.append((pixels, CATEGORIES.index(names[annotation["category_id"]]), entry["group"]))
    pixels, labels, groups = zip(*found, strict=True)
    return Crops(np.array(pixels), np.array(labels), np.array(groups))


def _simulate_some(part: int, num_scans: int, seed: int) -> list[tuple[NDArray[np.uint8], int]]:
    found = []
    for index in range(num_scans):
        rng = np.random.default_rng((seed, part, index))
        threats = tuple(str(name) for name in rng.choice(CATEGORIES, size=int(rng.integers(1, 4))))
        pool = RefreshedPool((seed, part), index, num_variants=24, lifetime=400)
        spec = sample_scene(rng, size_wh=SCAN_SIZE_WH, threats=threats, pool=pool)
        scan = simulate(spec, PROFILE_NAMES[int(rng.integers(len(PROFILE_NAMES)))])
        image = Image.fromarray(scan.image)
        for annotation in scan.annotations:
            found.append((cut(image, annotation.box.as_xywh()), CATEGORIES.index(annotation.category)))
    return found


def simulated_crops(count: int, seed: int, workers: int) -> Crops:
    """Return crops of simulated scans of all shipped looks; category, bag, clutter and concealment are independent."""
    num_parts = 2 * workers
    num_scans = int(count / 1.6) // num_parts + 1
    with ProcessPoolExecutor(workers) as pool:
        parts = pool.map(partial(_simulate_some, num_scans=num_scans, seed=seed), range(num_parts))
        found = [crop for part in parts for crop in part][:count]
    pixels, labels = zip(*found, strict=True)
    return Crops(np.array(pixels), np.array(labels), np.array(["simulated"] * len(found)))


# -- classifier
# ---------------------------------------------------------------------------------------------------------


class SmallNet(nn.Module):
    """Seven convolutions on one grey channel."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((1, 24, 2), (24, 32, 1), (32, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1), (96, 128, 2))
        layers: list[nn.Module] = []
        for wide_in, wide_out, stride in widths:
            layers += [
                nn.Conv2d(wide_in, wide_out, 3, stride, 1, bias=False), nn.BatchNorm2d(wide_out), nn.ReLU(inplace=True)
            ]  # fmt: skip
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, len(CATEGORIES)))

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        """Return (batch, categories) scores of (batch, 1, SIDE, SIDE) crops."""
        return self.head(self.body(grey).mean((2, 3)))


def standardised(grey: torch.Tensor) -> torch.Tensor:
    """Return crops of zero mean and unit deviation each: no scanner owns a brightness."""
    mean, deviation = grey.mean((2, 3), keepdim=True), grey.std((2, 3), keepdim=True)
    return (grey - mean) / (deviation + 0.02)


def resample(pixels: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Return crops of SIDE pixels under (batch, 2, 3) maps from crop to stored crop."""
    grid = nn.functional.affine_grid(matrix, [len(pixels), pixels.shape[1], SIDE, SIDE], align_corners=False)
    return nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def varied(pixels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Return training crops: turned, flipped, shifted, scaled, in a random grey, blurred, hidden in part, noisy."""
    num = len(pixels)

    def between(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=rng)

    quarter = torch.randint(4, (num,), generator=rng) * (torch.pi / 2)
    angle = quarter + between(-0.35, 0.35)
    zoom = between(1.0, 1.4) / CONTEXT
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    cos, sin, shift = zoom * torch.cos(angle), zoom * torch.sin(angle), between(-0.06, 0.06, 2)
    matrix = torch.stack([mirror * cos, -sin, shift[:, 0], mirror * sin, cos, shift[:, 1]], 1).view(num, 2, 3)
    weight = between(0.15, 1.0, 3)
    weight = weight / weight.sum(1, keepdim=True)
    grey = (resample(pixels, matrix) * weight[:, :, None, None]).sum(1, keepdim=True)
    grey = grey.clamp(0.004, 1) ** between(0.5, 1.9, 1, 1, 1)
    small = torch.rand(num, generator=rng) < 0.4
    if small.any():
        side = int(torch.randint(24, 56, (1,), generator=rng))
        coarse = nn.functional.interpolate(grey[small], size=(side, side), mode="bilinear", antialias=True)
        grey[small] = nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    hide = (torch.rand(num, generator=rng) < 0.3).nonzero()[:, 0]
    for index in hide.tolist():
        wide, high = (int(v) for v in torch.randint(8, 28, (2,), generator=rng))
        x, y = (int(v) for v in torch.randint(0, SIDE - 8, (2,), generator=rng))
        grey[index, :, y : y + high, x : x + wide] = torch.rand(1, generator=rng)
    grey = standardised(grey)
    return grey + between(0, 0.25, 1, 1, 1) * torch.randn(grey.shape, generator=rng)


def plain_views(pixels: torch.Tensor) -> list[torch.Tensor]:
    """Return the eight flips and quarter turns of the crops as they stand; scores are averaged over them."""
    zoom = MARGIN / CONTEXT
    matrix = torch.tensor([[zoom, 0, 0], [0, zoom, 0]]).expand(len(pixels), 2, 3)
    weight = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = standardised((resample(pixels, matrix) * weight).sum(1, keepdim=True))
    return [torch.rot90(view, k, (2, 3)) for view in (grey, grey.flip(3)) for k in range(4)]


def as_tensor(crops: Crops) -> torch.Tensor:
    return torch.from_numpy(crops.pixels).permute(0, 3, 1, 2).float() / 255


def train(crops: Crops, seed: int, num_epochs: int, batch: int = 128) -> SmallNet:
    """Return a classifier that has seen these crops alone; each category weighs the same."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net, labels = SmallNet(), torch.from_numpy(crops.labels)
    weight = len(labels) / (len(CATEGORIES) * torch.bincount(labels, minlength=len(CATEGORIES)).float())
    steps = num_epochs * (len(crops) // batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.2)
    for _ in range(num_epochs):
        order = torch.randperm(len(crops), generator=rng)
        for start in range(0, len(crops) - batch + 1, batch):
            chosen = order[start : start + batch]
            pixels = torch.from_numpy(crops.pixels[chosen.numpy()]).permute(0, 3, 1, 2).float() / 255
            scores = net(varied(pixels, rng))
            loss = nn.functional.cross_entropy(scores, labels[chosen], weight, label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def scores_of(net: SmallNet, crops: Crops) -> NDArray[np.float32]:
    """Return (crops, categories) probabilities, averaged over the plain views."""
    views = plain_views(as_tensor(crops))
    return np.mean([net(view).softmax(1).numpy() for view in views], axis=0)


def balanced_accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean over the categories of the share that is recognised."""
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == category].mean() for category in np.unique(labels)]))
