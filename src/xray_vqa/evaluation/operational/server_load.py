"""A load benchmark of a running server: warm-up, the loads that are asked for or the search for capacity, results."""

import logging
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from xray_vqa.errors import ConfigError, DatasetError, ModelUnavailable
from xray_vqa.evaluation.operational.capacity import search_capacity
from xray_vqa.evaluation.operational.conditions import MachineWatch
from xray_vqa.evaluation.operational.load import LoadClient, LoadRecord, ScanSource, arrivals_s
from xray_vqa.evaluation.operational.load_results import Capacity, LoadPoint, LoadResults, summarise_load

logger = logging.getLogger(__name__)

WARM_UP = 5
_READY_FIELDS = ("model_version", "policy_version", "prompt_version", "device", "calibrated", "can_clear")


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What to send, and how much of it."""

    url: str
    rates_per_s: tuple[float, ...] = ()
    """Open loads, one after another."""
    closed: tuple[int, ...] = ()
    """Closed loads by their number of clients."""
    find_capacity: bool = False
    duration_s: float = 60.0
    """Of each load."""
    poisson: bool = True
    max_requests: int = 10_000
    """In all."""
    limit_p95_ms: float = 1000.0
    limit_lost: float = 0.01
    timeout_s: float = 30.0
    api_key_env: str | None = None


@dataclass(frozen=True, slots=True)
class LoadMeasured:
    """The results, and the latencies of each point's successes for a plot."""

    results: LoadResults
    latencies_ms: list[list[float]]


class _Budget:
    """The requests that may still be sent, and what came of those that were."""

    def __init__(self, client: LoadClient, settings: LoadSettings) -> None:
        self._client, self._settings = client, settings
        self.left = settings.max_requests
        self.points: list[LoadPoint] = []
        self.latencies_ms: list[list[float]] = []

    @property
    def is_over(self) -> bool:
        return self.left < 1 or any(point.interrupted for point in self.points)

    async def open_load(self, rate_per_s: float) -> LoadPoint:
        settings = self._settings
        due_s = arrivals_s(rate_per_s, settings.duration_s, poisson=settings.poisson, seed=len(self.points))
        record = await self._client.open_loop(due_s, self.left)
        return self._keep(record, rate_per_s, "poisson" if settings.poisson else "constant")

    async def closed_load(self, num_clients: int) -> LoadPoint:
        record = await self._client.closed_loop(num_clients, self._settings.duration_s, self.left)
        return self._keep(record, num_clients, "on answer")

    def _keep(self, record: LoadRecord, load: float, arrivals: str) -> LoadPoint:
        point = summarise_load(record, load, arrivals)
        self.left -= point.num_sent + point.num_unsent
        self.points.append(point)
        self.latencies_ms.append([o.latency_ms for o in record.outcomes if o.succeeded])
        logger.info("%s %g: %s a second, p95 %s ms", arrivals, load, point.throughput_per_s, point.latency.p95_ms.value)
        return point


async def benchmark_server(settings: LoadSettings, paths: Sequence[Path]) -> LoadMeasured:
    """Load a server with scans from files; cancelled, it returns what was measured.

    Raises:
        ConfigError: The environment has no such key.
        DatasetError: There are no scans.
        ModelUnavailable: No server answers, it is not ready, or no inspection of the warm-up succeeds.
        KeyboardInterrupt: Before anything was timed.
    """
    if not paths:
        raise DatasetError("no scans to send")
    key = os.environ.get(settings.api_key_env, "") if settings.api_key_env else ""
    if settings.api_key_env and not key:
        raise ConfigError(f"--api-key-env: {settings.api_key_env} is not set in the environment")
    server, watch, source = await _readiness(settings.url, key), MachineWatch(), ScanSource(paths)
    capacity: Capacity | None = None
    async with LoadClient(settings.url, source, timeout_s=settings.timeout_s, api_key=key) as client:
        warm = await client.closed_loop(1, settings.duration_s, WARM_UP)
        if warm.interrupted:
            raise KeyboardInterrupt
        warm_ms = [outcome.latency_ms for outcome in warm.outcomes if outcome.succeeded]
        if not warm_ms:
            told = summarise_load(warm, 1, "on answer")
            raise ModelUnavailable(
                f"{settings.url}: none of {len(warm.outcomes)} inspections succeeded before the load: degraded by "
                f"{told.degraded_by}, errors {told.errors}"
            )
        budget = _Budget(client, settings)
        for rate in settings.rates_per_s:
            if not budget.is_over:
                await budget.open_load(rate)
        for num_clients in settings.closed:
            if not budget.is_over:
                await budget.closed_load(num_clients)
        if settings.find_capacity and not budget.is_over:
            capacity = await _find_capacity(budget, settings, 500 / statistics.median(warm_ms))
    notes = [] if budget.left > 0 else [f"ended by the limit of {settings.max_requests} requests"]
    if any(point.kind == "closed" for point in budget.points):
        notes.append(
            "clients of a closed load wait for their answers, so a slow server is asked less; an open one is not"
        )
    results = LoadResults(
        url=settings.url,
        run_id=source.run_id,
        points=budget.points,
        capacity=capacity,
        num_warm_up=len(warm.outcomes),
        num_scans=len(paths),
        max_requests=settings.max_requests,
        interrupted=any(point.interrupted for point in budget.points),
        server=server,
        client=watch.record(),
        notes=notes,
    )
    return LoadMeasured(results, budget.latencies_ms)


async def _find_capacity(budget: _Budget, settings: LoadSettings, start_per_s: float) -> Capacity:
    async def held(rate_per_s: float) -> bool | None:
        if budget.is_over:
            return None
        point = await budget.open_load(rate_per_s)
        return None if budget.is_over else within_limits(point, settings.limit_p95_ms, settings.limit_lost)

    bracket = await search_capacity(held, start_per_s)
    return Capacity(
        rate_per_s=round(bracket.holds, 3) if bracket.holds else None,
        fails_at_per_s=round(bracket.fails, 3) if bracket.fails else None,
        limit_p95_ms=settings.limit_p95_ms,
        limit_lost=settings.limit_lost,
        finished=bracket.finished,
    )


def within_limits(point: LoadPoint, limit_p95_ms: float, limit_lost: float) -> bool:
    """Whether a server held a load: p95 and the share of lost requests within their limits, and no growing line."""
    p95, due = point.latency.p95_ms.value, point.num_sent + point.num_unsent
    lost = due - point.num_succeeded
    return p95 is not None and p95 <= limit_p95_ms and lost <= limit_lost * due and point.stationary


async def _readiness(url: str, key: str) -> dict[str, str | bool | None]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), headers=headers) as session,
            session.get(url.rstrip("/") + "/ready") as response,
        ):
            told = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ModelUnavailable(f"{url}: nothing answers as an inspection server does: {error}") from error
    if not isinstance(told, dict) or not told.get("ready"):
        message = told.get("message") if isinstance(told, dict) else None
        raise ModelUnavailable(f"{url} is not ready: {message or f'/ready answered {response.status}'}")
    return {name: told.get(name) for name in _READY_FIELDS}
