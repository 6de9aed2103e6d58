"""The one way a scan becomes what the model sees: one resize, one normalisation, one patch order.

Equal to transformers' PIL processor for Qwen's families (a test holds them together), with two differences that a
trainer and a server need: the resized image stays uint8 until it is on the device, where it is eight times smaller to
move than float patches; and where boxes are told in its pixels, no side may exceed what three digits can name.
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.core.prompts import BOX_FRAME_LIMIT
from xray_vqa.errors import ModelUnavailable
from xray_vqa.modeling.registry import BoxFrame
from xray_vqa.modeling.resampling import resize_bicubic

PROCESSOR_NAME = "preprocessor_config.json"
MAX_ASPECT = 200
"""Of transformers' `smart_resize`, which throws beyond it; a stripe thinner than that is made as thick."""
MAX_VISUAL_TOKENS = 768
"""An image may take. Checkpoints' own configurations would allow 16,384."""
THOUSANDTHS = 1000
_VERSION = "pil-bicubic-1"


@dataclass(frozen=True, slots=True)
class Processor:
    """How scans are resized and cut into patches for one model."""

    min_pixels: int = 56 * 56
    max_pixels: int = MAX_VISUAL_TOKENS * 28 * 28
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    box_frame: BoxFrame = "pixels"
    processor_class: str = "Qwen2_5_VLProcessor"
    """transformers' own, for those who load the model with it."""

    @property
    def version(self) -> str:
        """Name of everything here that can move a score."""
        version = f"{_VERSION}/{self.min_pixels}-{self.max_pixels}/{self.patch_size}x{self.merge_size}"
        return version if self.box_frame == "pixels" else f"{version}/{self.box_frame}"

    @property
    def factor(self) -> int:
        """Pixels a side of one visual token."""
        return self.patch_size * self.merge_size

    def frame_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Return width and height that a scan of this size is resized to."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        largest = BOX_FRAME_LIMIT // self.factor * self.factor if self.box_frame == "pixels" else math.inf
        shrink = min(1.0, largest / max(size_wh))
        thinnest = math.ceil(max(size_wh) * shrink / MAX_ASPECT)
        width, height = (max(thinnest, round(side * shrink)) for side in size_wh)
        frame_height, frame_width = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        return frame_width, frame_height

    def grid_hw(self, frame_wh: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of visual tokens in a frame."""
        return frame_wh[1] // self.factor, frame_wh[0] // self.factor

    def resize(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return a scan as the model sees it, (height, width, 3) uint8, each side a multiple of `factor`."""
        frame = self.frame_wh(image.size)
        resized = image if image.size == frame else image.resize(frame, Image.Resampling.BICUBIC)
        return np.asarray(resized.convert("RGB"))

    def frame_on(self, image: Image.Image, device: torch.device) -> torch.Tensor:
        """Return what `resize` does, (height, width, 3) uint8, resized on a device."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        pixels = torch.from_numpy(np.array(rgb)).to(device)
        return resize_bicubic(pixels, self.frame_wh(image.size))

    def to_resized(self, box: Box, size_wh: tuple[int, int]) -> Box:
        """Return a box of a scan of this size in pixels of the resized image."""
        frame = self.frame_wh(size_wh)
        return box.scaled(frame[0] / size_wh[0], frame[1] / size_wh[1])

    def box_frame_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height of a scan of this size in the units that boxes are told in."""
        return self.frame_wh(size_wh) if self.box_frame == "pixels" else (THOUSANDTHS, THOUSANDTHS)

    def to_frame(self, box: Box, size_wh: tuple[int, int]) -> Box:
        """Return a box of a scan of this size in the model's frame."""
        frame = self.box_frame_wh(size_wh)
        return box.scaled(frame[0] / size_wh[0], frame[1] / size_wh[1])

    def from_frame(self, box: Box, size_wh: tuple[int, int]) -> Box:
        """Return a box of the model's frame in pixels of the scan; the inverse of `to_frame`."""
        frame = self.box_frame_wh(size_wh)
        return box.scaled(size_wh[0] / frame[0], size_wh[1] / frame[1])

    def patchify(self, frames: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return normalised patches of frames of one size, in the order of the vision tower.

        Args:
            frames: (images, height, width, 3) uint8, on any device.
            dtype: Of the result.

        Returns:
            (images * rows * columns, 3 * temporal * patch * patch), rows and columns of patches.
        """
        images, height, width, channels = frames.shape
        patch, merge = self.patch_size, self.merge_size
        rows, columns = height // patch, width // patch
        mean, std = _on_device(self.image_mean, frames.device), _on_device(self.image_std, frames.device)
        pixels = ((frames.to(torch.float32) / 255 - mean) / std).to(dtype)
        pixels = pixels.reshape(images, rows // merge, merge, patch, columns // merge, merge, patch, channels)
        pixels = pixels.permute(0, 1, 4, 2, 5, 7, 3, 6)  # image, row, column, in merge y and x, channel, y, x
        pixels = pixels.unsqueeze(6).expand(*pixels.shape[:6], self.temporal_patch_size, patch, patch)
        return pixels.reshape(images * rows * columns, channels * self.temporal_patch_size * patch * patch)

    def patches_of(
        self, frames: list[torch.Tensor], dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return patches and `image_grid_thw` (images, 3) int64 of frames of any sizes, in order, on their device."""
        patches = torch.cat([self.patchify(frame.unsqueeze(0), dtype) for frame in frames])
        return patches, self.grid_thw(frames).to(patches.device)

    def grid_thw(self, frames: list[torch.Tensor]) -> torch.Tensor:
        """Return how many patches frames have in time, height and width, (images, 3) int64 on the CPU."""
        patch = self.patch_size
        return torch.tensor([[1, frame.shape[0] // patch, frame.shape[1] // patch] for frame in frames])

    def save(self, model_dir: Path) -> None:
        """Write transformers' `preprocessor_config.json`, which vLLM and others read too."""
        settings = {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": self.processor_class,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "patch_size": self.patch_size,
            "merge_size": self.merge_size,
            "temporal_patch_size": self.temporal_patch_size,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
        }
        (model_dir / PROCESSOR_NAME).write_text(json.dumps(settings, indent=1) + "\n")


@lru_cache(maxsize=16)
def _on_device(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Sent once: the host waits for each such copy until the GPU has done all that it was asked before."""
    return torch.tensor(values, device=device)


def read_processor(path: Path, max_pixels: int | None = None, box_frame: BoxFrame = "pixels") -> Processor:
    """Return the processor that a model's `preprocessor_config.json` describes.

    Args:
        path: The file.
        max_pixels: Overrides the file's cap, as a training configuration may.
        box_frame: Of the model's family.

    Raises:
        ModelUnavailable: The file is missing or broken.
    """
    try:
        settings = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ModelUnavailable(f"{path}: no processor configuration: {error}") from error
    defaults = Processor()
    size = settings.get("size") or {}
    patch_size = settings.get("patch_size", defaults.patch_size)
    merge_size = settings.get("merge_size", defaults.merge_size)
    largest = MAX_VISUAL_TOKENS * (patch_size * merge_size) ** 2
    cap = size.get("longest_edge") or settings.get("max_pixels") or largest
    return Processor(
        min_pixels=size.get("shortest_edge") or settings.get("min_pixels") or defaults.min_pixels,
        max_pixels=max_pixels or min(cap, largest),
        patch_size=patch_size,
        merge_size=merge_size,
        temporal_patch_size=settings.get("temporal_patch_size", defaults.temporal_patch_size),
        image_mean=tuple(settings.get("image_mean", defaults.image_mean)),
        image_std=tuple(settings.get("image_std", defaults.image_std)),
        box_frame=box_frame,
        processor_class=settings.get("processor_class", defaults.processor_class),
    )
