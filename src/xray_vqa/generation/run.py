"""One run of the generation, from top to bottom: read, plan, go on from the journal, write, measure."""

import asyncio
import json
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from xray_vqa.config.generate import GenerateConfig
from xray_vqa.config.loading import find_config, load_policy
from xray_vqa.core.jsonl import disk_errors, replacing, write_json
from xray_vqa.core.manifest import MANIFEST_NAME, make_manifest, manifest_path, sha256_file, write_manifest
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import SPLITS, Fault, PairMetadata, ScanRecord, Split, VQAPair
from xray_vqa.dataset.layout import annotated_categories, read_split
from xray_vqa.errors import AnswerUnreadable, ConfigError, Incomplete, ProviderError
from xray_vqa.generation.budget import Budget
from xray_vqa.generation.calling import Caller
from xray_vqa.generation.facts import Facts, read_facts
from xray_vqa.generation.journal import Answer, Event, Journal, journal_path, key_of
from xray_vqa.generation.ladder import Ladder, Rung
from xray_vqa.generation.limiter import Stopped
from xray_vqa.generation.plan import PLAN_VERSION, PlannedImage, plan_images
from xray_vqa.generation.providers import Provider, Request, WordedPair, read_reply
from xray_vqa.generation.quality import Quality, QualityMeter
from xray_vqa.generation.shards import Shard
from xray_vqa.generation.validation import check_image

logger = logging.getLogger(__name__)

SYNC_EVERY = 256
"""Events between two syncs, where no paid reply waits for one: a power cut costs seconds of work and no money."""

SHOWN = 20
"""Rejected pairs that the stats file shows."""


@dataclass(frozen=True, slots=True)
class Source:
    """What pairs are written about."""

    root: Path
    split: Split
    records: tuple[ScanRecord, ...]
    annotated: tuple[str, ...]
    faults: tuple[Fault, ...]

    def request(self, image: PlannedImage) -> Request:
        return Request(image.record, image.slots, self.root / image.record.image_path, self.annotated)


@dataclass(slots=True)
class Outcome:
    """What a run did."""

    output_path: Path
    split: Split
    num_images: int
    num_kept: int
    """Images whose reply was in the journal already."""
    model: str
    failed: dict[str, str]
    """Why, by image path."""
    num_silent: int
    """Images about which nothing can be asked honestly."""
    num_rejected: int
    cost_usd: float
    """Of all replies that ever came."""
    lost_usd: float
    """What calls whose replies never came may have cost, at most."""
    num_lost: int
    refused: dict[str, int]
    """Refusals by step of the ladder and category in the bag."""
    disputed: list[str]
    """Images whose annotations a writer doubts: worth a look of the people who labelled them."""
    quality: Quality


def open_source(annotations_path: Path) -> Source:
    """Return the scans that an annotation file of the layout describes.

    Raises:
        ConfigError: The path is not `<root>/{train,test}/annotations.json`.
        DatasetError: It cannot be read, or the dataset does not say what it labels.
    """
    split: Split | None = next((name for name in SPLITS if name == annotations_path.parent.name), None)
    if split is None or annotations_path.name != "annotations.json":
        raise ConfigError(
            f"{annotations_path}: expected <dataset>/train/annotations.json or <dataset>/test/annotations.json, as "
            "`xray-vqa data synth`, `data import` and `data download` write them"
        )
    root = annotations_path.parent.parent
    scans = read_split(root, split)
    return Source(root, split, scans.records, annotated_categories(root), scans.faults)


def make_plan(config: GenerateConfig, source: Source, policy: Policy) -> list[PlannedImage]:
    return plan_images(
        source.records,
        source.annotated,
        policy,
        samples_per_image=config.samples_per_image,
        seed=config.seed,
        max_images=config.max_images,
    )


def generate(
    config: GenerateConfig,
    provider: Provider,
    stop: threading.Event | None = None,
    *,
    fallbacks: Sequence[Provider] = (),
    may_ask: bool = True,
) -> Outcome:
    """Write the pairs file, its stats and its manifest, going on from the journal.

    Args:
        config: what to write about what.
        provider: who words it.
        fallbacks: who is asked in turn for what `provider` refuses or cannot word.
        may_ask: whether providers may be called; without, all has to be in the journal.
        stop: set from outside to end early: calls under way are awaited and kept, nothing new is begun.

    Raises:
        ConfigError: The output exists without its journal, cannot be written, or another process writes it.
        DatasetError: The scans cannot be read.
        Incomplete: A provider, the budget or the disk does not let it go on.
        KeyboardInterrupt: `stop` was set before the end.
    """
    with disk_errors(config.output_path):
        return _generate(config, (provider, *fallbacks), stop or threading.Event(), may_ask=may_ask)


def _generate(
    config: GenerateConfig, providers: Sequence[Provider], stop: threading.Event, *, may_ask: bool
) -> Outcome:
    output = config.output_path
    if output.exists() and not journal_path(output).exists():
        raise ConfigError(
            f"{output} exists and its checkpoint {journal_path(output).name} does not, so it cannot be continued; "
            "move it away or choose another --output"
        )
    source = open_source(config.annotations_path)
    for fault in source.faults[:SHOWN]:
        logger.warning("%s", fault)
    policy = load_policy(config.policy_path)
    plan = make_plan(config, source, policy)
    if config.shard:
        shard = Shard.parse(config.shard)
        plan = [image for index, image in enumerate(plan) if shard.holds(index)]
    keys = [key_of(image, providers) for image in plan]
    with Journal(journal_path(output), sync_every=SYNC_EVERY) as journal:
        num_kept = _say_what_is_kept(journal, keys, output)
        missing = {
            image.record.image_path: "the image file is missing"
            for image in plan
            if not (source.root / image.record.image_path).is_file()
        }
        todo = [
            k
            for k, (image, key) in enumerate(zip(plan, keys, strict=True))
            if image.slots and key not in journal.done and image.record.image_path not in missing
        ]
        if todo and not may_ask:
            raise Incomplete(
                f"{output}: {len(todo)} of {len(plan)} images are not in the journals, the first of them "
                f"{plan[todo[0]].record.image_path}; let each shard finish first"
            )
        if todo:
            # They would speak of another file until this run has ended.
            for stale in (manifest_path(output), _beside(output, "stats"), _beside(output, "failed")):
                stale.unlink(missing_ok=True)
        ladder = Ladder(providers)
        maker = PairMaker(ladder, source, policy)
        with Output(output, plan, keys, journal, maker, missing) as written:
            if not asyncio.run(_collect(todo, plan, keys, source, ladder, config, journal, written, stop)):
                raise KeyboardInterrupt
            outcome = _outcome(config, source, plan, providers[0], num_kept, written, journal)
        num_tokens = journal.num_tokens
    _write_reports(config, source, providers[0], outcome, written, num_tokens)
    return outcome


def _say_what_is_kept(journal: Journal, keys: Sequence[str], output: Path) -> int:
    num_kept = sum(key in journal.done for key in keys)
    foreign = journal.num_foreign(keys)
    if num_kept:
        logger.info("%s: going on; %d of %d images are in the checkpoint", output, num_kept, len(keys))
    if foreign and num_kept < len(keys):
        logger.warning(
            "%s: the checkpoint holds replies about %d images for other annotations, another plan or other providers; "
            "%d images are written anew, nothing is mixed",
            output, foreign, len(keys) - num_kept,
        )  # fmt: skip
    return num_kept


async def _collect(
    todo: Sequence[int],
    plan: Sequence[PlannedImage],
    keys: Sequence[str],
    source: Source,
    ladder: Ladder,
    config: GenerateConfig,
    journal: Journal,
    written: "Output",
    stop: threading.Event,
) -> bool:
    """Ask the providers for what is missing, and let the output grow. False where it was stopped before the end."""
    waiting = iter(todo)
    budget = Budget(config.max_cost_usd, spent_usd=journal.cost_usd + journal.lost_usd)
    caller = Caller(ladder, journal, budget, delay_s=config.rate_limit_delay_s, stop=stop)
    halted: list[Incomplete] = []
    num_left = len(todo)

    async def word(index: int) -> None:
        """Climb the ladder for one image until it needs nothing more."""
        image, key = plan[index], keys[index]
        while True:
            answers = journal.answers[key]
            made = written.maker.make(image, answers)
            step = ladder.next_step(len(image.slots), answers, made.faults)
            if step is None:
                break
            request = replace(
                source.request(image),
                slots=tuple(image.slots[slot] for slot in step.slots),
                complaint=step.complaint,
                with_image=ladder.rungs[step.rung].with_image,
            )
            await caller.call(step, request, key)
        written.take(index, made)

    async def work() -> None:
        nonlocal num_left
        while not halted and not stop.is_set() and (index := next(waiting, None)) is not None:
            try:
                await word(index)
            except ProviderError as error:
                written.failed[plan[index].record.image_path] = str(error)
            except Incomplete as error:
                halted.append(error)
                return
            except Stopped:
                return
            num_left -= 1
            bar.update()
            written.grow()

    with tqdm(
        total=len(plan),
        initial=len(plan) - len(todo),
        unit="image",
        desc=config.output_path.name,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        disable=not todo,
    ) as bar:
        num_at_once = min(len(todo), ladder.rungs[0].provider.concurrency)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(num_at_once):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for provider in {id(rung.provider): rung.provider for rung in ladder.rungs}.values():
                await provider.close()
    written.grow()
    if halted:
        raise halted[0]
    return not num_left


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


class Output:
    """The pairs file while it grows: always the finished beginning of the plan, in the plan's order."""

    def __init__(
        self,
        path: Path,
        plan: Sequence[PlannedImage],
        keys: Sequence[str],
        journal: Journal,
        maker: PairMaker,
        failed: dict[str, str],
    ) -> None:
        self._path, self._plan, self._keys, self._journal, self.maker = path, plan, keys, journal, maker
        self._position = 0
        self.failed = failed
        """Why, by image path; of this run alone, for the next one tries again."""
        self.meter = QualityMeter()
        self.rejected: list[str] = []
        self.num_rejected = 0
        self._made: dict[int, Made] = {}
        """What was taken and waits for its turn."""
        self.negatives: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        """Refusals by rung and by what the bag holds."""
        self.disputed: list[str] = []
        """Images in which somebody saw something else than their annotations say."""

    def __enter__(self) -> "Output":
        with replacing(self._path) as stream:
            stream.writelines(self._finished())
        self._stream = self._path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
        finally:
            with suppress(OSError):  # what a full disk did not take is written by the next run
                self._stream.close()

    def take(self, index: int, made: Made) -> None:
        """Take what was made for an image about which nothing more is asked, and journal that."""
        image, key = self._plan[index], self._keys[index]
        if made.pairs:
            self._journal.append(Event(event="done", key=key))
            self._made[index] = made
        else:
            self._fail(image, key, made)

    def _fail(self, image: PlannedImage, key: str, made: Made) -> None:
        error = next(iter(made.faults.values()))
        self.failed[image.record.image_path] = error
        self._journal.append(Event(event="failed", key=key, image_path=image.record.image_path, error=error))

    def grow(self) -> None:
        """Append what is finished by now."""
        self._stream.writelines(self._finished())
        self._stream.flush()

    def _finished(self) -> Iterator[bytes]:
        while self._position < len(self._plan):
            image, key = self._plan[self._position], self._keys[self._position]
            if image.slots and image.record.image_path not in self.failed:
                if key not in self._journal.done:
                    return
                made = self._made.pop(self._position, None) or self.maker.make(image, self._journal.answers[key])
                if made.pairs:
                    yield from self._lines(image, made)
                else:  # words that an earlier version found good enough
                    self._fail(image, key, made)
            self._position += 1

    def _lines(self, image: PlannedImage, made: Made) -> Iterator[bytes]:
        self.num_rejected += len(made.faults)
        rejected = [f"{image.record.image_path}: {message}" for _, message in sorted(made.faults.items())]
        self.rejected += rejected[: SHOWN - len(self.rejected)]
        self.negatives.update(slot.negative for slot in image.slots if slot.negative)
        if made.disagrees:
            self.disputed.append(image.record.image_path)
        for rung, count in made.num_refused.items():
            for category in read_facts(image.record, self.maker.source.annotated).present or ("none",):
                self.refused[rung, category] += count
        for _, pair in sorted(made.pairs.items()):
            self.meter.add(pair)
            yield pair.model_dump_json().encode() + b"\n"


def _outcome(
    config: GenerateConfig,
    source: Source,
    plan: Sequence[PlannedImage],
    provider: Provider,
    num_kept: int,
    written: Output,
    journal: Journal,
) -> Outcome:
    return Outcome(
        output_path=config.output_path,
        split=source.split,
        num_images=len(plan),
        num_kept=num_kept,
        model=provider.model,
        failed=dict(sorted(written.failed.items())),
        num_silent=sum(not image.slots for image in plan),
        num_rejected=written.num_rejected,
        cost_usd=round(journal.cost_usd, 6),
        lost_usd=round(journal.lost_usd, 6),
        num_lost=journal.num_lost,
        disputed=written.disputed,
        refused={f"{rung}: {category}": count for (rung, category), count in sorted(written.refused.items())},
        quality=written.meter.result(),
    )


def _write_reports(
    config: GenerateConfig,
    source: Source,
    provider: Provider,
    outcome: Outcome,
    written: Output,
    num_tokens: Counter[str],
) -> None:
    output, quality = config.output_path, outcome.quality
    write_json(
        _beside(output, "stats"),
        {
            "total_vqa_pairs": quality.num_pairs,
            "total_images": outcome.num_images,
            "samples_per_image": config.samples_per_image,
            "failed_images": len(outcome.failed),
            "question_types": quality.question_types,
            "category_counts": quality.category_counts,
            "model": provider.model,
            "provider": provider.name,
            "prompt_version": provider.prompt_version,
            "plan_version": PLAN_VERSION,
            "seed": config.seed,
            "split": source.split,
            "images_without_questions": outcome.num_silent,
            "rejected_pairs": outcome.num_rejected,
            "rejected_examples": written.rejected,
            "absent_targets_chosen": dict(sorted(written.negatives.items())),
            "input_tokens": num_tokens["input"],
            "cache_read_tokens": num_tokens["cache_read"],
            "cache_write_tokens": num_tokens["cache_write"],
            "output_tokens": num_tokens["output"],
            "cost_usd": outcome.cost_usd,
            "calls_without_reply": outcome.num_lost,
            "calls_without_reply_usd_at_most": outcome.lost_usd,
            "refusals": outcome.refused,
            "disputed_annotations": outcome.disputed,
            "quality": quality.model_dump(mode="json"),
        },
    )
    failed_path = _beside(output, "failed")
    if outcome.failed:
        write_json(failed_path, [{"image_path": path, "error": error} for path, error in outcome.failed.items()])
    else:
        failed_path.unlink(missing_ok=True)
    policy_path = config.policy_path or find_config("policy.yaml")
    inputs = [config.annotations_path, source.root / MANIFEST_NAME, policy_path]
    write_manifest(
        output,
        make_manifest(
            "generate",
            config=json.loads(config.model_dump_json()),
            inputs={str(path): sha256_file(path) for path in inputs},
            outputs={output.name: sha256_file(output)},
            counts=_counts(outcome),
            seed=config.seed,
            cost_usd=outcome.cost_usd,
            dataset_root=os.path.relpath(source.root, output.parent),
            split=source.split,
            notes=[f"plan {PLAN_VERSION}", f"written by {provider.model}"],
        ),
    )


def _counts(outcome: Outcome) -> dict[str, Any]:
    return {
        "pairs": outcome.quality.num_pairs,
        "images": outcome.num_images,
        "failed_images": len(outcome.failed),
        "images_without_questions": outcome.num_silent,
        "rejected_pairs": outcome.num_rejected,
    }


def _beside(output: Path, name: str) -> Path:
    return output.with_name(f"{output.stem}_{name}.json")
