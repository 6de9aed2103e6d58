"""Percentiles with intervals, signs of overload and the search for capacity: pure functions over scripted numbers."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.evaluation.operational.capacity import search_capacity
from xray_vqa.evaluation.operational.conditions import steadiness_notes
from xray_vqa.evaluation.operational.latency import rate_per_s, summarise, summarise_queued
from xray_vqa.evaluation.operational.load import LoadRecord, Outcome, arrivals_s
from xray_vqa.evaluation.operational.load_results import summarise_load


def test_the_interval_of_a_median_holds_the_true_one_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        median = summarise(rng.lognormal(5, 0.5, 60).tolist()).p50_ms
        covered += median.low <= np.exp(5) <= median.high
    assert 0.935 <= covered / 1000 <= 0.99  # ranks are whole numbers, so a little more than 95 % is exact


def test_a_p99_of_few_inspections_has_no_upper_bound():
    summary = summarise([float(value) for value in range(1, 51)])
    assert summary.p99_ms.high is None
    assert summary.p99_ms.low is not None
    assert "order statistics" in summary.interval


def test_nothing_measured_is_null_and_not_zero():
    for summary in (summarise([]), summarise_queued([])):
        assert (summary.n, summary.mean_ms, summary.p50_ms.value, summary.max_ms) == (0, None, None, None)
    assert rate_per_s([], []).value is None


@given(st.lists(st.floats(0.1, 1e4), min_size=4, max_size=200))
def test_percentiles_are_ordered_and_inside_their_intervals(times):
    for summary in (summarise(times), summarise_queued(times)):
        assert summary.p50_ms.value <= summary.p95_ms.value <= summary.p99_ms.value <= summary.max_ms + 0.01
    exact = summarise(times).p50_ms
    assert exact.low is None or exact.low <= exact.value + 0.01
    assert exact.high is None or exact.high >= exact.value - 0.01


def outcome(at: float, latency: float, in_flight: int = 0, **changes) -> Outcome:
    return Outcome(at, at, at + latency, in_flight, **{"status": 200, "action": "clear", **changes})


def record_of(outcomes: list[Outcome]) -> LoadRecord:
    return LoadRecord(outcomes, duration_s=outcomes[-1].intended_s)


def test_fast_degraded_and_refused_answers_stay_out_of_latency_and_throughput():
    good = [outcome(k, 0.5) for k in range(10)]
    bad = [outcome(k + 0.5, 0.001, action="manual_inspection", degraded_by="overloaded") for k in range(10)]
    refused = [outcome(k + 0.7, 0.001, status=503, action="", error="audit_unavailable") for k in range(10)]
    broken = [outcome(9.9, 0.1, status=None, action="", error="ServerDisconnectedError")]
    ordered = sorted([*good, *bad, *refused, *broken], key=lambda o: o.intended_s)
    point = summarise_load(record_of(ordered), 3.0, "constant")
    assert (point.num_succeeded, point.num_degraded, point.num_refused, point.num_failed) == (10, 10, 10, 1)
    assert point.latency.p50_ms.value == pytest.approx(500)
    assert point.latency.n == 10
    assert point.throughput_per_s == pytest.approx(10 / 10.0, rel=0.01)
    assert point.degraded_by == {"overloaded": 10}
    assert point.errors == {"ServerDisconnectedError": 1, "audit_unavailable": 10}
    assert not point.stationary
    assert "turned away" in point.notes[0]


def test_a_line_that_grows_is_not_stationary_and_a_level_one_is():
    growing = summarise_load(record_of([outcome(k, 1 + k / 4, k // 4) for k in range(80)]), 1.0, "poisson")
    assert not growing.stationary
    assert "arrival rate above capacity" in growing.notes[0]
    level = summarise_load(record_of([outcome(k, 1.0, k % 3) for k in range(80)]), 1.0, "poisson")
    assert level.stationary
    assert level.notes == []


def test_arrivals_come_at_the_rate_that_was_asked_for():
    even = list(arrivals_s(10, 2, poisson=False))
    assert len(even) in (20, 21)
    assert np.allclose(np.diff(even), 0.1)
    gaps = np.diff(list(arrivals_s(50, 100, poisson=True)))
    assert np.mean(gaps) == pytest.approx(0.02, rel=0.06)
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.1)  # exponential


@pytest.mark.parametrize(("capacity", "start"), [(37.0, 2.0), (37.0, 500.0), (0.9, 1.0)])
def test_the_search_closes_in_on_the_capacity_from_either_side(capacity, start):
    tried = []

    async def held(rate: float) -> bool:
        tried.append(rate)
        return rate <= capacity

    bracket = asyncio.run(search_capacity(held, start))
    assert bracket.finished
    assert bracket.holds <= capacity < bracket.fails
    assert bracket.fails / bracket.holds <= 1.07
    assert len(tried) < 16


def test_a_server_that_holds_nothing_has_no_capacity_and_an_interrupted_search_is_not_finished():
    async def never(rate: float) -> bool:
        return False

    bracket = asyncio.run(search_capacity(never, 8.0))
    assert bracket.holds is None
    assert bracket.finished

    answers = iter([True, True, None])

    async def stopped(rate: float) -> bool | None:
        return next(answers)

    bracket = asyncio.run(search_capacity(stopped, 8.0))
    assert (bracket.holds, bracket.fails, bracket.finished) == (16.0, None, False)


def test_a_throttled_machine_and_a_drift_are_told():
    assert steadiness_notes((10.0, 10.5), [100.0] * 40) == []
    assert "calibration loop" in steadiness_notes((10.0, 14.0), [])[0]
    assert "first half" in steadiness_notes((10.0, 10.0), [100.0] * 20 + [130.0] * 20)[0]
