"""Questions about categories: is it there, where, how many, which ones, what is it?"""

from collections.abc import Sequence

from xray_vqa.core.draws import Draws
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation import facts as truth
from xray_vqa.generation.facts import Facts
from xray_vqa.generation.plan.slot import Slot, slot_of
from xray_vqa.generation.plan.tally import Wanted
from xray_vqa.generation.topics import LETTERED, LETTERS

NUM_OPTIONS = len(LETTERS)
"""Choices that a question offers, where it offers any."""

LOOK_ALIKES = (
    ("Gun", "3D Gun"),
    ("Knife", "Cutter", "Blade", "Shaving Razor", "Scissors", "Other Sharp Item"),
    ("Hammer", "Wrench", "Screwdriver", "Pliers"),
    ("Battery", "Powerbank", "Lighter", "Explosive"),
    ("Injection", "Screwdriver", "Bullet"),
    ("Nail Cutter", "Pliers", "Scissors", "Handcuffs"),
)
"""Categories that a screener mistakes for each other in a scan: of one outline or of one material."""

_SIMILAR = {
    category: frozenset(other for group in LOOK_ALIKES if category in group for other in group) - {category}
    for category in CATEGORIES
}


def similar_to(categories: Sequence[str]) -> frozenset[str]:
    """Return what a screener takes for one of these."""
    return frozenset(other for category in categories for other in _SIMILAR[category])


def presence(wanted: Wanted) -> Slot | None:
    return _polar("presence", ("yes", "no"), wanted.facts.present, wanted)


def absent(wanted: Wanted) -> Slot | None:
    facts = wanted.facts
    return _polar("absent", ("true", "false"), [c for c in facts.present if facts.placed(c)], wanted)


def _polar(kind: str, parts: tuple[str, str], there: Sequence[str], wanted: Wanted) -> Slot | None:
    """A question whose premise holds or not, within the balance of its category."""
    facts, tally = wanted.facts, wanted.tally
    positive = wanted.part == parts[0]
    sign = 1 if positive else -1
    yes, no = (tally.asked[f"{kind}/{part}"] for part in parts)
    even = sign * (yes - no) <= 0

    def surplus(category: str) -> int:
        return tally.surplus(kind, category)

    def allowed(category: str) -> bool:
        asked = tally.yes[kind, category] + tally.no[kind, category]
        after = sign * surplus(category) + 1
        # Nearly even for each category, and no category may lean the way that the whole set leans already.
        return after <= (max(1, asked // 25) if even else 0) and not wanted.is_asked(kind, category)

    candidates = [category for category in (there if positive else facts.deniable) if allowed(category)]
    if not candidates:
        return None
    answer_of = truth.presence if kind == "presence" else truth.location
    if positive:
        target = min(wanted.draws.order(candidates), key=surplus)
        return slot_of(kind, answer_of(facts, target), target)
    target, how = _absent_target(candidates, [c for c in candidates if surplus(c) > 0], wanted)
    return slot_of(kind, answer_of(facts, target), target, negative=how)


def _absent_target(candidates: Sequence[str], owed: Sequence[str], wanted: Wanted) -> tuple[str, str]:
    """Return an absent category to ask about: any, one that is often there, or one that looks alike.

    Categories that were answered "yes" more often than "no" come first.
    """
    draws, similar = wanted.draws, similar_to(wanted.facts.present)
    way = draws.pick(("random", "popular", "look-alike"))
    if way == "look-alike":
        alike = [c for c in owed if c in similar] or [c for c in candidates if c in similar]
        if alike:
            return draws.pick(alike), way
    pool = owed or candidates
    if way == "popular":
        return max(draws.order(pool), key=lambda category: wanted.tally.seen[category]), way
    return draws.pick(pool), "random"


def location(wanted: Wanted) -> Slot | None:
    facts = wanted.facts
    candidates = [c for c in facts.present if facts.placed(c) and not wanted.is_asked("location", c)]
    if not candidates:
        return None
    target = min(wanted.draws.order(candidates), key=lambda category: wanted.tally.yes["location", category])
    return slot_of("location", truth.location(facts, target), target)


def count(wanted: Wanted) -> Slot | None:
    """Of all prohibited items or of one category: of what has been given its number least often, beside its others.

    So what is counted does not tell the number, though there is hardly ever more than one of a category.
    """
    facts, tally = wanted.facts, wanted.tally
    scope, _, number = wanted.part.partition("-")
    targets = ("",) if scope == "all" else facts.deniable if number == "0" else facts.present
    found = [
        slot
        for target in wanted.draws.order(targets)
        if (slot := slot_of("count", truth.count(facts, target), target))
        and _is_number(slot.short_answer, number)
        and wanted.is_fresh(slot)
        and tally.allows_number(slot)
    ]
    return min(found, key=tally.lead_of_number, default=None)


def _is_number(answer: str, number: str) -> bool:
    """Return whether an answer is this number; `3+` stands for three and more."""
    return int(answer) >= int(number[:-1]) if number.endswith("+") else answer == number


def listing(wanted: Wanted) -> Slot | None:
    """All prohibited items of a scan that is told in full, else which of some options are there."""
    facts, draws, part = wanted.facts, wanted.draws, wanted.part
    low, high = {"none": (0, 0), "one": (1, 1), "several": (2, NUM_OPTIONS)}[part]
    if facts.complete and not wanted.is_asked("listing", ""):
        most = len(CATEGORIES) if part == "several" else high
        if low <= len(facts.present) <= most:
            return slot_of("listing", truth.listing(facts, ()))
    num_there = min(high, len(facts.present))
    if num_there < low:
        return None
    options = _options(draws.order(facts.present)[:num_there], facts, draws)
    return slot_of("listing", truth.listing(facts, options), options=options) if len(options) > 1 else None


def identification(wanted: Wanted) -> Slot | None:
    """What lies alone in a region, or which of some options is there; the options with letters or without."""
    facts, draws = wanted.facts, wanted.draws
    by_region = [
        slot_of("identification", truth.identification(facts, (), region), region=region)
        for region in facts.sole_regions
    ]
    topic = LETTERED if wanted.part == LETTERED else ""
    by_options: list[Slot | None] = []
    for category in facts.present:
        options = _rotated(category, _choices(category, wanted), wanted)
        if len(options) > 1:
            answer = truth.identification(facts, options, "")
            by_options.append(slot_of("identification", answer, options=options, topic=topic))
    for group in (by_options,) if topic else draws.order((by_region, by_options)):
        fresh = [slot for slot in group if slot and wanted.is_fresh(slot)]
        if fresh:
            return draws.pick(fresh)
    return None


def _options(there: Sequence[str], facts: Facts, draws: Draws) -> tuple[str, ...]:
    """Return options in random order: these, filled up with absent categories, half of them look-alikes."""
    similar = similar_to(facts.present)
    room = max(NUM_OPTIONS - len(there), 1)
    hard = draws.order([category for category in facts.deniable if category in similar])[: (room + 1) // 2]
    easy = draws.order([category for category in facts.deniable if category not in hard])
    return tuple(draws.order([*there, *hard, *easy[: room - len(hard)]]))


def _choices(there: str, wanted: Wanted) -> list[str]:
    """Return what is there and others that are not: a look-alike of it, and two that look like each other.

    Three of a kind beside a stranger would tell that it is one of the three. For the same reason, what was the true
    choice oftener than chance would have it comes first.
    """
    often = sorted(wanted.draws.order(wanted.facts.deniable), key=lambda name: -wanted.tally.chosen[name])
    strangers = [name for name in often if name not in _SIMILAR[there]]
    others = [name for name in often if name in _SIMILAR[there]][:1]
    others += strangers[:1]
    others += [name for name in strangers if name in similar_to(strangers[:1])][:1]
    others += [name for name in (*strangers, *often) if name not in others]
    return [there, *dict.fromkeys(others)][:NUM_OPTIONS]


def _rotated(there: str, options: Sequence[str], wanted: Wanted) -> tuple[str, ...]:
    """Return options in random order, the true one in the place where it has been least often."""
    others = wanted.draws.order([category for category in options if category != there])
    place = min(wanted.draws.order(range(len(options))), key=lambda index: wanted.tally.places[index])
    return (*others[:place], there, *others[place:])
