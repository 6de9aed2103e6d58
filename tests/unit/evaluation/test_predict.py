"""Predicting, the trivial rows and scoring, without a command line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prediction_samples import make_header, make_prediction

from xray_vqa.config.loading import load_policy
from xray_vqa.core.inspection import Action, Scan, Score
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import VQAPair
from xray_vqa.errors import DatasetError, ModelUnavailable
from xray_vqa.evaluation.baselines import BlindEngine, Majority, fit_majority, training_pairs_beside
from xray_vqa.evaluation.predict import predict, predict_scan
from xray_vqa.evaluation.records import OperatingPoint
from xray_vqa.evaluation.replay import ReplayEngine
from xray_vqa.evaluation.score import score
from xray_vqa.evaluation.table import format_table
from xray_vqa.evaluation.testset import EvaluationSet, load_development_set, load_test_set
from xray_vqa.inference.engine import Answer, EngineInfo, Reading
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.inference.inspector import Inspector


def make_dataset(root: Path, number: int = 12, questions: int = 2) -> Path:
    """A test split with a knife in every third scan, and its pairs file."""
    (root / "test/images").mkdir(parents=True)
    records, pairs = [], []
    for k in range(number):
        path = f"test/images/{k:06d}.png"
        Image.new("RGB", (40, 32), (k, 2 * k, 3 * k)).save(root / path)
        threat = k % 3 == 0
        record = {"image_id": k, "image_filename": Path(path).name, "image_path": path, "width": 40, "height": 32}
        record |= {"categories": ["Knife"] if threat else [], "bboxes": [[0, 0, 20, 16]] if threat else []}
        records.append(record)
        metadata = {"image_id": k, "question_type": "presence", "generated_by": "template", "short_answer": "yes"}
        pairs += [
            {"image_path": path, "question": f"Question {q}?", "answer": "Yes.", "metadata": metadata}
            for q in range(questions)
        ]
    (root / "test/annotations.json").write_text(json.dumps(records))
    write_manifest(root, make_manifest("synth", annotated_categories=["Knife"]))
    pairs_path = root.parent / "val.jsonl"
    pairs_path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    write_manifest(pairs_path, make_manifest("generate", dataset_root=os.path.relpath(root, root.parent), split="test"))
    return pairs_path


@pytest.fixture
def pairs_path(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "stcray")


def started(*steps: ScriptedReading, **more) -> tuple[ScriptedEngine, EngineInfo]:
    engine = ScriptedEngine(steps or [ScriptedReading()], **more)
    return engine, engine.start()


def point_of(info: EngineInfo, data: EvaluationSet) -> OperatingPoint:
    return OperatingPoint.of(info, load_policy(), data.annotated)


def test_a_small_sample_is_part_of_a_larger_one(pairs_path):
    small, large = (load_test_set(pairs_path, max_images=count) for count in (3, 7))
    paths = [{scan.record.image_path for scan in data.scans} for data in (small, large)]
    assert paths[0] < paths[1]
    assert len(paths[0]) == 3
    assert [s.record.image_id for s in large.scans] == sorted(s.record.image_id for s in large.scans)


def test_max_samples_counts_questions_and_may_cut_the_last_scan(pairs_path):
    data = load_test_set(pairs_path, max_samples=5)
    assert data.num_questions == 5
    assert sorted(len(scan.questions) for scan in data.scans) == [1, 2, 2]


def test_a_broken_line_of_the_test_file_is_named(pairs_path):
    with pairs_path.open("a") as stream:
        stream.write('{"image_path": "x"}\n')
    with pytest.raises(DatasetError, match=r"val\.jsonl:25"):
        load_test_set(pairs_path)


def test_the_development_set_needs_training_scans(pairs_path):
    with pytest.raises(DatasetError, match="train"):
        load_development_set(pairs_path.parent / "stcray")


def test_a_prediction_keeps_raw_scores_with_their_state_and_the_truth(pairs_path):
    data = load_test_set(pairs_path)
    engine, info = started(
        ScriptedReading(probabilities={"Knife": 0.9}, boxes={"Knife": [[0, 0, 0.5, 0.5]]}), answer="Yes."
    )
    prediction = predict_scan(engine, data.scans[0], data, ("Knife", "Gun"), point_of(info, data).place_from())
    assert prediction.probability("Knife") == 0.9
    assert prediction.scores["Gun"].state.value == "value"
    assert prediction.boxes == {"Knife": [(0.0, 0.0, 20.0, 16.0)]}
    assert [(item.category, item.box) for item in prediction.truth] == [("Knife", (0.0, 0.0, 20.0, 16.0))]
    assert prediction.area_share(prediction.truth[0]) == 0.25
    assert [answer.said for answer in prediction.answers] == ["Yes.", "Yes."]
    assert prediction.annotated_categories == ["Knife"]


def test_an_answer_that_breaks_off_is_kept_and_marked(pairs_path):
    class BreaksOff(ScriptedEngine):
        def ask(self, images, questions, max_tokens=64):
            return [[Answer("Yes, yes, yes", complete=False) for _ in asked] for asked in questions]

    data = load_test_set(pairs_path)
    prediction = predict_scan(BreaksOff([ScriptedReading()]), data.scans[0], data, ("Knife",), {})
    answer = prediction.answers[0]
    assert (answer.answer, answer.failure, answer.said) == ("Yes, yes, yes", "unreadable", "")
    assert not prediction.failed_for_now


def test_what_an_engine_throws_at_one_scan_is_made_again_on_the_next_run(pairs_path, tmp_path):
    data = load_test_set(pairs_path)
    engine, info = started(ScriptedReading(), ScriptedReading(error=RuntimeError("out of memory")), ScriptedReading())
    output = tmp_path / "predictions.jsonl"
    first = predict(engine, info, data, output, point_of(info, data))
    assert [p.failure for p in first].count("engine") == 1
    assert "out of memory" in first[1].failure_text
    engine, info = started(ScriptedReading())
    second = predict(engine, info, data, output, point_of(info, data))
    assert all(p.failure is None for p in second)
    assert len(output.read_text().splitlines()) == len(data.scans)


def test_an_engine_that_is_not_there_is_no_fault_of_the_scan(pairs_path, tmp_path):
    data = load_test_set(pairs_path)
    engine, info = started(ScriptedReading(error=ModelUnavailable("gone")))
    with pytest.raises(ModelUnavailable, match="gone"):
        predict(engine, info, data, tmp_path / "predictions.jsonl", point_of(info, data))
    assert (tmp_path / "predictions.jsonl").read_text() == ""


def test_a_broken_engine_stops_after_a_few_scans(pairs_path, tmp_path):
    data = load_test_set(pairs_path)
    engine, info = started(ScriptedReading(error=RuntimeError("no kernel")))
    with pytest.raises(ModelUnavailable, match="5 scans in a row"):
        predict(engine, info, data, tmp_path / "predictions.jsonl", point_of(info, data))


def test_another_calibration_is_another_file(pairs_path, tmp_path, caplog):
    data = load_test_set(pairs_path)
    output = tmp_path / "predictions.jsonl"
    engine, info = started(calibrated=True)
    predict(engine, info, data, output, point_of(info, data))
    engine, info = started(calibrated=False)
    with caplog.at_level("WARNING"):
        predict(engine, info, data, output, point_of(info, data))
    assert "another point" in caplog.text


class ByBrightness(ScriptedEngine):
    """Reads a probability out of the pixels, and never from more images at once than it can hold."""

    def __init__(self, most: int) -> None:
        super().__init__([ScriptedReading()])
        self.most = most
        self.sizes: list[int] = []

    def read(self, images, categories, place_from):
        if len(images) > self.most:
            raise RuntimeError("out of memory")
        self.sizes.append(len(images))
        return [
            Reading({name: Score.of(np.asarray(image).mean() / 255) for name in categories}, {}) for image in images
        ]

    def ask(self, images, questions, max_tokens=64):
        return [
            [Answer(f"{q} {image.getpixel((0, 0))}") for q in asked]
            for image, asked in zip(images, questions, strict=True)
        ]


@pytest.mark.parametrize(("batch_size", "most", "sizes"), [(5, 5, [5, 5, 2]), (5, 1, [1] * 12)])
def test_scans_read_together_give_what_each_gives_alone(pairs_path, tmp_path, batch_size, most, sizes):
    data = load_test_set(pairs_path)
    alone, together = ByBrightness(1), ByBrightness(most)
    info = alone.start()
    expected = predict(alone, info, data, tmp_path / "a.jsonl", point_of(info, data))
    found = predict(together, info, data, tmp_path / "b.jsonl", point_of(info, data), batch_size=batch_size)
    assert together.sizes == sizes
    assert [p.image_path for p in found] == [scan.record.image_path for scan in data.scans]
    assert len({p.probability("Knife") for p in found}) == 12
    assert [(p.scores, [a.answer for a in p.answers]) for p in found] == [
        (p.scores, [a.answer for a in p.answers]) for p in expected
    ]


class Remembers(ScriptedEngine):
    """Keeps what it was shown."""

    def __init__(self, *readings: ScriptedReading) -> None:
        super().__init__(readings or [ScriptedReading()], answer="No.")
        self.shown: list[Image.Image] = []
        self.asked: list[list[str]] = []

    def read(self, images, categories, place_from):
        self.shown += images
        return super().read(images, categories, place_from)

    def ask(self, images, questions, max_tokens=64):
        self.shown += images
        self.asked += questions
        return super().ask(images, questions, max_tokens)


def test_the_blind_engine_shows_grey_images_of_about_the_same_size():
    engine = Remembers()
    blind = BlindEngine(engine)
    scan = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8))
    for _ in range(2):
        blind.read([scan], ("Gun",), {})
        assert blind.ask([scan], [["Is there a gun?"]]) == [[Answer("No.")]]
    assert len(engine.shown) == 2  # equal images have equal readings
    assert {image.size for image in engine.shown} == {(56, 28)}  # whole visual tokens
    assert all(image.getcolors() == [(56 * 28, (128, 128, 128))] for image in engine.shown)


def test_blind_questions_about_several_scans_of_a_size_are_asked_at_once():
    engine = Remembers()
    asked = [["a", "b"], ["b", "c"], ["a"], []]
    scans = [Image.new("RGB", size) for size in ((56, 28), (57, 29), (84, 84), (56, 28))]
    said = BlindEngine(engine).ask(scans, asked)
    assert [len(answers) for answers in said] == [2, 2, 1, 0]
    assert [image.size for image in engine.shown] == [(56, 28), (84, 84)]
    assert engine.asked == [["a", "b", "c"], ["a"]]


def test_scans_of_nearly_one_size_share_a_blind_reading_and_each_has_its_boxes_in_its_own_pixels():
    engine = Remembers(*[ScriptedReading({"Gun": 0.9}, {"Gun": [[0.5, 0.25, 1.0, 0.75]]})] * 2)
    blind = BlindEngine(engine)
    sizes = [(512, 391), (508, 393), (300, 200)]
    readings = blind.read([Image.new("RGB", size) for size in sizes], ("Gun",), {"Gun": 0.5})
    assert [image.size for image in engine.shown] == [(504, 392), (308, 196)]
    for (width, height), reading in zip(sizes, readings, strict=True):
        (box,) = reading.boxes["Gun"]
        assert box.as_xywh() == pytest.approx((width / 2, height / 4, width / 2, height / 2))


def pair(answer: str, kind: str, image: str = "a", categories: tuple[str, ...] = (), short: str = "") -> VQAPair:
    metadata = {"image_id": 0, "question_type": kind, "generated_by": "template", "categories": list(categories)}
    values = {"image_path": image, "question": "?", "answer": answer, "metadata": metadata | {"short_answer": short}}
    return VQAPair.model_validate(values)


def test_the_majority_knows_each_type_and_each_category():
    pairs = [
        pair("Yes.", "presence", "a", ("Gun",), "yes"),
        pair("Yes, there is.", "presence", "b", ("Gun", "Knife"), "yes"),
        pair("No.", "presence", "c", (), "no"),
        pair("2", "count", "a", ("Gun",)),
        pair("1", "count", "b", ("Gun",)),
    ]
    majority = Majority.fit(pairs)
    assert majority.answers == {"presence": "yes", "count": "1"}  # of equally common ones the first in the alphabet
    assert majority.shares == {"Gun": 2 / 3, "Knife": 1 / 3}
    asked = {"pair": 0, "question": "?", "question_type": "presence", "truth": "No.", "answer": "maybe"}
    (guess,) = majority.predict([make_prediction(0, (), {"Gun": 0.1, "Knife": 0.2}, answers=[asked])])
    assert (guess.probability("Gun"), guess.answers[0].said) == (2 / 3, "yes")


def test_a_majority_is_never_fitted_on_the_test_split(pairs_path):
    with pytest.raises(DatasetError, match="split test"):
        fit_majority(pairs_path)


def test_training_pairs_are_found_beside_the_test_file(tmp_path):
    (tmp_path / "mine_train.jsonl").write_text("")
    assert training_pairs_beside(tmp_path / "mine_val.jsonl") == tmp_path / "mine_train.jsonl"
    assert training_pairs_beside(tmp_path / "other_val.jsonl") is None
    assert training_pairs_beside(tmp_path / "mine.jsonl") is None


def test_a_replayed_prediction_gives_the_decision_again():
    policy = load_policy()
    header = make_header(tuple(policy.required_categories))
    scores = dict.fromkeys(policy.required_categories, 0.01)
    found = make_prediction(0, (), scores | {"Gun": 0.9}, boxes={"Gun": [(0.0, 0.0, 10.0, 10.0)]})
    broken = make_prediction(1, (), scores, failure="engine", failure_text="RuntimeError: gone")
    inspector = Inspector(ReplayEngine(header, [found, broken]), policy)
    inspector.start()
    image = Image.new("RGB", (100, 100))
    (first,) = inspector.inspect([Scan("one", image)])
    (second,) = inspector.inspect([Scan("two", image)])
    assert [(f.category, f.probability, f.region) for f in first.findings] == [("Gun", 0.9, "upper-left")]
    assert first.decision.action is Action.DETAIN
    assert second.decision.degraded


def scored(predictions):
    header = make_header()
    return score(predictions, header, make_manifest("predict", split="test"))


def test_boxes_of_image_level_labels_are_not_judged():
    there = {"category": "Gun", "box": None}
    prediction = make_prediction(
        0, (), {"Gun": 0.9, "Knife": 0.1}, truth=[there], boxes={"Gun": [(0.0, 0.0, 10.0, 10.0)]}
    )
    localisation = scored([prediction]).localisation
    assert (localisation.accuracy.n, localisation.num_predicted) == (0, 0)


def test_results_do_not_depend_on_time_or_order():
    rng = np.random.default_rng(0)
    predictions = [
        make_prediction(k, ("Gun",) if k % 2 else (), {"Gun": float(rng.random()), "Knife": 0.1}) for k in range(20)
    ]
    later = [prediction.model_copy(update={"latency_ms": 99.0}) for prediction in reversed(predictions)]
    assert scored(predictions).model_dump() == scored(later).model_dump()


def test_the_table_says_what_is_missing_and_what_failed():
    failed = make_prediction(0, ("Gun",), {"Gun": 7.0, "Knife": 0.1})
    text = format_table(scored([failed]))
    assert "counted as wrong: 0 scans, 0 answers and 1 scores" in text
    assert "no clean bag" in text
    assert "not" in text.split("note:")[1] or "no calibration" in text
