"""Intervals against published values and the promises that they make."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_vqa.evaluation.metrics.intervals import over_groups, rate, ratio_over_groups


def test_wilson_worked_by_hand():
    # 8 of 10, z = 1.959964: centre (0.8 + z²/20) / (1 + z²/10), half width z √(0.016 + z²/400) / (1 + z²/10).
    z = 1.959963984540054
    centre, half = (0.8 + z * z / 20) / (1 + z * z / 10), z * math.sqrt(0.016 + z * z / 400) / (1 + z * z / 10)
    estimate = rate(8, 10)
    assert (estimate.value, estimate.n) == (0.8, 10)
    assert (estimate.low, estimate.high) == (pytest.approx(centre - half), pytest.approx(centre + half))


def test_no_hits_still_leave_doubt():
    # With none of n, Wilson's upper end is z² / (n + z²).
    assert rate(0, 43).high == pytest.approx(1.96**2 / (43 + 1.96**2), rel=1e-3)
    assert rate(0, 0).value is None


def test_one_bag_gives_no_interval():
    estimate = ratio_over_groups([1, 0, 1], [1, 1, 1], ["a", "a", "a"], 3)
    assert estimate.value == pytest.approx(2 / 3)
    assert estimate.low is None


def test_all_right_is_no_certainty_and_counts_bags_not_questions():
    ten_questions_two_bags = ratio_over_groups([1.0] * 10, [1.0] * 10, ["a", "b"] * 5, 10)
    assert ten_questions_two_bags.value == 1.0
    assert ten_questions_two_bags.low == pytest.approx(rate(2, 2).low)


def test_ratio_of_nothing_is_undefined():
    assert ratio_over_groups([], [], [], 0).value is None
    assert ratio_over_groups([0.0], [0.0], ["a"], 0).value is None


outcomes = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=4, max_size=30)


@settings(max_examples=25, deadline=None)
@given(outcomes)
def test_asking_every_question_twice_does_not_narrow_the_interval(rows):
    hits, groups = [float(right) for right, _ in rows], [str(group) for _, group in rows]
    once = ratio_over_groups(hits, [1.0] * len(hits), groups, len(hits))
    twice = ratio_over_groups(hits * 2, [1.0] * (2 * len(hits)), groups * 2, 2 * len(hits))
    assert twice.value == pytest.approx(once.value)
    if once.low is not None:
        assert (twice.low, twice.high) == (pytest.approx(once.low), pytest.approx(once.high))


@settings(max_examples=25, deadline=None)
@given(outcomes)
def test_an_interval_holds_its_value_and_stays_within_bounds(rows):
    hits, groups = [float(right) for right, _ in rows], [str(group) for _, group in rows]
    estimate = ratio_over_groups(hits, [1.0] * len(hits), groups, len(hits))
    if estimate.low is not None:
        assert 0 <= estimate.low <= estimate.high <= 1


def test_more_bags_narrow_the_interval():
    def width(bags: int) -> float:
        hits = [float(k % 2) for k in range(bags)]
        estimate = ratio_over_groups(hits, [1.0] * bags, [str(k) for k in range(bags)], bags)
        return estimate.high - estimate.low

    assert width(1000) < width(100) / 2 < width(10)


def test_equal_inputs_give_equal_intervals():
    def once():
        return over_groups(lambda weights: float(weights[0] / weights.sum()), ["a", "b", "c"], 3)

    assert once() == once()
