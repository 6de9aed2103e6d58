"""The engine's thread and the bounded line before it.

An engine blocks and takes one call at a time, so one thread owns it: it loads it, feeds it and closes it. Callers wait
on the event loop with a deadline and are answered in any case; a result that comes later is discarded and counted.

What came while the engine was at work goes into its next call together. An idle engine waits for others, up to a window
of some milliseconds, only while scans are known to be on their way: a scan that comes alone waits for nobody.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from xray_vqa.core.inspection import Inspection, Scan
from xray_vqa.errors import ModelUnavailable, Overloaded, XrayVqaError
from xray_vqa.inference.inspector import Inspector
from xray_vqa.serving.metrics import Metrics

logger = logging.getLogger(__name__)


class EngineState(Enum):
    """Where the engine's thread is."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STALLED = "stalled"
    STOPPED = "stopped"


@dataclass(slots=True, eq=False)
class _Job:
    """One scan in the line; with a question it wants words, without one an inspection."""

    scan: Scan
    question: str | None = None
    on_late: Callable[[Inspection], None] | None = None
    """Gets an inspection that came when its caller had been answered without it; on the engine's thread."""
    future: Future[Any] = field(default_factory=Future)
    abandoned: bool = False
    put_at: float = field(default_factory=time.monotonic)


class EngineQueue:
    """Feeds one inspector from many callers."""

    def __init__(
        self,
        inspector: Inspector,
        metrics: Metrics,
        *,
        size: int = 32,
        max_batch: int = 1,
        window_s: float = 0.008,
        stall_after_s: float = 60.0,
    ) -> None:
        self._inspector = inspector
        self._metrics = metrics
        self._size = size
        self._max_batch = max_batch
        self._window_s = window_s
        self._coming = 0
        self._stall_after_s = stall_after_s
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._state = EngineState.LOADING
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.message: str | None = None
        """Why the engine did not start, in words for the operator."""
        metrics.watch("xray_vqa_queue_depth", "Scans that wait for the engine", lambda: len(self._jobs))
        metrics.watch("xray_vqa_queue_size", "Scans that may wait for the engine", lambda: size)
        metrics.watch("xray_vqa_ready", "1 when the engine answers", lambda: self.state is EngineState.READY)
        states = [state.value for state in EngineState]
        metrics.watch_state("xray_vqa_engine_state", "Where the engine is", states, lambda: self.state.value)

    def start(self) -> None:
        """Start loading the engine; returns at once."""
        self._thread.start()

    @property
    def state(self) -> EngineState:
        """Where the engine is. An engine whose present call runs for far too long counts as stalled, not as ready."""
        if self._closing:
            return EngineState.STOPPED
        since = self._busy_since
        if self._state is EngineState.READY and since and time.monotonic() - since > self._stall_after_s:
            return EngineState.STALLED
        return self._state

    @property
    def num_waiting(self) -> int:
        """Scans in the line."""
        return len(self._jobs)

    @contextmanager
    def coming(self) -> Generator[None]:
        """Say that a scan is being prepared and will be put into the line, or refused, before this ends."""
        with self._wake:
            self._coming += 1
        try:
            yield
        finally:
            with self._wake:
                self._coming -= 1
                self._wake.notify()

    async def inspect(
        self, scan: Scan, timeout_s: float, *, on_late: Callable[[Inspection], None] | None = None
    ) -> Inspection:
        """Return the inspection of a scan within the time given; raises nothing that an engine can cause."""
        started = time.perf_counter()
        try:
            return await self._answer(_Job(scan, on_late=on_late), timeout_s)
        except TimeoutError:
            fault = "timeout"
        except Overloaded:
            fault = "overloaded"
        except ModelUnavailable:
            fault = "unavailable"
        except Exception:
            logger.exception("the inspection failed")
            fault = "engine_error"
        return self._inspector.degraded(scan, fault, started)

    async def ask(self, scan: Scan, question: str, timeout_s: float) -> str:
        """Return the model's answer to a question.

        Raises:
            TimeoutError: It took longer than the time given.
            Overloaded: The line is full.
            ModelUnavailable: The engine is not loaded, or it failed.
            AnswerUnreadable: The answer breaks off.
        """
        return await self._answer(_Job(scan, question), timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Take nothing new, finish what waits, release the engine. Returns False where that took too long."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    async def _answer(self, job: _Job, timeout_s: float) -> Any:
        self._put(job)
        waiting = asyncio.wrap_future(job.future)
        done, _ = await asyncio.wait({waiting}, timeout=max(0.0, timeout_s))
        if not done:
            job.abandoned = True
            waiting.cancel()
            raise TimeoutError
        return waiting.result()

    def _put(self, job: _Job) -> None:
        with self._wake:
            if self._state is not EngineState.READY or self._closing:
                raise ModelUnavailable(f"the engine is {self.state.value}")
            if len(self._jobs) >= self._size:
                raise Overloaded(f"{self._size} scans are waiting")
            self._jobs.append(job)
            self._wake.notify()

    def _run(self) -> None:
        if not self._load():
            return
        while batch := self._take():
            self._busy_since = time.monotonic()
            self._work(batch)
            self._busy_since = None
        self._inspector.engine.close()

    def _load(self) -> bool:
        try:
            info = self._inspector.start()
        except Exception as error:
            logger.exception("the engine did not start; every scan goes to manual inspection")
            # Our own messages are made for operators; others may hold what a caller of /ready should not read.
            self.message = str(error) if isinstance(error, XrayVqaError) else f"{type(error).__name__}; see the log"
            self._state = EngineState.FAILED
            return False
        policy = self._inspector.policy
        self._metrics.show_model(info, policy.label)
        logger.info("ready: %s on %s", info.model_version, info.device)
        self._state = EngineState.READY
        return True

    def _take(self) -> list[_Job]:
        """Return what the engine gets next: one question, or up to `max_batch` scans that wait; nothing at the end."""
        with self._wake:
            while True:
                while not self._jobs and not self._closing:
                    self._wake.wait()
                if not self._jobs:
                    return []
                self._wait_for_others()
                batch: list[_Job] = []
                while self._jobs and len(batch) < self._max_batch:
                    if batch and (self._jobs[0].question is not None or batch[0].question is not None):
                        break
                    job = self._jobs.popleft()
                    if job.future.set_running_or_notify_cancel():
                        batch.append(job)
                    else:
                        self._metrics.expired.inc()
                if batch:
                    return batch

    def _wait_for_others(self) -> None:
        until = time.monotonic() + self._window_s
        while self._coming and len(self._jobs) < self._max_batch and not self._closing:
            if not self._wake.wait(until - time.monotonic()):
                return

    def _work(self, batch: list[_Job]) -> None:
        started = time.perf_counter()
        self._metrics.count_batch([time.monotonic() - job.put_at for job in batch])
        try:
            results = self._results(batch)
        except Exception as error:  # noqa: BLE001 (the waiting callers get it, and this thread has to live)
            for job in batch:
                job.future.set_exception(error)
        else:
            for job, result in zip(batch, results, strict=True):
                late = job.abandoned
                job.future.set_result(result)
                if late and job.on_late:
                    job.on_late(result)
        self._metrics.inference_seconds.observe(time.perf_counter() - started)
        self._metrics.late_results.inc(sum(job.abandoned for job in batch))

    def _results(self, batch: list[_Job]) -> list[Any]:
        first = batch[0]
        if first.question is None:
            inspections = self._inspector.inspect([job.scan for job in batch])
            if len(inspections) != len(batch):
                raise ModelUnavailable(f"{len(inspections)} inspections for {len(batch)} scans")
            return list(inspections)
        return [self._inspector.ask(first.scan.image, first.question)]
