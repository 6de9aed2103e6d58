"""Sends scans to a running server as a checkpoint does: at their own times, whether or not earlier ones are answered.

A latency counts from the moment at which a request was meant to go out. Counted from the moment at which it went, a
server that stalls would hide all those that had to wait for their turn ("coordinated omission").
"""

import asyncio
import base64
import itertools
import json
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

INSPECT_PATH = "/api/v1/inspect"
RUN_HEADER = "X-Benchmark-Run"
MAX_IN_FLIGHT = 2000
"""More waiting requests than this would measure our own memory; what is due then is counted as unsent."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. Times are in seconds since the start of the load."""

    intended_s: float
    sent_s: float
    done_s: float
    in_flight: int
    """Requests that waited for an answer when this one was due."""
    status: int | None = None
    """None where no answer came."""
    error: str = ""
    """The kind of transport error, or the code of a refusal."""
    action: str = ""
    degraded_by: str = ""
    """The first reason of a degraded answer; such an answer is no success, however fast it was."""

    @property
    def succeeded(self) -> bool:
        return self.status == 200 and not self.degraded_by and not self.error

    @property
    def latency_ms(self) -> float:
        return (self.done_s - self.intended_s) * 1000


@dataclass(slots=True)
class LoadRecord:
    """One load and what came of it, in the order of arrival once it is over."""

    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    num_unsent: int = 0
    num_unanswered: int = 0
    """Broken off by an interruption."""
    duration_s: float = 0.0
    """From the start to the last time at which a request was due, or for a closed loop to the last answer."""
    interrupted: bool = False


class ScanSource:
    """Request bodies from image files in turn, each with a `scan_id` of its own, so that none is answered as a repeat.

    Args:
        paths: Image files; they are held in memory, in base64.
        declared_items: Sent with each of them.
    """

    def __init__(self, paths: Sequence[Path], declared_items: Sequence[str] = ("clothing",)) -> None:
        self.run_id = uuid.uuid4().hex[:12]
        tails = [
            json.dumps({"image_base64": base64.b64encode(p.read_bytes()).decode(), "declared_items": [*declared_items]})
            for p in paths
        ]
        self._tails = itertools.cycle([tail[1:].encode() for tail in tails])
        self._number = itertools.count()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return f'{{"scan_id": "bench-{self.run_id}-{next(self._number):08d}", '.encode() + next(self._tails)


def arrivals_s(rate_per_s: float, duration_s: float, *, poisson: bool, seed: int = 0) -> Iterator[float]:
    """Yield when requests are due, in seconds from the start: evenly, or at random as independent lanes send them."""
    generator, at = random.Random(seed), 0.0
    while at < duration_s:
        yield at
        at += generator.expovariate(rate_per_s) if poisson else 1 / rate_per_s


class LoadClient:
    """Connections to one server. Use as an async context manager."""

    def __init__(self, url: str, source: ScanSource, *, timeout_s: float = 30.0, api_key: str = "") -> None:
        self._url, self._source = url.rstrip("/") + INSPECT_PATH, source
        headers = {"Content-Type": "application/json", RUN_HEADER: source.run_id}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._headers, self._timeout_s = headers, timeout_s
        self._in_flight = 0

    async def __aenter__(self) -> "LoadClient":
        # No limit on connections: waiting for a free one would be our queue and not the server's.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def open_loop(self, due_s: Iterator[float], max_requests: int) -> LoadRecord:
        """Send a request at each time that is due, then wait for the answers.

        Cancelled, as Ctrl-C does, it returns what was answered until then.
        """
        record, tasks, started = LoadRecord(), set[asyncio.Task[None]](), time.perf_counter()
        try:
            for at in itertools.islice(due_s, max_requests):
                await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
                record.duration_s = at
                if self._in_flight >= MAX_IN_FLIGHT:
                    record.num_unsent += 1
                    continue
                task = asyncio.create_task(self._send(record, started, at))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            await _break_off(record, tasks)
            record.duration_s = time.perf_counter() - started
        record.outcomes.sort(key=lambda outcome: outcome.intended_s)
        return record

    async def closed_loop(self, num_clients: int, duration_s: float, max_requests: int) -> LoadRecord:
        """Let so many clients send, each its next request when its last one is answered."""
        record, started = LoadRecord(), time.perf_counter()
        numbers = iter(range(max_requests))

        async def client() -> None:
            while (at := time.perf_counter() - started) < duration_s and next(numbers, None) is not None:
                await self._send(record, started, at)

        tasks = {asyncio.create_task(client()) for _ in range(num_clients)}
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            await _break_off(record, tasks)
        record.duration_s = time.perf_counter() - started
        record.outcomes.sort(key=lambda outcome: outcome.intended_s)
        return record

    async def _send(self, record: LoadRecord, started: float, intended_s: float) -> None:
        in_flight = self._in_flight
        self._in_flight += 1
        sent_s, told = time.perf_counter() - started, dict[str, str]()
        status: int | None = None
        try:
            async with self._session.post(self._url, data=next(self._source)) as response:
                body = await response.read()
                status = response.status
            told = _read_answer(status, body)
        except TimeoutError:
            told = {"error": "timeout"}
        except aiohttp.ClientError as error:
            told = {"error": type(error).__name__}
        finally:
            self._in_flight -= 1
        done_s = time.perf_counter() - started
        record.outcomes.append(Outcome(intended_s, sent_s, done_s, in_flight, status, **told))


async def _break_off(record: LoadRecord, tasks: set[asyncio.Task[None]]) -> None:
    record.interrupted = True
    waiting = [task for task in tasks if not task.done()]
    record.num_unanswered = len(waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def _read_answer(status: int, body: bytes) -> dict[str, str]:
    """Return what an answer says of itself; one of 200 that cannot be read is an error, never a success."""
    try:
        answer = json.loads(body)
        if status != 200:
            return {"error": str(answer.get("code", f"http_{status}"))}
        if answer["degraded"]:
            return {"action": str(answer["action"]), "degraded_by": str((answer["reasons"] or ["degraded"])[0])}
        return {"action": str(answer["action"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"error": f"http_{status}" if status != 200 else "answer_unreadable"}
