import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.config.loading import load_config, load_policy
from xray_vqa.core.geometry import Box
from xray_vqa.core.images import KnownLooks
from xray_vqa.core.inspection import (
    MISSING,
    UNSURE,
    Action,
    AppliedRule,
    Evidence,
    Finding,
    RiskLevel,
    Score,
    ScoreState,
)
from xray_vqa.core.policy import CLEAR_CONDITIONS, CategoryRule, Policy, decide
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
        ({"stopped": True}, "not_stopped", "medium"),
        ({"scores": {**CLEAN.scores, "Gun": Score.of(0.5)}}, "scores_below_clear_thresholds", "medium"),
        ({"findings": (finding("Lighter"),)}, "no_findings", "medium"),
        ({"findings": (finding("Knife"),)}, "no_findings", "high"),
        ({"findings": (finding("Gun"),)}, "no_findings", "critical"),
        ({"declared_items": ("a gun", "gun")}, "declaration_matches", "high"),
        ({"declared_items": ("gun oil",)}, "declaration_matches", "medium"),
    ],
)
def test_each_unmet_condition_alone_keeps_a_bag_from_being_cleared(changes, reason, risk):
    decision = decide(POLICY, evidence(**changes))
    assert decision.action is not Action.CLEAR
    assert reason in decision.reasons
    assert decision.risk_level.value == risk


def test_each_condition_has_its_own_case_above_and_below():
    """One that is added to the list needs a test of its own."""
    assert [condition.name for condition in CLEAR_CONDITIONS] == [
        "not_stopped", "engine_answered", "input_is_a_scan", "every_required_category_scored",
        "every_required_category_covered", "calibration_matches", "no_findings", "scores_below_clear_thresholds",
        "declaration_accepted", "declaration_matches", "declared_items_seen", "declared_items_understood",
    ]  # fmt: skip


def changed(policy: Policy = POLICY, **changes) -> Policy:
    return Policy.model_validate({**policy.model_dump(), **changes})


def with_rule(category: str, **changes) -> Policy:
    rules = POLICY.model_dump()["categories"]
    return changed(categories={**rules, category: {**rules[category], **changes}})


def test_a_score_between_the_two_thresholds_goes_to_a_person():
    policy = with_rule("Gun", threshold=0.6, clear_below=0.2, unsure_risk="high")
    at = {p: decide(policy, evidence(scores={**CLEAN.scores, "Gun": Score.of(p)})) for p in (0.19, 0.2, 0.59)}
    assert [decision.action.value for decision in at.values()] == ["clear", "manual_inspection", "manual_inspection"]
    assert at[0.2].reasons == ("scores_below_clear_thresholds",)
    assert at[0.2].rules == (AppliedRule(rule="between_thresholds", risk_level=RiskLevel.HIGH, about=("Gun",)),)


def test_the_clear_threshold_is_a_share_of_the_threshold_in_force_and_never_above_it():
    policy = changed(with_rule("Knife", clear_below=0.4), clear_share=0.5)
    assert policy.clear_below("Gun", {"Gun": 0.8}) == 0.4
    assert policy.clear_below("Gun", {}) == 0.25
    assert policy.clear_below("Knife", {"Knife": 0.7}) == 0.4
    assert policy.clear_below("Knife", {"Knife": 0.3}) == 0.3
    seen = evidence(scores={**CLEAN.scores, "Gun": Score.of(0.3)}, thresholds={"Gun": 0.8})
    assert decide(policy, seen).action is Action.CLEAR
    assert decide(policy, evidence(scores=seen.scores, thresholds={"Gun": 0.6})).action is not Action.CLEAR


def test_a_score_of_a_category_that_is_not_required_counts_too():
    policy = changed(required_categories=["Gun"])
    assert decide(policy, evidence(scores={"Gun": Score.of(0.01)})).action is Action.CLEAR
    assert decide(policy, evidence(scores={"Gun": Score.of(0.01), "Knife": Score.of(0.9)})).action is not Action.CLEAR


def test_not_knowing_is_as_grave_as_the_category_says():
    policy = with_rule("Explosive", unsure_risk="critical")
    blind = decide(policy, evidence(scores={**CLEAN.scores, "Explosive": UNSURE}))
    assert (blind.risk_level, blind.action) == (RiskLevel.CRITICAL, Action.DETAIN)
    assert decide(policy, evidence(scores={**CLEAN.scores, "Knife": UNSURE})).risk_level is RiskLevel.MEDIUM
    uncovered = decide(policy, evidence(covered_categories=frozenset(CATEGORIES) - {"Explosive"}))
    assert uncovered.risk_level is RiskLevel.CRITICAL


def declared(items, *found, policy=POLICY, **changes):
    return decide(policy, evidence(declared_items=items, findings=tuple(finding(name) for name in found), **changes))


def test_more_found_than_declared_is_no_match_and_raises_the_risk():
    policy = changed(undeclared_risk="high")
    enough = declared(("2 power banks",), "Powerbank", "Powerbank", policy=policy)
    assert (enough.match_declaration, enough.risk_level) == (True, RiskLevel.MEDIUM)
    more = declared(("2 power banks",), "Powerbank", "Powerbank", "Powerbank", policy=policy)
    assert (more.match_declaration, more.risk_level) == (False, RiskLevel.HIGH)
    assert "declaration_matches" in more.reasons
    (line,) = more.declaration
    assert (line.status, line.category, line.quantity, line.num_found) == ("over_count", "Powerbank", 2, 3)
    assert AppliedRule(rule="over_count", risk_level=RiskLevel.HIGH, about=("Powerbank",)) in more.rules


def test_numbers_of_several_lines_add_up_and_a_line_without_one_stands_for_what_the_policy_says():
    lines = ("power bank", "2 power banks")
    assert declared(lines, *["Powerbank"] * 9).match_declaration
    counting = changed(unnumbered_quantity=1)
    assert declared(lines, *["Powerbank"] * 3, policy=counting).match_declaration
    assert not declared(lines, *["Powerbank"] * 4, policy=counting).match_declaration


def test_what_was_declared_and_is_surely_not_seen_is_missing_and_a_lane_can_mind():
    minding = changed(missing_declared="manual_inspection", declaration_risk="high")
    assert [line.status for line in declared(("lighter",)).declaration] == ["missing"]
    assert declared(("lighter",)).action is Action.CLEAR
    minded = declared(("lighter",), policy=minding)
    assert (minded.action, minded.risk_level) == (Action.MANUAL_INSPECTION, RiskLevel.HIGH)
    assert minded.reasons == ("declared_items_seen",)
    assert minded.rules == (AppliedRule(rule="declared_missing", risk_level=RiskLevel.HIGH, about=("Lighter",)),)
    assert declared(("lighter",), "Lighter", policy=minding).declaration[0].status == "found"


@pytest.mark.parametrize(
    "changes",
    [
        {"engine_faults": ("timeout",)},
        {"input_faults": ("blank",)},
        {"calibrated": False},
        {"covered_categories": frozenset({"Gun"})},
        {"scores": {**CLEAN.scores, "Lighter": UNSURE}},
        {"scores": {**CLEAN.scores, "Lighter": Score.of(0.5)}},
        {"scores": {"Gun": Score.of(0.01)}},
    ],
)
def test_nothing_is_called_missing_that_the_model_could_not_surely_see(changes):
    assert declared(("lighter",), **changes).declaration[0].status == "not_verified"


def test_a_lane_can_mind_words_that_nobody_knows():
    minding = changed(unknown_declared="manual_inspection", declaration_risk="high")
    assert declared(("zorblax",)).action is Action.CLEAR
    assert declared(("zorblax",)).declaration[0].status == "unknown"
    minded = declared(("clothing", "zorblax"), policy=minding)
    assert (minded.action, minded.risk_level) == (Action.MANUAL_INSPECTION, RiskLevel.HIGH)
    assert minded.reasons == ("declared_items_understood",)
    assert minded.rules[0].about == ("zorblax",)
    assert declared(("clothing",), policy=minding).action is Action.CLEAR


def test_something_prohibited_among_other_words_is_never_cleared_and_explains_no_finding():
    block = declared(("knife block",))
    assert (block.action, block.match_declaration) == (Action.MANUAL_INSPECTION, False)
    assert (block.declaration[0].status, block.declaration[0].category) == ("unclear", "Knife")
    assert [rule.rule for rule in block.rules] == ["declared_unclear"]
    toy = declared(("battery-powered toy",), "Battery")
    assert "undeclared" in [rule.rule for rule in toy.rules]


def test_goods_that_no_model_looks_for_can_be_prohibited():
    policy = changed(prohibited_goods={"fireworks": "critical"})
    decision = declared(("HS 3604.10",), policy=policy)
    assert (decision.risk_level, decision.action) == (RiskLevel.CRITICAL, Action.DETAIN)
    (line,) = decision.declaration
    assert (line.status, line.category, line.num_found) == ("prohibited", None, None)
    assert declared(("fireworks",)).action is Action.CLEAR
    with pytest.raises(ValueError, match="unknown prohibited_goods"):
        changed(prohibited_goods={"Knife": "high"})


def test_a_line_of_several_things_is_as_bad_as_the_worst_of_them():
    assert declared(("lighter and knife",), "Lighter").declaration[0].status == "prohibited"
    assert declared(("lighter and wrench",), "Lighter").declaration[0].status == "missing"
    assert declared(("1 lighter, gun oil",), "Lighter", "Lighter").declaration[0].status == "unclear"


def test_a_decision_names_the_rules_that_made_it_and_the_policy_in_full():
    decision = declared(("clothing",), "Knife", "Lighter")
    assert [(rule.rule, rule.risk_level.value, rule.about) for rule in decision.rules] == [
        ("finding", "high", ("Knife", "Lighter")),
        ("undeclared", "medium", ("Knife", "Lighter")),
    ]
    assert [rule.rule for rule in decide(POLICY, CLEAN).rules] == ["every_condition_holds"]
    assert re.fullmatch(r"general@2026\.11\+[0-9a-f]{8}", POLICY.label)
    assert changed(clear_share=0.9).label != POLICY.label


@pytest.mark.parametrize(
    ("changes", "policy", "rule", "about"),
    [
        ({"findings": (finding("Gun"), finding("Gun"))}, {}, "finding", ("Gun",)),
        ({"stopped": True}, {}, "stopped", ()),
        ({"engine_faults": ("timeout",)}, {}, "degraded", ("timeout",)),
        ({"input_faults": ("too_dark",)}, {}, "input", ("too_dark",)),
        ({"scores": {**CLEAN.scores, "Gun": UNSURE}}, {}, "unsure", ("Gun",)),
        ({"scores": {**CLEAN.scores, "Gun": Score.of(0.7)}}, {}, "between_thresholds", ("Gun",)),
        ({"covered_categories": frozenset(CATEGORIES) - {"Gun"}}, {}, "not_covered", ("Gun",)),
        ({"calibrated": False}, {}, "not_calibrated", ()),
        ({"declared_items": ("knife",)}, {}, "declared_prohibited", ("knife",)),
        ({"declared_items": ("gun oil",)}, {}, "declared_unclear", ("gun oil",)),
        ({"declared_items": ("xyz",)}, {"unknown_declared": "manual_inspection"}, "declared_unknown", ("xyz",)),
        ({"declared_items": ("wrench",)}, {"missing_declared": "manual_inspection"}, "declared_missing", ("Wrench",)),
        ({"declared_items": ()}, {"empty_declaration": "manual_inspection"}, "declaration_not_accepted", ()),
    ],
)
def test_each_rule_goes_by_its_name_and_says_what_it_speaks_of(changes, policy, rule, about):
    decision = decide(changed(**policy), evidence(**changes))
    assert [(applied.rule, applied.about) for applied in decision.rules] == [(rule, about)]


def test_what_a_lane_accepts_is_no_rule_in_a_bag_that_goes_to_a_person_for_something_else():
    decision = declared(("zorblax", "wrench"), "Lighter")
    assert [rule.rule for rule in decision.rules] == ["finding", "undeclared"]


def test_what_is_reported_is_not_called_doubtful_as_well():
    seen = evidence(scores={**CLEAN.scores, "Knife": Score.of(0.9)}, findings=(finding("Knife"),))
    assert decide(POLICY, seen).reasons == ("no_findings", "declaration_matches")


def test_a_bag_that_no_rule_speaks_of_is_of_high_risk(monkeypatch):
    monkeypatch.setattr("xray_vqa.core.policy.decision.RISK_RULES", ())
    decision = decide(POLICY, evidence(calibrated=False))
    assert (decision.risk_level, decision.action) == (RiskLevel.HIGH, Action.MANUAL_INSPECTION)


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


def test_a_policy_that_says_little_has_these_defaults():
    little = Policy.model_validate({
        "name": "little",
        "version": "1",
        "categories": {"Gun": {"risk_level": "critical"}},
        "required_categories": ["Gun"],
        "action_for": dict.fromkeys(["low", "medium", "high", "critical"], "manual_inspection"),
    })  # fmt: skip
    values = little.model_dump(mode="json")
    looks = values.pop("input")
    assert looks == KnownLooks().model_dump()
    assert values == {
        "name": "little", "version": "1", "jurisdiction": "", "lane": "any",
        "categories": {"Gun": {"risk_level": "critical", "declarable": False, "threshold": None, "clear_below": None,
                               "unsure_risk": None, "noun": "item"}},
        "required_categories": ["Gun"], "prohibited_goods": {}, "default_threshold": 0.5, "clear_share": 1.0,
        "action_for": dict.fromkeys(["low", "medium", "high", "critical"], "manual_inspection"),
        "unsure_risk": "medium", "undeclared_risk": "medium", "declared_prohibited_risk": "high",
        "declaration_risk": "medium", "absent_declaration": "accept", "empty_declaration": "accept",
        "missing_declared": "accept", "unknown_declared": "accept", "unnumbered_quantity": None,
        "clear_on_simulated_calibration": False,
    }  # fmt: skip
    unknown = little.rule("Knife")
    assert (unknown.risk_level, unknown.declarable) == (RiskLevel.HIGH, False)
    assert little.prohibits("Knife")
    assert not little.prohibits("clothes")


@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize("key", ["threshold", "clear_below"])
def test_a_threshold_of_a_category_lies_between_0_and_1(key, edge):
    for value in (0.001, 0.999):
        assert getattr(CategoryRule.model_validate({"risk_level": "low", key: value}), key) == value
    with pytest.raises(ValueError, match="than"):
        CategoryRule.model_validate({"risk_level": "low", key: edge})


def test_the_policys_own_numbers_have_their_limits():
    assert changed(clear_share=1.0, default_threshold=0.999, unnumbered_quantity=1).clear_share == 1.0
    for wrong in ({"clear_share": 0}, {"clear_share": 1.001}, {"default_threshold": 1}, {"default_threshold": 0},
                  {"unnumbered_quantity": 0}):  # fmt: skip
        with pytest.raises(ValueError, match="than"):
            changed(**wrong)
    assert with_rule("Gun", threshold=0.3, clear_below=0.3).rule("Gun").clear_below == 0.3


@pytest.mark.parametrize("lane", ["any", "cabin", "hold", "customs"])
def test_there_is_a_policy_for_each_lane(lane):
    assert changed(lane=lane).lane == lane


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
        ("categories.Gun={risk_level: critical, threshold: 0.2, clear_below: 0.3}", "lies above threshold"),
        ("prohibited_goods={unicorn: high}", "unknown prohibited_goods"),
        ("unnumbered_quantity=0", "greater than or equal to 1"),
        ("clear_share=0", "greater than 0"),
        ("lane=gate", "'cabin'"),
    ],
)
def test_a_misconfigured_policy_is_refused(override, message):
    from xray_vqa.config.loading import find_config

    with pytest.raises(ConfigError, match=message):
        load_config(Policy, find_config("policy.yaml"), [override])


# --- what holds for any evidence under any policy -------------------------------------------------------------------

risk_levels = st.sampled_from(list(RiskLevel))
rules = st.builds(
    CategoryRule,
    risk_level=risk_levels,
    declarable=st.booleans(),
    clear_below=st.none() | st.sampled_from([0.005, 0.4]),
)
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
    missing_declared=st.sampled_from(["accept", "manual_inspection"]),
    unknown_declared=st.sampled_from(["accept", "manual_inspection"]),
    unnumbered_quantity=st.none() | st.just(1),
    clear_share=st.sampled_from([0.01, 0.5, 1.0]),
    declaration_risk=risk_levels,
)
findings = st.builds(Finding, categories, st.floats(0, 1))
declarations = st.none() | st.lists(
    st.sampled_from(["clothing", "power bank", "2 knives", "Scissors", "zorblax", "gun oil"]), max_size=3
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
    thresholds=st.dictionaries(categories, st.sampled_from([0.2, 0.7])),
    stopped=mostly(False, st.booleans()),
)


def is_safe_to_clear(policy: Policy, seen: Evidence) -> bool:
    """Our duty in plain words, written apart from the policy's own list."""
    if seen.engine_faults or seen.input_faults or seen.findings or not seen.calibrated or seen.stopped:
        return False
    for name, score in seen.scores.items():
        threshold = seen.thresholds.get(name, policy.default_threshold)
        own = policy.categories[name].clear_below
        limit = policy.clear_share * threshold if own is None else min(own, threshold)
        if score.probability is not None and score.probability >= limit:
            return False
    for name in policy.required_categories:
        score = seen.scores.get(name)
        if score is None or score.state is not ScoreState.VALUE or name not in seen.covered_categories:
            return False
    if seen.declared_items is None:
        return policy.absent_declaration == "accept"
    if seen.declared_items == ():
        return policy.empty_declaration == "accept"
    if "zorblax" in seen.declared_items and policy.unknown_declared != "accept":
        return False
    known = {"power bank": "Powerbank", "2 knives": "Knife", "Scissors": "Scissors"}
    declared = {known[item] for item in seen.declared_items if item in known}
    if "gun oil" in seen.declared_items and not policy.categories["Gun"].declarable:
        return False
    missing = {name for name in declared if name in seen.covered_categories and seen.scores.get(name, UNSURE) != UNSURE}
    if policy.missing_declared != "accept" and any(seen.scores[name] != MISSING for name in missing):
        return False
    return all(policy.categories[name].declarable for name in declared)


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
    accepting = policy.model_copy(update={"absent_declaration": "accept"})
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
