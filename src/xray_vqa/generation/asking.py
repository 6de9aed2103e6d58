"""Images are asked about call by call, many at once."""

import asyncio
import threading
from collections.abc import Container, Sequence
from typing import Any

from tqdm import tqdm

from xray_vqa.errors import Incomplete, ProviderError
from xray_vqa.generation.budget import Budget
from xray_vqa.generation.calling import Caller
from xray_vqa.generation.job import Job
from xray_vqa.generation.limiter import Stopped


async def ask(
    job: Job, todo: Sequence[int], bar: "tqdm[Any]", stop: threading.Event, *, leave: Container[int] = ()
) -> list[int]:
    """Ask about images until they need nothing more, and let the output grow.

    Args:
        job: what they belong to.
        todo: images by their place in the plan.
        bar: moves on with each that needs nothing more.
        stop: set where the run shall end.
        leave: providers, by id(), that are not called.

    Returns:
        The images whose next call is one to a provider in `leave`.

    Raises:
        Incomplete: Nothing can go on.
        Stopped: `stop` was set before the end.
    """
    journal, written = job.journal, job.written
    budget = Budget(job.config.max_cost_usd, spent_usd=journal.cost_usd + journal.lost_usd)
    caller = Caller(job.ladder, journal, budget, delay_s=job.config.rate_limit_delay_s, stop=stop)
    waiting = iter(todo)
    left: list[int] = []
    halted: list[Incomplete] = []
    num_open = len(todo)

    async def word(index: int) -> bool:
        """Climb the ladder for one image. False where it leads to a provider that is not called."""
        while (call := job.next_call(index)) is not None:
            step, request = call
            if id(job.ladder.rungs[step.rung].provider) in leave:
                return False
            await caller.call(step, request, job.keys[index])
        return True

    async def work() -> None:
        nonlocal num_open
        while not halted and not stop.is_set() and (index := next(waiting, None)) is not None:
            try:
                if not await word(index):
                    left.append(index)
                    num_open -= 1
                    continue
            except ProviderError as error:
                written.failed[job.plan[index].record.image_path] = str(error)
            except Incomplete as error:
                halted.append(error)
                return
            except Stopped:
                return
            num_open -= 1
            bar.update()
            written.grow()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(todo), job.ladder.rungs[0].provider.concurrency)):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    written.grow()
    if halted:
        raise halted[0]
    if num_open:
        raise Stopped
    return sorted(left)
