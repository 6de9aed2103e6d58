"""Images are asked about by the batch: at half the price, with replies within a day.

A batch is announced in the journal, on the disk, before the service hears of it, and its name is kept as soon as the
service has given one. Where a run died in between, the next one looks whether the service has the batch, and adopts it.
What comes next for an image is the same as call by call: a repair, the facts without the image, the next provider; each
round of batches asks for the next steps of what is not done. Providers without batches are called between the rounds.
"""

import asyncio
import logging
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from xray_vqa.errors import Incomplete, ProviderError
from xray_vqa.generation.asking import ask
from xray_vqa.generation.budget import Budget
from xray_vqa.generation.job import Job
from xray_vqa.generation.journal import Answer, BatchBook, Event, OpenBatch, journal_path, read_events
from xray_vqa.generation.limiter import Stopped
from xray_vqa.generation.providers import Provider, Throttled, Unavailable, batches_of
from xray_vqa.generation.providers.batch_service import (
    BatchForm,
    BatchResult,
    BatchService,
    BatchState,
    BatchUnknown,
    ResultsGone,
    Undecided,
)

logger = logging.getLogger(__name__)

BatchMode = Literal["run", "submit", "collect"]
"""All until the end; only submit what is missing; only fetch what has ended."""

FIRST_POLL_S, LONGEST_POLL_S = 2.0, 300.0
"""Between two looks at open batches: longer each time, and short again when something has ended."""
SETTLE_S = 60.0
"""A service that has not listed a batch so long after we began to look for it never got it. Whoever submitted it is
gone since before then, for the journal is open for one process at a time; no clock but our stopwatch is asked."""
LONGEST_SILENCE_S = 3600.0
"""Without any answer of a service, the run ends instead of asking for ever."""
TRIES = 3
"""Of one request in a run, where the service failed at it or did not get to it within a day."""


class BatchesOpen(Incomplete):
    """Done for now: the rest waits for the service, or for the next round."""


class _Spool:
    """The requests of one batch on their way to the service: on disk, for they may be larger than the memory."""

    def __init__(self, form: BatchForm, directory: Path, *, max_requests: int, max_bytes: int) -> None:
        self.tag = secrets.token_hex(6)
        self.calls: list[Event] = []
        self.most_usd = 0.0
        self._form, self._max_requests, self._max_bytes = form, max_requests, max_bytes
        self.file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed when it was sent
        self.num_bytes = self.file.write(form.head)

    def has_room(self, line: bytes) -> bool:
        size = self.num_bytes + len(line) + len(self._form.between) + len(self._form.tail)
        return not self.calls or (len(self.calls) < self._max_requests and size <= self._max_bytes)

    def add(self, call: Event, line: bytes) -> None:
        if self.calls:
            self.num_bytes += self.file.write(self._form.between)
        self.num_bytes += self.file.write(line)
        self.calls.append(call)
        self.most_usd += call.most_usd

    def finish(self) -> None:
        self.num_bytes += self.file.write(self._form.tail)
        self.file.seek(0)


class _Batcher:
    def __init__(self, job: Job, todo: Sequence[int], bar: "tqdm[Any]", stop: threading.Event) -> None:
        self.job, self.bar, self.stop = job, bar, stop
        self.active = list(todo)
        self.services: dict[int, BatchService] = {}
        self._named: dict[tuple[str, str], BatchService] = {}
        for rung in job.ladder.rungs:
            provider = rung.provider
            if id(provider) not in self.services and (service := batches_of(provider)) is not None:
                self.services[id(provider)] = service
                self._named[provider.name, provider.model] = service
        self.obstacle: Incomplete | ProviderError | None = None
        """Why not all that is missing was submitted."""
        self._halted: Incomplete | None = None
        """What a person should know before anything more is submitted."""
        self._sought_at: dict[str, float] = {}
        """Since when a batch is looked for, by tag."""
        self._tries: Counter[str] = Counter()
        self._said: dict[str, str] = {}
        self._last_word_at = time.monotonic()

    @property
    def open(self) -> list[tuple[OpenBatch, BatchService]]:
        """The batches of this run's providers."""
        found: list[tuple[OpenBatch, BatchService]] = []
        for batch in self.job.journal.batches.open.values():
            assert batch.announced is not None
            if service := self._named.get((batch.announced.provider, batch.announced.model)):
                found.append((batch, service))
        return found

    def say(self, tag: str, text: str) -> None:
        """Log what is new of a batch."""
        if self._said.get(tag) != text:
            self._said[tag] = text
            logger.info("%s", text)

    def reason(self, batch: OpenBatch) -> str:
        """Return why nothing is known of a batch."""
        return self._said.get(batch.tag, "the service does not answer")

    # --- rounds

    async def until_done(self) -> None:
        wait_s, is_first = FIRST_POLL_S, True
        while True:
            changed = await self.collect()
            if changed or is_first or self.obstacle or not self.open:
                wait_s = FIRST_POLL_S if changed else wait_s
                await self.submit(await self.advance())
            is_first = False
            if not self.active:
                return
            if not self.open and isinstance(self.obstacle, Incomplete):
                raise self.obstacle
            if time.monotonic() - self._last_word_at > LONGEST_SILENCE_S:
                raise Incomplete(
                    f"no answer for {LONGEST_SILENCE_S / 60:.0f} minutes: {self.obstacle}; the same command goes on"
                )
            await self.pause(wait_s)
            wait_s = min(LONGEST_POLL_S, wait_s * 1.5)

    async def advance(self) -> list[int]:
        """Finish what can be finished without a batch. Returns the images that need one."""
        open_keys = self.job.journal.batches.keys()
        waiting = [index for index in self.active if self.job.keys[index] in open_keys]
        free = [index for index in self.active if self.job.keys[index] not in open_keys]
        pending = await ask(self.job, free, self.bar, self.stop, leave=self.services)
        self.active = sorted([*waiting, *pending])
        return pending

    async def settle(self) -> None:
        """Wait until it is known of every announced batch whether its service has it, where waiting tells soon.

        Raises:
            Incomplete: It cannot be known with this key.
        """
        end = time.monotonic() + 2 * SETTLE_S
        while time.monotonic() < end:
            fresh = [
                batch
                for batch, service in self.open
                if not batch.batch_id and not await self._look_for(batch, service) and batch.tag not in self._said
            ]
            if not fresh:
                return
            await self.pause(min(5.0, SETTLE_S / 4))

    async def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.stop.is_set():
                raise Stopped
            await asyncio.sleep(min(left, 0.1))

    # --- submitting

    async def submit(self, pending: Sequence[int]) -> None:
        """Submit the next steps of these images, as far as money and services allow."""
        job, config, journal = self.job, self.job.config, self.job.journal
        self.obstacle = None
        budget = Budget(config.max_cost_usd, spent_usd=journal.cost_usd + journal.lost_usd)
        spools: dict[int, _Spool] = {}
        for index in pending:
            if self.stop.is_set():
                raise Stopped
            if (next_call := job.next_call(index)) is None:
                continue
            step, request = next_call
            provider = job.ladder.rungs[step.rung].provider
            service = self.services[id(provider)]
            most_usd = provider.most_usd(request)
            if not budget.fits(sum(spool.most_usd for spool in spools.values()) + most_usd):
                self.obstacle = budget.shortage(most_usd)
                break
            answer = Answer(rung=step.rung, slots=list(step.slots), is_repair=bool(step.complaint))
            spool = spools.get(id(provider)) or self._spool(service)
            call = Event(
                event="sent",
                key=job.keys[index],
                image_path=request.record.image_path,
                most_usd=most_usd,
                answer=answer,
                batch=spool.tag,
            )
            try:
                line = await asyncio.to_thread(service.line, call.custom_id, request)
            except ProviderError as error:  # the image, not the service
                failed = answer.model_copy(update={"error": str(error)})
                journal.append(Event(event="answer", key=call.key, image_path=call.image_path, answer=failed))
                continue
            if not spool.has_room(line):
                sent_usd = spool.most_usd
                del spools[id(provider)]
                if not await self._send(spool, provider, service):
                    break
                budget.spent_usd += sent_usd
                spool = self._spool(service)
                call = call.model_copy(update={"batch": spool.tag})
                line = await asyncio.to_thread(service.line, call.custom_id, request)
            spools[id(provider)] = spool
            spool.add(call, line)
        for rung in job.ladder.rungs:
            if spool := spools.pop(id(rung.provider), None):
                await self._send(spool, rung.provider, self.services[id(rung.provider)])

    def _spool(self, service: BatchService) -> _Spool:
        config, form = self.job.config, service.form
        return _Spool(
            form,
            config.output_path.parent,
            max_requests=min(config.batch_requests or form.max_requests, form.max_requests),
            max_bytes=min(config.batch_bytes or form.max_bytes, form.max_bytes),
        )

    async def _send(self, spool: _Spool, provider: Provider, service: BatchService) -> bool:
        """Announce and submit one batch. False where the service does not take it, or may not have got it."""
        journal, tag = self.job.journal, spool.tag
        try:
            greeting = await service.greet(tag)
        except (Throttled, Unavailable) as error:
            spool.file.close()
            logger.warning("%s", error)
            self.obstacle = error
            return False
        spool.finish()
        for number, call in enumerate(spool.calls, start=journal.num_calls + 1):
            journal.append(call.model_copy(update={"call": number}))
        journal.append(
            Event(
                event="submitting",
                key=tag,
                batch=tag,
                provider=provider.name,
                model=provider.model,
                num_requests=len(spool.calls),
                at=greeting.at,
                account=greeting.account,
            )
        )
        journal.sync()
        try:
            batch_id = await service.submit(tag, spool.file, spool.num_bytes)
        except Throttled as error:
            self._void(tag)
            self.obstacle = error
            return False
        except Unavailable as error:  # it may have arrived: `collect` finds out
            logger.warning("%s", error)
            self.obstacle = error
            return False
        except Incomplete:
            self._void(tag)
            raise
        except ProviderError as error:
            self._void(tag)
            raise Incomplete(f"{error}; the service does not take the batch, and nothing of it was billed") from error
        finally:
            spool.file.close()
        self._keep_id(tag, batch_id)
        logger.info("%s: submitted, %d requests, $%.4f at most", batch_id, len(spool.calls), spool.most_usd)
        return True

    def _keep_id(self, tag: str, batch_id: str) -> None:
        self._last_word_at = time.monotonic()
        self.job.journal.append(Event(event="submitted", key=tag, batch=tag, batch_id=batch_id))
        self.job.journal.sync()

    def _void(self, tag: str) -> None:
        self.job.journal.append(Event(event="void", key=tag, batch=tag))
        self.job.journal.sync()

    def _give_up(self, batch: OpenBatch, why: str) -> None:
        """Forget a batch that cannot be found, where somebody said so: it stays booked at its worst.

        Raises:
            Incomplete: Nobody did.
        """
        announced = batch.announced
        assert announced is not None
        whose = announced.account or "an account that nobody noted"
        if not self.job.config.forget_batches:
            raise Incomplete(
                f"{why} It was submitted with a key of {whose}: set that key and start the same command again. Or give "
                f"it up with --forget-batches: its {announced.num_requests} requests are then asked and paid for anew, "
                f"and up to ${batch.most_usd:.4f} that it may have cost stay booked"
            )
        logger.warning("%s It is given up: up to $%.4f of it stay booked", why, batch.most_usd)
        self.job.journal.append(Event(event="forgotten", key=batch.tag, batch=batch.tag))
        self.job.journal.sync()

    # --- collecting

    async def collect(self) -> bool:
        """Fetch what has ended. Returns whether something of the journal changed.

        Raises:
            Incomplete: A person should know what became of a batch; all the others were looked at too.
        """
        changed = False
        for batch, service in self.open:
            if self.stop.is_set():
                raise Stopped
            try:
                changed |= await self._collect_one(batch, service)
            except (Throttled, Unavailable) as error:
                logger.warning("%s", error)
                self.obstacle = self.obstacle or error
            except Incomplete as error:
                self._halted = self._halted or error
        if self._halted:
            raise self._halted
        return changed

    async def _collect_one(self, batch: OpenBatch, service: BatchService) -> bool:
        if not batch.batch_id and not await self._look_for(batch, service):
            return False
        if batch.tag not in self.job.journal.batches.open:  # never arrived, or given up
            return True
        try:
            state = await service.status(batch.batch_id)
        except BatchUnknown as error:
            self._give_up(batch, str(error))
            return True
        self._last_word_at = time.monotonic()
        self.say(batch.tag, f"{batch.batch_id}: {describe_state(state)}")
        if state.ended:
            await self._take(batch, state, service)
        return state.ended

    async def _look_for(self, batch: OpenBatch, service: BatchService) -> bool:
        """Find out whether a service has an announced batch. True where that is known now."""
        announced = batch.announced
        assert announced is not None
        sought_s = time.monotonic() - self._sought_at.setdefault(batch.tag, time.monotonic())
        try:
            account = (await service.greet(batch.tag)).account
            batch_id = await service.find(batch.tag, announced.num_requests, announced.at, self.job.journal.batches.ids)
        except Undecided as error:
            self.say(batch.tag, str(error))
            return False
        except (Throttled, Unavailable) as error:
            logger.warning("%s", error)
            return False
        if batch_id:
            logger.info("%s: found, it was submitted by a run that ended before it could note this", batch_id)
            self._keep_id(batch.tag, batch_id)
            return True
        if sought_s < SETTLE_S:
            return False
        if announced.account is None or not account.shares_batches_with(announced.account):
            self._give_up(
                batch,
                f"whether the service has a batch of {announced.num_requests} requests cannot be told with this key, "
                f"which is of {account}.",
            )
        else:
            logger.info("a batch of %d requests never reached the service; it is made anew", announced.num_requests)
            self._void(batch.tag)
        return True

    async def _take(self, batch: OpenBatch, state: BatchState, service: BatchService) -> None:
        """Journal all results of a batch that has ended; those that an earlier run has journaled are passed over."""
        journal = self.job.journal
        num_replies, why = 0, state.error
        try:
            async for result in service.results(batch.batch_id):
                num_replies += result.reply is not None
                if call := batch.calls.get(result.custom_id):
                    self._keep(call, result)
        except ResultsGone as error:
            if batch.calls:
                why = "; ".join(filter(None, (why, str(error))))
        # Not in the results: not done and not billed, unless the service counts more replies than it gave. Nobody knows
        # which of them it did then; as many as it did stay booked, the dearest ones.
        without = sorted(batch.calls.values(), key=lambda call: call.most_usd)
        num_billed = min(len(without), max(0, state.num_succeeded - num_replies))
        billed_usd = sum(call.most_usd for call in without[len(without) - num_billed :])
        for call in without[: len(without) - num_billed]:
            journal.append(Event(event="void", key=call.key, call=call.call, error="no result"))
        for call in without:
            self._count_try(call, why or f"{batch.batch_id} brought no result")
        journal.append(Event(event="collected", key=batch.tag, batch=batch.tag))
        journal.sync()
        if why:
            assert batch.announced is not None
            lost = f"{num_billed} more were billed, their replies are gone, and up to ${billed_usd:.4f} stay booked"
            self._halted = self._halted or Incomplete(
                f"{batch.batch_id}: {why}. Of its {batch.announced.num_requests} requests {num_replies} have replies, "
                f"which are kept; {lost if num_billed else 'nothing else of it was billed'}; the same command asks for "
                "what is missing"
            )

    def _keep(self, call: Event, result: BatchResult) -> None:
        """Journal what became of one request."""
        journal, answer, error = self.job.journal, call.answer, result.error
        assert answer is not None
        if result.reply is not None:
            answer = answer.model_copy(update={"reply": result.reply})
        else:
            if isinstance(error, Unavailable) and error.may_have_cost:
                return  # as if there were no result, but for the bill
            journal.append(Event(event="void", key=call.key, call=call.call, error=str(error)))
            if isinstance(error, Incomplete):
                self._halted = self._halted or error
                return
            if isinstance(error, (Throttled, Unavailable)):
                self._count_try(call, str(error))
                return
            answer = answer.model_copy(update={"error": str(error)})
        journal.append(Event(event="answer", key=call.key, image_path=call.image_path, call=call.call, answer=answer))

    def _count_try(self, call: Event, error: str) -> None:
        """Give an image up for this run where the service failed at it too often."""
        self._tries[call.key] += 1
        if self._tries[call.key] < TRIES:
            return
        if given_up := [index for index in self.active if self.job.keys[index] == call.key]:
            self.active.remove(given_up[0])
            self.job.written.failed[call.image_path] = error
            self.bar.update()


async def write_in_batches(
    job: Job, todo: Sequence[int], mode: BatchMode, bar: "tqdm[Any]", stop: threading.Event
) -> None:
    """Ask about images by the batch until they need nothing more, or as far as `mode` says.

    Raises:
        BatchesOpen: `submit` has submitted all that is missing, or `collect` has fetched all that has ended.
        Incomplete: Nothing can go on.
        Stopped: `stop` was set before the end; open batches go on at the service.
    """
    batcher = _Batcher(job, todo, bar, stop)
    try:
        await _go_as_far_as(mode, batcher)
    except (Stopped, asyncio.CancelledError, KeyboardInterrupt):  # the last where a second signal finds this at work
        if open_batches := [batch for batch, _ in batcher.open]:
            logger.warning(
                "%d batches with %d requests go on at the service, and up to $%.4f are booked for them; the same "
                "command waits for them, and `--batch collect` fetches what has ended by then",
                len(open_batches),
                sum(len(batch.calls) for batch in open_batches),
                sum(batch.most_usd for batch in open_batches),
            )
        raise


async def _go_as_far_as(mode: BatchMode, batcher: _Batcher) -> None:
    job = batcher.job
    if mode == "run":
        await batcher.until_done()
        return
    await batcher.settle()
    if mode == "collect":
        await batcher.collect()
    pending = await batcher.advance()
    if mode == "submit":
        await batcher.submit(pending)
        if batcher.obstacle:
            raise Incomplete(f"not all is submitted: {batcher.obstacle}")
        pending = []
    if unknown := [batch for batch, _ in batcher.open if not batch.batch_id]:
        raise Incomplete(
            f"whether the service has {len(unknown)} of the batches is not known, and they are not submitted again "
            f"before it is: {batcher.reason(unknown[0])}; start the same command again later"
        )
    if batcher.active:
        num_open = len(job.journal.batches.open)
        raise BatchesOpen(
            f"{len(batcher.active)} images are open: {len(batcher.active) - len(pending)} in {num_open} batches "
            f"(--batch collect fetches those that have ended), {len(pending)} to be submitted (--batch submit)"
        )


def describe_state(state: BatchState) -> str:
    return f"{state.status}, {state.num_requests} requests, {state.num_succeeded} done, {state.num_failed} failed"


def status_of(output_path: Path, providers: Sequence[Provider]) -> list[dict[str, Any]]:
    """Return how far each open batch of an output is. Reads the journal alone, while another process may write it."""
    book = BatchBook()
    path = journal_path(output_path)
    for event in read_events(path) if path.exists() else ():
        book.take(event)
    return asyncio.run(_states(book, providers))


async def _states(book: BatchBook, providers: Sequence[Provider]) -> list[dict[str, Any]]:
    services: Mapping[tuple[str, str], BatchService] = {
        (provider.name, provider.model): service
        for provider in providers
        if (service := batches_of(provider)) is not None
    }
    found: list[dict[str, Any]] = []
    try:
        for batch in book.open.values():
            if (announced := batch.announced) is None:
                continue
            service = services.get((announced.provider, announced.model))
            if not batch.batch_id:
                state = "not known whether the service has it; the next --batch finds out"
            elif service is None:
                state = "of another provider or model than this command's; not asked"
            else:
                try:
                    state = describe_state(await service.status(batch.batch_id))
                except BatchUnknown as error:
                    state = str(error)
            found.append(
                {
                    "batch": batch.batch_id or batch.tag,
                    "provider": announced.provider,
                    "model": announced.model,
                    "state": state,
                    "waiting_requests": len(batch.calls),
                    "most_usd": round(batch.most_usd, 6),
                }
            )
    finally:
        for provider in providers:
            await provider.close()
    return found
