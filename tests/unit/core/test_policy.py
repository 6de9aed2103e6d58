import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.config.loading import load_config, load_policy
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import MISSING, UNSURE, Action, Evidence, Finding, RiskLevel, Score, ScoreState
from xray_vqa.core.policy import CategoryRule, Policy, decide
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError

POLICY = load_policy()
CLEAN = Evidence(
    scores=dict.fromkeys(CATEGORIES, Score.of(0.01)), covered_categories=frozenset(CATEGORIES), calibrated=True
)


def evidence(**changes) -> Evidence:
    """A bag that may be cleared, but for what is changed."""
    fields = {name: getattr(CLEAN, name) for name in Evidence.__slots__}
    return Evidence(**{**fields, **changes})


def finding(category: str, probability: float = 0.9) -> Finding:
    return Finding(category, probability, Box(1, 2, 3, 4), "center")


def test_a_bag_with_every_condition_met_is_cleared():
    decision = decide(POLICY, CLEAN)
    assert (decision.action, decision.risk_level, decision.reasons) == (Action.CLEAR, RiskLevel.LOW, ())
    assert decision.match_declaration
    assert not decision.degraded
    assert decision.policy_version == POLICY.label


@pytest.mark.parametrize(
    ("changes", "reason", "risk"),
    [
        ({"engine_faults": ("timeout",)}, "engine_answered", "high"),
        ({"input_faults": ("blank",)}, "input_is_a_scan", "high"),
        ({"scores": {**CLEAN.scores, "Gun": UNSURE}}, "every_required_category_scored", "medium"),
        ({"scores": {**CLEAN.scores, "Gun": MISSING}}, "every_required_category_scored", "medium"),
        ({"scores": {}}, "every_required_category_scored", "medium"),
        ({"covered_categories": frozenset(CATEGORIES) - {"Bullet"}}, "every_required_category_covered", "medium"),
        ({"calibrated": False}, "calibration_matches", "medium"),
        ({"findings": (finding("Lighter"),)}, "no_findings", "medium"),
        ({"findings": (finding("Knife"),)}, "no_findings", "high"),
        ({"findings": (finding("Gun"),)}, "no_findings", "critical"),
        ({"declared_items": ("a gun", "gun")}, "declaration_matches", "high"),
    ],
)
def test_each_unmet_condition_alone_keeps_a_bag_from_being_cleared(changes, reason, risk):
    decision = decide(POLICY, evidence(**changes))
    assert decision.action is not Action.CLEAR
    assert reason in decision.reasons
    assert decision.risk_level.value == risk


def test_only_a_critical_finding_detains():
    assert decide(POLICY, evidence(findings=(finding("3D Gun"),))).action is Action.DETAIN
    assert decide(POLICY, evidence(findings=(finding("Knife"),))).action is Action.MANUAL_INSPECTION


def test_the_gravest_finding_counts():
    both = evidence(findings=(finding("Lighter"), finding("Explosive"), finding("Knife")))
    assert decide(POLICY, both).risk_level is RiskLevel.CRITICAL


def test_a_fault_of_the_engine_is_degraded_and_matches_no_declaration():
    decision = decide(POLICY, evidence(engine_faults=("unavailable",), declared_items=("clothing",)))
    assert decision.degraded
    assert not decision.match_declaration
    assert (decision.risk_level, decision.action) == (RiskLevel.HIGH, Action.MANUAL_INSPECTION)


def test_a_fault_of_the_engine_does_not_lower_what_was_found():
    decision = decide(POLICY, evidence(engine_faults=("timeout",), findings=(finding("Gun"),)))
    assert (decision.risk_level, decision.action) == (RiskLevel.CRITICAL, Action.DETAIN)


def test_declared_goods_that_the_model_cannot_see_are_neither_match_nor_mismatch():
    decision = decide(POLICY, evidence(declared_items=("clothing", "electronics")))
    assert [(line.item, line.status) for line in decision.declaration] == [
        ("clothing", "not_verified"),
        ("electronics", "not_verified"),
    ]
    assert decision.match_declaration
    assert decision.action is Action.CLEAR


def test_a_declared_item_that_may_be_carried_matches_and_is_reported_all_the_same():
    decision = decide(POLICY, evidence(declared_items=("Power bank",), findings=(finding("Powerbank"),)))
    assert decision.match_declaration
    assert [(line.status, line.category) for line in decision.declaration] == [("found", "Powerbank")]
    assert decision.action is Action.MANUAL_INSPECTION


def test_a_declared_item_that_may_not_be_carried_is_prohibited_even_when_nothing_is_seen():
    decision = decide(POLICY, evidence(declared_items=("knife",)))
    assert [(line.status, line.category) for line in decision.declaration] == [("prohibited", "Knife")]
    assert not decision.match_declaration
    assert (decision.risk_level, decision.action) == (RiskLevel.HIGH, Action.MANUAL_INSPECTION)


def test_a_finding_outside_the_declaration_does_not_match():
    assert not decide(POLICY, evidence(declared_items=("clothing",), findings=(finding("Knife"),))).match_declaration
    assert not decide(POLICY, evidence(declared_items=None, findings=(finding("Knife"),))).match_declaration


@pytest.mark.parametrize(("rule", "declared"), [("absent_declaration", None), ("empty_declaration", ())])
def test_a_lane_can_refuse_an_absent_or_an_empty_declaration(rule, declared):
    strict = POLICY.model_copy(update={rule: "manual_inspection"})
    decision = decide(strict, evidence(declared_items=declared))
    assert (decision.risk_level, decision.action) == (RiskLevel.MEDIUM, Action.MANUAL_INSPECTION)
    assert decision.reasons == ("declaration_accepted",)
    assert decide(POLICY, evidence(declared_items=declared)).action is Action.CLEAR


def test_thresholds_come_from_the_policy_then_the_calibration_then_the_default():
    own = POLICY.model_copy(
        update={"categories": {**POLICY.categories, "Gun": CategoryRule(risk_level=RiskLevel.CRITICAL, threshold=0.1)}}
    )
    assert own.threshold("Gun", {"Gun": 0.7}) == 0.1
    assert own.threshold("Knife", {"Knife": 0.7}) == 0.7
    assert own.threshold("Knife", {}) == own.default_threshold


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("action_for.low=clear", "clear"),
        ("action_for={high: detain}", "no action for"),
        ("required_categories=[]", "without looking for anything"),
        ("required_categories=[Sword]", "unknown categories"),
        ("categories={}", "without a rule"),
        ("default_threshold=0", "greater than 0"),
        ("absent_declaration=clear", "accept"),
        ("requird_categories=[Gun]", "did you mean 'required_categories'"),
        ("categories.Gun.risk_level=terrible", "critical"),
        ("categories.Gun.declarabel=true", "declarabel"),
    ],
)
def test_a_misconfigured_policy_is_refused(override, message):
    from xray_vqa.config.loading import find_config

    with pytest.raises(ConfigError, match=message):
        load_config(Policy, find_config("policy.yaml"), [override])


# --- what holds for any evidence under any policy -------------------------------------------------------------------

risk_levels = st.sampled_from(list(RiskLevel))
rules = st.builds(CategoryRule, risk_level=risk_levels, declarable=st.booleans())
categories = st.sampled_from(CATEGORIES)
policies = st.builds(
    Policy,
    name=st.just("any"),
    version=st.just("1"),
    categories=st.fixed_dictionaries(dict.fromkeys(CATEGORIES, rules)),
    required_categories=st.lists(categories, min_size=1, max_size=20, unique=True),
    action_for=st.fixed_dictionaries(
        dict.fromkeys(RiskLevel, st.sampled_from([Action.MANUAL_INSPECTION, Action.DETAIN]))
    ),
    unsure_risk=risk_levels,
    undeclared_risk=risk_levels,
    declared_prohibited_risk=risk_levels,
    absent_declaration=st.sampled_from(["accept", "manual_inspection"]),
    empty_declaration=st.sampled_from(["accept", "manual_inspection"]),
)
findings = st.builds(Finding, categories, st.floats(0, 1))
declarations = st.none() | st.lists(
    st.sampled_from(["clothing", "power bank", "knife", "Scissors", "laptop", "gun"]), max_size=3
).map(tuple)
faults = st.lists(st.sampled_from(["timeout", "unavailable"]), max_size=2, unique=True).map(tuple)


def mostly(value, others):
    """The value nine times of ten, so that a whole evidence is often without any fault."""
    return st.integers(0, 9).flatmap(lambda n: others if n == 0 else st.just(value))


scores = mostly(
    dict.fromkeys(CATEGORIES, Score.of(0.01)),
    st.dictionaries(categories, st.sampled_from([Score.of(0.0), Score.of(0.3), UNSURE, MISSING])),
)
evidences = st.builds(
    Evidence,
    scores=scores,
    findings=mostly((), st.lists(findings, max_size=3).map(tuple)),
    input_faults=mostly((), st.just(("blank",))),
    engine_faults=mostly((), faults),
    declared_items=declarations,
    covered_categories=mostly(frozenset(CATEGORIES), st.frozensets(categories)),
    calibrated=mostly(True, st.booleans()),
)


def is_safe_to_clear(policy: Policy, seen: Evidence) -> bool:
    """Our duty in plain words, written apart from the policy's own list."""
    if seen.engine_faults or seen.input_faults or seen.findings or not seen.calibrated:
        return False
    for name in policy.required_categories:
        score = seen.scores.get(name)
        if score is None or score.state is not ScoreState.VALUE or name not in seen.covered_categories:
            return False
    if seen.declared_items is None:
        return policy.absent_declaration == "accept"
    if seen.declared_items == ():
        return policy.empty_declaration == "accept"
    known = {"power bank": "Powerbank", "knife": "Knife", "Scissors": "Scissors", "gun": "Gun"}
    return all(policy.categories[known[item]].declarable for item in seen.declared_items if item in known)


@given(policies, evidences)
def test_a_bag_is_cleared_exactly_when_every_condition_holds(policy, seen):
    decision = decide(policy, seen)
    assert (decision.action is Action.CLEAR) == is_safe_to_clear(policy, seen)
    assert (decision.action is Action.CLEAR) == (decision.reasons == ())


@given(policies, evidences)
def test_degraded_means_high_risk_and_a_person(policy, seen):
    decision = decide(policy, seen)
    assert decision.degraded == bool(seen.engine_faults)
    if decision.degraded:
        assert decision.risk_level >= RiskLevel.HIGH
        assert decision.action is policy.action_for[decision.risk_level]
        assert not decision.match_declaration


@given(policies, evidences, findings)
def test_one_more_finding_never_lowers_the_risk(policy, seen, more):
    grown = Evidence(
        **{**{name: getattr(seen, name) for name in Evidence.__slots__}, "findings": (*seen.findings, more)}
    )
    assert decide(policy, grown).risk_level >= decide(policy, seen).risk_level
    assert decide(policy, grown).risk_level >= policy.rule(more.category).risk_level


@given(policies, evidences)
def test_a_declaration_never_lowers_the_risk(policy, seen):
    accepting = policy.model_copy(update={"absent_declaration": "accept", "empty_declaration": "accept"})
    without = Evidence(**{**{name: getattr(seen, name) for name in Evidence.__slots__}, "declared_items": None})
    assert decide(accepting, seen).risk_level >= decide(accepting, without).risk_level


@given(evidences, st.sampled_from(["clothing", "knife", "gun", "power bank"]))
def test_declaring_one_more_item_never_clears_what_was_not_cleared(seen, item):
    if seen.declared_items is None or decide(POLICY, seen).action is Action.CLEAR:
        return
    more = Evidence(
        **{
            **{name: getattr(seen, name) for name in Evidence.__slots__},
            "declared_items": (*seen.declared_items, item),
        }
    )
    assert decide(POLICY, more).action is not Action.CLEAR


def test_risk_levels_are_ordered():
    assert [a < b for a, b in itertools.pairwise(RiskLevel)] == [True, True, True]
    assert max([RiskLevel.HIGH, RiskLevel.MEDIUM]) is RiskLevel.HIGH


@pytest.mark.parametrize("probability", [float("nan"), -0.1, 1.1, float("inf")])
def test_a_number_that_is_no_probability_is_unsure_and_never_low(probability):
    assert Score.of(probability) is UNSURE
