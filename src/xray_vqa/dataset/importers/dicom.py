"""DICOM and DICOS projection images (needs the extra `dicom`): pixels made into PNG, technical tags kept as factors.

Each frame is a view of the same bag. The pixel values are laid on black and white as the file says (window, rescale,
MONOCHROME1) or, where it says nothing, over all values that its bits can hold, so that two scans of one scanner look
alike. Names and numbers of people are not read. The files carry no annotations that we read: DICOS threat reports (TDR)
are left aside by name.
"""

import io
import posixpath
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.config.loading import require
from xray_vqa.core.images import DEFAULT_LIMITS
from xray_vqa.dataset.importers.source import Reading, Source, SourceFolder
from xray_vqa.errors import DatasetError, ImageUnreadable

SUFFIXES = (".dcm", ".dicom", ".dcs", ".dicos", ".ima", "")
_NO_PICTURES = {
    "1.2.840.10008.5.1.4.1.1.2": "a CT volume",
    "1.2.840.10008.5.1.4.1.1.2.1": "a CT volume",
    "1.2.840.10008.5.1.4.1.1.501.1": "a DICOS CT volume",
    "1.2.840.10008.5.1.4.1.1.501.3": "a DICOS threat detection report",
}
"""SOP classes that hold no projection image."""
_MAX_FRAMES = 16
_BROKEN = (
    AttributeError, EOFError, KeyError, MemoryError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
"""What pydicom raises on files that are damaged or compressed in a way that this machine cannot undo."""


class DicomImporter:
    """Reads images out of DICOM files. Nothing is taken as annotated, unless --annotated says what was looked for."""

    name = "dicom"
    description = "DICOM or DICOS projection images"
    refines = ""

    def recognises(self, folder: SourceFolder) -> bool:
        return any(_is_dicom(folder, name) for name in folder.sample(*SUFFIXES))

    def read(self, folder: SourceFolder) -> Source:
        require("pydicom", extra="dicom")
        reading = Reading(folder, self.name)
        for name in folder.with_suffix(*SUFFIXES):
            if _is_dicom(folder, name):
                _read_file(name, reading)
        if not reading.num_seen:
            raise DatasetError(f"{folder.root}: no DICOM file is here")
        message = "DICOM images say nothing of what is in a bag, so nothing is taken as annotated"
        reading.notice(
            "", f"{message}; if somebody has looked and found nothing, say what for with --annotated Gun,Knife"
        )
        reading.name_left_over("lie beside the DICOM files")
        return reading.source(())


IMPORTER = DicomImporter()


def _is_dicom(folder: SourceFolder, name: str) -> bool:
    with folder.path(name).open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def single_picture(data: bytes) -> bytes:
    """Return the one projection image in the bytes of a DICOM file, as PNG.

    Raises:
        ConfigError: pydicom is not installed.
        ImageUnreadable: It holds a volume, a report, several frames, or nothing that can be read.
    """
    require("pydicom", extra="dicom")
    import pydicom

    try:
        file = pydicom.dcmread(io.BytesIO(data))
        if what := _NO_PICTURES.get(str(file.get("SOPClassUID", ""))):
            raise ImageUnreadable(f"is {what}, no projection image", code="no_picture")
        num_frames = int(file.get("NumberOfFrames") or 1)
        if num_frames > 1:
            raise ImageUnreadable(f"has {num_frames} frames, which are no single image", code="several_frames")
        if int(file.Columns) * int(file.Rows) > DEFAULT_LIMITS.max_pixels:
            raise ImageUnreadable(f"is {file.Columns}x{file.Rows}, more than is read", code="too_many_pixels")
        return _png(pictures(file)[0])
    except _BROKEN as error:
        raise ImageUnreadable(
            f"cannot be read as a DICOM image ({type(error).__name__})", code="broken_image"
        ) from error


def _read_file(name: str, reading: Reading) -> None:
    import pydicom

    path = reading.folder.path(name)
    reading.see(name, path.read_bytes())
    try:
        file = pydicom.dcmread(path)
        what = _NO_PICTURES.get(str(file.get("SOPClassUID", "")))
        if what is not None:
            reading.fault(name, f"is {what}, no projection image; left aside")
            return
        size_wh, num_frames = (int(file.Columns), int(file.Rows)), int(file.get("NumberOfFrames") or 1)
        if size_wh[0] * size_wh[1] > DEFAULT_LIMITS.max_pixels or num_frames > _MAX_FRAMES:
            reading.fault(name, f"has {num_frames} frames of {size_wh[0]}x{size_wh[1]}, more than is read; left out")
            return
        frames = [_png(picture) for picture in pictures(file)]
        factors, group = _factors(file), str(file.get("StudyInstanceUID", ""))
    except _BROKEN as error:
        reading.fault(name, f"cannot be read as an image ({type(error).__name__}: {str(error)[:160]}); left out")
        return
    if _is_dark(file):
        reading.notice(
            name, "uses less than an eighth of the values that its bits can hold and names no window; it is dark"
        )
    stem = posixpath.splitext(name)[0]
    for number, png in enumerate(frames):
        one_of = f"#{number}" if len(frames) > 1 else ""
        reading.add(
            f"{name}{one_of}",
            name,
            image_path=reading.folder.unpack(f"{stem}{one_of}.png", png),
            group=group,
            size_wh=size_wh,
            factors=factors | ({"view": number} if len(frames) > 1 else {}),
        )


def _factors(file: Any) -> dict[str, Any]:
    tags = {"modality": "Modality", "manufacturer": "Manufacturer", "model": "ManufacturerModelName", "kvp": "KVP"}
    return {name: str(file.get(tag)) for name, tag in tags.items() if file.get(tag) not in (None, "")}


def pictures(file: Any) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
    """Return each frame of a DICOM file as (height, width) of 8 or 16 bits, or (height, width, 3) of 8 bits."""
    from pydicom.pixels.processing import apply_color_lut, convert_color_space

    pixels = np.asarray(file.pixel_array)
    colours = str(file.PhotometricInterpretation)
    if colours == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, file)
        pixels = (pixels >> 8 if pixels.dtype.itemsize > 1 else pixels).astype(np.uint8)
    elif colours.startswith("YBR") and "JPEG" not in file.file_meta.TransferSyntaxUID.name:
        pixels = convert_color_space(pixels, colours, "RGB")
    is_colour = int(file.get("SamplesPerPixel", 1)) == 3 or colours == "PALETTE COLOR"
    frames = list(pixels) if pixels.ndim == (4 if is_colour else 3) else [pixels]
    return [frame.astype(np.uint8) for frame in frames] if is_colour else [_grey(frame, file) for frame in frames]


def _grey(frame: NDArray[Any], file: Any) -> NDArray[np.uint8] | NDArray[np.uint16]:
    slope, intercept = float(file.get("RescaleSlope", 1) or 1), float(file.get("RescaleIntercept", 0) or 0)
    values = frame.astype(np.float64) * slope + intercept
    window = _window(file)
    if window is None:
        bits, signed = int(file.BitsStored), int(file.PixelRepresentation) == 1
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        low, high = sorted(end * slope + intercept for end in ends)
    else:
        centre, width = window
        low, high = centre - width / 2, centre + width / 2
    share = ((values - low) / (high - low)).clip(0, 1)
    if str(file.PhotometricInterpretation) == "MONOCHROME1":
        share = 1 - share
    if int(file.BitsStored) <= 8:
        return np.rint(share * 255).astype(np.uint8)
    return np.rint(share * 65535).astype(np.uint16)


def _window(file: Any) -> tuple[float, float] | None:
    values = [file.get(tag) for tag in ("WindowCenter", "WindowWidth")]
    first = [
        value[0] if hasattr(value, "__len__") and not isinstance(value, str) and value else value for value in values
    ]
    if any(value in (None, "") for value in first) or float(first[1]) <= 0:
        return None
    return float(first[0]), float(first[1])


def _is_dark(file: Any) -> bool:
    if int(file.get("SamplesPerPixel", 1)) != 1 or _window(file) is not None or int(file.PixelRepresentation) == 1:
        return False
    return int(np.asarray(file.pixel_array).max()) < 2 ** int(file.BitsStored) / 8


def _png(picture: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()
