"""The scan as a language model gets it: in the size that the model works in, so that boxes stay true.

A service scales what is too large for its model and says nothing, and every box in the prompt is wrong from there on.
So we scale, and tell the boxes in the pixels that are sent. What fits is sent byte for byte.
"""

import base64
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from xray_vqa.core.images import check_image, decode_image, image_header, looks_as_stored
from xray_vqa.core.records import ScanRecord
from xray_vqa.errors import ImageUnreadable, ProviderError

MAX_BYTES = 3_750_000
"""Base64 makes 5 MB of them, the least that a service takes for one image."""

MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}


@dataclass(frozen=True, slots=True)
class Frame:
    """The largest image that a model sees pixel for pixel."""

    max_side: int
    patch: int
    """Pixels a side of the squares that are counted."""
    max_patches: int

    def num_patches(self, size_wh: tuple[int, int]) -> int:
        return math.ceil(size_wh[0] / self.patch) * math.ceil(size_wh[1] / self.patch)

    def fit(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the size in which an image is sent: its own where that fits, else the largest of its shape."""
        width, height = size_wh
        room = math.sqrt(self.max_patches * self.patch**2 / (width * height))
        factor = min(1.0, self.max_side / max(width, height), room)
        while True:
            fitted = (max(1, int(width * factor)), max(1, int(height * factor)))
            if self.num_patches(fitted) <= self.max_patches:
                return fitted
            factor *= 0.998  # patches at the edges count in full, which the area does not tell


@dataclass(frozen=True, slots=True)
class Picture:
    """An image ready to be sent."""

    media_type: str
    data: str
    """Base64."""
    size_wh: tuple[int, int]

    @property
    def uri(self) -> str:
        return f"data:{self.media_type};base64,{self.data}"


def open_picture(path: Path, record: ScanRecord, frame: Frame) -> Picture:
    """Return the image of a scan, not larger than the frame.

    Bytes that are not the ones that were imported are decoded from end to end first: a cut-off file would be sent as
    half a bag.

    Raises:
        ProviderError: The file is missing or broken, or has another size than the annotations were drawn on.
    """
    try:
        return _open(path.read_bytes(), record, frame)
    except ImageUnreadable as error:
        raise ProviderError(f"{path}: {error}") from error
    except OSError as error:
        raise ProviderError(f"{path}: cannot be read: {error.strerror}") from error


def _open(data: bytes, record: ScanRecord, frame: Frame) -> Picture:
    kind, size_wh = image_header(data)
    if size_wh != record.size_wh:
        raise ProviderError(
            f"{record.image_path} is {size_wh[0]}x{size_wh[1]}, its annotations were drawn on "
            f"{record.width}x{record.height}; run `xray-vqa data verify`"
        )
    fitted = frame.fit(size_wh)
    if fitted == size_wh and kind in MEDIA_TYPES and len(data) <= MAX_BYTES and looks_as_stored(data):
        if hashlib.sha256(data).hexdigest() != record.sha256:
            check_image(data)
        return Picture(MEDIA_TYPES[kind], base64.b64encode(data).decode(), size_wh)
    image = decode_image(data)
    if fitted != size_wh:
        image = image.resize(fitted, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, subsampling="4:4:4")
    return Picture(MEDIA_TYPES["JPEG"], base64.b64encode(stream.getvalue()).decode(), fitted)
