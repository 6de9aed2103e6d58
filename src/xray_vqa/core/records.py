"""What stands on disk between the stages: scans with their annotations, and question-answer pairs about them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from xray_vqa.core.geometry import Box
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED

QUESTION_TYPES = (
    "general", "specific", "presence", "listing", "count", "location", "identification", "concealment", "risk",
    "declaration", "absent", "unanswerable", "detailed", "occlusion",
)  # fmt: skip

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class Strict(BaseModel):
    """Base of everything that crosses a border of ours: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


SIMULATED_SOURCES = ("synth/", "tip/")
"""How `ScanRecord.source` begins where the simulator made a scan or projected threats into it."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Ground truth on a scan: a category and, where the source draws one, its box in pixels of the scan."""

    category: str
    box: Box | None


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file, named so that its owner can find it."""

    path: Path
    message: str
    position: int | None = None
    """Line of a JSONL file (from 1) or index in a JSON list (from 0)."""

    def __str__(self) -> str:
        where = f"{self.path}" if self.position is None else f"{self.path}:{self.position}"
        return f"{where}: {self.message}"


class ScanRecord(Strict):
    """One entry of `<root>/<split>/annotations.json`."""

    image_id: int = Field(ge=0)
    image_filename: str
    image_path: str
    """Relative to the dataset root, `/` between the parts."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: str = ""
    """Of the image file's bytes; empty where a hand-made file does not say."""
    caption: str = ""
    categories: list[str]
    """One for each annotated item, in the taxonomy's spelling or `UNLISTED`. Empty for a clean bag."""
    bboxes: list[tuple[float, float, float, float] | None]
    """`[x, y, w, h]` in pixels, `bboxes[i]` for `categories[i]`; null where only the image is labelled."""
    group: str = ""
    """Scans of one bag share it; a split never cuts through a group."""
    source: str = ""
    licence: str = ""
    masks: list[dict[str, Any] | None] | None = None
    """Run-length encoded item masks as COCO writes them."""
    occlusion: list[float] | None = None
    """Share of each item's attenuation that other things on the same rays own, 0 to 1."""
    factors: dict[str, Any] | None = None
    co_items: list[str] | None = None
    declared_items: list[str] | None = None
    views: list[str] | None = None
    original_name: str | None = None
    raw_labels: list[str] | None = None
    """The source's own labels, where the taxonomy has other words for them."""

    @model_validator(mode="after")
    def _check_parallel_lists(self) -> "ScanRecord":
        if len(self.categories) != len(self.bboxes):
            raise ValueError(f"{len(self.categories)} categories but {len(self.bboxes)} bboxes; they go in pairs")
        unknown = sorted(set(self.categories) - {*CATEGORIES, UNLISTED})
        if unknown:
            raise ValueError(f"unknown categories {unknown}; use the taxonomy's spelling or {UNLISTED}")
        return self

    @property
    def is_simulated(self) -> bool:
        """Whether anything on it was simulated: the whole scan, or threats that were projected into a real one."""
        return self.source.startswith(SIMULATED_SOURCES)

    @property
    def size_wh(self) -> tuple[int, int]:
        return (self.width, self.height)

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """The annotated items of known category, boxes clipped to the image; a box that is none leaves its item."""
        return tuple(
            Annotation(category, Box.from_xywh(values).clipped(self.size_wh) if values and _has_area(values) else None)
            for category, values in zip(self.categories, self.bboxes, strict=True)
            if category != UNLISTED
        )

    @property
    def present(self) -> frozenset[str]:
        """The categories that are in the bag."""
        return frozenset(self.categories) - {UNLISTED}

    def box_faults(self) -> list[str]:
        """Return what is wrong with the boxes: no area, or outside the image by more than a pixel."""
        faults: list[str] = []
        for category, values in zip(self.categories, self.bboxes, strict=True):
            if values is None:
                continue
            x, y, w, h = values
            if not _has_area(values):
                faults.append(f"{category} box {list(values)} has no area")
            elif x < -1 or y < -1 or x + w > self.width + 1 or y + h > self.height + 1:
                faults.append(f"{category} box {list(values)} lies outside the {self.width}x{self.height} image")
        return faults


def _has_area(values: tuple[float, float, float, float]) -> bool:
    return all(map(math.isfinite, values)) and values[2] > 0 and values[3] > 0


class PairMetadata(Strict):
    """What is known of a pair beside its text."""

    image_id: int
    question_type: str
    categories: list[str] = []
    """Categories that are in the image."""
    num_categories: int = 0
    generated_by: str
    """Kind of provider: `template`, `llm`, `scripted` or `person`."""
    model: str = ""
    prompt_version: str = ""
    evidence: list[int] = []
    """Indices into the scan's `categories` and `bboxes` that the answer rests on."""
    short_answer: str = ""
    """The answer in one word or a comma-separated list; metrics compare this one."""
    language: str = "en"
    target: str = ""
    """The category that the question asks about, where it asks about one."""
    topic: str = ""
    """What a question of types like `concealment` asks about (`clutter`, `orientation`, ...), or how its choices are
    offered (`letters`)."""

    @model_validator(mode="after")
    def _check_question_type(self) -> "PairMetadata":
        if self.question_type not in QUESTION_TYPES:
            raise ValueError(f"question_type {self.question_type!r} is none of {', '.join(QUESTION_TYPES)}")
        return self


class VQAPair(Strict):
    """One line of a pairs file."""

    image_path: str
    """Relative to the dataset root that the pairs file's manifest names."""
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    metadata: PairMetadata


def compact(record: BaseModel) -> Mapping[str, Any]:
    """Return a record as JSON values without the optional keys that it does not use."""
    return record.model_dump(mode="json", exclude_none=True)
