"""How often 95 % intervals hold the truth, in trials whose truth is known: each draws its bags anew.

    python benchmarks/coverage.py --json benchmarks/results/coverage.json

Questions about one bag share its outcome so often that any two of them correlate by 0.3. A coverage is itself measured:
of 2,000 trials at 95 % its standard error is half a point.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measuring import conditions, publish
from scipy.stats import norm

from xray_vqa.evaluation.metrics.bootstrap import ratio_over_groups
from xray_vqa.evaluation.metrics.intervals import exact_rate, rate, rate_over_groups
from xray_vqa.evaluation.metrics.ranking import auc_over_groups
from xray_vqa.evaluation.results import Estimate

CORRELATION = 0.3
DRAWS = 1_000

Trial = Callable[[np.random.Generator], Estimate]


def correlated(rng: np.random.Generator, num_bags: int, per_bag: int, p: float) -> np.ndarray:
    """Right answers, (bags, questions): with probability sqrt(0.3) a question takes its bag's own outcome."""
    of_bag, own = rng.random((num_bags, 1)) < p, rng.random((num_bags, per_bag)) < p
    return np.where(rng.random((num_bags, per_bag)) < CORRELATION**0.5, of_bag, own)


def of_rates(method: Callable[[int, int], Estimate], n: int, p: float) -> Trial:
    return lambda rng: method(int(rng.binomial(n, p)), n)


def of_answers(num_bags: int, per_bag: int, p: float) -> Trial:
    groups, ones = np.repeat(np.arange(num_bags), per_bag), np.ones(num_bags * per_bag)

    def trial(rng: np.random.Generator) -> Estimate:
        right = correlated(rng, num_bags, per_bag, p).ravel()
        return ratio_over_groups(right.astype(float), ones, groups, len(right), draws=DRAWS)

    return trial


def of_scans(num_bags: int, per_bag: int, p: float) -> Trial:
    groups = np.repeat(np.arange(num_bags), per_bag)
    return lambda rng: rate_over_groups(correlated(rng, num_bags, per_bag, p).ravel(), groups)


def of_rankings(num_bags: int, per_bag: int, distance: float) -> Trial:
    """Half of the bags hold a threat; two views of one bag score alike by the same correlation."""
    groups = np.repeat(np.arange(num_bags), per_bag)
    truth = groups % 2 == 0

    def trial(rng: np.random.Generator) -> Estimate:
        shared = rng.normal(0, CORRELATION**0.5, num_bags)[groups]
        scores = distance * truth + shared + rng.normal(0, (1 - CORRELATION) ** 0.5, len(groups))
        return auc_over_groups(scores, truth, groups, draws=DRAWS)

    return trial


def cases() -> Iterator[tuple[str, str, float, Trial]]:
    """Yield the method, the case in words, the truth and what one trial measures."""
    for n, p in ((20, 0.95), (50, 0.9), (100, 0.9), (200, 0.98), (30, 0.5)):
        yield "clopper-pearson", f"n {n}, p {p:g}", p, of_rates(exact_rate, n, p)
    for n, p in ((100, 0.9), (40, 0.5), (300, 0.95), (100, 0.8)):
        yield "wilson", f"n {n}, p {p:g}", p, of_rates(rate, n, p)
    for num_bags, p in ((60, 0.8), (120, 0.9)):
        for per_bag in (3, 5):
            name = f"{num_bags} bags of {per_bag} scans, p {p:g}"
            yield "wilson, effective n", name, p, of_scans(num_bags, per_bag, p)
    for per_bag in (1, 5):
        for num_bags, p in ((40, 0.7), (60, 0.5), (100, 0.9)):
            name = f"{num_bags} bags of {per_bag} questions, p {p:g}"
            yield "cluster bootstrap", name, p, of_answers(num_bags, per_bag, p)
    for num_bags, per_bag in ((80, 1), (80, 2)):
        for distance in (1.0, 2.0):
            name = f"AUC of {num_bags} bags of {per_bag} views, d' {distance:g}"
            yield (
                "cluster bootstrap",
                name,
                float(norm.cdf(distance / 2**0.5)),
                of_rankings(num_bags, per_bag, distance),
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = []
    for method, name, truth, trial in cases():
        rng = np.random.default_rng(7)
        estimates = [trial(rng) for _ in range(args.trials)]
        held = [e.low is not None and e.high is not None and e.low <= truth <= e.high for e in estimates]
        widths = [e.high - e.low for e in estimates if e.low is not None and e.high is not None]
        found.append({
            "method": method, "case": name, "coverage": float(np.mean(held)),
            "mean_width": round(float(np.mean(widths)), 4),
        })  # fmt: skip
        print(f"{found[-1]['coverage']:.4f}  {method}: {name}", flush=True)
    publish(
        {"trials": args.trials, "draws": DRAWS, "cases": found, "conditions": conditions("numpy", "scipy", "numba")},
        args.json,
    )


if __name__ == "__main__":
    main()
