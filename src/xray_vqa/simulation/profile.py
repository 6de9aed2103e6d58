"""Scanner profiles: everything in which one scanner's picture differs from another's, as a validated YAML file.

A profile gives ranges, not values; one Look is drawn from them (palette.py). The names say what a profile resembles.
Knot values are ours, entered by eye; no pixel of any data set is in them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from xray_vqa.errors import ConfigError

PROFILES_DIR = Path(__file__).parent / "profiles"
PROFILE_NAMES: tuple[str, ...] = tuple(sorted(path.stem for path in PROFILES_DIR.glob("*.yaml")))
"""Profiles that ship with the package."""


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"range {list(bounds)} starts above its end")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
CountRange = Annotated[tuple[int, int], AfterValidator(_ordered)]
Colour = tuple[int, int, int]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PaletteSettings(_Model):
    """Colours by atomic number and brightness."""

    brightness_knots: tuple[float, ...]
    """Brightness (0 to 255) at which the ramps are given, rising."""
    orange: tuple[Colour, ...]
    """Ramp of light elements, one colour a knot."""
    green: tuple[Colour, ...]
    """Ramp of light metals and mixtures."""
    blue: tuple[Colour, ...]
    """Ramp of metals."""
    orange_below_z: float
    """Below this atomic number the colour is orange alone."""
    green_at_z: float
    """Here it is green alone."""
    blue_above_z: float
    """Above this it is blue alone."""
    hue_jitter_deg: float = 9.0
    """Each look turns all hues by up to this angle."""
    saturation: Range = (0.75, 1.15)
    """Each look multiplies the distance from grey by a factor from this range."""
    shift_z: float = 0.7
    """Each look moves the three atomic numbers by up to this much."""


class SensorSettings(_Model):
    """Detector and image chain."""

    blur_x: Range = (0.05, 0.14)
    """Weight of each neighbour along the belt in the three-tap point spread."""
    blur_y: Range = (0.04, 0.10)
    """The same along the detector bar."""
    quantum_noise: Range = (0.008, 0.026)
    """Standard deviation of the air signal due to photon statistics, as a share of it."""
    electronic_noise: Range = (0.0005, 0.002)
    """Standard deviation without photons, as a share of the air signal."""
    scatter: Range = (0.002, 0.006)
    """Signal behind an opaque object, as a share of the air signal."""
    row_gain: Range = (0.0002, 0.0012)
    """Spread of the gain between detector elements that calibration leaves: faint streaks along the belt."""
    bad_row_chance: float = Field(default=0.15, ge=0, le=1)
    """Share of scans with one visibly wrong detector element."""
    hue_smoothing: CountRange = (0, 2)
    """Radius in pixels over which readings are averaged before the atomic number is taken."""
    sharpen_radius: CountRange = (1, 3)
    """Radius of the unsharp mask in pixels."""
    sharpen_gain: Range = (0.5, 1.5)
    """Strength of the unsharp mask, in units of the log signal."""
    tone: Range = (0.50, 0.66)
    """Exponent from log signal to brightness; higher is darker."""
    opaque_from: Range = (3.3, 4.2)
    """Log signal from which the atomic number is no longer trusted and fades to the metal end of the palette."""
    thin_bias: Range = (1.4, 2.8)
    """Atomic numbers by which very thin objects are read too high (offset and scatter errors): yellow-green fabric."""
    thin_below: Range = (0.04, 0.09)
    """Log signal over which that bias falls to a third."""
    quiet_p: Range = (0.003, 0.010)
    """Mean log signal around a pixel below which it is shown as empty belt: noise is seen on things, not beside
    them."""
    air_below: float = 0.010
    """Log signal below which a pixel is shown as empty."""


class ScannerProfile(_Model):
    """One scanner's look."""

    name: str
    version: int = Field(ge=1)
    """Raised when the pictures of this profile change."""
    about: str
    palette: PaletteSettings
    sensor: SensorSettings = SensorSettings()


@cache
def _read_profile(path: Path) -> ScannerProfile:
    try:
        return ScannerProfile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a scanner profile: {error}") from error


def load_profile(name_or_path: str | Path) -> ScannerProfile:
    """Return a shipped profile by name, or one from a YAML file. Raises ConfigError, naming the shipped ones."""
    if str(name_or_path) in PROFILE_NAMES:
        return _read_profile(PROFILES_DIR / f"{name_or_path}.yaml")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(
            f"no scanner profile {str(name_or_path)!r}: "
            f"give the path of a YAML file, or one of {', '.join(PROFILE_NAMES)}"
        )
    return _read_profile(path.resolve())
