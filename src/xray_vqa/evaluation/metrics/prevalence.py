"""From rates to what an operator meets: alarms and misses among real bags, costs, and what the bags seen so far prove."""

from collections.abc import Sequence

from xray_vqa.evaluation.metrics.intervals import detectable_difference, lower_bound, trials_to_prove, upper_bound
from xray_vqa.evaluation.results import AtPrevalence, CostPoint, Proof

PREVALENCES = (0.001, 0.01, 0.1)
MISS_COSTS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
"""In false alarms. Published figures span many more powers of ten, so the curve is given and no point of it chosen."""
PD_TO_PROVE = 0.9


def at_prevalences(pd: float | None, pfa: float | None) -> list[AtPrevalence]:
    """Return what each of `PREVALENCES` makes of two rates; nothing where one of them was not measured."""
    return [] if pd is None or pfa is None else [_at(share, pd, pfa) for share in PREVALENCES]


def _at(share: float, pd: float, pfa: float) -> AtPrevalence:
    found, missed = share * pd, share * (1 - pd)
    alarmed, cleared = (1 - share) * pfa, (1 - share) * (1 - pfa)
    return AtPrevalence(
        prevalence=share,
        alarms_per_1000=1000 * (found + alarmed),
        threats_missed_per_million=1e6 * missed,
        ppv=found / (found + alarmed) if found + alarmed else None,
        npv=cleared / (cleared + missed) if cleared + missed else None,
    )


def cost_points(roc: Sequence[tuple[float, float]], pd: float | None, pfa: float | None) -> list[CostPoint]:
    """Return, for each prevalence and cost of a miss, the cheapest point of an ROC beside the thresholds in force.

    The cheapest point is chosen on the set that it is measured on, and so flatters a little.
    """
    if not roc or pd is None or pfa is None:
        return []
    points: list[CostPoint] = []
    for share in PREVALENCES:
        for miss_cost in MISS_COSTS:
            costs = [_cost_per_1000(share, miss_cost, point_pd, point_pfa) for point_pfa, point_pd in roc]
            best = min(range(len(roc)), key=costs.__getitem__)
            points.append(
                CostPoint(
                    prevalence=share,
                    miss_cost=miss_cost,
                    cost_per_1000=costs[best],
                    cost_at_thresholds=_cost_per_1000(share, miss_cost, pd, pfa),
                    pd=roc[best][1],
                    pfa=roc[best][0],
                )
            )
    return points


def _cost_per_1000(share: float, miss_cost: float, pd: float, pfa: float) -> float:
    return 1000 * (share * (1 - pd) * miss_cost + (1 - share) * pfa)


def proof_of(
    *, hits: int, num_positive: int, positive_size: float, alarms: int, num_negative: int, negative_size: float
) -> Proof:
    """Return what was proved. The sizes are those of as many independent bags: at most the numbers themselves."""
    pd = hits / num_positive if num_positive else None
    pfa = alarms / num_negative if num_negative else None
    misses = num_positive - hits
    hopeless = pd is None or upper_bound(pd * positive_size, positive_size) < PD_TO_PROVE
    return Proof(
        pd_at_least=None if pd is None else lower_bound(pd * positive_size, positive_size),
        pfa_at_most=None if pfa is None else upper_bound(pfa * negative_size, negative_size),
        miss_rule_of_three=min(1.0, 3 / positive_size) if num_positive and not misses else None,
        bags_for_pd_90=None if hopeless else trials_to_prove(PD_TO_PROVE, misses),
        detectable_difference=None if pd is None else detectable_difference(pd, positive_size),
    )
