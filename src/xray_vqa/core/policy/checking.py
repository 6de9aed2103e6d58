"""Reads a policy before it is used: what in it cannot work, what never has a word, what it leaves to chance."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from xray_vqa.core.calibration import Calibration
from xray_vqa.core.inspection import Action, RiskLevel
from xray_vqa.core.policy.rules import Policy
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES


class Remark(Strict):
    """One thing that whoever signs the policy should know."""

    severity: Literal["fault", "notice"]
    """A fault makes the policy do what nobody can want; a notice may be meant so."""
    text: str


def check_policy(policy: Policy, calibration: Calibration | None = None) -> list[Remark]:
    """Return what is wrong or remarkable in a policy, faults first.

    Args:
        policy: One that loads, so that its form is right.
        calibration: That of the model which it will be used with; without one, thresholds are not looked at.
    """
    faults = [*_mild_where_grave(policy), *(_thresholds_not_met(policy, calibration) if calibration else ())]
    notices = [*_left_out(policy), *_without_a_word(policy), *(_of_calibration(policy, calibration))]
    return [
        *(Remark(severity="fault", text=text) for text in faults),
        *(Remark(severity="notice", text=text) for text in notices),
    ]


def _mild_where_grave(policy: Policy) -> Iterator[str]:
    for lower, higher in pairwise(RiskLevel):
        if policy.action_for[lower] is Action.DETAIN and policy.action_for[higher] is not Action.DETAIN:
            yield f"action_for: risk {lower.value} detains and the graver {higher.value} does not"


def _thresholds_not_met(policy: Policy, calibration: Calibration) -> Iterator[str]:
    for name in policy.required_categories:
        own, measured = policy.rule(name).threshold, calibration.thresholds.get(name)
        if own is None and measured is None:
            yield f"{name}: no threshold here and none in the calibration file, so no bag can be cleared"
        elif own is not None and measured is not None and own > measured:
            yield (
                f"{name}: threshold {own:g} lies above the calibration's {measured:.4f}: fewer are reported than it "
                "was measured for"
            )
        clear_below = policy.rule(name).clear_below
        if own is None and clear_below is not None and measured is not None and clear_below > measured:
            yield f"{name}: clear_below {clear_below:g} lies above the calibration's threshold {measured:.4f}"


def _left_out(policy: Policy) -> Iterator[str]:
    if without := [name for name in CATEGORIES if name not in policy.categories]:
        yield f"no rule for {', '.join(without)}: whoever declares one is stopped at high risk"
    if unsought := [name for name in CATEGORIES if name not in policy.required_categories]:
        yield f"not looked for: {', '.join(unsought)}; a bag that holds one can be cleared"


def _without_a_word(policy: Policy) -> Iterator[str]:
    """Keys that are set and can change no decision."""
    required = [policy.rule(name) for name in policy.required_categories]
    unsought = {name: rule for name, rule in policy.categories.items() if name not in policy.required_categories}
    if idle := [name for name, rule in unsought.items() if rule.declarable]:
        yield f"rules that are never reached, of what is not looked for and may be declared: {', '.join(idle)}"
    for name, rule in unsought.items():
        unused = [key for key in ("threshold", "clear_below", "unsure_risk") if getattr(rule, key) is not None]
        if unused and not rule.declarable:
            yield f"{name}: {', '.join(unused)} never reached, it is not looked for"
    if policy.undeclared_risk <= min(rule.risk_level for rule in required):
        yield f"undeclared_risk {policy.undeclared_risk.value}: raises nothing, every finding is as grave by itself"
    if not policy.prohibited_goods and all(rule.declarable for rule in policy.categories.values()):
        yield "declared_prohibited_risk: never reached, everything may be declared"
    if policy.unnumbered_quantity is not None and not any(rule.declarable for rule in required):
        yield "unnumbered_quantity: never reached, nothing that is looked for may be declared"
    declaration_rules = (
        policy.absent_declaration, policy.empty_declaration, policy.missing_declared, policy.unknown_declared,
    )  # fmt: skip
    if set(declaration_rules) == {"accept"} and not any(map(policy.prohibits, CATEGORIES)):
        yield "declaration_risk: never reached, every declaration is accepted"


def _of_calibration(policy: Policy, calibration: Calibration | None) -> Iterator[str]:
    if policy.clear_on_simulated_calibration:
        yield "clear_on_simulated_calibration: bags are cleared by thresholds from simulated scans; for trials alone"
    if calibration is None:
        return
    if calibration.simulated and not policy.clear_on_simulated_calibration:
        yield "the calibration is from simulated scans, so no bag can be cleared with it"
    if few := [name for name in policy.required_categories if not calibration.num_positives.get(name)]:
        yield f"the calibration has seen no scan with {', '.join(few)}"
