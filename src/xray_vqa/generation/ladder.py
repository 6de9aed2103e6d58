"""What is tried until each question of an image has words that hold.

A reply with faults is complained about, once for an image. What still lacks words then, or was refused, goes down the
refusal ladder: the same model without the image, then the other providers in turn. Each step asks only for what is
missing. What comes next depends on the answers so far alone, so that a killed run goes on exactly where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xray_vqa.generation.journal import Answer
from xray_vqa.generation.providers import Provider


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder."""

    provider: Provider
    with_image: bool
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call to make."""

    rung: int
    slots: tuple[int, ...]
    """Questions by number in the plan."""
    complaint: str = ""


class Ladder:
    """The steps for one set of providers."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self.rungs: list[Rung] = []
        for provider in providers:
            self.rungs.append(Rung(provider, with_image=True, name=provider.name))
            if provider.listens and provider is providers[0]:
                self.rungs.append(Rung(provider, with_image=False, name=f"{provider.name}, facts alone"))

    def next_step(self, num_slots: int, answers: Sequence[Answer], faults: dict[int, str]) -> Step | None:
        """Return the call to make next, or None where all is there or nothing is left to try.

        Args:
            num_slots: planned questions.
            answers: what came so far.
            faults: what is wrong with the questions that have no usable words yet, by number.
        """
        if not answers:
            return Step(0, tuple(range(num_slots)))
        if not faults:
            return None
        last, missing = answers[-1], tuple(sorted(faults))
        can_mend = last.reply is not None and last.reply.stop != "refusal" and self.rungs[last.rung].provider.listens
        if can_mend and not any(answer.is_repair for answer in answers):
            complaint = "; ".join(f"slot {position}: {faults[slot]}" for position, slot in enumerate(missing))
            return Step(last.rung, missing, complaint)
        return Step(last.rung + 1, missing) if last.rung + 1 < len(self.rungs) else None
