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
from dataclasses import dataclass, field
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
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.journal import Event, Journal, journal_path, key_of
from xray_vqa.generation.plan import PLAN_VERSION, PlannedImage, plan_images
from xray_vqa.generation.providers import Provider, Reply, Request, read_reply
from xray_vqa.generation.quality import Quality, QualityMeter
from xray_vqa.generation.validation import check_image

logger = logging.getLogger(__name__)

SYNC_EVERY_FREE = 256
"""Free replies between two syncs: a power cut costs seconds of work and no money."""

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


def generate(config: GenerateConfig, provider: Provider, stop: threading.Event | None = None) -> Outcome:
    """Write the pairs file, its stats and its manifest, going on from the journal.

    `stop` is set from outside to end early: calls under way are awaited and kept, nothing new is begun.

    Raises:
        ConfigError: The output exists without its journal, cannot be written, or another process writes it.
        DatasetError: The scans cannot be read.
        Incomplete: The provider or the disk cannot go on.
        KeyboardInterrupt: `stop` was set before the end.
    """
    with disk_errors(config.output_path):
        return _generate(config, provider, stop or threading.Event())


def _generate(config: GenerateConfig, provider: Provider, stop: threading.Event) -> Outcome:
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
    keys = [key_of(image, provider) for image in plan]
    with Journal(journal_path(output), sync_every=1 if provider.paid else SYNC_EVERY_FREE) as journal:
        num_kept = _say_what_is_kept(journal, keys, output)
        missing = {
            image.record.image_path: "the image file is missing"
            for image in plan
            if not (source.root / image.record.image_path).is_file()
        }
        todo = [
            k
            for k, (image, key) in enumerate(zip(plan, keys, strict=True))
            if image.slots and key not in journal.replies and image.record.image_path not in missing
        ]
        if todo:
            # They would speak of another file until this run has ended.
            for stale in (manifest_path(output), _beside(output, "stats"), _beside(output, "failed")):
                stale.unlink(missing_ok=True)
        with Output(output, plan, keys, journal, _PairMaker(provider, source, policy), missing) as written:
            if not asyncio.run(_collect(todo, plan, keys, source, provider, config, journal, written, stop)):
                raise KeyboardInterrupt
            outcome = _outcome(config, source, plan, provider, num_kept, written, journal)
        num_tokens = journal.num_tokens
    _write_reports(config, source, provider, outcome, written, num_tokens)
    return outcome


def _say_what_is_kept(journal: Journal, keys: Sequence[str], output: Path) -> int:
    num_kept = sum(key in journal.replies for key in keys)
    foreign = journal.num_foreign(keys)
    if num_kept:
        logger.info("%s: going on; %d of %d images are in the checkpoint", output, num_kept, len(keys))
    if foreign and num_kept < len(keys):
        logger.warning(
            "%s: the checkpoint holds %d replies for other annotations, another plan or another provider; "
            "%d images are written anew, nothing is mixed",
            output, foreign, len(keys) - num_kept,
        )  # fmt: skip
    return num_kept


async def _collect(
    todo: Sequence[int],
    plan: Sequence[PlannedImage],
    keys: Sequence[str],
    source: Source,
    provider: Provider,
    config: GenerateConfig,
    journal: Journal,
    written: "Output",
    stop: threading.Event,
) -> bool:
    """Ask the provider for what is missing, and let the output grow. False where it was stopped before the end."""
    waiting = iter(todo)
    running: dict[asyncio.Task[Reply], int] = {}
    halted: Incomplete | None = None
    next_start = 0.0
    clock = asyncio.get_running_loop().time

    async def ask(index: int, start: float) -> Reply:
        await asyncio.sleep(max(0.0, start - clock()))
        return await provider.generate(source.request(plan[index]))

    with tqdm(
        total=len(plan),
        initial=len(plan) - len(todo),
        unit="image",
        desc=config.output_path.name,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        disable=not todo,
    ) as bar:
        while True:
            while len(running) < provider.concurrency and not halted and not stop.is_set():
                index = next(waiting, None)
                if index is None:
                    break
                start = max(clock(), next_start)
                next_start = start + config.rate_limit_delay_s if provider.paid else 0.0
                running[asyncio.create_task(ask(index, start))] = index
            if not running:
                break
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = running.pop(task)
                image_path = plan[index].record.image_path
                failure = ""
                try:
                    reply = task.result()
                    journal.append(Event(event="reply", key=keys[index], image_path=image_path, reply=reply))
                    failure = written.take(index, reply)
                except ProviderError as error:
                    failure = str(error)
                except Incomplete as error:
                    halted = error
                    continue
                if failure:
                    journal.append(Event(event="failed", key=keys[index], image_path=image_path, error=failure))
                    written.failed[image_path] = failure
                bar.update()
            written.grow()
    if halted:
        raise halted
    return next(waiting, None) is None


@dataclass(slots=True)
class Made:
    """What became of one reply."""

    pairs: list[VQAPair] = field(default_factory=list[VQAPair])
    rejected: list[str] = field(default_factory=list[str])
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _PairMaker:
    """Makes pairs of a reply: the provider's words, the plan's truth, and the validator's consent."""

    provider: Provider
    source: Source
    policy: Policy

    def make(self, image: PlannedImage, reply: Reply) -> Made:
        try:
            worded = read_reply(reply)
        except AnswerUnreadable as error:
            return Made(failure=str(error))
        facts = read_facts(image.record, self.source.annotated)
        pairs: list[VQAPair] = []
        made = Made()
        by_slot = {pair.slot: pair for pair in worded if pair.question.strip() and pair.answer.strip()}
        for index, slot in enumerate(image.slots):
            if index not in by_slot:
                made.rejected.append(f"{image.record.image_path}: no words for the {slot.question_type} question")
                continue
            about = PairMetadata(
                image_id=image.record.image_id,
                question_type=slot.question_type,
                categories=list(facts.present),
                num_categories=len(facts.present),
                generated_by=self.provider.generated_by,
                model=reply.model,
                prompt_version=self.provider.prompt_version,
                evidence=list(slot.evidence),
                short_answer=slot.short_answer,
                target=slot.target,
            )
            words = by_slot[index]
            pairs.append(
                VQAPair(
                    image_path=image.record.image_path, question=words.question, answer=words.answer, metadata=about
                )
            )
        faults = dict(reversed(check_image(pairs, facts, self.policy)))
        made.rejected += [f"{image.record.image_path}: {message}" for _, message in sorted(faults.items())]
        made.pairs = [pair for index, pair in enumerate(pairs) if index not in faults]
        if not made.pairs:
            made.failure = f"none of {len(image.slots)} pairs could be used: {made.rejected[0]}"
        return made


class Output:
    """The pairs file while it grows: always the finished beginning of the plan, in the plan's order."""

    def __init__(
        self,
        path: Path,
        plan: Sequence[PlannedImage],
        keys: Sequence[str],
        journal: Journal,
        maker: _PairMaker,
        failed: dict[str, str],
    ) -> None:
        self._path, self._plan, self._keys, self._journal, self._maker = path, plan, keys, journal, maker
        self._position = 0
        self.failed = failed
        """Why, by image path; of this run alone, for the next one tries again."""
        self.meter = QualityMeter()
        self.rejected: list[str] = []
        self.num_rejected = 0
        self._made: dict[int, Made] = {}
        """What was taken and waits for its turn."""
        self.negatives: Counter[str] = Counter()

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

    def take(self, index: int, reply: Reply) -> str:
        """Make the pairs of an image's reply, and return why there are none."""
        self._made[index] = made = self._maker.make(self._plan[index], reply)
        return made.failure

    def grow(self) -> None:
        """Append what is finished by now."""
        self._stream.writelines(self._finished())
        self._stream.flush()

    def _finished(self) -> Iterator[bytes]:
        while self._position < len(self._plan):
            image, key = self._plan[self._position], self._keys[self._position]
            image_path = image.record.image_path
            reply = self._journal.replies.get(key)
            if image.slots and image_path not in self.failed:
                if reply is None:
                    return
                made = self._made.pop(self._position, None) or self._maker.make(image, reply)
                if made.failure:  # a reply that an earlier version found good enough
                    self.failed[image_path] = made.failure
                    self._journal.append(Event(event="failed", key=key, image_path=image_path, error=made.failure))
                yield from self._lines(image, made)
            self._position += 1

    def _lines(self, image: PlannedImage, made: Made) -> Iterator[bytes]:
        self.num_rejected += len(made.rejected)
        self.rejected += made.rejected[: SHOWN - len(self.rejected)]
        self.negatives.update(slot.negative for slot in image.slots if slot.negative)
        for pair in made.pairs:
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
            "output_tokens": num_tokens["output"],
            "cost_usd": outcome.cost_usd,
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
