"""Which questions are asked about which scan, and what the answers have to be.

The plan is a pure function of the records, the annotated categories, the policy and the seed. Scans are taken in the
order of a hash, and each one gets the questions that the set so far is short of. So the plan of the first hundred is
the beginning of the plan of all, however the annotation file is sorted.

Two balances are kept for each category: as many "no" as "yes" (presence), as many false premises as true ones
(absent). They are limits: where the scans cannot keep them, another type of question is asked.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xray_vqa.core.policy import Policy
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation import facts as truth
from xray_vqa.generation.draws import Draws
from xray_vqa.generation.facts import NONE, Facts, Truth, read_facts
from xray_vqa.generation.wording import askable_types, draw_languages

PLAN_VERSION = "1"


SHARES = {
    "presence/yes": 0.11, "presence/no": 0.11,
    "listing/none": 0.04, "listing/one": 0.06, "listing/several": 0.06,
    "location": 0.17,
    "identification": 0.11,
    "count/0": 0.04, "count/1": 0.04, "count/2": 0.04, "count/3+": 0.02,
    "risk/low": 0.03, "risk/medium": 0.03, "risk/high": 0.03, "risk/critical": 0.03,
    "absent/true": 0.05, "absent/false": 0.05,
}  # fmt: skip
"""The wanted share of each cell (a type, or a type and a kind of answer) in the whole set."""

_RISK_CELLS = frozenset(cell for cell in SHARES if cell.startswith("risk/"))

NUM_OPTIONS = 4
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
    """The categories that the question offers, in the order in which it names them."""
    region: str = ""
    negative: str = ""
    """How an absent target was found: `random`, `popular` or `look-alike`."""

    @property
    def subject(self) -> tuple[str, str, tuple[str, ...], str]:
        """What must not be asked twice about one scan."""
        return (self.question_type, self.target, tuple(sorted(self.options)), self.region)

    def as_json(self) -> dict[str, Any]:
        return {
            "type": self.question_type,
            "answer": self.short_answer,
            "evidence": list(self.evidence),
            "target": self.target,
            "options": list(self.options),
            "region": self.region,
        }


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """A scan and the questions to be asked about it; none where nothing can be asked honestly."""

    record: ScanRecord
    slots: tuple[Slot, ...]
    language: str = "en"
    """Of question and answer text; short answers are the taxonomy's in any language."""


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


def identity_of(record: ScanRecord) -> str:
    """Return what a scan is known by: its bytes' digest, or its path where the record does not give one."""
    return record.sha256 or record.image_path


class Planner:
    """Plans scans one after another and remembers what the set is short of."""

    def __init__(self, annotated: Sequence[str], policy: Policy, *, samples_per_image: int = 3, seed: int = 0) -> None:
        self._annotated, self._policy = tuple(annotated), policy
        self._samples, self._seed = samples_per_image, seed
        self._asked: dict[str, int] = defaultdict(int)
        """By cell."""
        self._yes: dict[tuple[str, str], int] = defaultdict(int)
        """Questions by type and category whose item is there."""
        self._no: dict[tuple[str, str], int] = defaultdict(int)
        self._seen: dict[str, int] = defaultdict(int)
        """Scans so far that hold the category."""

    def draws(self, record: ScanRecord, purpose: str) -> Draws:
        return Draws(self._seed, identity_of(record), purpose)

    def plan(self, record: ScanRecord, language: str = "en") -> PlannedImage:
        """Return the questions for the next scan, of types that can be asked in the language."""
        facts, draws = read_facts(record, self._annotated), self.draws(record, "plan")
        for category in facts.present:
            self._seen[category] += 1
        slots: list[Slot] = []
        taken: set[tuple[str, str, tuple[str, ...], str]] = set()
        level = _slot("risk", truth.risk(facts, self._policy))
        closed = {cell for cell in _RISK_CELLS if level is None or not cell.endswith(f"/{level.short_answer}")}
        closed |= {cell for cell in SHARES if cell.partition("/")[0] not in askable_types(language)}
        while len(slots) < self._samples and (cell := self._most_wanted(closed)):
            slot = level if cell in _RISK_CELLS else self._propose(cell, facts, draws, taken)
            if slot is None or slot.subject in taken:
                closed.add(cell)
                continue
            slots.append(slot)
            taken.add(slot.subject)
            self._remember(cell, slot)
        return PlannedImage(record, tuple(slots), language)

    def _most_wanted(self, closed: set[str]) -> str:
        """Return the open cell that has got the least of its share so far, or an empty string."""
        least, found = float("inf"), ""
        for cell, share in SHARES.items():
            if cell not in closed and (got := (self._asked[cell] + 1) / share) < least:
                least, found = got, cell
        return found

    def _remember(self, cell: str, slot: Slot) -> None:
        self._asked[cell] += 1
        if slot.target:
            (self._yes if slot.evidence else self._no)[slot.question_type, slot.target] += 1

    def _propose(self, cell: str, facts: Facts, draws: Draws, taken: set[Any]) -> Slot | None:
        """Return a slot of a cell that this scan can answer and that was not asked yet."""
        kind, _, part = cell.partition("/")
        match kind:
            case "presence":
                return self._polar(kind, facts.present, part == "yes", facts, draws, taken)
            case "absent":
                placed = [category for category in facts.present if facts.placed(category)]
                return self._polar(kind, placed, part == "true", facts, draws, taken)
            case "location":
                return self._location(facts, draws, taken)
            case "count":
                return self._count(part, facts, draws, taken)
            case "listing":
                return _listing(part, facts, draws, taken)
            case _:
                return _identification(facts, draws, taken)

    def _polar(
        self, kind: str, there: Sequence[str], positive: bool, facts: Facts, draws: Draws, taken: set[Any]
    ) -> Slot | None:
        """A question whose premise holds or not, within the balance of its category."""

        def surplus(category: str) -> int:
            return self._yes[kind, category] - self._no[kind, category]

        sign = 1 if positive else -1
        even = sign * (self._asked[_cells(kind)[0]] - self._asked[_cells(kind)[1]]) <= 0

        def allowed(category: str) -> bool:
            asked = self._yes[kind, category] + self._no[kind, category]
            after = sign * surplus(category) + 1
            # Nearly even for each category, and no category may lean the way that the whole set leans already.
            return after <= (max(1, asked // 25) if even else 0) and (kind, category, (), "") not in taken

        candidates = [category for category in (there if positive else facts.deniable) if allowed(category)]
        if not candidates:
            return None
        answer_of = truth.presence if kind == "presence" else truth.location
        if positive:
            target = min(draws.order(candidates), key=surplus)
            return _slot(kind, answer_of(facts, target), target)
        target, how = self._absent_target(candidates, [c for c in candidates if surplus(c) > 0], facts, draws)
        return _slot(kind, answer_of(facts, target), target, negative=how)

    def _absent_target(
        self, candidates: Sequence[str], owed: Sequence[str], facts: Facts, draws: Draws
    ) -> tuple[str, str]:
        """Return an absent category to ask about: any, one that is often there, or one that looks alike.

        Categories that were answered "yes" more often than "no" come first.
        """
        similar = {other for category in facts.present for other in _SIMILAR[category]}
        way = draws.pick(("random", "popular", "look-alike"))
        if way == "look-alike":
            alike = [c for c in owed if c in similar] or [c for c in candidates if c in similar]
            if alike:
                return draws.pick(alike), way
        pool = owed or candidates
        if way == "popular":
            return max(draws.order(pool), key=lambda category: self._seen[category]), way
        return draws.pick(pool), "random"

    def _location(self, facts: Facts, draws: Draws, taken: set[Any]) -> Slot | None:
        candidates = [c for c in facts.present if facts.placed(c) and ("location", c, (), "") not in taken]
        if not candidates:
            return None
        target = min(draws.order(candidates), key=lambda category: self._yes["location", category])
        return _slot("location", truth.location(facts, target), target)

    def _count(self, part: str, facts: Facts, draws: Draws, taken: set[Any]) -> Slot | None:
        """Of one category, or of all prohibited items where that is not the same."""

        def fits(target: str) -> bool:
            answer = truth.count(facts, target)
            return answer is not None and _count_part(answer[0]) == part and ("count", target, (), "") not in taken

        candidates = [category for category in (facts.deniable if part == "0" else facts.present) if fits(category)]
        if len(facts.present) != 1 and fits(""):
            candidates.append("")
        if not candidates:
            return None
        target = min(
            draws.order(candidates),
            key=lambda category: (
                self._no["count", category] - self._yes["count", category] if part == "0" and category else 0
            ),
        )
        return _slot("count", truth.count(facts, target), target)


def _cells(kind: str) -> tuple[str, str]:
    return ("presence/yes", "presence/no") if kind == "presence" else ("absent/true", "absent/false")


def _count_part(number: str) -> str:
    return number if int(number) < 3 else "3+"


def _listing(part: str, facts: Facts, draws: Draws, taken: set[Any]) -> Slot | None:
    """All prohibited items of a scan that is told in full, else which of some options are there."""
    wanted = {"none": (0, 0), "one": (1, 1), "several": (2, NUM_OPTIONS)}[part]
    if facts.complete and ("listing", "", (), "") not in taken:
        low, high = (2, len(CATEGORIES)) if part == "several" else wanted
        if low <= len(facts.present) <= high:
            return _slot("listing", truth.listing(facts, ()))
    num_there = min(wanted[1], len(facts.present))
    if num_there < wanted[0]:
        return None
    options = _options(draws.order(facts.present)[:num_there], facts, draws)
    return _slot("listing", truth.listing(facts, options), options=options) if len(options) > 1 else None


def _identification(facts: Facts, draws: Draws, taken: set[Any]) -> Slot | None:
    """What lies alone in a region, or which of some options is there."""
    by_region = [
        _slot("identification", truth.identification(facts, (), region), region=region) for region in facts.sole_regions
    ]
    by_options: list[Slot | None] = []
    for category in facts.present:
        options = _options([category], facts, draws)
        if len(options) > 1:
            by_options.append(_slot("identification", truth.identification(facts, options, ""), options=options))
    for group in draws.order((by_region, by_options)):
        fresh = [slot for slot in group if slot and slot.subject not in taken]
        if fresh:
            return draws.pick(fresh)
    return None


def _options(there: Sequence[str], facts: Facts, draws: Draws) -> tuple[str, ...]:
    """Return options in random order: these, filled up with absent categories, half of them look-alikes."""
    similar = {other for category in facts.present for other in _SIMILAR[category]}
    room = max(NUM_OPTIONS - len(there), 1)
    hard = draws.order([category for category in facts.deniable if category in similar])[: (room + 1) // 2]
    easy = draws.order([category for category in facts.deniable if category not in hard])
    return tuple(draws.order([*there, *hard, *easy[: room - len(hard)]]))


def _slot(
    question_type: str,
    answer: Truth | None,
    target: str = "",
    *,
    options: tuple[str, ...] = (),
    region: str = "",
    negative: str = "",
) -> Slot | None:
    if answer is None:
        return None
    short_answer, evidence = answer
    return Slot(question_type, short_answer, evidence, target, options, region, negative)


def count_slots(plan: Iterable[PlannedImage]) -> dict[str, int]:
    """Return how many questions of each type are planned."""
    counts: dict[str, int] = defaultdict(int)
    for image in plan:
        for slot in image.slots:
            counts[slot.question_type] += 1
    return dict(sorted(counts.items()))


__all__ = [
    "NONE",
    "PLAN_VERSION",
    "PlannedImage",
    "Planner",
    "Slot",
    "count_slots",
    "identity_of",
    "plan_images",
]
