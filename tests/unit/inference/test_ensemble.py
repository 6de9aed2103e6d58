import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.config.loading import load_policy
from xray_vqa.core.calibration import Calibration, read_calibration, write_calibration
from xray_vqa.core.inspection import Action, Scan, ScoreState
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError, ModelUnavailable
from xray_vqa.inference.engine import EngineInfo, Reading
from xray_vqa.inference.engines import open_engine
from xray_vqa.inference.engines.ensemble import EnsembleEngine
from xray_vqa.inference.engines.scripted import IDENTITY, ScriptedEngine, ScriptedReading
from xray_vqa.inference.inspector import Inspector

POLICY = load_policy()


def make_scan() -> Scan:
    image = Image.new("RGB", (300, 200), "white")
    image.paste((240, 160, 64), (30, 20, 270, 180))
    image.paste((48, 96, 192), (90, 80, 180, 100))
    return Scan("S", image)


class Member(ScriptedEngine):
    """A scripted member with a calibration of our choice."""

    def __init__(self, *script: ScriptedReading, calibration: Calibration | None) -> None:
        super().__init__(script)
        self.calibration = calibration

    def start(self):
        return EngineInfo(IDENTITY, "member", "none", CATEGORIES, self.calibration)


def calibration_of(**changes) -> Calibration:
    values = {"identity": IDENTITY, "thresholds": dict.fromkeys(CATEGORIES, 0.5), "measured_on": "here"}
    return Calibration(**{**values, "num_scans": 1, "simulated": False, **changes})


def together(folder: Path, *members: ScriptedEngine) -> EnsembleEngine:
    return EnsembleEngine(folder, {f"m{at}": member for at, member in enumerate(members)})


def inspector_of(folder: Path, make: Callable[[], EnsembleEngine], **changes) -> Inspector:
    """An inspector with an ensemble that is calibrated itself."""
    identity = make().start().identity
    write_calibration(folder, calibration_of(identity=identity, **changes))
    inspector = Inspector(make(), POLICY)
    inspector.start()
    return inspector


def saying(**probabilities: float) -> ScriptedReading:
    return ScriptedReading(probabilities)


def test_a_score_is_the_mean_of_what_the_members_say_calibrated(tmp_path):
    plain, sharp = calibration_of(), calibration_of(scale=2.0, offset=0.3)
    engine = together(tmp_path, Member(saying(Gun=0.3), calibration=plain), Member(saying(Gun=0.7), calibration=sharp))
    engine.start()
    (reading,) = engine.read([make_scan().image], ["Gun"], {})
    assert reading.scores["Gun"].probability == pytest.approx((0.3 + sharp.correct(0.7)) / 2)


def test_a_bag_is_clear_where_every_member_says_so(tmp_path):
    def make():
        return together(tmp_path, *(Member(saying(), calibration=calibration_of()) for _ in range(2)))

    (inspection,) = inspector_of(tmp_path, make).inspect([make_scan()])
    assert inspection.decision.action is Action.CLEAR


def test_what_one_member_finds_and_the_mean_does_not_goes_to_a_person(tmp_path):
    def make():
        scripts = [saying(), saying(Gun=0.6), saying()]
        return together(tmp_path, *(Member(script, calibration=calibration_of()) for script in scripts))

    (inspection,) = inspector_of(tmp_path, make).inspect([make_scan()])
    assert inspection.scores["Gun"].state is ScoreState.UNSURE
    assert inspection.decision.action is Action.MANUAL_INSPECTION
    assert not inspection.findings


def test_a_finding_stands_though_a_member_could_not_answer(tmp_path):
    def make():
        scripts = [saying(Gun=0.9), ScriptedReading(missing=("Gun",))]
        return together(tmp_path, *(Member(script, calibration=calibration_of()) for script in scripts))

    (inspection,) = inspector_of(tmp_path, make).inspect([make_scan()])
    assert [finding.category for finding in inspection.findings] == ["Gun"]


@given(
    said=st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=2, max_size=4),
    limits=st.lists(st.floats(0.05, 0.95), min_size=5, max_size=5),
    doubt=st.floats(0.01, 1),
)
def test_no_bag_is_clear_that_a_member_would_not_clear(tmp_path_factory, said, limits, doubt):
    folder = tmp_path_factory.mktemp("ensemble")

    def calibrations():
        for limit in limits:
            thresholds = dict.fromkeys(CATEGORIES, 0.5) | {"Gun": limit}
            unsure = dict.fromkeys(CATEGORIES, 0.4) | {"Gun": limit * doubt}
            yield calibration_of(thresholds=thresholds, unsure_from=unsure, unsure_error=0.05)

    def make():
        pairs = zip(said, calibrations(), strict=False)
        return together(folder, *(Member(saying(Gun=value), calibration=calibration) for value, calibration in pairs))

    own = next(iter(calibrations())).thresholds | {"Gun": limits[-1]}
    (inspection,) = inspector_of(folder, make, thresholds=own).inspect([make_scan()])
    members_clear = all(value < limit * doubt for value, limit in zip(said, limits, strict=False))
    mean = sum(said) / len(said)
    if abs(mean - limits[-1]) > 1e-9 and all(
        abs(value - limit * doubt) > 1e-9 for value, limit in zip(said, limits, strict=False)
    ):
        assert (inspection.decision.action is Action.CLEAR) == (members_clear and mean < limits[-1])


def test_places_are_those_of_the_member_that_is_surest(tmp_path):
    def boxed(probability: float, left: float) -> ScriptedReading:
        return ScriptedReading({"Gun": probability}, {"Gun": [[left, 0.1, left + 0.2, 0.3]]})

    scripts = [boxed(0.7, 0.0), boxed(0.9, 0.5), boxed(0.2, 0.7)]
    engine = together(tmp_path, *(Member(script, calibration=calibration_of()) for script in scripts))
    engine.start()
    (reading,) = engine.read([make_scan().image], ["Gun"], {"Gun": 0.5})
    assert [box.as_xyxy()[0] for box in reading.boxes["Gun"]] == [150]


def test_the_ensembles_own_threshold_has_its_members_place_what_they_would_not(tmp_path):
    scripts = [ScriptedReading({"Gun": value}, {"Gun": [[0.1, 0.1, 0.3, 0.3]]}) for value in (0.3, 0.2)]
    engine = together(tmp_path, *(Member(script, calibration=calibration_of()) for script in scripts))
    engine.start()
    (reading,) = engine.read([make_scan().image], ["Gun"], {"Gun": 0.25})
    assert reading.boxes["Gun"]


def test_an_ensembles_identity_tells_its_members_and_how_they_are_read(tmp_path):
    def identity(*calibrations):
        return together(tmp_path, *(Member(saying(), calibration=each) for each in calibrations)).start().identity

    plain, other = calibration_of(), calibration_of(offset=0.1)
    assert identity(plain, other) == identity(plain, other)
    assert len({identity(plain, plain).model_digest, identity(plain, other).model_digest}) == 2
    assert identity(plain, plain).engine == "ensemble of scripted"


def test_a_calibration_of_other_members_clears_nothing(tmp_path):
    def make(*calibrations):
        return together(tmp_path, *(Member(saying(), calibration=each) for each in calibrations))

    inspector_of(tmp_path, lambda: make(calibration_of(), calibration_of()))
    assert read_calibration(tmp_path) is not None
    inspector = Inspector(make(calibration_of(), calibration_of(offset=0.1)), POLICY)
    inspector.start()
    (inspection,) = inspector.inspect([make_scan()])
    assert inspection.decision.action is Action.MANUAL_INSPECTION


def test_a_member_without_a_calibration_that_fits_is_refused(tmp_path):
    other = calibration_of(identity=IDENTITY.model_copy(update={"model_digest": "another"}))
    for calibration in (None, other):
        engine = together(
            tmp_path, Member(saying(), calibration=calibration_of()), Member(saying(), calibration=calibration)
        )
        with pytest.raises(ModelUnavailable, match=r"member m1 .*--calibrate"):
            engine.start()


def test_an_ensemble_fails_with_any_of_its_members(tmp_path):
    def make():
        broken = ScriptedReading(error=ModelUnavailable("gone"))
        return together(
            tmp_path, Member(saying(), calibration=calibration_of()), Member(broken, calibration=calibration_of())
        )

    (inspection,) = inspector_of(tmp_path, make).inspect([make_scan()])
    assert inspection.decision.action is Action.MANUAL_INSPECTION
    assert inspection.engine_faults == ("unavailable",)


def write_ensemble(folder: Path, members: list[dict]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "ensemble.yaml").write_text(yaml.safe_dump({"members": members}))
    return str(folder)


def test_a_folder_with_an_ensemble_is_opened_as_any_model(tmp_path):
    for name, probability in (("a", 0.2), ("b", 0.4)):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"probabilities": {"Gun": probability}}]))
    members = [{"name": name, "model": f"../{name}.json", "engine": "scripted"} for name in "ab"]
    engine = open_engine("transformers", write_ensemble(tmp_path / "both", members))
    engine.start()
    (reading,) = engine.read([make_scan().image], ["Gun"], {})
    assert reading.scores["Gun"].probability == pytest.approx(0.3)
    engine.probe()
    ((answer,),) = engine.ask([make_scan().image], [["What is there?"]])
    assert answer.text == "I see a bag."
    engine.close()
    with pytest.raises(ModelUnavailable, match="not started"):
        engine.read([make_scan().image], ["Gun"], {})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([{"name": "a", "model": "nano"}], "at least 2"),
        ([{"name": "a", "model": "nano"}] * 2, "two members are called 'a'"),
        ([{"name": "a", "model": "nano"}, {"name": "b", "modle": "nano"}], "modle"),
        ([{"name": "a", "model": "nano"}, {"name": "b", "model": "."}], "b is an ensemble itself"),
    ],
)
def test_an_ensemble_that_is_none_is_refused_by_name(tmp_path, members, message):
    with pytest.raises(ConfigError, match=message):
        open_engine("transformers", write_ensemble(tmp_path / "both", members))


def test_an_adapter_belongs_to_a_member(tmp_path):
    folder = write_ensemble(tmp_path / "both", [{"name": name, "model": "nano"} for name in "ab"])
    with pytest.raises(ConfigError, match="at the member"):
        open_engine("transformers", folder, adapter="somewhere")


def test_nano_twice_says_what_nano_says(tmp_path):
    folder = write_ensemble(tmp_path / "twice", [{"name": name, "model": "nano"} for name in "ab"])
    alone, twice = (open_engine("transformers", model, device="cpu") for model in ("nano", folder))
    calibration = alone.start().calibration
    assert calibration is not None
    twice.start()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    categories = CATEGORIES[:4]
    readings: list[Reading] = [engine.read([image], categories, {})[0] for engine in (alone, twice)]
    for name in categories:
        corrected = calibration.correct(readings[0].scores[name].probability)
        assert readings[1].scores[name].probability == pytest.approx(corrected, abs=1e-6)
