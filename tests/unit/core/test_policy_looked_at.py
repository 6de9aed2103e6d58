"""`policy check`, `diff` and `replay`, without the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.config.loading import load_policy
from xray_vqa.core.calibration import Calibration, EngineIdentity
from xray_vqa.core.policy import Policy
from xray_vqa.core.policy.checking import check_policy
from xray_vqa.core.policy.comparing import compare_policies
from xray_vqa.core.policy.replay import Recorded, replay
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.inference.inspector import Inspector

POLICY = load_policy()
CALIBRATION = Calibration(
    identity=EngineIdentity(engine="e", model_digest="m", dtype="d", processor_version="p", prompt_version="2"),
    thresholds=dict.fromkeys(CATEGORIES, 0.4),
    measured_on="scans",
    num_scans=10,
    simulated=False,
    num_positives=dict.fromkeys(CATEGORIES, 5),
)


def changed(policy: Policy = POLICY, **changes) -> Policy:
    return Policy.model_validate({**policy.model_dump(), **changes})


def with_rule(category: str, policy: Policy = POLICY, **changes) -> Policy:
    rules = policy.model_dump()["categories"]
    return changed(policy, categories={**rules, category: {**rules[category], **changes}})


def remarks(policy: Policy, severity: str, calibration: Calibration | None = None) -> str:
    return "\n".join(r.text for r in check_policy(policy, calibration) if r.severity == severity)


@pytest.mark.parametrize(
    ("policy", "calibration", "told"),
    [
        (changed(action_for={**POLICY.action_for, "high": "detain", "critical": "manual_inspection"}), None,
         "risk high detains and the graver critical does not"),
        (with_rule("Gun", threshold=0.9), CALIBRATION, "Gun: threshold 0.9 lies above the calibration's 0.4000"),
        (with_rule("Gun", clear_below=0.7), CALIBRATION, "Gun: clear_below 0.7 lies above"),
        (POLICY, CALIBRATION.model_copy(update={"thresholds": {}}), "Knife: no threshold here and none in"),
    ],
)  # fmt: skip
def test_what_nobody_can_want_is_a_fault(policy, calibration, told):
    assert told in remarks(policy, "fault", calibration)
    assert remarks(POLICY, "fault", CALIBRATION) == ""


@pytest.mark.parametrize(
    ("policy", "calibration", "told"),
    [
        (changed(required_categories=["Gun"]), None, "not looked for: Explosive, 3D Gun"),
        (changed(required_categories=["Gun"]), None, "never reached, of what is not looked for and may be declared"),
        (changed(with_rule("Knife", threshold=0.3), required_categories=["Gun"]), None, "Knife: threshold never"),
        (changed(required_categories=["Gun"], categories={"Gun": POLICY.rule("Gun")}), None, "no rule for Explosive"),
        (changed(unnumbered_quantity=1, required_categories=["Gun"]), None, "unnumbered_quantity: never reached"),
        (changed(undeclared_risk="low"), None, "undeclared_risk low: raises nothing"),
        (changed(clear_on_simulated_calibration=True), None, "for trials alone"),
        (POLICY, CALIBRATION.model_copy(update={"simulated": True}), "from simulated scans, so no bag can be cleared"),
        (POLICY, CALIBRATION.model_copy(update={"num_positives": {}}), "has seen no scan with Explosive"),
        (changed(categories={name: {**POLICY.rule(name).model_dump(), "declarable": True} for name in CATEGORIES}),
         None, "declared_prohibited_risk: never reached"),
        (changed(categories={name: {**POLICY.rule(name).model_dump(), "declarable": True} for name in CATEGORIES}),
         None, "declaration_risk: never reached"),
    ],
)  # fmt: skip
def test_what_may_be_meant_so_is_a_notice(policy, calibration, told):
    assert told in remarks(policy, "notice", calibration)


@pytest.mark.parametrize(
    ("new", "direction", "told"),
    [
        (changed(required_categories=["Gun"]), "looser", "a bag with a knife: is no longer looked for"),
        (with_rule("Knife", risk_level="critical"), "stricter",
         "a bag with a knife: risk critical instead of high, detain instead of manual_inspection"),
        (with_rule("Lighter", declarable=False), "stricter", "who declares a lighter: declaring it is prohibited"),
        (with_rule("Gun", threshold=0.2), "other", "reported from probability 0.2 instead of as calibrated"),
        (with_rule("Gun", unsure_risk="high"), "stricter", "whether it holds a gun: risk high instead of medium"),
        (changed(prohibited_goods={"fireworks": "high"}), "stricter", "who declares fireworks: it is prohibited"),
        (changed(action_for={**POLICY.action_for, "high": "detain"}), "stricter", "a bag of risk high"),
        (changed(absent_declaration="manual_inspection"), "stricter", "who makes no declaration: goes to a person"),
        (changed(undeclared_risk="low"), "looser", "risk of at least low instead of medium"),
        (changed(unnumbered_quantity=1), "stricter", "without a number: it stands for 1"),
        (changed(clear_share=0.5), "stricter", "cleared only below 0.5 of each threshold"),
        (changed(default_threshold=0.6), "looser", "default threshold 0.6 instead of 0.5"),
        (changed(clear_on_simulated_calibration=True), "looser", "can be cleared by thresholds from simulated scans"),
        (changed(input={"min_border": 100}), "looser", "only by min_border 100 instead of 150"),
        (changed(input={"max_foreign_share": 0.01}), "stricter", "max_foreign_share 0.01 instead of 0.06"),
        (changed(lane="hold"), "other", "throws it as lane hold"),
        (changed(version="2"), "other", "version '2', was '2026.11'"),
        (with_rule("Gun", noun="weapon"), "other", "is called weapon, was firearm"),
    ],
)  # fmt: skip
def test_a_change_is_told_with_whom_it_concerns_and_in_which_direction(new, direction, told):
    [there] = [change for change in compare_policies(POLICY, new) if told in f"{change.whom}: {change.what}"]
    assert there.direction == direction
    [back] = [change for change in compare_policies(new, POLICY) if change.whom == there.whom]
    opposite = {"stricter": "looser", "looser": "stricter", "other": "other"}
    assert back.direction == opposite[direction]


def test_a_policy_differs_in_nothing_from_itself():
    assert compare_policies(POLICY, POLICY) == []


def test_every_key_of_a_policy_is_compared():
    """A key that a new version of the schema brings has to be told of too."""
    other = {
        "name": "x", "version": "x", "jurisdiction": "x", "lane": "hold", "prohibited_goods": {"fuel": "low"},
        "required_categories": ["Gun"], "default_threshold": 0.6, "clear_share": 0.9, "unsure_risk": "low",
        "undeclared_risk": "low", "declared_prohibited_risk": "low", "declaration_risk": "low",
        "absent_declaration": "manual_inspection", "empty_declaration": "manual_inspection",
        "missing_declared": "manual_inspection", "unknown_declared": "manual_inspection", "unnumbered_quantity": 3,
        "input": {"min_contrast": 5}, "clear_on_simulated_calibration": True,
        "action_for": {**POLICY.action_for, "low": "detain"},
        "categories": with_rule("Gun", risk_level="low").model_dump()["categories"],
    }  # fmt: skip
    assert set(other) == set(Policy.model_fields)
    for key, value in other.items():
        assert compare_policies(POLICY, changed(**{key: value})), key


def recorded(probabilities, declared=None, policy=POLICY, **engine) -> Recorded:
    """A bag as the store would have it."""
    from PIL import Image, ImageDraw

    from xray_vqa.core.inspection import Scan
    from xray_vqa.serving.schemas import inspect_response, scores_body

    image = Image.new("RGB", (128, 96), "white")
    ImageDraw.Draw(image).rectangle((20, 16, 108, 84), fill=(240, 170, 80))
    boxes = {name: [[0.1, 0.1, 0.3, 0.3]] for name in probabilities}
    inspector = Inspector(ScriptedEngine([ScriptedReading(probabilities, boxes)], **engine), policy)
    inspector.start()
    (inspection,) = inspector.inspect([Scan("bag-1", image, declared)])
    answer = inspect_response(inspection, audit_id="1", processing_time_ms=1).model_dump(mode="json")
    return Recorded(answer, scores_body(inspection))


@given(
    probabilities=st.dictionaries(st.sampled_from(CATEGORIES[:6]), st.sampled_from([0.0, 0.3, 0.5, 0.9, 2.0])),
    declared=st.none() | st.just(()) | st.just(("2 lighters", "zorblax")) | st.just(("knife",)),
    calibrated=st.booleans(),
    strict=st.booleans(),
)
def test_a_policy_replayed_over_its_own_record_changes_nothing(probabilities, declared, calibrated, strict):
    policy = changed(clear_share=0.5, missing_declared="manual_inspection") if strict else POLICY
    record = recorded(probabilities, declared, policy, calibrated=calibrated)
    found = replay(policy, [record])
    assert found.moved == []
    assert found.actions == {record.answer["action"]: {record.answer["action"]: 1}}
    assert found.by_policy == {policy.label: 1}


def test_a_stricter_policy_takes_back_a_clear_and_a_looser_one_gives_one():
    almost, knife = recorded({"Gun": 0.3}), recorded({"Knife": 0.9})
    strict, loose = changed(clear_share=0.5), changed(required_categories=["Gun"])
    assert replay(strict, [almost, knife]).clear_to_manual == ["bag-1"]
    looser = replay(loose, [knife])
    assert (looser.manual_to_clear, looser.clear_to_manual) == ([], [])  # a recorded score is still too high to clear
    high = with_rule("Knife", threshold=0.95, clear_below=0.95)
    assert replay(high, [knife]).manual_to_clear == ["bag-1"]
    assert replay(with_rule("Gun", threshold=0.2), [almost]).moved[0].new_risk_level == "critical"


def test_what_was_not_looked_for_then_is_not_cleared_now():
    narrow = changed(required_categories=["Gun"])
    found = replay(POLICY, [recorded({}, policy=narrow)])
    assert found.clear_to_manual == ["bag-1"]
    assert "every_required_category_scored" in found.moved[0].reasons


def test_a_degraded_bag_stays_with_a_person_and_an_uncalibrated_one_too():
    whole, uncalibrated = recorded({}), recorded({}, calibrated=False)
    late = Recorded({**whole.answer, "action": "manual_inspection", "reasons": ["timeout"]}, whole.scores)
    found = replay(changed(clear_on_simulated_calibration=True), [late, uncalibrated])
    assert (found.manual_to_clear, found.actions) == ([], {"manual_inspection": {"manual_inspection": 2}})


def test_a_bag_is_undecided_where_the_record_lacks_what_the_policy_asks():
    found = replay(changed(absent_declaration="manual_inspection"), [recorded({})])
    assert found.actions == {"clear": {"undecided": 1}}
    assert found.moved[0].new_risk_level is None
