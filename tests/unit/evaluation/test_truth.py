"""What a prediction carries of a scan's annotations, for scores by how hard an item was to see."""

import math

import pytest
from prediction_samples import make_header

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.records import ScanRecord, compact
from xray_vqa.evaluation.predict import predict
from xray_vqa.evaluation.records import ScanPrediction
from xray_vqa.evaluation.testset import EvaluationSet, PlannedScan
from xray_vqa.evaluation.truth import known_of, truth_of
from xray_vqa.inference.engine import EngineInfo
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading


def make_record(categories: list[str], **more: object) -> ScanRecord:
    values = {
        "image_id": 0,
        "image_filename": "000000.jpg",
        "image_path": "test/images/000000.jpg",
        "width": 100,
        "height": 50,
        "categories": categories,
        "bboxes": [[0, 0, 50, 10]] * len(categories),
    }
    return ScanRecord.model_validate(values | more)


def test_the_simulators_facts_stand_at_their_items_and_the_bags_at_the_scan():
    threats = [{"visible": 0.9, "shape": "gun/glock"}, {"visible": 0.2, "shape": "knife/bread", "concealer": "can"}]
    record = make_record(
        ["Gun", "Knife"], occlusion=[0.1, 0.7], source="synth/x@1", factors={"clutter_level": 3, "threats": threats}
    )
    known = known_of(PlannedScan(record), ["Gun"])
    assert (known["source"], known["factors"]) == ("synth/x@1", {"clutter_level": 3})
    gun, knife = known["truth"]
    assert (gun.visible, gun.occlusion, gun.factors) == (0.9, 0.1, {"shape": "gun/glock"})
    assert (knife.visible, knife.occlusion, knife.factors["concealer"]) == (0.2, 0.7, "can")


def test_facts_of_a_projected_threat_stand_at_that_threat_and_leave_the_old_ones_unknown():
    tip = {"threats": [{"category": "Knife", "index": 1, "visible": 0.4, "occlusion": 0.5, "item": {"length": 20}}]}
    gun, knife = truth_of(make_record(["Gun", "Knife"], factors={"tip": tip}))
    assert (gun.visible, gun.occlusion) == (None, None)
    assert (knife.visible, knife.occlusion, knife.factors) == (0.4, 0.5, {})


def test_an_unlisted_item_does_not_shift_the_facts_of_the_next():
    record = make_record(["UNLISTED", "Knife"], occlusion=[0.1, 0.7], factors={"threats": [{"visible": 1}, {}]})
    (knife,) = truth_of(record)
    assert (knife.category, knife.occlusion, knife.visible) == ("Knife", 0.7, None)


@pytest.mark.parametrize("threats", [None, "two", [3], [{"visible": "most"}], [{"visible": 7}], [{"visible": True}]])
def test_facts_of_another_form_are_no_facts(threats):
    record = make_record(["Gun"], factors={"threats": threats, "tip": {"threats": [{"visible": 1}, 2]}})
    assert truth_of(record)[0].visible is None


def test_a_number_that_is_none_is_no_factor():
    record = make_record(["Gun"], factors={"phi": math.nan, "theta": 90})
    assert known_of(PlannedScan(record), [])["factors"] == {"theta": 90}


def test_predictions_of_an_earlier_version_get_the_facts_without_predicting_again(tmp_path):
    record = make_record([], factors={"clutter_level": 2}, source="mine")
    data = EvaluationSet(tmp_path, "test", ("Gun",), (PlannedScan(record),), inputs={})
    identity = EngineIdentity(
        engine="scripted", model_digest="d", dtype="none", processor_version="none", prompt_version="p"
    )
    info = EngineInfo(identity, "toy", "none", ("Gun",))
    output, point = tmp_path / "predictions.jsonl", make_header(("Gun",)).point
    (tmp_path / "test/images").mkdir(parents=True)
    predict(ScriptedEngine([ScriptedReading()]), info, data, output, point)
    old = ScanPrediction.model_validate_json(output.read_text()).model_copy(
        update={"source": "", "factors": {}, "failure": None, "failure_text": ""}
    )
    output.write_text(old.model_dump_json(exclude={"source", "factors"}) + "\n")
    broken = ScriptedEngine([ScriptedReading(error=RuntimeError("asked again"))])
    (found,) = predict(broken, info, data, output, point)
    assert (found.factors, found.source, found.failure) == ({"clutter_level": 2}, "mine", None)
    assert ScanPrediction.model_validate_json(output.read_text()) == found
    assert set(compact(found)) >= {"source", "factors"}
