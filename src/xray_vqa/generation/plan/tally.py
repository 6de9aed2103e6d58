"""What the set of questions holds so far, and what one proposal may look at."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from xray_vqa.core.draws import Draws
from xray_vqa.core.policy import Policy
from xray_vqa.generation.facts import Facts
from xray_vqa.generation.plan.slot import Slot, Subject


@dataclass(slots=True)
class Tally:
    """Counts over all scans that were planned so far."""

    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By cell."""
    yes: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Questions by type and category whose item is there."""
    no: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Scans that hold the category."""
    answers: dict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    """Questions by type, topic and short answer."""
    places: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Questions by the place that the true one has among its options."""
    chosen: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By a category that is offered: how much oftener it was the true choice than chance would have it."""
    covers: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """By a thing that may lie over an item: how much oftener it was the true choice than chance would have it."""
    numbers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How often each number was the answer, by what was counted: a category, or empty for all items."""
    named: dict[tuple[str, bool], int] = field(default_factory=lambda: defaultdict(int))
    """Declarations by answer and whether they name a category."""

    def remember(self, cell: str, slot: Slot) -> None:
        self.asked[cell] += 1
        self.answers[slot.question_type, slot.topic, slot.short_answer] += 1
        if slot.target:
            (self.yes if slot.evidence else self.no)[slot.question_type, slot.target] += 1
        if slot.question_type == "identification" and slot.options:
            self.places[[name.lower() for name in slot.options].index(slot.short_answer)] += 1
            for category in slot.options:
                self.chosen[category] += len(slot.options) - 1 if category.lower() == slot.short_answer else -1
        if slot.question_type == "count":
            self.numbers[slot.target][slot.short_answer] += 1
        if slot.topic == "whole":
            self.named[slot.short_answer, bool(slot.options)] += 1
        if slot.topic == "concealer":
            for name in slot.goods:
                self.covers[name] += len(slot.goods) - 1 if name == slot.short_answer else -1

    def surplus(self, kind: str, category: str) -> int:
        """How much oftener a category was there than not, in questions of a type."""
        return self.yes[kind, category] - self.no[kind, category]

    def allows(self, kind: str, topic: str, answer: str, answers: Sequence[str]) -> bool:
        """Return whether one more of this answer leaves all answers about equally frequent."""
        asked = sum(self.answers[kind, topic, each] for each in answers)
        return self.answers[kind, topic, answer] <= asked / len(answers) + max(1, asked // 50)

    def allows_number(self, slot: Slot) -> bool:
        """Return whether none and one stay the commonest numbers of what is counted, and equally frequent.

        There are bags with none and with one of anything. Where these are the commonest answers whatever is counted,
        to know what is counted does not help to guess.
        """
        numbers = self.numbers[slot.target]
        return numbers[slot.short_answer] <= min(numbers["0"], numbers["1"])

    def lead_of_number(self, slot: Slot) -> int:
        """How much oftener this number was the answer than the commonest one of what is counted; 0 at most."""
        numbers = self.numbers[slot.target]
        return numbers[slot.short_answer] - max(numbers.values(), default=0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question that the set is short of, and the scan that it could be asked about."""

    part: str
    """The kind of question or answer within its type."""
    facts: Facts
    policy: Policy
    tally: Tally
    draws: Draws
    taken: set[Subject]
    """What is asked about this scan already."""

    def is_fresh(self, slot: Slot) -> bool:
        return slot.subject not in self.taken

    def is_asked(self, kind: str, target: str, topic: str = "") -> bool:
        return Slot(kind, "", target=target, topic=topic).subject in self.taken
