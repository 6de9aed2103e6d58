"""One run of the generation, from top to bottom: read, plan, go on from the journal, write, measure."""

import asyncio
import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from xray_vqa.config.generate import GenerateConfig
from xray_vqa.config.loading import load_policy
from xray_vqa.core.jsonl import disk_errors
from xray_vqa.core.manifest import manifest_path
from xray_vqa.errors import ConfigError, Incomplete, ProviderError
from xray_vqa.generation.budget import Budget
from xray_vqa.generation.calling import Caller
from xray_vqa.generation.journal import Journal, journal_path, key_of
from xray_vqa.generation.ladder import Ladder
from xray_vqa.generation.limiter import Stopped
from xray_vqa.generation.making import PairMaker
from xray_vqa.generation.output import SHOWN, Output
from xray_vqa.generation.plan import PlannedImage
from xray_vqa.generation.providers import Provider
from xray_vqa.generation.quality.checking import pages
from xray_vqa.generation.reports import Outcome, beside, outcome_of, write_reports
from xray_vqa.generation.shards import Shard
from xray_vqa.generation.source import Source, make_plan, open_source

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
            for stale in (manifest_path(output), *map(partial(beside, output), ("stats", "failed")), *pages(output)):
                stale.unlink(missing_ok=True)
        ladder = Ladder(providers)
        maker = PairMaker(ladder, source, policy)
        with Output(output, plan, keys, journal, maker, missing) as written:
            if not asyncio.run(_collect(todo, plan, keys, source, ladder, config, journal, written, stop)):
                raise KeyboardInterrupt
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
