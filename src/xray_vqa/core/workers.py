"""Several processes for one list of jobs: results as they are finished, and a dead worker ends the run."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from xray_vqa.errors import Incomplete

MIN_JOBS = 8
"""Fewer are done before a second process has started."""
Job = TypeVar("Job")
Result = TypeVar("Result")


class Runner(Protocol):
    """Does jobs and gives each with its result, in the order in which they are finished; may be called again."""

    def __call__(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]: ...


@contextmanager
def open_runner(workers: int, num_jobs: int, root: Path, memory_mb: int) -> Generator[Runner]:
    """Give what does jobs in several processes, or in this one.

    A result is given as soon as it is there, so that a journal never waits for a slower job that began earlier.

    Args:
        workers: processes at most; with 1 everything happens in this one.
        num_jobs: how many jobs there will be at most.
        root: the folder that is written, for the message.
        memory_mb: what a process needs, for the message.

    Raises:
        Incomplete: A worker process died.
    """
    if workers <= 1 or num_jobs < MIN_JOBS:
        yield _run_here
        return
    context = multiprocessing.get_context("spawn")
    # Unlike multiprocessing's own pool, this one notices a worker that was killed instead of waiting for it for ever.
    with ProcessPoolExecutor(min(workers, num_jobs), mp_context=context) as pool:

        def run(function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
            futures: dict[Future[Result], Job] = {pool.submit(function, job): job for job in jobs}
            for future in as_completed(futures):
                yield futures.pop(future), future.result()

        try:
            yield run
        except BrokenProcessPool:
            raise Incomplete(
                f"{root}: a worker process died, as one does that is killed or runs out of memory (count on "
                f"{memory_mb} MB each); finished scans are kept, and the same command goes on, with fewer --workers if "
                "need be"
            ) from None
        except BaseException:
            # Waits for the jobs in hand: a pool that is collected while its thread runs can hang Python 3.11 for ever.
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def collecting_less() -> Generator[None]:
    """Keep the garbage collector from walking through a large dataset again and again.

    Its records are millions of objects without a cycle, which counting references frees; looking for cycles in them
    takes a third of the time that the main process needs, in which the others wait.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _run_here(function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
    for job in jobs:
        yield job, function(job)
