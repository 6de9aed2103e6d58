"""What another policy would have said of bags that are on record.

A record holds scores, findings and the calibration's thresholds, not the image: what the input check said stays as it
was, and so does whether the model was calibrated. A record cannot tell an absent declaration from an empty one; where
the policy treats the two differently, the bag counts as undecided.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import Action, Evidence, Finding, Score, ScoreState
from xray_vqa.core.policy.decision import CLEAR_CONDITIONS, decide
from xray_vqa.core.policy.rules import Policy
from xray_vqa.core.records import Strict

UNDECIDED = "undecided"
_CONDITIONS = {condition.name for condition in CLEAR_CONDITIONS}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One inspection as a store has it: the answer as it was given, and the scores behind it."""

    answer: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Any]]


class Moved(Strict):
    """A bag whose action or risk would have been another."""

    scan_id: str
    action: str
    """As it was."""
    new_action: str
    """`undecided` where the record does not say enough."""
    risk_level: str
    new_risk_level: str | None
    reasons: list[str]
    """Why it would not have been cleared."""


class Replay(Strict):
    """What a policy would have changed."""

    policy_version: str
    num_inspections: int
    by_policy: dict[str, int]
    """Inspections by the policy that they were made under."""
    actions: dict[str, dict[str, int]]
    """Counts, by the action that was given and the one that would have been."""
    clear_to_manual: list[str]
    """Scan ids of bags that were cleared and would not have been."""
    manual_to_clear: list[str]
    """Scan ids of bags that went to a person and would have been cleared."""
    moved: list[Moved]


def replay(policy: Policy, records: Iterable[Recorded]) -> Replay:
    """Return what a policy would have said of each record."""
    moved: list[Moved] = []
    counts: dict[str, Counter[str]] = {}
    by_policy: Counter[str] = Counter()
    for record in records:
        answer = record.answer
        told = _decide_again(policy, record)
        action, risk, reasons = told if told else (UNDECIDED, None, [])
        counts.setdefault(answer["action"], Counter())[action] += 1
        by_policy[answer["policy_version"]] += 1
        if (action, risk) != (answer["action"], answer["risk_level"]):
            moved.append(
                Moved(
                    scan_id=answer["scan_id"],
                    action=answer["action"],
                    new_action=action,
                    risk_level=answer["risk_level"],
                    new_risk_level=risk,
                    reasons=reasons,
                )
            )
    clear = Action.CLEAR.value
    return Replay(
        policy_version=policy.label,
        num_inspections=by_policy.total(),
        by_policy=dict(by_policy),
        actions={action: dict(row) for action, row in counts.items()},
        clear_to_manual=[bag.scan_id for bag in moved if bag.action == clear and bag.new_action != clear],
        manual_to_clear=[bag.scan_id for bag in moved if bag.action != clear and bag.new_action == clear],
        moved=moved,
    )


def _decide_again(policy: Policy, record: Recorded) -> tuple[str, str, list[str]] | None:
    """Return action, risk and reasons, or None where the record does not say enough."""
    seen = _evidence_of(policy, record)
    decision = decide(policy, seen)
    if not seen.declared_items:
        other = decide(policy, replace(seen, declared_items=()))
        if (other.action, other.risk_level) != (decision.action, decision.risk_level):
            return None
    return decision.action.value, decision.risk_level.value, list(decision.reasons)


def _evidence_of(policy: Policy, record: Recorded) -> Evidence:
    answer, reasons = record.answer, record.answer["reasons"]
    scores = {name: _score_of(value) for name, value in record.scores.items()}
    measured = {name: value.get("calibrated_threshold") for name, value in record.scores.items()}
    thresholds = {name: threshold for name, threshold in measured.items() if threshold is not None}
    faults = tuple(reason for reason in reasons if reason not in _CONDITIONS)
    is_calibrated = "calibration_matches" not in reasons and all(
        name in thresholds or policy.rule(name).threshold is not None for name in policy.required_categories
    )
    return Evidence(
        scores=scores,
        findings=() if faults else _findings_of(policy, answer["findings"], scores, thresholds),
        input_faults=("recorded",) if "input_is_a_scan" in reasons else (),
        engine_faults=faults,
        declared_items=tuple(line["item"] for line in answer["declaration"]) or None,
        covered_categories=frozenset(answer["screened_for"]),
        calibrated=is_calibrated,
        thresholds=thresholds,
        stopped="not_stopped" in reasons,
    )


def _score_of(value: Mapping[str, Any]) -> Score:
    return Score(ScoreState(value["state"]), value["probability"])


def _findings_of(
    policy: Policy, recorded: Iterable[Mapping[str, Any]], scores: Mapping[str, Score], thresholds: dict[str, float]
) -> tuple[Finding, ...]:
    """The findings at the policy's thresholds: each recorded one, or one without a place where none was reported."""
    placed: dict[str, list[Finding]] = {}
    for value in recorded:
        box = Box.from_xywh(value["box"]) if value["box"] else None
        placed.setdefault(value["category"], []).append(
            Finding(value["category"], value["probability"], box, value["region"])
        )
    found: list[Finding] = []
    for name in policy.required_categories:
        score = scores.get(name)
        if score is None or score.probability is None or score.probability < policy.threshold(name, thresholds):
            continue
        found.extend(placed.get(name) or [Finding(name, score.probability)])
    found.sort(key=lambda finding: (policy.rule(finding.category).risk_level, finding.probability), reverse=True)
    return tuple(found)
