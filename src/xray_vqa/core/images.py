"""The only place that opens image bytes from outside: within limits, in known formats, always to RGB.

Everything downstream (training, evaluation, serving) sees the pixels that this module returns, so that a scan looks
the same to the model everywhere. Messages never repeat a decoder's own text: such texts have leaked memory addresses
(CVE-2026-22778).
"""

import base64
import io
import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

from xray_vqa.core.records import Strict
from xray_vqa.errors import ImageUnreadable

FORMATS = ("JPEG", "PNG", "BMP")
"""Decoders that may run. The rest of Pillow's many are attack surface and no scanner's export."""

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp"}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image from outside may be."""

    max_bytes: int = 12 * 2**20
    max_pixels: int = 40_000_000
    min_side: int = 32
    """Pixels; below it no item can be seen, so the file is a thumbnail or a mistake."""
    max_aspect: float = 20.0


DEFAULT_LIMITS = ImageLimits()


def decode_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Return the image in some bytes as RGB with every pixel loaded.

    16-bit greyscale is scaled to 8 bits; transparency is laid on white, the colour of air in a scan.

    Raises:
        ImageUnreadable: With code `too_many_bytes`, `empty`, `not_an_image`, `too_many_pixels`, `too_small`,
            `too_narrow` or `broken_image`.
    """
    image = _open(data, limits)
    with _damage():
        image.load()
        return _to_rgb(image)


def read_image(path: Path, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Return the image in a file as RGB. Raises ImageUnreadable, its message naming the file."""
    try:
        return decode_image(path.read_bytes(), limits)
    except ImageUnreadable as error:
        raise ImageUnreadable(f"{path}: {error}", code=error.code) from error
    except OSError as error:
        raise ImageUnreadable(f"{path}: cannot be read: {error.strerror}", code="missing") from error


def image_header(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[str, tuple[int, int]]:
    """Return format name and (width, height) from the header alone. Raises ImageUnreadable."""
    image = _open(data, limits)
    return str(image.format), image.size


def looks_as_stored(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> bool:
    """Return whether everybody else's decoder shows what `decode_image` does: 8 bits, opaque, turned by no tag.

    Read from the header alone. Raises ImageUnreadable.
    """
    image = _open(data, limits)
    return image.mode in ("RGB", "L") and "transparency" not in image.info and _orientation(image) == 1


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, OSError, KeyError, IndexError, struct.error):
        return 1  # a tag that cannot be read turns nothing
    return value if 1 <= value <= 8 else 1


THUMBNAIL_SIDE = 32
"""Pixels of a checked image's thumbnail: what a perceptual hash needs."""


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """What is known of an image that was read from its first byte to its last."""

    format: str
    size_wh: tuple[int, int]
    """As stored; see `orientation`."""
    orientation: int
    """How a viewer would turn or mirror it by its EXIF tag, 1 (not at all) to 8. We never do: pixels are as stored."""
    small: Image.Image
    """Grey; of a JPEG an eighth of its size, of anything else all of it."""

    def thumbnail(self) -> NDArray[np.uint8]:
        """Return (THUMBNAIL_SIDE, THUMBNAIL_SIDE) grey values, the whole image squeezed into it."""
        return np.asarray(self.small.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))


def check_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> CheckedImage:
    """Return what an image is, refusing exactly what `decode_image` refuses, for two thirds of its time.

    A JPEG is decoded at an eighth of its size and in grey: the decoder reads all of the compressed stream, where every
    fault is, and leaves out the arithmetic that makes pixels of it, in which nothing can fail (docs/decisions/0010).

    Raises:
        ImageUnreadable: As `decode_image` does.
    """
    image = _open(data, limits)
    size_wh, orientation = image.size, _orientation(image)
    with _damage():
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft("L", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        image.load()
        small = image if image.mode == "L" and "transparency" not in image.info else _to_rgb(image).convert("L")
    return CheckedImage(str(image.format), size_wh, orientation, small)


def jpeg_uri(image: Image.Image, max_side: int = 720, quality: int = 82) -> str:
    """Return an image as a JPEG data URI for a page that refers to nothing outside itself."""
    small = image.convert("RGB")
    small.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True, slots=True)
class JpegEncoding:
    """How a JPEG file was compressed."""

    quantization: dict[int, list[int]]
    subsampling: str
    """`4:4:4`, `4:2:2` or `4:2:0`."""

    def encode(self, image: Image.Image) -> bytes:
        """Return another image compressed in the same way."""
        stream = io.BytesIO()
        image.save(stream, "JPEG", qtables=self.quantization, subsampling=self.subsampling)
        return stream.getvalue()


def jpeg_encoding(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> JpegEncoding | None:
    """Return how an image was compressed; None where it is no JPEG or its way is not one that Pillow can write.

    Raises:
        ImageUnreadable: The bytes are no image within the limits.
    """
    image = _open(data, limits)
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode != "RGB":
        return None
    subsampling = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(JpegImagePlugin.get_sampling(image))
    return JpegEncoding(dict(image.quantization), subsampling) if subsampling else None


class KnownLooks(Strict):
    """What a scan of a bag looks like on the scanners that the model knows, in figures of a 64 x 64 thumbnail.

    The defaults hold all that nano was trained on, with room to spare (docs/POLICY.md has the measured ranges). A site
    whose scanner shows bags otherwise sets its own in its policy.
    """

    min_contrast: float = 4.0
    """Standard deviation of luminance, in grey levels. An empty belt or a black frame has less: `blank`."""
    min_brightness: float = 110.0
    """Mean luminance, 0 to 255. Less is `too_dark`."""
    min_border: float = 150.0
    """Mean luminance of the outermost rows and columns: a bag lies in bright air. Less is `no_air_around`, as of a
    photograph or of an inverted scan."""
    min_colour: float = 4.0
    """Mean difference between a pixel's largest and smallest colour. Less is `no_colour`; 0 where scans are grey."""
    max_foreign_share: float = 0.06
    """Of pixels from red to violet, which stand for no material: more is `unknown_colours`."""
    max_blue_excess: float = 0.2
    """Share of blue pixels less that of orange ones. More is `unknown_colours`, as where red and blue are swapped."""
    max_blue_brightness: float = 30.0
    """Of blue pixels over orange ones, in grey levels: metal is darker than cloth. More is `unknown_colours`."""


_COLOURED = 30.0
_FEW = 0.02
"""Share of pixels below which their mean says nothing."""


def input_faults(image: Image.Image, looks: KnownLooks) -> tuple[str, ...]:
    """Return why an image that could be decoded still does not look like a scan of a bag; empty when it does.

    `blank`, `too_dark`, `no_air_around`, `no_colour`, `unknown_colours`: see `KnownLooks`. It is a floor for all three
    of a broken scanner, a wrong export and a picture of something else, and no test of quality.
    """
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.float32)
    luminance = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    colour = pixels.max(axis=2) - pixels.min(axis=2)
    border = np.concatenate([luminance[0], luminance[-1], luminance[:, 0], luminance[:, -1]])
    faults = {
        "blank": luminance.std() < looks.min_contrast,
        "too_dark": luminance.mean() < looks.min_brightness,
        "no_air_around": border.mean() < looks.min_border,
        "no_colour": colour.mean() < looks.min_colour,
        "unknown_colours": _has_unknown_colours(pixels, colour > _COLOURED, looks),
    }
    return ("blank",) if faults["blank"] else tuple(name for name, is_there in faults.items() if is_there)


def _has_unknown_colours(pixels: NDArray[np.float32], coloured: NDArray[np.bool_], looks: KnownLooks) -> bool:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    # From red over magenta to violet, green is the smallest of the three and well below both of the others.
    foreign = coloured & (np.minimum(red, blue) - green > _COLOURED / 3)
    orange, bluish = coloured & (red - blue > _COLOURED), coloured & (blue - red > _COLOURED) & ~foreign
    if foreign.mean() > looks.max_foreign_share or bluish.mean() - orange.mean() > looks.max_blue_excess:
        return True
    if min(orange.mean(), bluish.mean()) < _FEW:
        return False
    brightness = pixels.max(axis=2)
    return float(brightness[bluish].mean() - brightness[orange].mean()) > looks.max_blue_brightness


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    if not data:
        raise ImageUnreadable("the image is empty (0 bytes)", code="empty")
    if len(data) > limits.max_bytes:
        raise ImageUnreadable(
            f"the image has {len(data):,} bytes, more than the limit of {limits.max_bytes:,}", code="too_many_bytes"
        )
    try:
        with warnings.catch_warnings():
            # Pillow warns at 89 million pixels and raises at twice that; our own limit is checked right below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageUnreadable(
            f"the image has more than the limit of {limits.max_pixels:,} pixels", code="too_many_pixels"
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageUnreadable(
            f"the bytes are no image of a known format ({', '.join(FORMATS)})", code="not_an_image"
        ) from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageUnreadable(
            f"the image is {width}x{height}, more than the limit of {limits.max_pixels:,} pixels",
            code="too_many_pixels",
        )
    if min(width, height) < limits.min_side:
        raise ImageUnreadable(
            f"the image is {width}x{height}; each side needs at least {limits.min_side} pixels", code="too_small"
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ImageUnreadable(
            f"the image is {width}x{height}; no side may be {limits.max_aspect:g} times the other", code="too_narrow"
        )
    return image


@contextmanager
def _damage() -> Generator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise ImageUnreadable("the image is cut off or damaged; export the scan again", code="broken_image") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit PNG: convert() would clip at 255 and show a white bag
        samples = np.asarray(image).astype(np.float32) / 257.0
        return Image.fromarray(samples.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
