"""What a scan's annotations say, and what they are silent about.

The plan asks only what can be answered here, and the validator answers every question from here once more. Silence is
never taken for absence: a category counts as absent only where the source labels it and nothing in the record could be
another name for it.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from xray_vqa.core.geometry import REGIONS, Box
from xray_vqa.core.inspection import Evidence, Finding, Score
from xray_vqa.core.policy import Policy, decide
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, names_of
from xray_vqa.generation.topics import MATCH, MISMATCH, NOT_VERIFIED, UNKNOWABLE

NONE = "none"

_THERE, _NOT_THERE = Score.of(1.0), Score.of(0.0)
_WORD = re.compile(r"[a-z0-9]+")
_VAGUE_WORDS = frozenset(
    {"contraband", "danger", "dangerous", "item", "multi", "multilabel", "object", "other", "prohibited", "suspicious",
     "threat", "unknown", "weapon", "weapons"}
)  # fmt: skip
"""A label with one of these may mean any category, so beside it nothing can be called absent."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The ground truth of one scan in the form that questions need."""

    record: ScanRecord
    instances: dict[str, tuple[int, ...]]
    """Indices into the record's `categories` by category, in the taxonomy's order; `UNLISTED` is left out."""
    regions: tuple[str | None, ...]
    """For each of the record's items the region of its box, None without a usable box."""
    deniable: tuple[str, ...]
    """The categories that are not in the bag for certain."""
    complete: bool
    """Whether everything of the taxonomy is told and nothing else is labelled: "which items" has one answer."""

    @property
    def present(self) -> tuple[str, ...]:
        return tuple(self.instances)

    @property
    def decidable(self) -> frozenset[str]:
        """The categories of which presence or absence is known."""
        return frozenset(self.instances) | frozenset(self.deniable)

    def placed(self, category: str) -> bool:
        """Return whether each item of a category has a box; without one, neither place nor number is known."""
        indices = self.instances.get(category, ())
        return bool(indices) and all(self.regions[index] for index in indices)

    @property
    def sole_regions(self) -> dict[str, int]:
        """The regions that hold exactly one labelled item of the taxonomy, with its index.

        Empty where an item has no usable box: it may lie in any of them.
        """
        if None in self.regions:
            return {}
        return {
            region: index
            for index, region in enumerate(self.regions)
            if region and self.regions.count(region) == 1 and self.record.categories[index] != UNLISTED
        }


def read_facts(record: ScanRecord, annotated: Sequence[str]) -> Facts:
    """Return what is known of a scan, given the categories that its source labels at all."""
    found: dict[str, list[int]] = {}
    for index, category in enumerate(record.categories):
        if category != UNLISTED:
            found.setdefault(category, []).append(index)
    instances = {category: tuple(found[category]) for category in CATEGORIES if category in found}
    deniable = _deniable(record, annotated, instances)
    return Facts(
        record=record,
        instances=instances,
        regions=tuple(_region(values, record.size_wh) for values in record.bboxes),
        deniable=deniable,
        complete=len(instances) + len(deniable) == len(CATEGORIES) and UNLISTED not in record.categories,
    )


def _region(values: Sequence[float] | None, size_wh: tuple[int, int]) -> str | None:
    if values is None:
        return None
    try:
        box = Box.from_xywh(values).clipped(size_wh)
    except ValueError:
        return None
    return box.region(size_wh) if box else None


def _deniable(record: ScanRecord, annotated: Sequence[str], present: Iterable[str]) -> tuple[str, ...]:
    candidates = tuple(category for category in annotated if category not in present)
    if UNLISTED not in record.categories:
        return candidates
    if record.raw_labels is None or len(record.raw_labels) != len(record.categories):
        return ()
    words = {
        word
        for label, category in zip(record.raw_labels, record.categories, strict=True)
        if category == UNLISTED
        for word in _words(label)
    }
    if not words or words & _VAGUE_WORDS:
        return ()
    # "Cutlass_Knife" is unknown to the taxonomy and no proof that there is no knife.
    return tuple(c for c in candidates if not any(words & _words(name) for name in names_of(c)))


def _words(label: str) -> set[str]:
    """The words of a label, also without a plural's s; "CutterKnife" is two."""
    parts = _WORD.findall(re.sub(r"([a-z])([A-Z])", r"\1 \2", label).lower())
    return {*parts, *(part.removesuffix("s") for part in parts)}


# The answers in canonical short form with the items that they rest on; None where the annotations do not tell.

Truth = tuple[str, tuple[int, ...]]


def presence(facts: Facts, category: str) -> Truth | None:
    """Is there one?"""
    if category in facts.instances:
        return "yes", facts.instances[category]
    return ("no", ()) if category in facts.deniable else None


def count(facts: Facts, category: str) -> Truth | None:
    """How many are there? Without a category, of all prohibited items."""
    if not category:
        indices = tuple(range(len(facts.record.categories)))
        known = facts.complete and all(facts.regions)
        return (str(len(indices)), indices) if known else None
    if facts.placed(category):
        return str(len(facts.instances[category])), facts.instances[category]
    return ("0", ()) if category in facts.deniable else None


def location(facts: Facts, category: str) -> Truth | None:
    """Where is it? `none` for an absent category: the premise is false."""
    if facts.placed(category):
        indices = facts.instances[category]
        places = {facts.regions[index] for index in indices}
        return ", ".join(region for region in REGIONS if region in places), indices
    return (NONE, ()) if category in facts.deniable else None


def listing(facts: Facts, options: Iterable[str]) -> Truth | None:
    """Which of these are there? Without options, which prohibited items of all."""
    asked = frozenset(options)
    if (asked and not asked <= facts.decidable) or (not asked and not facts.complete):
        return None
    there = [category for category in facts.instances if not asked or category in asked]
    return ", ".join(map(str.lower, there)) or NONE, tuple(sorted(i for c in there for i in facts.instances[c]))


def identification(facts: Facts, options: Iterable[str], region: str) -> Truth | None:
    """What is the item in this region, or which single one of these is there?"""
    if region:
        index = facts.sole_regions.get(region)
        return None if index is None else (facts.record.categories[index].lower(), (index,))
    asked = frozenset(options)
    there = [category for category in facts.instances if category in asked]
    if len(there) != 1 or not asked <= facts.decidable:
        return None
    return there[0].lower(), facts.instances[there[0]]


def general(facts: Facts) -> Truth | None:
    """Is anything prohibited in the bag? "No" is told of scans alone that are annotated in full."""
    if facts.instances:
        return "yes", tuple(sorted(index for indices in facts.instances.values() for index in indices))
    return ("no", ()) if facts.complete else None


def risk(facts: Facts, policy: Policy) -> Truth | None:
    """What risk level does the policy call for, if the model sees exactly what is there?

    None where a required category is not decided. That holds for the highest level too, though nothing could change it:
    asked of such bags alone, the question would always have the same answer.
    """
    if UNLISTED in facts.record.categories or not facts.decidable.issuperset(policy.required_categories):
        return None
    level = decide(policy, _evidence(facts, policy)).risk_level
    strictest = [c for c in facts.instances if policy.rule(c).risk_level is level]
    return level.value, tuple(sorted(index for category in strictest for index in facts.instances[category]))


def declaration(facts: Facts, policy: Policy, declared: Collection[str]) -> Truth | None:
    """Does the scan agree with a declaration of these categories, whatever harmless goods stand beside them?

    As in the policy: a mismatch is something prohibited that was not declared, or declared and never allowed. One
    of these is enough; a match is told of scans alone that are annotated in full.
    """
    if decide(policy, _evidence(facts, policy, declared)).match_declaration:
        there = (indices for category, indices in facts.instances.items() if category in declared)
        return (MATCH, tuple(sorted(index for indices in there for index in indices))) if facts.complete else None
    undeclared = (indices for category, indices in facts.instances.items() if category not in declared)
    return MISMATCH, tuple(sorted(index for indices in undeclared for index in indices))


def declared_item(facts: Facts, policy: Policy, category: str) -> Truth | None:
    """Is a declared thing in the scan? Without a category, harmless goods, which nobody looks for."""
    if not category:
        return NOT_VERIFIED, ()
    if category not in facts.decidable:
        return None
    (line,) = decide(policy, _evidence(facts, policy, [category])).declaration
    answer = {"found": MATCH, "prohibited": MISMATCH}.get(line.status, NOT_VERIFIED)
    return answer, facts.instances.get(category, ())


def unanswerable(facts: Facts, target: str, topic: str) -> Truth | None:
    """What no scan tells on any topic, of the bag or of an item in it, and whether a category that is not labelled is
    there.
    """  # noqa: D205
    known = (not target or target in facts.instances) if topic else target and target not in facts.decidable
    return (UNKNOWABLE, ()) if known else None


def _evidence(facts: Facts, policy: Policy, declared: Collection[str] | None = None) -> Evidence:
    """What the policy would be told if the model saw exactly what is there."""
    return Evidence(
        scores={name: _THERE if name in facts.instances else _NOT_THERE for name in policy.required_categories},
        findings=tuple(Finding(category, 1.0) for category in facts.instances),
        covered_categories=frozenset(policy.required_categories),
        calibrated=True,
        declared_items=None if declared is None else tuple(declared),
    )
