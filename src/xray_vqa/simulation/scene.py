"""What lies in a bag and how: a scene is plain data, replayed from JSON. packing.py draws scenes from seeds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from xray_vqa.simulation.primitives import Array, turn_of
from xray_vqa.simulation.shapes import find_shape

GENERATOR_VERSION = 4
"""Raised when the same spec and profile give another picture."""

CLUTTER_LEVELS = (1, 2, 3, 4)
VISIBLE_SHARES = ((0.9, 1.0), (0.7, 0.9), (0.4, 0.7))
"""By concealment, the share of a threat's pixels that change the picture noticeably."""
DEFAULT_SIZE_WH = (512, 384)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlacedItem(_Record):
    """One object in the bag."""

    shape: str
    """Key of the shape, `Gun/pistol`."""
    variant: int
    """Seed of its free parameters."""
    position_cm: tuple[float, float, float]
    """Where its origin lies; x along the belt, y across, z up; the image's centre is x = y = 0."""
    phi: float
    """Angle in the plane of the belt, radians."""
    theta: float
    """Tilt out of that plane about the object's own length, radians."""
    pitch: float = 0.0
    """Tilt about its width, radians."""
    mirrored: bool = False
    scale: float = 1.0
    density: float = 1.0
    """Factor on the material's density; bulk densities vary by some 15 %."""

    @property
    def label(self) -> str:
        return find_shape(self.shape).label

    def rotation(self) -> Array:
        """Return the object-to-world matrix, (3, 3); its determinant is -1 if mirrored."""
        return turn_of(self.phi, self.theta, self.pitch, self.mirrored)


class SceneSpec(_Record):
    """Everything that one picture depends on, apart from the scanner profile."""

    size_wh: tuple[int, int] = DEFAULT_SIZE_WH
    pixel_cm: float = Field(gt=0)
    """Width of one column on the belt."""
    bag: PlacedItem
    clutter: tuple[PlacedItem, ...]
    """Harmless things."""
    threats: tuple[PlacedItem, ...]
    clutter_level: int = Field(ge=1, le=4)
    concealment: int = Field(ge=0, le=2)
    """Which share of each threat was meant to stay visible, an index into VISIBLE_SHARES."""
    noise_seed: int
    look_seed: int


def location_cell(x: float, y: float, half_x: float, half_y: float) -> str:
    """Return the name of the third-by-third cell of the bag that a point in the bag's frame lies in."""
    row = ("upper", "center", "lower")[int(min(max((y / half_y + 1) * 1.5, 0), 2))]
    column = ("left", "center", "right")[int(min(max((x / half_x + 1) * 1.5, 0), 2))]
    return "center" if row == column == "center" else f"{row}-{column}"
