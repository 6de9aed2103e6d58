"""One call to a provider: at its pace, within the budget, announced and journaled, and tried again where that helps."""

import asyncio
import random
import threading
from collections import deque

from xray_vqa.errors import Incomplete, ProviderError
from xray_vqa.generation.budget import Budget
from xray_vqa.generation.journal import Answer, Event, Journal
from xray_vqa.generation.ladder import Ladder, Step
from xray_vqa.generation.limiter import Limiter, Stopped
from xray_vqa.generation.providers import Provider, Request, Throttled, Unavailable

TRIES = 8
"""Of one call that the service fails to answer. Complaints about the pace do not count."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Before the second try; twice as long before each further one, and somewhat by chance, lest all come back at once."""
LONGEST_SILENCE_S = 900.0
"""Without any reply, the run ends instead of asking for ever."""
WATCHED = 40
ENOUGH = 20
"""Of the last WATCHED calls, once there are ENOUGH: more than half failed means that something is wrong for all."""


class Caller:
    """Makes the calls of one run."""

    def __init__(
        self,
        ladder: Ladder,
        journal: Journal,
        budget: Budget,
        *,
        delay_s: float,
        stop: threading.Event,
    ) -> None:
        self._ladder, self._journal, self._budget, self._stop = ladder, journal, budget, stop
        self._limiters = {
            id(rung.provider): Limiter(
                rung.provider.concurrency, delay_s=delay_s if rung.provider.paid else 0.0, stop=stop
            )
            for rung in ladder.rungs
        }
        self._worked: deque[bool] = deque(maxlen=WATCHED)
        self._last_reply_at: float | None = None

    async def call(self, step: Step, request: Request, key: str) -> Answer:
        """Return what a step brought, journaled.

        Raises:
            ProviderError: Nobody answers now; the image has to be tried again another time.
            Incomplete: Nothing can go on.
            Stopped: The run shall end.
        """
        provider = self._ladder.rungs[step.rung].provider
        for attempt in range(TRIES):
            try:
                return await self._attempt(provider, step, request, key)
            except Unavailable as error:
                self._note(worked=False, error=error)
                if attempt + 1 == TRIES:
                    raise
                await self._pause(min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.5, 1.5))
        raise AssertionError

    async def _attempt(self, provider: Provider, step: Step, request: Request, key: str) -> Answer:
        """Send, more than once where the pace is wrong; one answer, or Unavailable."""
        while True:
            most_usd, cost_usd = provider.most_usd(request), 0.0
            await self._budget.reserve(most_usd)
            try:
                limiter = self._limiters[id(provider)]
                async with limiter.turn():
                    answer = await self._send(provider, step, request, key, most_usd)
                    limiter.heed(provider.limits)
                cost_usd = answer.reply.cost_usd if answer.reply else 0.0
            except Throttled as error:
                self._check_silence(error)
                continue
            except Unavailable as error:
                cost_usd = most_usd if error.may_have_cost else 0.0
                raise
            finally:
                await self._budget.settle(most_usd, cost_usd)
            self._note(worked=True)
            if provider.paid:
                await self._journal.synced()
            return answer

    async def _send(self, provider: Provider, step: Step, request: Request, key: str, most_usd: float) -> Answer:
        journal, call, image_path = self._journal, 0, request.record.image_path
        if provider.paid:
            call = journal.num_calls + 1
            journal.append(Event(event="sent", key=key, image_path=image_path, call=call, most_usd=most_usd))
        answer = Answer(rung=step.rung, slots=list(step.slots), is_repair=bool(step.complaint))
        try:
            reply = await provider.generate(request)
        except (Throttled, Incomplete):
            self._void(key, call)
            raise
        except Unavailable as error:
            if not error.may_have_cost:
                self._void(key, call)
            raise
        except ProviderError as error:
            self._void(key, call)
            answer = answer.model_copy(update={"error": str(error)})
        else:
            answer = answer.model_copy(update={"reply": reply})
        journal.append(Event(event="answer", key=key, image_path=image_path, call=call, answer=answer))
        return answer

    def _void(self, key: str, call: int) -> None:
        if call:
            self._journal.append(Event(event="void", key=key, call=call))

    def _note(self, *, worked: bool, error: Exception | None = None) -> None:
        self._worked.append(worked)
        if worked:
            self._last_reply_at = asyncio.get_running_loop().time()
        elif len(self._worked) >= ENOUGH and sum(self._worked) * 2 < len(self._worked):
            raise Incomplete(
                f"more than half of the last {len(self._worked)} calls failed, the last one with: {error}; what was "
                "paid for is kept, and the same command goes on"
            )

    def _check_silence(self, error: Throttled) -> None:
        now = asyncio.get_running_loop().time()
        if self._last_reply_at is None:
            self._last_reply_at = now
        if now - self._last_reply_at > LONGEST_SILENCE_S:
            raise Incomplete(f"no reply for {LONGEST_SILENCE_S / 60:.0f} minutes: {error}; the same command goes on")

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless the run shall end."""
        end = asyncio.get_running_loop().time() + seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            if self._stop.is_set():
                raise Stopped
            await asyncio.sleep(min(left, 0.1))
