"""Pace: as many calls at once as the service bears, and none while it asks to wait.

The number grows while calls succeed and others wait for a turn, fast until the service complains for the first time and
by one for each round after that; it shrinks by a quarter at each complaint. Faults that are no complaint about the pace
leave it as it is.
"""

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from xray_vqa.generation.providers import Limits, Throttled

FIRST_LIMIT = 8
SHRUNK = 0.75
"""What is left of the limit after a complaint."""
PAUSE_S = 2.0
"""After a complaint that does not say for how long."""
LOOK_UP_S = 0.2
"""How often somebody who waits looks whether the run shall end."""


class Stopped(Exception):
    """Somebody wants the run to end: nothing new is begun."""


class Limiter:
    """Lets calls begin, for one provider and one event loop."""

    def __init__(
        self,
        most: int,
        *,
        delay_s: float = 0.0,
        stop: threading.Event | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Set up.

        Args:
            most: calls at once, never exceeded.
            delay_s: least time between two beginnings.
            stop: once it is set no call begins any more.
            clock: seconds; the event loop's by default. It never jumps, as a clock on the wall does.
        """
        self._most, self._delay_s, self._stop = most, delay_s, stop or threading.Event()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self.limit = float(min(FIRST_LIMIT, most))
        self.running = 0
        self._num_waiting = 0
        self._is_new = True
        self._next_start = -math.inf
        self._closed_until = -math.inf
        self._changed = asyncio.Condition()

    def heed(self, limits: Limits) -> None:
        """Let nothing begin before the service takes more, where it said that nothing is left."""
        for left, reset_s in (
            (limits.remaining_requests, limits.requests_reset_s),
            (limits.remaining_tokens, limits.tokens_reset_s),
        ):
            if left is not None and left < 1 and reset_s is not None:
                self._closed_until = max(self._closed_until, self._clock() + reset_s)

    async def _enter(self) -> None:
        """Wait until a call may begin, and count it."""
        async with self._changed:
            while True:
                self._num_waiting += 1
                try:
                    await self._changed.wait_for(lambda: self.running < int(self.limit))
                finally:
                    self._num_waiting -= 1
                if self._stop.is_set():
                    raise Stopped
                now = self._clock()
                start = max(now, self._next_start, self._closed_until)
                if start <= now:
                    break
                await self._sleep(min(start - now, LOOK_UP_S))
            self._next_start = now + self._delay_s
            self.running += 1

    async def _sleep(self, seconds: float) -> None:
        """Let others at the counters while this one waits for its time."""
        self._changed.release()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._changed.acquire()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, hold it for the block, and learn from its end. Raises Stopped."""
        await self._enter()
        try:
            yield
        except Throttled as complaint:
            await self._leave_throttled(complaint.retry_after_s)
            raise
        except BaseException:
            await self._leave(succeeded=False)
            raise
        else:
            await self._leave(succeeded=True)

    async def _leave(self, *, succeeded: bool) -> None:
        """Count the end of a call that was not complained about."""
        async with self._changed:
            if succeeded and self._num_waiting:  # a limit that holds nobody up proves nothing
                self.limit = min(self._most, self.limit + (1.0 if self._is_new else 1.0 / self.limit))
            self.running -= 1
            self._changed.notify_all()

    async def _leave_throttled(self, retry_after_s: float | None) -> None:
        """Count the end of a call that came too fast: fewer at once, and none for a while.

        Calls that were under way together complain together; that counts once.
        """
        async with self._changed:
            now = self._clock()
            if now >= self._closed_until:
                self.limit = max(1.0, math.floor(self.limit * SHRUNK))
                self._is_new = False
            self._closed_until = max(self._closed_until, now + (PAUSE_S if retry_after_s is None else retry_after_s))
            self.running -= 1
            self._changed.notify_all()
