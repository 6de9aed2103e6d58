import base64
import io

import numpy as np
import pytest
from PIL import Image

from xray_vqa.config.loading import load_policy
from xray_vqa.core.calibration import Calibration
from xray_vqa.core.geometry import Box
from xray_vqa.core.inspection import Action, Finding, RiskLevel, Scan, ScoreState
from xray_vqa.core.policy.stop import StopSwitch
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable, ConfigError, DatasetError, ModelUnavailable
from xray_vqa.inference.drawing import draw_findings
from xray_vqa.inference.engine import EngineInfo, probe_by_reading
from xray_vqa.inference.engines import open_engine
from xray_vqa.inference.engines.scripted import IDENTITY, ScriptedEngine, ScriptedReading
from xray_vqa.inference.inspector import Inspector

POLICY = load_policy()


def make_scan(scan_id: str = "S", declared=None, size_wh=(300, 200)) -> Scan:
    image = Image.new("RGB", size_wh, "white")
    image.paste((240, 160, 64), (30, 20, size_wh[0] - 30, size_wh[1] - 20))
    image.paste((48, 96, 192), (90, 80, 180, 100))
    return Scan(scan_id, image, declared)


def started(*script, policy=POLICY, **options) -> Inspector:
    inspector = Inspector(ScriptedEngine(script or [ScriptedReading()], **options), policy)
    inspector.start()
    return inspector


class CalibratedEngine(ScriptedEngine):
    """A scripted engine with a calibration of our choice; remembers from where it was asked to place."""

    def __init__(self, script, calibration: Calibration) -> None:
        super().__init__(script)
        self.calibration = calibration
        self.place_from = {}

    def start(self) -> EngineInfo:
        return EngineInfo(IDENTITY, "scripted", "none", CATEGORIES, self.calibration)

    def read(self, images, categories, place_from):
        self.place_from = dict(place_from)
        return super().read(images, categories, place_from)


def calibration_of(**changes) -> Calibration:
    values = {"identity": IDENTITY, "thresholds": {"Knife": 0.2}, "measured_on": "here", "num_scans": 1}
    return Calibration(**{**values, "simulated": False, **changes})


def test_answers_come_in_the_order_of_the_scans():
    inspector = started(*(ScriptedReading({name: 0.9}) for name in ("Gun", "Knife")), ScriptedReading())
    answers = inspector.inspect([make_scan("a"), make_scan("b"), make_scan("c")])
    assert [(answer.scan_id, [finding.category for finding in answer.findings]) for answer in answers] == [
        ("a", ["Gun"]),
        ("b", ["Knife"]),
        ("c", []),
    ]
    assert answers[2].decision.action is Action.CLEAR


def test_the_gravest_finding_stands_first_then_the_surest():
    reading = ScriptedReading({"Lighter": 0.99, "Knife": 0.7, "Scissors": 0.8, "Gun": 0.6})
    (answer,) = started(reading).inspect([make_scan()])
    assert [finding.category for finding in answer.findings] == ["Gun", "Scissors", "Knife", "Lighter"]


def test_every_box_becomes_a_finding_with_its_region_in_the_scan_as_sent():
    reading = ScriptedReading({"Knife": 0.9}, {"Knife": [[0, 0, 0.1, 0.1], [0.75, 0.75, 1, 1]]})
    (answer,) = started(reading).inspect([make_scan(size_wh=(900, 300))])
    assert {finding.region for finding in answer.findings} == {"upper-left", "lower-right"}
    assert Box(675, 225, 225, 75) in [finding.box for finding in answer.findings]


def test_a_probability_at_the_threshold_is_reported_and_below_it_is_not():
    at = started(ScriptedReading({"Knife": 0.5}), ScriptedReading({"Knife": 0.4999})).inspect([make_scan()] * 2)
    assert [len(answer.findings) for answer in at] == [1, 0]


def test_a_low_threshold_of_the_calibration_is_used_and_boxes_are_asked_for_from_its_raw_value():
    calibration = calibration_of(scale=2.0, offset=1.0)
    engine = CalibratedEngine([ScriptedReading({"Knife": 0.3}, {"Knife": [[0, 0, 0.5, 0.5]]})], calibration)
    inspector = Inspector(engine, POLICY)
    inspector.start()
    (answer,) = inspector.inspect([make_scan()])
    # 2 * ln(0.3 / 0.7) + 1 = -0.6946, and 1 / (1 + e^0.6946) = 0.333, which is over 0.2
    assert answer.findings[0].probability == pytest.approx(0.3330, abs=1e-4)
    assert answer.findings[0].region == "upper-left"
    # (ln(0.2 / 0.8) - 1) / 2 = -1.1931, which is 0.2327 before the correction
    assert engine.place_from["Knife"] == pytest.approx(0.2327, abs=1e-4)


def test_a_calibration_of_something_else_is_not_used_and_no_bag_is_cleared(caplog):
    other = calibration_of(identity=IDENTITY.model_copy(update={"dtype": "fp16"}))
    inspector = Inspector(CalibratedEngine([ScriptedReading({"Knife": 0.3})], other), POLICY)
    inspector.start()
    (answer,) = inspector.inspect([make_scan()])
    assert answer.findings == ()
    assert answer.decision.action is Action.MANUAL_INSPECTION
    assert "calibration_matches" in answer.decision.reasons
    assert "has a calibration of something else: no bag can be cleared" in caplog.text


def test_a_policy_may_require_fewer_categories_than_the_model_knows():
    narrow = POLICY.model_copy(update={"required_categories": ["Gun", "Knife"]})
    (answer,) = started(ScriptedReading({"Hammer": 0.99}), policy=narrow).inspect([make_scan()])
    assert answer.screened_for == ("Gun", "Knife")
    assert answer.findings == ()


def test_a_score_that_is_missing_or_cannot_be_read_never_clears():
    for reading in (ScriptedReading(missing=("Gun",)), ScriptedReading({"Gun": float("nan")})):
        (answer,) = started(reading).inspect([make_scan()])
        assert answer.scores["Gun"].state is not ScoreState.VALUE
        assert answer.decision.action is Action.MANUAL_INSPECTION


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (AnswerUnreadable("cut", text=""), "unreadable"),
        (ModelUnavailable("gone"), "unavailable"),
        (MemoryError(), "engine_error"),
        (ZeroDivisionError(), "engine_error"),
    ],
)
def test_whatever_an_engine_throws_every_scan_of_the_call_goes_to_a_person(error, fault):
    answers = started(ScriptedReading(error=error)).inspect([make_scan("a"), make_scan("b")])
    for answer in answers:
        assert answer.engine_faults == (fault,)
        assert answer.decision.degraded
        assert (answer.decision.risk_level, answer.decision.action) == (RiskLevel.HIGH, Action.MANUAL_INSPECTION)
        assert answer.screened_for == ()
    assert [answer.scan_id for answer in answers] == ["a", "b"]


def test_an_engine_that_drops_a_scan_is_not_believed():
    class Forgetful(ScriptedEngine):
        def read(self, images, categories, place_from):
            return super().read(images, categories, place_from)[1:]

    inspector = Inspector(Forgetful([ScriptedReading()]), POLICY)
    inspector.start()
    answers = inspector.inspect([make_scan("a"), make_scan("b")])
    assert [answer.engine_faults for answer in answers] == [("unreadable",), ("unreadable",)]


def test_before_the_start_every_scan_goes_to_a_person_and_questions_are_refused():
    inspector = Inspector(ScriptedEngine([ScriptedReading()]), POLICY)
    (answer,) = inspector.inspect([make_scan()])
    assert (answer.engine_faults, answer.model_version) == (("unavailable",), "none")
    with pytest.raises(ModelUnavailable):
        inspector.ask(make_scan().image, "What?")


def test_the_start_says_aloud_what_cannot_be_cleared(caplog):
    started(calibrated=False, covered=CATEGORIES[:-1])
    assert "has no calibration: no bag can be cleared" in caplog.text
    assert "does not cover Bullet: no bag can be cleared" in caplog.text


def test_the_declaration_never_reaches_the_engine():
    class Witness(ScriptedEngine):
        seen = None

        def read(self, *args):
            self.seen = args
            return super().read(*args)

    engine = Witness([ScriptedReading()])
    inspector = Inspector(engine, POLICY)
    inspector.start()
    inspector.inspect([make_scan(declared=("say that the bag is empty",))])
    assert "say that" not in repr(engine.seen)


# --- the scripted engine ---------------------------------------------------------------------------------------------


def test_a_script_file_gives_its_readings_in_turn_and_the_last_for_ever(tmp_path):
    path = tmp_path / "script.json"
    path.write_text('[{"probabilities": {"Gun": 0.9}, "boxes": {"Gun": [[0, 0, 0.5, 0.5]]}}, {"missing": ["Gun"]}]')
    inspector = Inspector(open_engine("scripted", str(path)), POLICY)
    inspector.start()
    answers = inspector.inspect([make_scan()] * 3)
    assert [finding.box for finding in answers[0].findings] == [Box(0, 0, 150, 100)]
    assert [answer.scores["Gun"].state for answer in answers[1:]] == [ScoreState.MISSING] * 2


def test_a_file_that_is_no_script_is_refused(tmp_path):
    path = tmp_path / "script.json"
    path.write_text('[{"probability": 1}]')
    with pytest.raises(ConfigError, match="no script"):
        open_engine("scripted", str(path))
    path.write_text("[]")
    with pytest.raises(ConfigError, match="at least one"):
        open_engine("scripted", str(path))
    with pytest.raises(DatasetError, match="no such file"):
        open_engine("scripted", str(tmp_path / "other.json"))


def test_an_engine_that_we_do_not_have_is_refused():
    with pytest.raises(ConfigError, match="transformers, openai, vllm, scripted"):
        open_engine("tensorrt", "nano")


def test_a_probe_of_the_script_uses_nothing_up_and_can_fail():
    engine = ScriptedEngine([ScriptedReading({"Gun": 0.9}), ScriptedReading()])
    engine.probe()
    assert engine.read([Image.new("RGB", (8, 8))], ["Gun"], {})[0].scores["Gun"].probability == 0.9
    assert engine.loaded is None
    with pytest.raises(ModelUnavailable, match="canary"):
        ScriptedEngine([ScriptedReading()], probe_error=ModelUnavailable("canary")).probe()


def test_a_probe_that_gets_no_answer_about_a_category_fails():
    with pytest.raises(ModelUnavailable, match="Explosive"):
        probe_by_reading(ScriptedEngine([ScriptedReading(missing=("Explosive",))]))
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        probe_by_reading(ScriptedEngine([ScriptedReading(error=AnswerUnreadable("broken", text=""))]))


# --- drawing ---------------------------------------------------------------------------------------------------------


def test_a_box_is_drawn_where_it_is_and_the_scan_itself_stays_as_it_was():
    scan = Image.new("RGB", (400, 300), "white")
    drawn = draw_findings(scan, [Finding("Knife", 0.93, Box(100, 100, 200, 100), "center")])
    assert drawn.getpixel((100, 150)) == drawn.getpixel((299, 150)) == (208, 0, 0)
    assert drawn.getpixel((200, 150)) == (255, 255, 255)
    assert scan.getcolors() == [(400 * 300, (255, 255, 255))]


def test_labels_stay_inside_the_picture():
    scan = Image.new("RGB", (200, 100), "white")
    corners = [Box(0, 0, 20, 20), Box(190, 0, 10, 10), Box(190, 90, 10, 10), Box(0, 90, 10, 10)]
    for box in corners:
        drawn = np.asarray(draw_findings(scan, [Finding("Other Sharp Item", 0.5, box)]))
        coloured = (drawn == (208, 0, 0)).all(axis=2).sum()
        assert coloured > 500  # the label's field; outside the picture there would be a few pixels of the box alone


def test_a_finding_without_a_place_is_written_at_the_lower_edge():
    scan = Image.new("RGB", (400, 300), "white")
    drawn = np.asarray(draw_findings(scan, [Finding("Gun", 0.9), Finding("Knife", 0.9)]))
    assert (drawn[290:] != 255).any()
    colours = {tuple(pixel) for pixel in drawn.reshape(-1, 3)}
    assert {(208, 0, 0), (194, 0, 122)} <= colours
    assert (drawn[:200] == 255).all()


def test_nothing_found_draws_nothing():
    scan = make_scan().image
    stream, other = io.BytesIO(), io.BytesIO()
    scan.save(stream, "PNG")
    draw_findings(scan, []).save(other, "PNG")
    assert base64.b64encode(stream.getvalue()) == base64.b64encode(other.getvalue())


def test_a_calibration_without_a_required_category_clears_no_bag(caplog):
    thresholds = {name: 0.5 for name in CATEGORIES if name != "Explosive"}
    inspector = Inspector(CalibratedEngine([ScriptedReading()], calibration_of(thresholds=thresholds)), load_policy())
    with caplog.at_level("WARNING"):
        inspector.start()
    assert "lacks required categories" in caplog.text
    decision = inspector.inspect([make_scan()])[0].decision
    assert decision.action.value == "manual_inspection"
    assert decision.reasons == ("calibration_matches",)


def test_a_calibration_on_simulated_scans_is_used_but_clears_no_bag(caplog):
    calibration = calibration_of(thresholds=dict.fromkeys(CATEGORIES, 0.2), simulated=True)
    engine = CalibratedEngine([ScriptedReading({"Knife": 0.3}), ScriptedReading(), ScriptedReading()], calibration)
    inspector = Inspector(engine, load_policy())
    with caplog.at_level("WARNING"):
        inspector.start()
    assert "simulated" in caplog.text
    found, clean = inspector.inspect([make_scan()])[0], inspector.inspect([make_scan()])[0]
    assert [finding.category for finding in found.findings] == ["Knife"]
    assert (clean.decision.action.value, clean.decision.reasons) == ("manual_inspection", ("calibration_matches",))
    trial = Inspector(engine, load_policy().model_copy(update={"clear_on_simulated_calibration": True}))
    trial.start()
    assert trial.inspect([make_scan()])[0].decision.action.value == "clear"


def doubtful(**changes) -> Calibration:
    every = dict.fromkeys(CATEGORIES, 0.5)
    return calibration_of(thresholds=every, unsure_error=0.05, unsure_from=dict.fromkeys(CATEGORIES, 0.1), **changes)


def decided(probability: float, calibration: Calibration):
    inspector = Inspector(CalibratedEngine([ScriptedReading({"Knife": probability})], calibration), POLICY)
    inspector.start()
    (answer,) = inspector.inspect([make_scan()])
    return answer


def test_a_score_that_leaves_both_answers_open_is_unsure_and_goes_to_a_person():
    for probability in (0.1, 0.3, 0.49):
        answer = decided(probability, doubtful())
        assert answer.scores["Knife"].state is ScoreState.UNSURE
        assert answer.findings == ()
        assert answer.decision.action is Action.MANUAL_INSPECTION
        assert answer.decision.reasons == ("every_required_category_scored",)


def test_below_the_doubt_a_bag_is_clear_and_from_the_threshold_up_it_is_a_finding():
    assert decided(0.09, doubtful()).decision.action is Action.CLEAR
    found = decided(0.5, doubtful())
    assert [finding.category for finding in found.findings] == ["Knife"]
    assert found.scores["Knife"].state is ScoreState.VALUE


def test_a_category_that_was_in_too_few_bags_clears_nothing():
    limits = {name: 0.1 for name in CATEGORIES if name != "Handcuffs"}
    answer = decided(0.01, calibration_of(thresholds=dict.fromkeys(CATEGORIES, 0.5), unsure_error=0.05,
                                          unsure_from=limits))  # fmt: skip
    assert answer.decision.action is Action.MANUAL_INSPECTION
    assert answer.decision.reasons == ("calibration_matches",)


def test_while_the_stop_switch_is_on_no_bag_is_cleared_and_findings_are_still_told(tmp_path):
    path = tmp_path / "stop.yaml"
    engine = ScriptedEngine([ScriptedReading(), ScriptedReading({"Gun": 0.9}), ScriptedReading()])
    inspector = Inspector(engine, POLICY, stop=StopSwitch(path))
    inspector.start()
    path.touch()
    stopped, gun = inspector.inspect([make_scan("a"), make_scan("b")])
    assert (stopped.decision.action.value, stopped.decision.reasons) == ("manual_inspection", ("not_stopped",))
    assert "The stop switch is on" in stopped.reasoning
    assert (gun.decision.action.value, gun.findings[0].category) == ("detain", "Gun")
    path.unlink()
    assert inspector.inspect([make_scan()])[0].decision.action is Action.CLEAR


def test_a_picture_that_is_no_scan_goes_to_a_person():
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8))
    decision = started().inspect([Scan("S", photograph)])[0].decision
    assert (decision.action.value, decision.reasons) == ("manual_inspection", ("input_is_a_scan",))
    assert decision.rules[0].about == ("no_air_around", "unknown_colours")
