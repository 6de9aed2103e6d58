"""The search for the highest rate that a server holds: doubling until one fails, then halving the gap."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

BISECTIONS = 4
"""The first gap is a factor of two, so the answer is known to a sixteenth of it."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """The highest rate that held and the lowest that did not, None where there was none."""

    holds: float | None
    fails: float | None
    finished: bool


async def search_capacity(
    held: Callable[[float], Awaitable[bool | None]], start_per_s: float, *, most_per_s: float = 1e5
) -> Bracket:
    """Return between which rates a server's capacity lies.

    Args:
        held: Tries a rate and says whether it held; None to stop the search, as when it was interrupted.
        start_per_s: First rate. If it fails it is halved until one holds, six times at most.
        most_per_s: Where doubling ends.
    """
    holds: float | None = None
    fails: float | None = None
    rate, halvings = start_per_s, 0
    while fails is None or holds is None:
        answer = await held(rate)
        if answer is None:
            return Bracket(holds, fails, finished=False)
        if answer:
            holds, rate = rate, rate * 2
            if fails is None and rate > most_per_s:
                return Bracket(holds, None, finished=True)
        else:
            fails, rate, halvings = rate, rate / 2, halvings + 1
            if holds is None and halvings > 6:
                return Bracket(None, fails, finished=True)
    for _ in range(BISECTIONS):
        middle = (holds + fails) / 2
        answer = await held(middle)
        if answer is None:
            return Bracket(holds, fails, finished=False)
        holds, fails = (middle, fails) if answer else (holds, middle)
    return Bracket(holds, fails, finished=True)
