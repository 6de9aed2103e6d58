"""The inner loops of the bootstrap, compiled: numpy would go through memory five times for what takes one pass here.

Weights are counts, so that sums of them are whole and exact in float64, in whatever order they are taken.
"""

from xray_vqa.simulation.kernel import kernel


@kernel
def count_picked(picked, counts):
    """Add to `counts[d, k]` how often `k` is in row `d` of `picked`."""
    for draw in range(picked.shape[0]):
        for at in range(picked.shape[1]):
            counts[draw, picked[draw, at]] += 1


@kernel
def add_up(weights, columns, sums):
    """Set `sums[d, k]` to the sum over observations of `weights[d]` times `columns[k]`.

    A thread by itself: BLAS spreads so narrow a product over all cores and lets them wait for each other in a loop,
    which takes five times as long where the cores are shared.
    """
    for draw in range(weights.shape[0]):
        for column in range(columns.shape[0]):
            total = 0.0
            for at in range(weights.shape[1]):
                total += weights[draw, at] * columns[column, at]
            sums[draw, column] = total


@kernel
def walk_down(weights, order, is_positive, ends_level, positives, pfa_levels, pd_levels, slack, found):
    """Go down each draw's ranking once, from the highest score.

    Args:
        weights: (draws, observations), any number type.
        order: (observations,), which observation stands where, highest score first.
        is_positive: (observations,) bool, by place in the ranking.
        ends_level: (observations,) bool, by place: whether the next one scores less.
        positives: Which observations are positive.
        pfa_levels: Ascending.
        pd_levels: Ascending.
        slack: By how much a sum of weights may miss a level.
        found: (draws, 3 + levels) float64 that is filled: weight of the positives, of the negatives, twice the weight
            of pairs in which the negative stands higher (once where it is level), the positives flagged at each of
            `pfa_levels`, the negatives flagged at each of `pd_levels`.
    """
    num_pfa, num_pd = len(pfa_levels), len(pd_levels)
    for draw in range(weights.shape[0]):
        total, all_hits = 0.0, 0.0
        for at in range(weights.shape[1]):
            total += weights[draw, at]
        for at in range(len(positives)):
            all_hits += weights[draw, positives[at]]
        all_alarms = total - all_hits
        found[draw, 0], found[draw, 1] = all_hits, all_alarms
        for level in range(num_pfa):
            found[draw, 3 + level] = all_hits
        hits, alarms, lost, level_hits, level_alarms = 0.0, 0.0, 0.0, 0.0, 0.0
        at_pfa, at_pd = 0, 0
        for at in range(len(order)):
            weight = float(weights[draw, order[at]])
            if is_positive[at]:
                level_hits += weight
            else:
                level_alarms += weight
            if ends_level[at]:
                lost += level_hits * (2 * alarms + level_alarms)
                while at_pfa < num_pfa and alarms + level_alarms > pfa_levels[at_pfa] * all_alarms + slack:
                    found[draw, 3 + at_pfa] = hits
                    at_pfa += 1
                hits += level_hits
                alarms += level_alarms
                while at_pd < num_pd and hits >= pd_levels[at_pd] * all_hits - slack:
                    found[draw, 3 + num_pfa + at_pd] = alarms
                    at_pd += 1
                level_hits, level_alarms = 0.0, 0.0
        found[draw, 2] = lost
