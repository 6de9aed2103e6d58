"""The pace of calls, on a clock that the tests turn."""

import asyncio
from contextlib import suppress
from itertools import pairwise

from xray_vqa.generation.limiter import FIRST_LIMIT, Limiter
from xray_vqa.generation.providers import Limits, Throttled


async def calls(limiter, count, complaint=None):
    """Begin calls together and end them together."""
    everybody = asyncio.Event()

    async def one():
        with suppress(Throttled):
            async with limiter.turn():
                await everybody.wait()
                if complaint is not None:
                    raise complaint

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    await asyncio.sleep(0.02)
    running = limiter.running
    everybody.set()
    await asyncio.gather(*tasks)
    return running


def test_no_more_run_at_once_than_the_limit_and_it_grows_while_all_of_it_is_used():
    async def run():
        limiter = Limiter(64)
        assert await calls(limiter, 200) == FIRST_LIMIT
        assert limiter.limit == 64

    asyncio.run(run())


def test_a_limit_that_is_not_used_does_not_grow():
    async def run():
        limiter = Limiter(64)
        for _ in range(20):
            await calls(limiter, 2)
        assert limiter.limit == FIRST_LIMIT

    asyncio.run(run())


def test_complaints_that_come_together_count_once_and_nothing_begins_before_the_wait_is_over():
    async def run():
        limiter, loop = Limiter(8), asyncio.get_running_loop()
        started = loop.time()
        await calls(limiter, 8, Throttled("too fast", retry_after_s=0.3))
        assert limiter.limit == 6
        async with limiter.turn():
            assert loop.time() - started >= 0.3

    asyncio.run(run())


def test_after_a_complaint_it_grows_by_one_a_round():
    async def run():
        limiter = Limiter(64)
        await calls(limiter, 1, Throttled("too fast", retry_after_s=0.0))
        before = limiter.limit
        await calls(limiter, 2 * int(before))
        assert before < limiter.limit <= before + 2

    asyncio.run(run())


def test_beginnings_keep_their_distance():
    async def run():
        limiter, loop = Limiter(8, delay_s=0.05), asyncio.get_running_loop()
        begun = []

        async def one():
            async with limiter.turn():
                begun.append(loop.time())

        await asyncio.gather(*(one() for _ in range(5)))
        assert all(later - earlier >= 0.049 for earlier, later in pairwise(begun))

    asyncio.run(run())


def test_nothing_begins_while_the_service_says_that_nothing_is_left():
    async def run():
        limiter, loop = Limiter(8), asyncio.get_running_loop()
        limiter.heed(Limits(remaining_requests=5, requests_reset_s=60.0, remaining_tokens=0, tokens_reset_s=0.1))
        started = loop.time()
        async with limiter.turn():
            assert 0.1 <= loop.time() - started < 30

    asyncio.run(run())
