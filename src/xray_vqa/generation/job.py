"""What one run has to do, and the next thing to ask about each image, however it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xray_vqa.config.generate import GenerateConfig
from xray_vqa.generation.journal import Journal
from xray_vqa.generation.ladder import Ladder, Step
from xray_vqa.generation.output import Output
from xray_vqa.generation.plan import PlannedImage
from xray_vqa.generation.providers import Request
from xray_vqa.generation.source import Source


@dataclass(frozen=True, slots=True)
class Job:
    """A plan, what is there of it, and where the rest goes. Images are known by their place in the plan."""

    config: GenerateConfig
    source: Source
    plan: Sequence[PlannedImage]
    keys: Sequence[str]
    ladder: Ladder
    journal: Journal
    written: Output

    def next_call(self, index: int) -> tuple[Step, Request] | None:
        """Return what to ask next about an image. None where it needs nothing more: then its pairs are taken."""
        image = self.plan[index]
        answers = self.journal.answers[self.keys[index]]
        made = self.written.maker.make(image, answers)
        step = self.ladder.next_step(len(image.slots), answers, made.faults)
        if step is None:
            self.written.take(index, made)
            return None
        return step, replace(
            self.source.request(image),
            slots=tuple(image.slots[slot] for slot in step.slots),
            complaint=step.complaint,
            with_image=self.ladder.rungs[step.rung].with_image,
        )
