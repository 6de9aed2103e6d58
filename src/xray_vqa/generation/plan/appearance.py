"""Questions about how a bag is packed and how an item lies in it, and about what no scan can tell."""

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation import facts as truth
from xray_vqa.generation.attributes import attribute, covers_of
from xray_vqa.generation.plan.items import NUM_OPTIONS
from xray_vqa.generation.plan.slot import Slot, slot_of
from xray_vqa.generation.plan.tally import Wanted
from xray_vqa.generation.topics import BAG_UNKNOWNS, CHARGED, ITEM_UNKNOWNS, TOPICS, UNKNOWABLE

MOST_UNANSWERABLE = 0.05
"""Share of the set from which no scan's shortage of other questions is filled up with these."""


def concealment(wanted: Wanted) -> Slot | None:
    """What the record says on the topic, the rarest answer first."""
    facts, tally, topic = wanted.facts, wanted.tally, wanted.part
    found: list[Slot] = []
    for target in wanted.draws.order(["", *facts.present]):
        answer = attribute(facts, topic, target)
        goods = _covers(answer[0], wanted) if answer and topic == "concealer" else ()
        slot = slot_of("concealment", answer, target, topic=topic, goods=goods)
        answers = TOPICS["concealment"][topic].answers
        if (
            slot
            and wanted.is_fresh(slot)
            and (not answers or tally.allows("concealment", topic, slot.short_answer, answers))
        ):
            found.append(slot)
    return min(found, key=lambda slot: tally.answers["concealment", topic, slot.short_answer], default=None)


def _covers(there: str, wanted: Wanted) -> tuple[str, ...]:
    """Return things that may lie over an item: the one that does, and others that often were the answer."""
    words = set(there.split())
    others = [name for name in covers_of(wanted.facts.record) if not words & set(name.split())]
    hard = sorted(wanted.draws.order(others), key=lambda name: -wanted.tally.covers[name])[: NUM_OPTIONS - 1]
    return tuple(wanted.draws.order([there, *hard]))


def unanswerable(wanted: Wanted) -> Slot | None:
    """What a scan does not tell: of the bag, of an item in it, or of a category that the source does not label."""
    facts, tally, draws = wanted.facts, wanted.tally, wanted.draws
    num_asked = sum(tally.asked[f"unanswerable/{part}"] for part in ("bag", "item", "unlabelled"))
    enough = num_asked >= max(1, MOST_UNANSWERABLE * sum(tally.asked.values()))
    if enough or any(subject[0] == "unanswerable" for subject in wanted.taken):
        return None
    match wanted.part:
        case "bag":
            candidates = [(topic, "") for topic in BAG_UNKNOWNS]
        case "item":
            candidates = [(topic, target) for topic in ITEM_UNKNOWNS for target in facts.present]
            candidates += [("charge", target) for target in facts.present if target in CHARGED]
        case _:
            candidates = [("", category) for category in CATEGORIES if category not in facts.decidable]
    if not candidates:
        return None
    topic, target = min(
        draws.order(candidates),
        key=lambda pair: (tally.answers["unanswerable", pair[0], UNKNOWABLE], tally.no["unanswerable", pair[1]]),
    )
    return slot_of("unanswerable", truth.unanswerable(facts, target, topic), target, topic=topic)
