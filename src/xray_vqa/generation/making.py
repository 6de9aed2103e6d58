"""From answers to pairs: the provider's words, the plan's truth, and the validator's consent."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from xray_vqa.core.policy import Policy
from xray_vqa.core.records import PairMetadata, VQAPair
from xray_vqa.errors import AnswerUnreadable
from xray_vqa.generation.facts import Facts, read_facts
from xray_vqa.generation.journal import Answer
from xray_vqa.generation.ladder import Ladder, Rung
from xray_vqa.generation.plan import PlannedImage
from xray_vqa.generation.providers import WordedPair, read_reply
from xray_vqa.generation.source import Source
from xray_vqa.generation.validation import check_image


@dataclass(slots=True)
class Made:
    """What became of an image's answers."""

    pairs: dict[int, VQAPair] = field(default_factory=dict[int, VQAPair])
    """By question."""
    faults: dict[int, str] = field(default_factory=dict[int, str])
    """What is wrong with the questions that have no usable words, by question."""
    num_refused: Counter[str] = field(default_factory=Counter[str])
    """Refusals by rung."""
    disagrees: bool = False
    """Whether somebody saw something else in the scan than the annotations say."""


@dataclass(frozen=True, slots=True)
class PairMaker:
    """Makes pairs of answers: the provider's words, the plan's truth, and the validator's consent."""

    ladder: Ladder
    source: Source
    policy: Policy

    def make(self, image: PlannedImage, answers: Sequence[Answer]) -> Made:
        """Return the first words for each question that hold."""
        facts = read_facts(image.record, self.source.annotated)
        made = Made(faults=dict.fromkeys(range(len(image.slots)), "never asked"))
        for answer in answers:
            rung = self.ladder.rungs[answer.rung]
            if answer.reply is None:
                made.faults.update(dict.fromkeys(answer.slots, answer.error))
                continue
            if answer.reply.stop == "refusal":
                made.num_refused[rung.name] += 1
            try:
                reply = read_reply(answer.reply)
            except AnswerUnreadable as error:
                made.faults.update(dict.fromkeys(answer.slots, str(error)))
                continue
            made.disagrees |= reply.disagree
            self._take(image, facts, answer, rung, {pair.slot: pair for pair in reply.pairs}, made)
        return made

    def _take(
        self,
        image: PlannedImage,
        facts: Facts,
        answer: Answer,
        rung: Rung,
        worded: dict[int, WordedPair],
        made: Made,
    ) -> None:
        """Add what holds of one readable reply."""
        assert answer.reply is not None
        fresh: dict[int, VQAPair] = {}
        for position, slot in enumerate(answer.slots):
            words, planned = worded.get(position), image.slots[slot]
            if words is None or not words.question.strip() or not words.answer.strip():
                made.faults[slot] = f"no words for the {planned.question_type} question"
                continue
            if words.evidence is not None and set(words.evidence) != set(planned.evidence):
                made.faults[slot] = f"cites the facts {words.evidence}; the answer rests on {list(planned.evidence)}"
                continue
            about = PairMetadata(
                image_id=image.record.image_id,
                question_type=planned.question_type,
                categories=list(facts.present),
                num_categories=len(facts.present),
                generated_by=rung.provider.generated_by,
                model=answer.reply.model,
                prompt_version=rung.provider.prompt_version,
                evidence=list(planned.evidence),
                short_answer=planned.short_answer,
                target=planned.target,
                topic=planned.topic,
                language=image.language,
            )
            fresh[slot] = VQAPair(
                image_path=image.record.image_path, question=words.question, answer=words.answer, metadata=about
            )
        kept = [*made.pairs.values()]
        # Those that hold already come first: of two that contradict each other the later one is at fault.
        faults = dict(reversed(check_image([*kept, *fresh.values()], facts, self.policy)))
        for position, (slot, pair) in enumerate(fresh.items(), start=len(kept)):
            if position in faults:
                made.faults[slot] = faults[position]
            else:
                made.pairs[slot] = pair
                del made.faults[slot]
