"""What simulated scans teach about real ones: a small classifier that has seen simulated crops alone, on real crops.

    python benchmarks/simulator_transfer.py --real-dir DIR [--crops 16000] [--seeds 3] [--final] [--json FILE]

DIR holds `sixray_coco` (real SIXray scans with boxes; the data set's terms allow academic use alone, so it is not part
of this repository), by default what XRAY_VQA_REAL_DIR names. Gun, Knife and Wrench are told apart on crops around given
boxes; the figure is balanced accuracy, chance is 1/3. Every choice was made on the real crops of the `train` part.
`--final` looks at the `val` part too, once, and adds a 95 % interval from resampling its groups of neighbouring scans.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numba
import numpy as np
import torch
from measuring import conditions, publish
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import nn

from xray_vqa.simulation.packing import sample_scene
from xray_vqa.simulation.profile import PROFILE_NAMES
from xray_vqa.simulation.scene import GENERATOR_VERSION
from xray_vqa.simulation.simulate import RefreshedPool, simulate

CATEGORIES = ("Gun", "Knife", "Wrench")
SIDE = 72
"""Pixels of a classified crop; stored crops are larger by CONTEXT on every side, so that they can be shifted."""
CELL = 6
"""Pixels of a side of the squares in which edges are counted."""
CELLS = SIDE // CELL
NUM_CHANNELS = 9
"""Eight directions of edges, and brightness."""
MARGIN = 1.15
"""A crop's side as a multiple of its box's longer side."""
CONTEXT = 1.6
"""A stored crop shows this multiple of the box's longer side, CONTEXT_SIDE pixels wide."""
CONTEXT_SIDE = 100
SCAN_SIZE_WH = (504, 392)
MIN_VISIBLE = 0.55
"""Threats of which a smaller share is visible are not learnt from."""


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
        pool = RefreshedPool((seed, part), index, num_variants=32, lifetime=300)
        spec = sample_scene(rng, size_wh=SCAN_SIZE_WH, threats=threats, pool=pool)
        scan = simulate(spec, PROFILE_NAMES[int(rng.integers(len(PROFILE_NAMES)))])
        image = Image.fromarray(scan.image)
        for annotation, visible in zip(scan.annotations, scan.visible, strict=True):
            if visible >= MIN_VISIBLE:
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


# -- what the classifier sees
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """How a batch of crops is looked at; one row each."""

    matrix: NDArray[np.float64]
    """(batch, 2, 3) from the crop's coordinates to those of the stored crop, both -1 to 1."""
    channel_share: NDArray[np.float64]
    """(batch, 3) weights of red, green and blue in the grey picture."""
    gamma: NDArray[np.float64]
    blur: NDArray[np.float64]
    """Standard deviation in stored pixels; 0 for none."""
    noise: NDArray[np.float64]
    patch: NDArray[np.int64]
    """(batch, 4) left, top, right, bottom of a patch that is hidden, in pixels."""


def plain_view(num: int, flip: int) -> View:
    """Return the crops as they stand, in one of the eight flips and quarter turns."""
    zoom = MARGIN / CONTEXT
    angle, mirror = (flip % 4) * np.pi / 2, 1 - 2 * (flip // 4)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    matrix = np.tile([[mirror * cos, -sin, 0.0], [mirror * sin, cos, 0.0]], (num, 1, 1))
    grey = np.tile([0.299, 0.587, 0.114], (num, 1))
    return View(matrix, grey, np.ones(num), np.zeros(num), np.zeros(num), np.zeros((num, 4), np.int64))


def varied_view(num: int, rng: np.random.Generator) -> View:
    """Return a random look for training: turned, flipped, shifted, any grey, blurred, hidden in part, noisy."""
    angle = rng.integers(4, size=num) * np.pi / 2 + rng.uniform(-0.35, 0.35, num)
    zoom, mirror = rng.uniform(1.0, 1.4, num) / CONTEXT, rng.choice((-1, 1), num)
    cos, sin, shift = zoom * np.cos(angle), zoom * np.sin(angle), rng.uniform(-0.06, 0.06, (2, num))
    matrix = np.stack([mirror * cos, -sin, shift[0], mirror * sin, cos, shift[1]], 1).reshape(num, 2, 3)
    share = rng.uniform(0.15, 1.0, (num, 3))
    blur = rng.uniform(0.5, 2.0, num) * (rng.random(num) < 0.4)
    start, length = rng.integers(0, SIDE, (num, 2)), rng.integers(6, 26, (num, 2))
    patch = np.hstack([start, start + length * (rng.random((num, 1)) < 0.3)])
    return View(
        matrix, share / share.sum(1, keepdims=True), rng.uniform(0.5, 1.9, num), blur, rng.uniform(0, 0.2, num), patch
    )


def edges_of(pixels: NDArray[np.uint8], view: View, seed: int = 0) -> torch.Tensor:
    """Return the (batch, NUM_CHANNELS, CELLS, CELLS) edges of crops under a view."""
    grey = np.einsum("nyxc,nc->nyx", pixels.astype(np.float32) / 255, view.channel_share.astype(np.float32))
    grey = np.clip(grey, 0.004, 1) ** view.gamma[:, None, None].astype(np.float32)
    for index in np.flatnonzero(view.blur):
        grey[index] = ndimage.gaussian_filter(grey[index], view.blur[index])
    return torch.from_numpy(_edge_cells(grey, view.matrix, view.noise, view.patch, seed))


@numba.njit(cache=True)
def _edge_cells(grey, matrix, noise, patch, seed):
    """Return how much edge of eight directions lies in each cell, evened out over its neighbours, and its brightness.

    As in histograms of oriented gradients: outlines carry over from simulated to real better than colour does.
    """
    np.random.seed(seed)  # numba's own generator
    num, stored = grey.shape[0], grey.shape[1]
    out = np.zeros((num, NUM_CHANNELS, CELLS, CELLS), np.float32)
    crop = np.empty((SIDE + 2, SIDE + 2), np.float32)
    raw = np.empty((8, CELLS, CELLS), np.float32)
    for n in range(num):
        for row in range(SIDE + 2):
            for column in range(SIDE + 2):
                u, v = (2 * column - 1) / SIDE - 1, (2 * row - 1) / SIDE - 1
                x = (matrix[n, 0, 0] * u + matrix[n, 0, 1] * v + matrix[n, 0, 2] + 1) * stored / 2 - 0.5
                y = (matrix[n, 1, 0] * u + matrix[n, 1, 1] * v + matrix[n, 1, 2] + 1) * stored / 2 - 0.5
                x, y = min(max(x, 0.0), stored - 1.001), min(max(y, 0.0), stored - 1.001)
                i, j = int(y), int(x)
                dy, dx = y - i, x - j
                crop[row, column] = (1 - dy) * ((1 - dx) * grey[n, i, j] + dx * grey[n, i, j + 1]) + dy * (
                    (1 - dx) * grey[n, i + 1, j] + dx * grey[n, i + 1, j + 1]
                )
        crop[patch[n, 1] : patch[n, 3], patch[n, 0] : patch[n, 2]] = crop.mean()
        crop -= crop.mean()
        crop /= crop.std() + 0.02
        raw[:] = 0
        for row in range(SIDE):
            for column in range(SIDE):
                crop_noise = noise[n] * np.random.standard_normal() if noise[n] > 0 else 0.0
                across = crop[row + 1, column + 2] - crop[row + 1, column] + crop_noise
                down = crop[row + 2, column + 1] - crop[row, column + 1] + crop_noise
                turn = (np.arctan2(down, across) * 8 / np.pi) % 8  # opposite directions count as one
                low = int(turn) % 8
                share, strength = turn - int(turn), np.sqrt(across * across + down * down)
                raw[low, row // CELL, column // CELL] += (1 - share) * strength
                raw[(low + 1) % 8, row // CELL, column // CELL] += share * strength
        energy = (raw * raw).sum(0)
        for row in range(CELLS):
            for column in range(CELLS):
                near = energy[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].mean()
                for k in range(8):
                    out[n, k, row, column] = raw[k, row, column] / np.sqrt(near + CELL)
                out[n, 8, row, column] = (
                    crop[row * CELL + 1 : (row + 1) * CELL + 1, column * CELL + 1 : (column + 1) * CELL + 1].mean() / 2
                )
    return out


# -- classifier
# ---------------------------------------------------------------------------------------------------------


class SmallNet(nn.Module):
    """Four convolutions on the edges of a crop: some 150,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide_in, wide_out, stride in ((NUM_CHANNELS, 40, 1), (40, 64, 2), (64, 96, 1), (96, 96, 2)):
            layers += [nn.Conv2d(wide_in, wide_out, 3, stride, 1, bias=False), nn.BatchNorm2d(wide_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.4), nn.Linear(2 * 96, len(CATEGORIES)))

    def forward(self, edges: torch.Tensor) -> torch.Tensor:
        """Return (batch, categories) scores."""
        found = self.body(edges)
        return self.head(torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1))


def train(crops: Crops, seed: int, num_epochs: int, batch: int = 128) -> SmallNet:
    """Return a classifier that has seen these crops alone; each category weighs the same."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net, labels = SmallNet(), torch.from_numpy(crops.labels)
    weight = len(labels) / (len(CATEGORIES) * torch.bincount(labels, minlength=len(CATEGORIES)).float())
    steps = num_epochs * (len(crops) // batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    for _ in range(num_epochs):
        order = rng.permutation(len(crops))
        for start in range(0, len(crops) - batch + 1, batch):
            chosen = order[start : start + batch]
            edges = edges_of(crops.pixels[chosen], varied_view(batch, rng), int(rng.integers(1 << 30)))
            loss = nn.functional.cross_entropy(net(edges), labels[chosen], weight, label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def scores_of(net: SmallNet, crops: Crops) -> NDArray[np.float32]:
    """Return (crops, categories) probabilities, averaged over flips and quarter turns."""
    views = [edges_of(crops.pixels, plain_view(len(crops), flip)) for flip in range(8)]
    return np.mean([net(edges).softmax(1).numpy() for edges in views], axis=0)


def balanced_accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean over the categories of the share that is recognised."""
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == category].mean() for category in np.unique(labels)]))


def interval_by_group(scores: list[NDArray[np.float32]], crops: Crops, num_draws: int = 2000) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of the mean figure when whole groups are drawn with replacement."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(crops.groups == group) for group in np.unique(crops.groups)]
    figures = []
    while len(figures) < num_draws:
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if len(np.unique(crops.labels[drawn])) == len(CATEGORIES):
            figures.append(np.mean([balanced_accuracy(score[drawn], crops.labels[drawn]) for score in scores]))
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(low), float(high)


def report(nets: list[SmallNet], crops: Crops) -> dict[str, object]:
    """Return the figures of one part of the real set."""
    scores = [scores_of(net, crops) for net in nets]
    per_seed = [balanced_accuracy(score, crops.labels) for score in scores]
    confusion = np.zeros((len(CATEGORIES), len(CATEGORIES)), int)
    for score in scores:
        np.add.at(confusion, (crops.labels, score.argmax(1)), 1)
    low, high = interval_by_group(scores, crops)
    return {
        "balanced_accuracy": round(float(np.mean(per_seed)), 3),
        "interval_95": [round(low, 3), round(high, 3)],
        "per_seed": [round(figure, 3) for figure in per_seed],
        "recall": dict(zip(CATEGORIES, (confusion.diagonal() / confusion.sum(1)).round(3).tolist(), strict=True)),
        "confusion_all_seeds": confusion.tolist(),
        "num_crops": len(crops),
        "num_groups": len(np.unique(crops.groups)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real-dir", type=Path, default=os.environ.get("XRAY_VQA_REAL_DIR"))
    parser.add_argument("--crops", type=int, default=16000, help="simulated crops to learn from")
    parser.add_argument("--seeds", type=int, default=3, help="classifiers trained; the figure is their mean")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--final", action="store_true", help="look at the val part, once, after all choices")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    folder = Path(args.real_dir or ".") / "sixray_coco"
    if not (folder / "annotations.json").is_file():
        sys.exit(f"error: {folder}/annotations.json is missing; name the real set with --real-dir or XRAY_VQA_REAL_DIR")
    started = time.perf_counter()
    crops = simulated_crops(args.crops, seed=7, workers=args.workers)
    rendered = time.perf_counter()
    nets = [train(crops, seed, args.epochs) for seed in range(args.seeds)]
    trained = time.perf_counter()
    figures: dict[str, object] = {"train": report(nets, real_crops(folder, "train"))}
    if args.final:
        figures["val"] = report(nets, real_crops(folder, "val"))
    figures["conditions"] = conditions(
        "numpy",
        "torch",
        learnt_from=f"{len(crops)} simulated crops of {', '.join(PROFILE_NAMES)}; no real pixel",
        crops_seeds_epochs=[args.crops, args.seeds, args.epochs],
        rendering_s=round(rendered - started),
        training_s=round(trained - rendered),
        generator_version=GENERATOR_VERSION,
    )
    publish(figures, args.json)


if __name__ == "__main__":
    main()
