"""One run of the generation, from top to bottom: read, plan, go on from the journal, write, measure."""

import asyncio
import logging
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from xray_vqa.config.generate import GenerateConfig
from xray_vqa.config.loading import load_policy
from xray_vqa.core.jsonl import disk_errors
from xray_vqa.core.manifest import manifest_path
from xray_vqa.errors import ConfigError, Incomplete
from xray_vqa.generation.asking import ask
from xray_vqa.generation.batches import BatchMode, write_in_batches
from xray_vqa.generation.job import Job
from xray_vqa.generation.journal import Event, Journal, journal_path, key_of
from xray_vqa.generation.ladder import Ladder
from xray_vqa.generation.limiter import Stopped
from xray_vqa.generation.making import PairMaker
from xray_vqa.generation.output import SHOWN, Output
from xray_vqa.generation.providers import Provider
from xray_vqa.generation.quality.checking import pages
from xray_vqa.generation.reports import Outcome, beside, outcome_of, write_reports
from xray_vqa.generation.shards import Shard
from xray_vqa.generation.source import make_plan, open_source

logger = logging.getLogger(__name__)

SYNC_EVERY = 256
"""Events between two syncs, where no paid reply waits for one: a power cut costs seconds of work and no money."""


def generate(
    config: GenerateConfig,
    provider: Provider,
    stop: threading.Event | None = None,
    *,
    fallbacks: Sequence[Provider] = (),
    may_ask: bool = True,
    batch: BatchMode | None = None,
) -> Outcome:
    """Write the pairs file, its stats and its manifest, going on from the journal.

    Args:
        config: what to write about what.
        provider: who words it.
        fallbacks: who is asked in turn for what `provider` refuses or cannot word.
        batch: how far to go by batches; None: call by call.
        may_ask: whether providers may be called; without, all has to be in the journal.
        stop: set from outside to end early: calls under way are awaited and kept, nothing new is begun.

    Raises:
        ConfigError: The output exists without its journal, cannot be written, or another process writes it.
        DatasetError: The scans cannot be read.
        Incomplete: A provider, the budget or the disk does not let it go on.
        KeyboardInterrupt: `stop` was set before the end.
    """
    with disk_errors(config.output_path):
        return _generate(config, (provider, *fallbacks), stop or threading.Event(), may_ask=may_ask, batch=batch)


def _generate(
    config: GenerateConfig,
    providers: Sequence[Provider],
    stop: threading.Event,
    *,
    may_ask: bool,
    batch: BatchMode | None,
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
        _check_open_batches(journal, [keys[index] for index in todo], output, batch)
        if todo:
            # They would speak of another file until this run has ended.
            for stale in (manifest_path(output), *map(partial(beside, output), ("stats", "failed")), *pages(output)):
                stale.unlink(missing_ok=True)
        ladder = Ladder(providers)
        maker = PairMaker(ladder, source, policy)
        with Output(output, plan, keys, journal, maker, missing) as written:
            job = Job(config, source, plan, keys, ladder, journal, written)
            try:
                asyncio.run(_work(job, todo, batch, stop))
            except Stopped:
                raise KeyboardInterrupt from None
            outcome = outcome_of(config, source, plan, providers[0], num_kept, written, journal)
        num_tokens = journal.num_tokens
    write_reports(config, source, providers[0], outcome, written, num_tokens)
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


async def _work(job: Job, todo: Sequence[int], batch: BatchMode | None, stop: threading.Event) -> None:
    """Ask the providers for what is missing, and let the output grow."""
    with tqdm(
        total=len(job.plan),
        initial=len(job.plan) - len(todo),
        unit="image",
        desc=job.config.output_path.name,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        disable=not todo,
    ) as bar:
        try:
            if batch:
                await write_in_batches(job, todo, batch, bar, stop)
            else:
                await ask(job, todo, bar, stop)
        finally:
            job.written.grow()
            for provider in {id(rung.provider): rung.provider for rung in job.ladder.rungs}.values():
                await provider.close()


def _check_open_batches(journal: Journal, keys: Sequence[str], output: Path, batch: BatchMode | None) -> None:
    """Forget batches that no service heard of, and let nobody pay for what an open batch will bring."""
    for found in list(journal.batches.open.values()):
        if found.announced is None:
            journal.append(Event(event="void", key=found.tag, batch=found.tag))
    asked, wanted = journal.batches.keys(), set(keys)
    if not batch and (num_asked := sum(key in asked for key in keys)):
        raise ConfigError(
            f"{output}: {num_asked} images are in {len(journal.batches.open)} open batches and would be paid for "
            "twice; go on with --batch, or fetch them with --batch collect first"
        )
    if foreign := [
        found for found in journal.batches.open.values() if wanted.isdisjoint(call.key for call in found.calls.values())
    ]:
        logger.warning(
            "%s: %d open batches are about other annotations, another plan or other providers; their replies are "
            "fetched by the command that submitted them, and up to $%.4f are set aside for them",
            output, len(foreign), sum(found.most_usd for found in foreign),
        )  # fmt: skip
