"""Questions about the whole bag: is anything in it, how risky is it, and is it what the traveller declared?"""

from collections.abc import Sequence

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation import facts as truth
from xray_vqa.generation.attributes import is_harmless
from xray_vqa.generation.plan.items import similar_to
from xray_vqa.generation.plan.slot import Slot, slot_of
from xray_vqa.generation.plan.tally import Wanted
from xray_vqa.generation.topics import COMMON_GOODS, TOPICS

NUM_GOODS = 3
"""Harmless things in a declaration, at most."""


def general(wanted: Wanted) -> Slot | None:
    slot = slot_of("general", truth.general(wanted.facts))
    if slot is None or slot.short_answer != wanted.part:
        return None
    return slot if wanted.tally.allows("general", "", wanted.part, ("yes", "no")) else None


def risk(wanted: Wanted) -> Slot | None:
    slot = slot_of("risk", truth.risk(wanted.facts, wanted.policy))
    return slot if slot is not None and slot.short_answer == wanted.part else None


def declaration(wanted: Wanted) -> Slot | None:
    match wanted.part:
        case "match" | "mismatch":
            return _whole(wanted)
        case "goods":
            goods = _goods(wanted)
            return slot_of(
                "declaration", truth.declared_item(wanted.facts, wanted.policy, ""), topic="item", goods=goods
            )
        case _:
            return _item(wanted)


def _whole(wanted: Wanted) -> Slot | None:
    """A declaration that names a category as often where it is true as where it is not."""
    found = [
        slot
        for options in _declarations(wanted)
        if (slot := slot_of("declaration", truth.declaration(wanted.facts, wanted.policy, options),
                            options=options, topic="whole", goods=_goods(wanted)))
        and slot.short_answer == wanted.part
        and wanted.is_fresh(slot)
        and wanted.tally.allows("declaration", "whole", wanted.part, TOPICS["declaration"]["whole"].answers)
    ]  # fmt: skip
    return min(found, key=lambda slot: wanted.tally.named[wanted.part, bool(slot.options)], default=None)


def _declarations(wanted: Wanted) -> list[tuple[str, ...]]:
    """Return the prohibited items that a traveller could have declared: none, what is there, or something else.

    Only what may be carried when declared: of anything else the declaration alone gives the answer away.
    """
    facts, draws = wanted.facts, wanted.draws
    there = [category for category in facts.present if wanted.policy.rule(category).declarable]
    absent = [category for category in facts.deniable if wanted.policy.rule(category).declarable]
    similar = similar_to(facts.present)
    others = draws.order([c for c in absent if c in similar]) or draws.order(absent)
    choices: list[Sequence[str]] = [(), there, there[:1], others[:1], [*there[:1], *others[:1]]]
    return [tuple(c for c in CATEGORIES if c in choice) for choice in draws.order(choices)]


def _item(wanted: Wanted) -> Slot | None:
    """One declared item that may be carried: there, or not to be seen; as often the one as the other."""
    facts, tally = wanted.facts, wanted.tally
    positive = wanted.part == "seen"
    sign = 1 if positive else -1
    candidates = [
        category
        for category in (facts.present if positive else facts.deniable)
        if wanted.policy.rule(category).declarable
        and sign * tally.surplus("declaration", category) <= 0
        and not wanted.is_asked("declaration", category, "item")
    ]
    if not candidates:
        return None
    target = min(wanted.draws.order(candidates), key=lambda c: sign * tally.surplus("declaration", c))
    return slot_of(
        "declaration",
        truth.declared_item(facts, wanted.policy, target),
        target,
        topic="item",
        goods=_goods(wanted),
    )


def _goods(wanted: Wanted) -> tuple[str, ...]:
    """Return a few harmless things that the traveller declared, or could have."""
    declared = [name for name in wanted.facts.record.declared_items or () if is_harmless(name)]
    return tuple(wanted.draws.order(declared or COMMON_GOODS)[: 1 + wanted.draws.below(NUM_GOODS)])
