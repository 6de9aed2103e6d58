"""How a bag is packed and how an item lies in it, as far as its record says so; else there is no such question.

`factors` comes from the simulator or from STCray's file names (`dataset/stcray/names.py`) and is free in form, so each
value is read with care: what does not look as it should is as good as not there. Of STCray's numbers only the clutter
level is used: what its concealment, place and angle numbers mean is not published.
"""

import re
from collections.abc import Iterable
from typing import Any

from xray_vqa.core.answers import parse_categories
from xray_vqa.core.lexicon import CLUTTER, CONTAINERS, ORIENTATION, OVERLAP
from xray_vqa.core.records import ScanRecord
from xray_vqa.generation.facts import Facts, Truth
from xray_vqa.generation.topics import COMMON_COVERS

OVERLAP_BOUNDS = (0.35, 0.7)
"""Share of an item's attenuation that other things own, from which it is `partly` and from which it is `mostly`
covered."""

CLEARLY_LONGER = 1.5
"""By how much the longer side of a box has to exceed the other before an item lies this way."""


def attribute(facts: Facts, topic: str, target: str) -> Truth | None:
    """What does the record say on this topic, of the bag or of its only item of a category?"""
    record = facts.record
    if topic in ("clutter", "container"):
        said = _clutter(record) if topic == "clutter" else _container(record)
        return None if target or said is None else (said, ())
    if len(indices := facts.instances.get(target, ())) != 1:
        return None
    (index,) = indices
    match topic:
        case "overlap":
            said = _overlap(record, index)
        case "concealer":
            said = _concealer(record, index)
        case "orientation":
            said = _orientation(facts, index)
        case _:
            said = None
    return None if said is None else (said, (index,))


def _clutter(record: ScanRecord) -> str | None:
    level = (record.factors or {}).get("clutter_level")
    return CLUTTER[level - 1] if type(level) is int and 1 <= level <= len(CLUTTER) else None


def _container(record: ScanRecord) -> str | None:
    """The factor, or the only kind of bag that the caption names."""
    bag = (record.factors or {}).get("bag")
    if isinstance(bag, str):
        return bag if bag in CONTAINERS else None
    named = names_in(record.caption, CONTAINERS)
    return named.pop() if len(named) == 1 else None


def _overlap(record: ScanRecord, index: int) -> str | None:
    shares = record.occlusion
    if not shares or len(shares) != len(record.categories) or not 0 <= shares[index] <= 1:
        return None
    return OVERLAP[sum(shares[index] >= bound for bound in OVERLAP_BOUNDS)]


def _concealer(record: ScanRecord, index: int) -> str | None:
    threats: Any = (record.factors or {}).get("threats")
    if not isinstance(threats, list) or len(threats) != len(record.categories):
        return None
    name = threats[index].get("concealer") if isinstance(threats[index], dict) else None
    return name if isinstance(name, str) and name in (record.co_items or ()) and is_harmless(name) else None


def _orientation(facts: Facts, index: int) -> str | None:
    values = facts.record.bboxes[index]
    if values is None or not facts.regions[index]:
        return None
    width, height = values[2:]
    if max(width, height) < CLEARLY_LONGER * min(width, height):
        return None
    return ORIENTATION[height > width]


def is_harmless(name: str) -> bool:
    """Return whether a thing can be named without naming a category, as "glue gun" does."""
    return bool(name) and name.isascii() and not parse_categories(name)


def covers_of(record: ScanRecord) -> tuple[str, ...]:
    """Return the names of things that may lie over an item: those in the bag and common ones."""
    own = [name for name in record.co_items or () if is_harmless(name)]
    return tuple(dict.fromkeys([*sorted(own), *COMMON_COVERS]))


def names_in(text: str, names: Iterable[str]) -> set[str]:
    """Return which of some names stand in a text; within a longer one of them, a shorter one does not count."""
    # Longest first, so that "hard suitcase" is read before "suitcase".
    alternatives = "|".join(re.escape(name) for name in sorted(set(names), key=lambda name: (-len(name), name)))
    return set(re.findall(rf"(?<![\w-])(?:{alternatives})(?![\w-])", text.lower())) if alternatives else set()
