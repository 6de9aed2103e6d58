"""The same scan in another scanner's colours.

A simulated scan is simulated again: its scene is a function of the dataset's seed and its number, so that the other
scanner takes its own picture of the same bag, with its own noise and sharpening. Any other scan is coloured anew: each
pixel is read back into an atomic number and an attenuation with the shipped palette that fits the scan best, and shown
in the other palette. That changes colours and not the sensor, and is only as good as the fit.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import ValidationError

from xray_vqa.core.manifest import read_manifest
from xray_vqa.core.records import ScanRecord, Split
from xray_vqa.errors import DatasetError
from xray_vqa.simulation.palette_inverse import fit_palette, typical_look
from xray_vqa.simulation.profile import PROFILE_NAMES, load_profile
from xray_vqa.simulation.scene import GENERATOR_VERSION
from xray_vqa.simulation.simulate import simulate
from xray_vqa.simulation.writer import SynthSettings, open_stream

Way = Literal["simulated again", "coloured anew"]


class OtherLooks:
    """Gives scans of one dataset in the colours of another scanner."""

    def __init__(self, root: Path, split: Split, scanner: str | None = None) -> None:
        """Set up; nothing is rendered yet.

        Args:
            root: The dataset.
            split: Which of its splits.
            scanner: A profile's name or path; by default each scan's next one in alphabetical order.

        Raises:
            ConfigError: There is no such profile.
        """
        self._split = split
        self._scanner = load_profile(scanner).name if scanner else None
        self._path = scanner
        self._settings = _settings_of(root)

    def way_of(self, record: ScanRecord) -> Way:
        """Return how a scan gets its other look."""
        return "simulated again" if self._number_of(record) is not None else "coloured anew"

    def __call__(self, record: ScanRecord, image: Image.Image) -> Image.Image:
        """Return a scan of the same size and geometry in another look. Raises DatasetError."""
        number = self._number_of(record)
        if number is None or self._settings is None:
            return self._coloured(image)
        stream = open_stream(self._settings, self._split)  # pyright: ignore[reportArgumentType]  (frozen, so hashable)
        scan = stream.scan(number)
        view = "side" if record.views and record.image_path != record.views[0] else "top"
        other = simulate(scan.spec, self._other_than(scan.profile_name), view)
        if other.image.shape[:2] != (image.height, image.width):
            raise DatasetError(f"{record.image_path}: simulated again it has another size; was the file replaced?")
        return Image.fromarray(other.image)

    def _coloured(self, image: Image.Image) -> Image.Image:
        pixels = np.asarray(image)
        fit = fit_palette(pixels, [load_profile(name) for name in PROFILE_NAMES])
        target = load_profile(self._other_than(fit.profile.name))
        return Image.fromarray(typical_look(target).colours[fit.entries(pixels)])

    def _other_than(self, name: str) -> str:
        if self._path is not None and self._scanner != name:
            return self._path
        after = [other for other in PROFILE_NAMES if other > name]
        return after[0] if after else PROFILE_NAMES[0]

    def _number_of(self, record: ScanRecord) -> int | None:
        """Return which bag of the simulated dataset a scan is of; None where its scene cannot be drawn again."""
        if self._settings is None or not record.source.startswith("synth/"):
            return None
        stem = f"synth-{self._settings.seed}-{self._split}-"
        number = record.group.removeprefix(stem)
        return int(number) if record.group.startswith(stem) and number.isdigit() else None


@lru_cache(maxsize=8)
def _settings_of(root: Path) -> SynthSettings | None:
    """Return what a simulated dataset was drawn from; None for another one, or one of another generator."""
    manifest = read_manifest(root)
    if manifest.stage != "synth" or manifest.config.get("generator") != f"xray_vqa.simulation@{GENERATOR_VERSION}":
        return None
    known = {name: value for name, value in manifest.config.items() if name in SynthSettings.model_fields}
    try:
        return SynthSettings.model_validate(known)
    except ValidationError:
        return None
