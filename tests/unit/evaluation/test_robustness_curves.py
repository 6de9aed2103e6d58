"""Where Pd has fallen by five points, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.evaluation.metrics.bootstrap import draw_weights
from xray_vqa.evaluation.robustness.curves import METRICS, Measured, drop_point, first_crossings


def measured_of(pd: float, drawn: list[float]) -> Measured:
    values = {**dict.fromkeys(METRICS, 0.5), "pd": pd}
    return Measured(values, {name: np.array(drawn) for name in METRICS}, dict.fromkeys(METRICS, 10), 0)


def test_the_fall_is_interpolated_between_the_strengths_around_it():
    # From 0.90 at 10 to 0.80 at 20: 0.85 is reached half-way.
    points = [measured_of(0.90, [0.9, 0.9]), measured_of(0.90, [0.9, 0.9]), measured_of(0.80, [0.8, 0.8])]
    found = drop_point([0, 10, 20], points)
    assert (found.strength, found.low, found.high, found.within) == (15, 15, 15, True)


def test_no_fall_within_the_range_is_said_and_no_strength_made_up():
    found = drop_point([0, 10], [measured_of(0.9, [0.9, 0.9]), measured_of(0.88, [0.88, 0.5])])
    assert (found.strength, found.within, found.largest) == (None, False, 10)
    assert found.low == pytest.approx(1.25)  # one of two draws falls by 0.4
    assert found.high is None


def test_the_first_fall_counts_where_pd_rises_again():
    assert first_crossings([0, 1, 2, 3], np.array([[0.0], [0.1], [0.0], [0.2]]))[0] == pytest.approx(0.5)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30))
def test_draws_take_whole_groups(groups):
    weights = draw_weights(groups, draws=20)
    assert (weights[0] == 1).all()
    for name in set(groups):
        columns = weights[:, [index for index, other in enumerate(groups) if other == name]]
        assert (columns == columns[:, :1]).all()
    firsts = [groups.index(name) for name in set(groups)]
    assert (weights[:, firsts].sum(axis=1) == len(firsts)).all()
