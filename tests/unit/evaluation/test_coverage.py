"""Whether intervals hold what they promise: 2,000 trials with a known truth, each with an interval of its own."""

import numpy as np
import pytest

from xray_vqa.evaluation.metrics.bootstrap import ratio_over_groups
from xray_vqa.evaluation.metrics.intervals import exact_rate, rate, rate_over_groups

TRIALS = 2000
# Three standard errors of 2,000 trials at 95 % are 1.5 points: a sound interval stays within.
BAND = (0.93, 0.97)


def correlated(rng, num_bags: int, per_bag: int, p: float, correlation: float) -> np.ndarray:
    """Right answers, (bags, questions): with probability `correlation**0.5` a question takes its bag's own outcome."""
    of_bag = rng.random((num_bags, 1)) < p
    own = rng.random((num_bags, per_bag)) < p
    return np.where(rng.random((num_bags, per_bag)) < correlation**0.5, of_bag, own)


def covered(make) -> float:
    rng = np.random.default_rng(7)
    return float(np.mean([make(rng, trial) for trial in range(TRIALS)]))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "p"), [(20, 0.95), (50, 0.9), (100, 0.9), (200, 0.98), (30, 0.5)])
def test_exact_intervals_cover_at_least_as_often_as_they_say(n, p):
    def one(rng, _):
        estimate = exact_rate(int(rng.binomial(n, p)), n)
        return estimate.low <= p <= estimate.high

    assert covered(one) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("n", "p"), [(100, 0.9), (40, 0.5), (300, 0.95), (100, 0.8)])
def test_wilson_covers_where_counts_allow(n, p):
    def one(rng, _):
        estimate = rate(int(rng.binomial(n, p)), n)
        return estimate.low <= p <= estimate.high

    assert BAND[0] <= covered(one) <= BAND[1]


@pytest.mark.slow
@pytest.mark.parametrize(("num_bags", "p"), [(40, 0.7), (100, 0.9), (60, 0.5)])
@pytest.mark.parametrize(("per_bag", "correlation"), [(1, 0.0), (5, 0.3)])
def test_the_bootstrap_covers_with_questions_that_share_a_bag(num_bags, p, per_bag, correlation):
    groups = [str(bag) for bag in range(num_bags) for _ in range(per_bag)]

    def one(rng, trial):
        right = correlated(rng, num_bags, per_bag, p, correlation).astype(float).ravel()
        estimate = ratio_over_groups(right, np.ones(len(right)), groups, len(right), draws=1000)
        return estimate.low <= p <= estimate.high

    assert BAND[0] <= covered(one) <= BAND[1]


@pytest.mark.slow
@pytest.mark.parametrize(("num_bags", "p"), [(60, 0.8), (120, 0.9)])
def test_a_rate_of_scans_covers_with_several_scans_of_a_bag(num_bags, p):
    groups = [str(bag) for bag in range(num_bags) for _ in range(3)]

    def one(rng, _):
        estimate = rate_over_groups(correlated(rng, num_bags, 3, p, 0.3).ravel(), groups)
        return estimate.low <= p <= estimate.high

    assert BAND[0] <= covered(one) <= BAND[1]
