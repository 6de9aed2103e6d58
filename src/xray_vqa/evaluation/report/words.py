"""What was measured in plain words, for a reader who has a line of bags to screen and no statistics."""

from collections.abc import Sequence
from dataclasses import dataclass

from xray_vqa.evaluation.results import BagScores, Estimate, EvaluationResults


@dataclass(frozen=True, slots=True)
class Hundred:
    """One statement about a hundred bags, with the range that the sample allows."""

    kind: str
    """`found` or `stopped`."""
    count: int | None
    sentence: str
    basis: str
    range: str = ""
    """Its 95 % interval, "[80, 92]"; empty where there is none."""


def unit_of(results: EvaluationResults) -> str:
    """Return what a rate counts: bags where each scan is one, else scans."""
    return "scan" if results.scored.num_groups < results.scored.num_scans else "bag"


def headline(results: EvaluationResults) -> list[Hundred]:
    """Return the two statements that everything else explains."""
    bag, unit = results.screening.bag, unit_of(results)
    threat, clean = f"{unit}s with a threat", f"clean {unit}s"
    found = _hundred("found", bag.pd, f"finds {{}} of 100 {threat}", f"There were no {threat}.", threat)
    stopped = _hundred("stopped", bag.pfa, f"stops {{}} of 100 {clean}", f"There were no {clean}.", clean)
    return [found, stopped]


def _hundred(kind: str, estimate: Estimate, sentence: str, without: str, what: str) -> Hundred:
    if estimate.value is None:
        return Hundred(kind, None, without, "so this cannot be said")
    count = round(100 * estimate.value)
    hits = round(estimate.value * estimate.n)
    basis = f"{hits} of {estimate.n} {what}"
    if estimate.low is None or estimate.high is None:
        return Hundred(kind, count, sentence.format(count), basis)
    low, high = f"{100 * estimate.low:.0f}", f"{100 * estimate.high:.0f}"
    basis += f"; 95 % interval {low} to {high} of 100"
    return Hundred(kind, count, sentence.format(count), basis, f"[{low}, {high}]")


def rule_of_three(bag: BagScores) -> list[str]:
    """Return what a clean sheet would still allow: with no event in n bags, up to 3 in n with 95 % confidence."""
    told: list[str] = []
    for estimate, is_perfect, event, what in (
        (bag.pd, bag.pd.value == 1, "missed", "with a threat"),
        (bag.pfa, bag.pfa.value == 0, "stopped", "without one"),
    ):
        if not estimate.n:
            continue
        most = min(300 / estimate.n, 100)
        if is_perfect:
            told.append(
                f"None of the {estimate.n} bags {what} was {event}; that still allows up to {most:.1f} of 100 (rule of "
                "three)."
            )
        else:
            told.append(
                f"Even if none of the {estimate.n} bags {what} had been {event}, up to {most:.1f} of 100 could be."
            )
    return told


def limits_of(results: EvaluationResults) -> Sequence[str]:
    """Return what the numbers do not say, as sentences."""
    bag = results.screening.bag
    groups, scans = results.scored.num_groups, results.scored.num_scans
    told = rule_of_three(bag)
    if groups < scans:
        told = [
            f"The {scans} scans come in {groups} groups, each of one bag or of bags that are alike. Rates count scans. "
            f"Intervals know that scans of a group stand and fall together: they prove little more than {groups} bags."
        ]
    covered = len(results.scored.covered_categories)
    names = ", ".join(results.screening.categories) or "none"
    told.append(
        f"Only categories that the scans' source labels were scored: {names}. The model says that it covers {covered}."
    )
    if bag.num_left_out:
        told.append(f"{bag.num_left_out} scans hold only items outside these categories and are in neither rate.")
    return told
