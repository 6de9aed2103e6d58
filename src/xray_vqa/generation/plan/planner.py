"""Plans scans one after another, each with what the set so far is short of."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from xray_vqa.core.draws import Draws
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import ScanRecord
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.plan import appearance, bag, items
from xray_vqa.generation.plan.slot import PlannedImage, Slot, Subject, identity_of
from xray_vqa.generation.plan.tally import Tally, Wanted
from xray_vqa.generation.wording import draw_languages, is_wordable

PLAN_VERSION = "3"

SHARES = {
    "presence/yes": 0.09, "presence/no": 0.09,
    "general/yes": 0.05, "general/no": 0.05,
    "listing/none": 0.03, "listing/one": 0.035, "listing/several": 0.035,
    "count/all-0": 0.0125, "count/all-1": 0.0125, "count/all-2": 0.0125, "count/all-3+": 0.0125,
    "count/category-0": 0.02, "count/category-1": 0.02, "count/category-2+": 0.01,
    "location": 0.15,
    "identification/open": 0.05, "identification/letters": 0.05,
    "concealment/clutter": 0.016, "concealment/container": 0.016, "concealment/overlap": 0.016,
    "concealment/concealer": 0.016, "concealment/orientation": 0.016,
    "risk/low": 0.015, "risk/medium": 0.015, "risk/high": 0.015, "risk/critical": 0.015,
    "declaration/match": 0.0125, "declaration/mismatch": 0.0125,
    "declaration/seen": 0.01, "declaration/unseen": 0.01, "declaration/goods": 0.005,
    "absent/true": 0.025, "absent/false": 0.025,
    "unanswerable/bag": 0.01, "unanswerable/item": 0.01, "unanswerable/unlabelled": 0.01,
}  # fmt: skip
"""The wanted share of each cell (a type, or a type and a kind of question or answer) in the whole set. What a source
cannot give goes to the cells that it can."""

_PROPOSE: Mapping[str, Callable[[Wanted], Slot | None]] = {
    "presence": items.presence,
    "general": bag.general,
    "listing": items.listing,
    "count": items.count,
    "location": items.location,
    "identification": items.identification,
    "concealment": appearance.concealment,
    "risk": bag.risk,
    "declaration": bag.declaration,
    "absent": items.absent,
    "unanswerable": appearance.unanswerable,
}


def plan_images(
    records: Iterable[ScanRecord],
    annotated: Sequence[str],
    policy: Policy,
    *,
    samples_per_image: int = 3,
    seed: int = 0,
    max_images: int | None = None,
    languages: Sequence[str] = ("en",),
) -> list[PlannedImage]:
    """Return the plan, in the order in which pairs are written."""
    planner = Planner(annotated, policy, samples_per_image=samples_per_image, seed=seed)
    ordered = sorted(records, key=lambda record: (planner.draws(record, "order").below(2**63), record.image_path))
    chosen = ordered[:max_images]
    drawn = draw_languages(languages, len(chosen), seed)
    return [planner.plan(record, language) for record, language in zip(chosen, drawn, strict=True)]


class Planner:
    """Plans scans one after another and remembers what the set is short of."""

    def __init__(self, annotated: Sequence[str], policy: Policy, *, samples_per_image: int = 3, seed: int = 0) -> None:
        self._annotated, self._policy = tuple(annotated), policy
        self._samples, self._seed = samples_per_image, seed
        self._tally = Tally()

    def draws(self, record: ScanRecord, purpose: str) -> Draws:
        return Draws(self._seed, identity_of(record), purpose)

    def plan(self, record: ScanRecord, language: str = "en") -> PlannedImage:
        """Return the questions for the next scan, of those that the language has words for."""
        facts, draws = read_facts(record, self._annotated), self.draws(record, "plan")
        for category in facts.present:
            self._tally.seen[category] += 1
        if not facts.decidable:
            return PlannedImage(record, (), language)
        slots: list[Slot] = []
        taken: set[Subject] = set()
        closed: set[str] = set()
        while len(slots) < self._samples and (cell := self._most_wanted(closed)):
            kind, _, part = cell.partition("/")
            slot = _PROPOSE[kind](Wanted(part, facts, self._policy, self._tally, draws, taken))
            if slot is None or slot.subject in taken or not is_wordable(slot, language):
                closed.add(cell)
                continue
            slots.append(slot)
            taken.add(slot.subject)
            self._tally.remember(cell, slot)
        return PlannedImage(record, tuple(slots), language)

    def _most_wanted(self, closed: set[str]) -> str:
        """Return the open cell that has got the least of its share so far, or an empty string."""
        least, found = float("inf"), ""
        for cell, share in SHARES.items():
            if cell not in closed and (got := (self._tally.asked[cell] + 1) / share) < least:
                least, found = got, cell
        return found
