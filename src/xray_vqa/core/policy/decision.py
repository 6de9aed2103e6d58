"""From evidence to a decision. `clear` is made here and nowhere else.

It is earned: from the complete list of conditions in `CLEAR_CONDITIONS`. Everything else, the unforeseen included, goes
to a person. A declaration can raise a risk and never lowers one.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from xray_vqa.core.inspection import (
    Action,
    AppliedRule,
    Decision,
    DeclaredItem,
    Evidence,
    RiskLevel,
    Score,
    ScoreState,
)
from xray_vqa.core.policy.ontology import DeclaredLine, read_line
from xray_vqa.core.policy.rules import Policy
from xray_vqa.core.taxonomy import CATEGORIES

Concern = tuple[str, RiskLevel]
"""What a rule speaks of, and the risk that it calls for."""


class Case:
    """A policy, the evidence before it, and the questions that conditions and rules ask of both."""

    def __init__(self, policy: Policy, evidence: Evidence) -> None:
        self.policy = policy
        self.evidence = evidence
        self.num_found = Counter(finding.category for finding in evidence.findings)
        self.lines = tuple(read_line(item) for item in evidence.declared_items or ())

    @property
    def unscored(self) -> list[str]:
        """Required categories without a usable score."""
        return [name for name in self.policy.required_categories if not _has_value(self.evidence.scores.get(name))]

    @property
    def uncovered(self) -> list[str]:
        """Required categories that the model was not trained on."""
        return [name for name in self.policy.required_categories if name not in self.evidence.covered_categories]

    @property
    def not_clearly_absent(self) -> list[str]:
        """Categories that are not reported and have a score that is too high to clear a bag."""
        return [
            name
            for name, score in self.evidence.scores.items()
            if _has_value(score) and not self._is_clearly_absent(name) and name not in self.num_found
        ]

    @cached_property
    def declared(self) -> dict[str, int | None]:
        """How many of each concept all lines together declare; None for any number."""
        total: dict[str, int | None] = {}
        for line in self.lines:
            for concept, given in line.quantities.items():
                count, before = given if given is not None else self.policy.unnumbered_quantity, total.get(concept, 0)
                total[concept] = None if count is None or before is None else before + count
        return total

    @property
    def undeclared(self) -> list[str]:
        """Categories found and not declared. Without a declaration nothing is undeclared."""
        if self.evidence.declared_items is None:
            return []
        return [category for category in self.num_found if category not in self.declared]

    @property
    def over_count(self) -> list[str]:
        """Categories of which more were found than declared."""
        return [
            category
            for category, num_found in self.num_found.items()
            if (declared := self.declared.get(category)) is not None and num_found > declared
        ]

    @property
    def missing(self) -> list[str]:
        """Categories that were declared, that the model looks for, and that it is sure not to see."""
        evidence = self.evidence
        if evidence.engine_faults or evidence.input_faults or not evidence.calibrated:
            return []
        return [
            concept
            for concept in self.declared
            if concept in evidence.covered_categories
            and concept not in self.num_found
            and self._is_clearly_absent(concept)
        ]

    def prohibited_in(self, line: DeclaredLine) -> list[str]:
        """What a line declares that may not be carried."""
        return [concept for concept in line.quantities if self.policy.prohibits(concept)]

    def is_unclear(self, line: DeclaredLine) -> bool:
        """Whether a line mentions among other words what may not be carried."""
        return any(map(self.policy.prohibits, line.mentioned))

    def is_declaration_accepted(self) -> bool:
        """Whether this lane takes a declaration that is absent or empty, where it is."""
        if self.evidence.declared_items is None:
            return self.policy.absent_declaration == "accept"
        return bool(self.evidence.declared_items) or self.policy.empty_declaration == "accept"

    def matches_declaration(self) -> bool:
        """Whether no finding lies outside the declaration and nothing declared is or may be prohibited."""
        unexplained = self.num_found if self.evidence.declared_items is None else self.undeclared + self.over_count
        return (
            not unexplained
            and not self.evidence.engine_faults
            and not any(self.prohibited_in(line) or self.is_unclear(line) for line in self.lines)
        )

    def outcome_of(self, line: DeclaredLine) -> DeclaredItem:
        """Return what became of one declared line."""
        prohibited, named = self.prohibited_in(line), list(line.quantities)
        outcomes = (
            ("prohibited", prohibited),
            ("unclear", sorted(filter(self.policy.prohibits, line.mentioned))),
            ("over_count", [name for name in named if name in self.over_count]),
            ("missing", [name for name in named if name in self.missing]),
            ("found", [name for name in named if name in self.num_found]),
        )
        otherwise = ("not_verified" if line.understood else "unknown", named)
        status, about = next((outcome for outcome in outcomes if outcome[1]), otherwise)
        category = next((name for name in about if name in CATEGORIES), None)
        return DeclaredItem(
            item=line.text,
            status=status,
            category=category,
            quantity=line.quantities.get(about[0]) if about else None,
            num_found=None if category is None else self.num_found[category],
        )

    def _is_clearly_absent(self, category: str) -> bool:
        score, limit = self.evidence.scores.get(category), self.policy.clear_below(category, self.evidence.thresholds)
        return score is not None and score.probability is not None and score.probability < limit


def _has_value(score: Score | None) -> bool:
    return score is not None and score.state is ScoreState.VALUE


@dataclass(frozen=True, slots=True)
class ClearCondition:
    """One thing that must hold before a bag is cleared; its name is the reason when it does not."""

    name: str
    holds: Callable[[Case], bool]


@dataclass(frozen=True, slots=True)
class RiskRule:
    """Something that calls for a risk level where it applies."""

    name: str
    concerns: Callable[[Case], Iterable[Concern]]
    """Nothing where the rule does not apply."""

    def applied_to(self, case: Case) -> AppliedRule | None:
        """Return the rule with its subjects and its strictest level, or None where it does not apply."""
        concerns = list(self.concerns(case))
        if not concerns:
            return None
        about = tuple(dict.fromkeys(subject for subject, _ in concerns if subject))
        return AppliedRule(rule=self.name, risk_level=max(level for _, level in concerns), about=about)


CLEAR_CONDITIONS = (
    ClearCondition("not_stopped", lambda case: not case.evidence.stopped),
    ClearCondition("engine_answered", lambda case: not case.evidence.engine_faults),
    ClearCondition("input_is_a_scan", lambda case: not case.evidence.input_faults),
    ClearCondition("every_required_category_scored", lambda case: not case.unscored),
    ClearCondition("every_required_category_covered", lambda case: not case.uncovered),
    ClearCondition("calibration_matches", lambda case: case.evidence.calibrated),
    ClearCondition("no_findings", lambda case: not case.evidence.findings),
    ClearCondition("scores_below_clear_thresholds", lambda case: not case.not_clearly_absent),
    ClearCondition("declaration_accepted", Case.is_declaration_accepted),
    ClearCondition("declaration_matches", Case.matches_declaration),
    ClearCondition("declared_items_seen", lambda case: case.policy.missing_declared == "accept" or not case.missing),
    ClearCondition(
        "declared_items_understood",
        lambda case: case.policy.unknown_declared == "accept" or all(line.understood for line in case.lines),
    ),
)
"""Every one has to hold before `clear`."""

RISK_RULES = (
    RiskRule("finding", lambda case: [(name, case.policy.rule(name).risk_level) for name in case.num_found]),
    RiskRule("stopped", lambda case: [("", case.policy.unsure_risk)] if case.evidence.stopped else []),
    RiskRule("degraded", lambda case: [(fault, RiskLevel.HIGH) for fault in case.evidence.engine_faults]),
    RiskRule("input", lambda case: [(fault, RiskLevel.HIGH) for fault in case.evidence.input_faults]),
    RiskRule("unsure", lambda case: [(name, case.policy.unsure_risk_of(name)) for name in case.unscored]),
    RiskRule(
        "between_thresholds",
        lambda case: [(name, case.policy.unsure_risk_of(name)) for name in case.not_clearly_absent],
    ),
    RiskRule("not_covered", lambda case: [(name, case.policy.unsure_risk_of(name)) for name in case.uncovered]),
    RiskRule("not_calibrated", lambda case: [] if case.evidence.calibrated else [("", case.policy.unsure_risk)]),
    RiskRule("undeclared", lambda case: [(name, case.policy.undeclared_risk) for name in case.undeclared]),
    RiskRule("over_count", lambda case: [(name, case.policy.undeclared_risk) for name in case.over_count]),
    RiskRule(
        "declared_prohibited",
        lambda case: [
            (line.text, case.policy.risk_of_declaring(name)) for line in case.lines for name in case.prohibited_in(line)
        ],
    ),
    RiskRule(
        "declared_unclear",
        lambda case: [(line.text, case.policy.declaration_risk) for line in case.lines if case.is_unclear(line)],
    ),
    RiskRule(
        "declared_unknown",
        lambda case: [
            (line.text, case.policy.declaration_risk)
            for line in case.lines
            if not line.understood and case.policy.unknown_declared != "accept"
        ],
    ),
    RiskRule(
        "declared_missing",
        lambda case: [
            (name, case.policy.declaration_risk) for name in case.missing if case.policy.missing_declared != "accept"
        ],
    ),
    RiskRule(
        "declaration_not_accepted",
        lambda case: [] if case.is_declaration_accepted() else [("", case.policy.declaration_risk)],
    ),
)
"""The strictest of those that apply counts."""


def decide(policy: Policy, evidence: Evidence) -> Decision:
    """Return the strictest decision that scores, findings, declaration and the engine's state call for."""
    case = Case(policy, evidence)
    unmet = tuple(condition.name for condition in CLEAR_CONDITIONS if not condition.holds(case))
    if not unmet:
        rules = (AppliedRule(rule="every_condition_holds", risk_level=RiskLevel.LOW),)
        risk_level, action = RiskLevel.LOW, Action.CLEAR
    else:
        rules = tuple(applied for rule in RISK_RULES if (applied := rule.applied_to(case)))
        risk_level = max((applied.risk_level for applied in rules), default=RiskLevel.HIGH)
        action = policy.action_for[risk_level]
    return Decision(
        risk_level=risk_level,
        action=action,
        match_declaration=case.matches_declaration(),
        degraded=bool(evidence.engine_faults),
        reasons=unmet,
        declaration=tuple(case.outcome_of(line) for line in case.lines),
        policy_version=policy.label,
        rules=rules,
    )
