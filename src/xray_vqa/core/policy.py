"""The rules that turn what the model sees into a risk, an action and a sentence. The model never decides.

`clear` is earned: it is made in one place, from the complete list of conditions in `CLEAR_CONDITIONS`. Everything
else, the unforeseen included, goes to a person. A declaration can raise a risk and never lowers one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from xray_vqa.core.inspection import Action, Decision, DeclaredItem, Evidence, Finding, RiskLevel, ScoreState
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category

DeclarationRule = Literal["accept", "manual_inspection"]


class CategoryRule(Strict):
    """What one category means at this checkpoint."""

    risk_level: RiskLevel
    declarable: bool = False
    """Whether it may be carried when declared. It is reported all the same, at the same risk."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Probability from which it is reported. Unset: the model's calibration file decides."""
    noun: str = "item"
    """What the sentence calls it: "prohibited sharp item", "prohibited firearm"."""


class Policy(Strict):
    """A versioned set of rules; `configs/policy.yaml` is the one that ships."""

    name: str
    version: str
    categories: dict[str, CategoryRule]
    required_categories: list[str]
    """Each needs a usable score before a bag can be cleared."""
    default_threshold: float = Field(default=0.5, gt=0, lt=1)
    """For a category that neither this file nor a calibration file gives one."""
    action_for: dict[RiskLevel, Action]
    """For bags that are not cleared; `clear` cannot stand here."""
    unsure_risk: RiskLevel = RiskLevel.MEDIUM
    """For a required category without a usable score."""
    undeclared_risk: RiskLevel = RiskLevel.MEDIUM
    """At least this for a finding outside the declaration."""
    declared_prohibited_risk: RiskLevel = RiskLevel.HIGH
    """At least this when something was declared that may not be carried at all."""
    absent_declaration: DeclarationRule = "accept"
    """When no declaration was made, as on a cabin lane."""
    clear_on_simulated_calibration: bool = False
    """Whether a bag may be cleared by thresholds from simulated scans. For trials on simulated scans alone."""
    empty_declaration: DeclarationRule = "accept"
    """When the traveller declared that there is nothing to declare."""

    @model_validator(mode="after")
    def _check(self) -> "Policy":
        unknown = sorted((set(self.categories) | set(self.required_categories)) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"unknown categories {unknown}; the taxonomy has {', '.join(CATEGORIES)}")
        if not self.required_categories:
            raise ValueError("required_categories is empty; a bag could be cleared without looking for anything")
        without_rule = sorted(set(self.required_categories) - set(self.categories))
        if without_rule:
            raise ValueError(f"required categories without a rule under `categories`: {without_rule}")
        without_action = [level.value for level in RiskLevel if level not in self.action_for]
        if without_action:
            raise ValueError(f"action_for has no action for {without_action}")
        cleared = [level.value for level, action in self.action_for.items() if action is Action.CLEAR]
        if cleared:
            raise ValueError(f"action_for may not hold `clear` (found for {cleared}); clear is earned by conditions")
        return self

    def rule(self, category: str) -> CategoryRule:
        """Return the rule of a category; one without a rule of its own is of high risk."""
        return self.categories.get(category, CategoryRule(risk_level=RiskLevel.HIGH))

    def threshold(self, category: str, calibrated: dict[str, float]) -> float:
        """Return from which probability a category is reported: this file's word, else the calibration's."""
        own = self.rule(category).threshold
        return own if own is not None else calibrated.get(category, self.default_threshold)


@dataclass(frozen=True, slots=True)
class ClearCondition:
    """One thing that must hold before a bag is cleared; its name is the reason when it does not."""

    name: str
    holds: Callable[[Policy, Evidence], bool]


@dataclass(frozen=True, slots=True)
class RiskRule:
    """Something that calls for a risk level, or for none where it does not apply."""

    name: str
    risk_level: Callable[[Policy, Evidence], RiskLevel | None]


def _has_value(evidence: Evidence, category: str) -> bool:
    score = evidence.scores.get(category)
    return score is not None and score.state is ScoreState.VALUE


def _undeclared(evidence: Evidence) -> list[Finding]:
    """The findings that the declaration does not name. Without a declaration nothing is undeclared."""
    if evidence.declared_items is None:
        return []
    declared = {canonical_category(item) for item in evidence.declared_items}
    return [finding for finding in evidence.findings if finding.category not in declared]


def _declared_prohibited(policy: Policy, evidence: Evidence) -> list[str]:
    """The declared items that may not be carried, declared or not."""
    return [
        item
        for item in evidence.declared_items or ()
        if (category := canonical_category(item)) != UNLISTED and not policy.rule(category).declarable
    ]


def _declaration_accepted(policy: Policy, evidence: Evidence) -> bool:
    if evidence.declared_items is None:
        return policy.absent_declaration == "accept"
    if not evidence.declared_items:
        return policy.empty_declaration == "accept"
    return True


def _matches_declaration(policy: Policy, evidence: Evidence) -> bool:
    """Whether no finding lies outside the declaration and nothing declared is prohibited."""
    unexplained = evidence.findings if evidence.declared_items is None else _undeclared(evidence)
    return not unexplained and not _declared_prohibited(policy, evidence) and not evidence.engine_faults


CLEAR_CONDITIONS = (
    ClearCondition("engine_answered", lambda policy, evidence: not evidence.engine_faults),
    ClearCondition("input_is_a_scan", lambda policy, evidence: not evidence.input_faults),
    ClearCondition(
        "every_required_category_scored",
        lambda policy, evidence: all(_has_value(evidence, name) for name in policy.required_categories),
    ),
    ClearCondition(
        "every_required_category_covered",
        lambda policy, evidence: evidence.covered_categories.issuperset(policy.required_categories),
    ),
    ClearCondition("calibration_matches", lambda policy, evidence: evidence.calibrated),
    ClearCondition("no_findings", lambda policy, evidence: not evidence.findings),
    ClearCondition("declaration_accepted", _declaration_accepted),
    ClearCondition("declaration_matches", _matches_declaration),
)
"""Every one has to hold before `clear`."""

RISK_RULES = (
    RiskRule(
        "findings",
        lambda policy, evidence: max((policy.rule(f.category).risk_level for f in evidence.findings), default=None),
    ),
    RiskRule("degraded", lambda policy, evidence: RiskLevel.HIGH if evidence.engine_faults else None),
    RiskRule("input", lambda policy, evidence: RiskLevel.HIGH if evidence.input_faults else None),
    RiskRule(
        "unsure",
        lambda policy, evidence: (
            policy.unsure_risk if any(not _has_value(evidence, name) for name in policy.required_categories) else None
        ),
    ),
    RiskRule(
        "not_covered",
        lambda policy, evidence: (
            policy.unsure_risk if not evidence.covered_categories.issuperset(policy.required_categories) else None
        ),
    ),
    RiskRule("not_calibrated", lambda policy, evidence: None if evidence.calibrated else policy.unsure_risk),
    RiskRule("undeclared", lambda policy, evidence: policy.undeclared_risk if _undeclared(evidence) else None),
    RiskRule(
        "declared_prohibited",
        lambda policy, evidence: policy.declared_prohibited_risk if _declared_prohibited(policy, evidence) else None,
    ),
    RiskRule(
        "declaration_not_accepted",
        lambda policy, evidence: None if _declaration_accepted(policy, evidence) else RiskLevel.MEDIUM,
    ),
)
"""The strictest of those that apply counts."""


def decide(policy: Policy, evidence: Evidence) -> Decision:
    """Return the strictest decision that scores, findings, declaration and the engine's state call for."""
    unmet = tuple(condition.name for condition in CLEAR_CONDITIONS if not condition.holds(policy, evidence))
    if not unmet:
        risk_level, action = RiskLevel.LOW, Action.CLEAR
    else:
        called_for = [level for rule in RISK_RULES if (level := rule.risk_level(policy, evidence)) is not None]
        risk_level = max(called_for, default=RiskLevel.HIGH)
        action = policy.action_for[risk_level]
    return Decision(
        risk_level=risk_level,
        action=action,
        match_declaration=_matches_declaration(policy, evidence),
        degraded=bool(evidence.engine_faults),
        reasons=unmet,
        declaration=_declaration_of(policy, evidence),
        policy_version=f"{policy.name}@{policy.version}",
    )


def _declaration_of(policy: Policy, evidence: Evidence) -> tuple[DeclaredItem, ...]:
    found = {finding.category for finding in evidence.findings}
    lines: list[DeclaredItem] = []
    for item in evidence.declared_items or ():
        category = canonical_category(item)
        if category == UNLISTED:
            lines.append(DeclaredItem(item=item, status="not_verified"))
        elif not policy.rule(category).declarable:
            lines.append(DeclaredItem(item=item, status="prohibited", category=category))
        else:
            lines.append(
                DeclaredItem(item=item, status="found" if category in found else "not_verified", category=category)
            )
    return tuple(lines)
