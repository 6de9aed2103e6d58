"""The seam between what sees (an engine) and everything that must hold whichever engine it is (all else)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from xray_vqa.core.calibration import Calibration, EngineIdentity
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import Score


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs. Stands in every record, answer and calibration."""

    identity: EngineIdentity
    model_name: str
    device: str
    covered_categories: tuple[str, ...]
    """The categories that the model was trained and evaluated on."""
    calibration: Calibration | None = None
    """The calibration that lies beside the weights, whether it fits or not."""

    @property
    def model_version(self) -> str:
        """Name and digest, short enough for a log line."""
        parts = [self.identity.model_digest[:12], *filter(None, [self.identity.adapter_digest[:12]])]
        return f"{self.model_name}@{'+'.join(parts)}"

    @property
    def is_calibrated(self) -> bool:
        """Whether the calibration was measured on exactly what runs."""
        return self.calibration is not None and self.calibration.identity == self.identity


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine read out of one scan."""

    scores: dict[str, Score]
    """One for each category asked for, not corrected by a calibration."""
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict[str, tuple[Box, ...]])
    """For the categories that were placed, in pixels of the scan as sent; empty where no place could be read."""
    timings_ms: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to a free question."""

    text: str
    complete: bool = True
    """Whether the model came to an end by itself. An answer that was cut off has no meaning that we may act on."""


class Engine(Protocol):
    """Reads scans. Blocking; one call at a time. The caller keeps it off the event loop."""

    def start(self) -> EngineInfo:
        """Load and warm up. Raises ModelUnavailable."""
        ...

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        """Return a reading for each image, in order.

        Args:
            images: RGB scans of any size.
            categories: What to look for.
            place_from: Raw probability from which a category's boxes are decoded too.
        """
        ...

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]], max_tokens: int = 64
    ) -> list[list[Answer]]:
        """Return the model's answers to free questions about scans, in order.

        Args:
            images: RGB scans of any size.
            questions: For each image its questions, possibly none.
            max_tokens: An answer that is longer breaks off.
        """
        ...

    def close(self) -> None:
        """Release the weights."""
        ...
