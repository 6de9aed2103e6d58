"""One planned question, and a scan with its questions."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xray_vqa.core.records import ScanRecord
from xray_vqa.generation.facts import Truth

Subject = tuple[str, str, str, tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Slot:
    """One planned question: what it is about and what its answer has to be."""

    question_type: str
    short_answer: str
    evidence: tuple[int, ...] = ()
    """Indices into the record's `categories` and `bboxes`."""
    target: str = ""
    """The category that is asked about. Empty: a question about the whole bag, a region or options."""
    options: tuple[str, ...] = ()
    """The categories that the question offers or that were declared, in the order in which it names them."""
    region: str = ""
    negative: str = ""
    """How an absent target was found: `random`, `popular` or `look-alike`."""
    topic: str = ""
    """What else it is about, one of the type's `TOPICS`; or how the options are offered."""
    goods: tuple[str, ...] = ()
    """Harmless things that the question names: declared ones, or what may lie over an item."""

    @property
    def subject(self) -> Subject:
        """What must not be asked twice about one scan."""
        return (self.question_type, self.topic, self.target, tuple(sorted(self.options)), self.region)

    def as_json(self) -> dict[str, Any]:
        return {
            "type": self.question_type,
            "answer": self.short_answer,
            "evidence": list(self.evidence),
            "target": self.target,
            "options": list(self.options),
            "region": self.region,
            "topic": self.topic,
            "goods": list(self.goods),
        }


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """A scan and the questions to be asked about it; none where nothing can be asked honestly."""

    record: ScanRecord
    slots: tuple[Slot, ...]
    language: str = "en"
    """Of question and answer text; short answers are the taxonomy's in any language."""


def slot_of(
    question_type: str,
    answer: Truth | None,
    target: str = "",
    *,
    options: tuple[str, ...] = (),
    region: str = "",
    negative: str = "",
    topic: str = "",
    goods: tuple[str, ...] = (),
) -> Slot | None:
    """Return the slot with this answer; None where the annotations do not tell one."""
    if answer is None:
        return None
    short_answer, evidence = answer
    return Slot(question_type, short_answer, evidence, target, options, region, negative, topic, goods)


def identity_of(record: ScanRecord) -> str:
    """Return what a scan is known by: its bytes' digest, or its path where the record does not give one."""
    return record.sha256 or record.image_path


def count_slots(plan: Iterable[PlannedImage]) -> dict[str, int]:
    """Return how many questions of each type are planned."""
    counts: dict[str, int] = defaultdict(int)
    for image in plan:
        for slot in image.slots:
            counts[slot.question_type] += 1
    return dict(sorted(counts.items()))
