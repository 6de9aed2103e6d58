"""What a load on a server comes to: who was answered, how fast, and whether the line before the model kept growing."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from xray_vqa.core.records import Strict
from xray_vqa.evaluation.operational.conditions import Machine
from xray_vqa.evaluation.operational.latency import LatencySummary, summarise_queued
from xray_vqa.evaluation.operational.load import LoadRecord, Outcome

TURNED_AWAY = frozenset({429, 503})
SHARE_LOST = 0.01
"""Turned away or degraded by a full line or a time limit: above this share the arrivals exceed the capacity."""
OVERLOAD_REASONS = frozenset({"overloaded", "timeout"})
LATE_MS = 10.0
"""Requests that go out later than this were held up by ourselves, and the figures are partly ours."""


class LoadPoint(Strict):
    """One load and its outcome."""

    kind: str
    """`open` (arrivals at their own times) or `closed` (clients that wait for their answers)."""
    arrivals: str
    """`poisson`, `constant` or `on answer`."""
    load: float
    """Arrivals a second, or clients."""
    duration_s: float
    num_sent: int
    num_succeeded: int
    """Answered with 200 and not degraded. The latencies are theirs alone."""
    num_degraded: int
    """Answered with 200, and not assessed: they went to a person. Never successes, however fast."""
    num_refused: int
    """503 or 429."""
    num_failed: int
    """Other statuses, broken connections, and no answer in time."""
    num_unsent: int
    """Due, and not sent, since too many waited already."""
    num_unanswered: int
    """Broken off by an interruption."""
    arrival_rate_per_s: float | None
    """As it came out."""
    throughput_per_s: float | None
    """Successes a second."""
    latency: LatencySummary
    """Of the successes, from the moment at which each was due."""
    statuses: dict[str, int]
    actions: dict[str, int]
    degraded_by: dict[str, int]
    errors: dict[str, int]
    most_in_flight: int
    stationary: bool
    """False: the figures depend on how long the load went on, or on how much was turned away."""
    send_delay_p99_ms: float | None
    """How much later than due our own process sent."""
    notes: list[str]
    interrupted: bool


class Capacity(Strict):
    """The most arrivals a second that were answered within the limits."""

    rate_per_s: float | None
    """None: not even the lowest rate that was tried."""
    fails_at_per_s: float | None
    """The lowest rate that was tried and did not hold; None: none that was tried."""
    limit_p95_ms: float
    limit_lost: float
    """Share of requests that were not answered with a success."""
    finished: bool
    """False: broken off by an interruption or by the limit on requests."""


class LoadResults(Strict):
    """`results/load_benchmarks.json`: figures of a server as its clients see it."""

    url: str
    run_id: str
    """In every `scan_id` (`bench-RUN-NUMBER`) and in the header X-Benchmark-Run."""
    points: list[LoadPoint]
    capacity: Capacity | None
    num_warm_up: int
    num_scans: int
    """Different ones."""
    max_requests: int
    interrupted: bool
    server: dict[str, str | bool | None]
    """What /ready said of model, policy and device."""
    client: Machine
    """That sent the requests; the server's own, where both are one."""
    notes: list[str]


def summarise_load(record: LoadRecord, load: float, arrivals: str) -> LoadPoint:
    """Return the figures of a load.

    Args:
        record: What became of its requests.
        load: Arrivals a second; for `on answer`, clients.
        arrivals: `poisson`, `constant` or `on answer`.
    """
    outcomes, is_open = record.outcomes, arrivals != "on answer"
    successes = [outcome for outcome in outcomes if outcome.succeeded]
    refused = [outcome for outcome in outcomes if outcome.status in TURNED_AWAY]
    degraded = [outcome for outcome in outcomes if outcome.degraded_by]
    failed = len(outcomes) - len(successes) - len(refused) - len(degraded)
    span_s = max((outcome.done_s for outcome in outcomes), default=0.0)
    due = len(outcomes) + record.num_unsent
    delay_ms = float(np.quantile([(o.sent_s - o.intended_s) * 1000 for o in outcomes], 0.99)) if outcomes else None
    notes = overload_notes(outcomes, record.num_unsent) if is_open else []
    stationary = not notes
    if delay_ms is not None and delay_ms > LATE_MS:
        notes.append(
            f"our own process sent up to {delay_ms:.0f} ms late (p99): it had too little of a core; the latencies hold "
            "that wait too"
        )
    return LoadPoint(
        kind="open" if is_open else "closed",
        arrivals=arrivals,
        load=load,
        duration_s=round(record.duration_s, 3),
        num_sent=len(outcomes) + record.num_unanswered,
        num_succeeded=len(successes),
        num_degraded=len(degraded),
        num_refused=len(refused),
        num_failed=failed,
        num_unsent=record.num_unsent,
        num_unanswered=record.num_unanswered,
        arrival_rate_per_s=round((due - 1) / record.duration_s, 3) if due > 1 and record.duration_s > 0 else None,
        throughput_per_s=round(len(successes) / span_s, 3) if span_s > 0 else None,
        latency=summarise_queued([outcome.latency_ms for outcome in successes]),
        statuses=_counted([str(o.status) for o in outcomes if o.status is not None]),
        actions=_counted([outcome.action for outcome in outcomes if outcome.action]),
        degraded_by=_counted([outcome.degraded_by for outcome in degraded]),
        errors=_counted([outcome.error for outcome in outcomes if outcome.error]),
        most_in_flight=max((outcome.in_flight + 1 for outcome in outcomes), default=0),
        stationary=stationary,
        send_delay_p99_ms=round(delay_ms, 2) if delay_ms is not None else None,
        notes=notes,
        interrupted=record.interrupted,
    )


def overload_notes(outcomes: Sequence[Outcome], num_unsent: int) -> list[str]:
    """Return what says that more arrived than could be answered: a line that grows, or requests turned away.

    The line grows where the requests that waited in the last quarter of the arrivals are on average half as many again
    as in the second quarter, and at least two more; the first quarter only fills it.
    """
    notes: list[str] = []
    quarter = len(outcomes) // 4
    if quarter >= 3:
        waiting = [outcome.in_flight for outcome in outcomes]
        second, last = np.mean(waiting[quarter : 2 * quarter]), np.mean(waiting[-quarter:])
        if last > 1.5 * second + 2:
            notes.append(
                f"not stationary: arrival rate above capacity; {second:.1f} requests waited in the second quarter and "
                f"{last:.1f} in the last, so these latencies grow with the duration"
            )
    lost = num_unsent + sum(o.status in TURNED_AWAY or o.degraded_by in OVERLOAD_REASONS for o in outcomes)
    due = len(outcomes) + num_unsent
    if due and lost / due > SHARE_LOST:
        notes.append(
            f"not stationary: arrival rate above capacity; {lost} of {due} requests were turned away or ran out of time"
        )
    return notes


def _counted(words: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))
