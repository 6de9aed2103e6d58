"""Benchmarks of others: letters, balance, and what their tools read."""

import base64
import csv
import importlib.util
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.cli.main import main
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import ScanRecord
from xray_vqa.errors import AnswerUnreadable, DatasetError
from xray_vqa.evaluation.records import AnswerRecord, ScanPrediction
from xray_vqa.evaluation.suites.letters import options_of, parse_letter
from xray_vqa.evaluation.suites.polling import poll
from xray_vqa.evaluation.suites.sting_bee import read_benchmark, score_benchmark

OPTIONS = {"A": "Gun", "B": "3D Gun", "C": "There is no gun"}
TEXT = "Which item?\nA. Gun\nB. 3D Gun\nC. There is no gun\nOnly provide the option letter as the answer."


@pytest.mark.parametrize(
    ("said", "letter"),
    [("B", "B"), ("b.", "B"), ("(C)", "C"), ("A. Gun", "A"), ("The answer is B", "B"), ("3d gun", "B"), ("Gun.", "A")],
)
def test_a_letter_or_an_options_own_text_is_a_choice(said, letter):
    assert parse_letter(said, OPTIONS) == letter


@pytest.mark.parametrize("said", ["", "D", "A bag with a gun and a 3D gun", "I see a bag.", "A or B", "gun, 3D gun"])
def test_what_could_mean_no_option_or_two_chooses_none(said):
    with pytest.raises(AnswerUnreadable):
        parse_letter(said, OPTIONS)


def write_benchmark(folder: Path, letters: list[str]) -> dict[str, Path]:
    (folder / "images").mkdir()
    questions = [
        {"image": f"{n // 2}.png", "text": TEXT, "category": "Instances Identity", "question_id": n}
        for n in range(len(letters))
    ]
    for number in range((len(letters) + 1) // 2):
        Image.new("RGB", (64, 48), (number, 90, 90)).save(folder / "images" / f"{number}.png")
    (folder / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    (folder / "a.csv").write_text("Question ID,Answer\n" + "".join(f"{n},{x}\n" for n, x in enumerate(letters)))
    return {"questions": folder / "q.jsonl", "answers": folder / "a.csv", "images": folder / "images"}


def predictions_of(benchmark, said: list[str]) -> list[ScanPrediction]:
    return [
        ScanPrediction(
            image_path=scan.record.image_path, image_id=0, group=scan.group, width=64, height=48, truth=[],
            annotated_categories=[], scores={},
            answers=[
                AnswerRecord(pair=q.line, question=q.pair.question, question_type="identification", truth="",
                             answer=said[q.line])
                for q in scan.questions
            ],
        )
        for scan in benchmark.data.scans
    ]  # fmt: skip


def test_unparsable_answers_are_wrong_and_both_numbers_are_told(tmp_path):
    benchmark = read_benchmark(**write_benchmark(tmp_path, ["A", "A", "B", "C"]))
    scores = score_benchmark(benchmark, predictions_of(benchmark, ["A", "no idea", "B", "A"]))
    assert scores.overall.accuracy.value == 0.5
    assert scores.overall.num_unparsable == 1
    assert scores.overall.accuracy_of_parsed == pytest.approx(2 / 3)
    assert scores.overall.never_looking == 0.5


def test_gain_over_blind_is_the_paired_difference(tmp_path):
    benchmark = read_benchmark(**write_benchmark(tmp_path, ["A", "A", "B", "C"]))
    model, blind = (predictions_of(benchmark, said) for said in (["A", "A", "B", "C"], ["A"] * 4))
    scores = score_benchmark(benchmark, model, blind)
    assert (scores.overall.blind, scores.overall.gain_over_blind.value) == (0.5, 0.5)
    same = score_benchmark(benchmark, model, model).overall.gain_over_blind
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [("0,A\n", "no answer for 1 questions"), ("0,A\n0,B\n1,A\n", "answered twice"), ("0,A\n1,E\n", "no option"),
     ("x,A\n", "expected a question id")],
)  # fmt: skip
def test_an_answer_sheet_that_does_not_fit_is_refused_by_name(tmp_path, rows, words):
    files = write_benchmark(tmp_path, ["A", "A"])
    files["answers"].write_text("Question ID,Answer\n" + rows)
    with pytest.raises(DatasetError, match=words):
        read_benchmark(**files)


scans = st.lists(st.sets(st.sampled_from(["Gun", "Knife", "Wrench", "UNLISTED"]), max_size=3), min_size=1, max_size=40)


@given(scans)
def test_a_poll_asks_only_what_is_annotated_and_never_denies_beside_an_unknown_label(contents):
    annotated = ("Gun", "Knife")
    records = [
        ScanRecord(
            image_id=number, image_filename=f"{number}.png", image_path=f"test/images/{number}.png",
            width=64, height=48, categories=sorted(there), bboxes=[None] * len(there),
        )
        for number, there in enumerate(contents)
    ]  # fmt: skip
    pairs = poll(records, annotated)
    by_path = {record.image_path: record for record in records}
    assert {pair.metadata.target for pair in pairs} <= {*annotated}
    for pair in pairs:
        record = by_path[pair.image_path]
        assert (pair.metadata.short_answer == "yes") == (pair.metadata.target in record.present)
        assert pair.metadata.short_answer == "yes" or "UNLISTED" not in record.categories
    yes = sum(pair.metadata.short_answer == "yes" for pair in pairs)
    assert len(pairs) - yes <= yes


def test_a_poll_is_balanced_and_asks_about_clean_bags_too():
    contents = [["Gun"], ["Knife"], [], [], ["Gun"], ["Wrench"], []] * 10
    records = [
        ScanRecord(image_id=n, image_filename=f"{n}.png", image_path=f"test/images/{n}.png", width=64, height=48,
                   categories=there, bboxes=[None] * len(there))
        for n, there in enumerate(contents)
    ]  # fmt: skip
    pairs = poll(records, ("Gun", "Knife", "Wrench"))
    answers = [pair.metadata.short_answer for pair in pairs]
    assert answers.count("yes") == answers.count("no") == 40
    assert any(not pair.metadata.categories for pair in pairs)
    assert {pair.metadata.topic for pair in pairs} == {"", "random", "popular", "adversarial"}


MIXED = (("Is there a gun?", "Yes.", "yes"), (TEXT, "A", "A"))


def write_pairs(folder: Path, questions=MIXED) -> Path:
    root = folder / "data"
    (root / "test" / "images").mkdir(parents=True)
    Image.new("RGB", (64, 48), "orange").save(root / "test" / "images" / "000000.png")
    path = folder / "pairs.jsonl"
    lines = [
        {"image_path": "test/images/000000.png", "question": text, "answer": answer,
         "metadata": {"image_id": 0, "question_type": "presence", "generated_by": "template", "short_answer": short}}
        for text, answer, short in questions
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(path, make_manifest("generate", dataset_root=os.path.relpath(root, folder), split="test"))
    return path


def test_an_exported_lmms_eval_task_holds_images_and_functions_that_run(tmp_path):
    folder = tmp_path / "tasks"
    assert main(["suite", "export", str(write_pairs(tmp_path)), "--format", "lmms-eval", "--output", str(folder)]) == 0
    spec = importlib.util.spec_from_file_location("functions", folder / "xray_vqa_functions.py")
    functions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(functions)
    first, second = map(json.loads, (folder / "xray_vqa.jsonl").read_text().splitlines())
    assert functions.doc_to_visual(first)[0].size == (64, 48)
    assert functions.process_results(first, ["Yes, it is."]) == {"exact_match": 1.0, "unparsable": 0.0}
    assert functions.process_results(first, ["Perhaps"]) == {"exact_match": 0.0, "unparsable": 1.0}
    assert functions.process_results(second, ["A"])["exact_match"] == 1.0
    assert "doc_to_visual: !function xray_vqa_functions.doc_to_visual" in (folder / "xray_vqa.yaml").read_text()
    assert (
        main(["suite", "export", str(tmp_path / "pairs.jsonl"), "--format", "lmms-eval", "--output", str(folder)]) == 2
    )


def exported_tsv(folder: Path, questions) -> Path:
    path = folder / "task.tsv"
    pairs = write_pairs(folder, questions)
    assert main(["suite", "export", str(pairs), "--format", "vlmevalkit", "--output", str(path)]) == 0
    return path


def test_an_exported_tsv_has_each_image_once_and_options_in_columns(tmp_path):
    path = exported_tsv(tmp_path, [(TEXT, "A", "A"), (TEXT, "C", "C")])
    first, second = csv.DictReader(path.open(newline=""), delimiter="\t")
    assert base64.b64decode(first["image"]) == (tmp_path / "data/test/images/000000.png").read_bytes()
    assert second["image"] == first["index"] == "0"
    assert (second["question"], second["A"], second["C"], second["answer"]) == (
        "Which item?", "Gun", "There is no gun", "C",
    )  # fmt: skip


def test_a_tsv_of_mixed_questions_is_no_multiple_choice(tmp_path):
    path = exported_tsv(tmp_path, MIXED)
    first, second = csv.DictReader(path.open(newline=""), delimiter="\t")
    assert list(first) == ["index", "image", "question", "answer", "category", "split"]
    assert (first["question"], second["question"], second["answer"]) == ("Is there a gun?", TEXT, "A")


def read_as_vlmevalkit_does(path: Path):
    """What its ImageBaseDataset asks of a file: `read_csv`, text indices, an image or the index of a line with one."""
    data = pytest.importorskip("pandas").read_csv(path, sep="\t")
    assert not data[["index", "image", "question", "answer"]].isna().any().any()
    data["index"], data["image"] = data["index"].astype(str), data["image"].astype(str)
    images = dict(zip(data["index"], data["image"], strict=True))
    assert len(images) == len(data)
    for index, image in images.items():
        if len(image) <= 64:
            assert len(images[image]) > 64
            images[index] = images[image]
    return data, {index: base64.b64decode(image) for index, image in images.items()}


@pytest.mark.parametrize("answer", ["None", "NA", "null", "nan", 'a "gun"\tand more', "two\nlines", "'", "刀"])
def test_vlmevalkit_reads_back_every_question_and_answer(tmp_path, answer):
    questions = [*MIXED, ("What is it?", answer, answer)]
    data, images = read_as_vlmevalkit_does(exported_tsv(tmp_path, questions))
    assert data["question"].tolist() == [question for question, _, _ in questions]
    assert data["answer"].tolist()[2].rstrip(".") == answer
    assert set(images.values()) == {(tmp_path / "data/test/images/000000.png").read_bytes()}


def test_options_are_read_from_the_question():
    assert options_of(TEXT) == OPTIONS
