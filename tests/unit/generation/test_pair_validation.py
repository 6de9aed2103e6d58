"""The validator finds what is wrong with a pair, and says it."""

from dataclasses import dataclass

import pytest
from bags import POLICY, make_record

from xray_vqa.core.records import PairMetadata, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.validation import check_file, check_image

BAG = make_record(categories=["Gun", "Knife"])  # gun upper-left, knife upper-center
FACTS = read_facts(BAG, CATEGORIES)


def pair(question_type, question, answer, short_answer, evidence=(), target="", **changes) -> VQAPair:
    about = {
        "image_id": 0,
        "question_type": question_type,
        "categories": ["Gun", "Knife"],
        "num_categories": 2,
        "generated_by": "llm",
        "evidence": list(evidence),
        "short_answer": short_answer,
        "target": target,
    } | changes
    return VQAPair(image_path=BAG.image_path, question=question, answer=answer, metadata=PairMetadata(**about))


def faults_of(*pairs):
    return [message for _, message in check_image(pairs, FACTS, POLICY)]


TRUE_PAIRS = [
    pair("presence", "Is there a gun?", "Yes, a handgun.", "yes", [0], "Gun"),
    pair("presence", "Is there a hammer?", "No hammer can be seen.", "no", [], "Hammer"),
    pair("listing", "What is prohibited here?", "A pistol and a knife.", "gun, knife", [0, 1]),
    pair("listing", "Which of these: hammer or knife?", "Only the knife.", "knife", [1]),
    pair("location", "Where is the knife?", "In the upper-center.", "upper-center", [1], "Knife"),
    pair("absent", "Where is the syringe?", "There is no syringe.", "none", [], "Injection"),
    pair("identification", "What lies in the upper-left?", "A gun.", "gun", [0]),
    pair("count", "How many knives are there?", "One.", "1", [1], "Knife"),
    pair("count", "How many prohibited items are there?", "There are two.", "2", [0, 1]),
    pair("risk", "How risky is it?", "Critical, because of the gun.", "critical", [0]),
    pair("detailed", "Describe the scan.", "A bag with a gun beside a knife.", "", []),
]  # fmt: skip


def test_true_pairs_pass():
    for one in TRUE_PAIRS:
        assert faults_of(one) == [], one.question
    assert faults_of(*TRUE_PAIRS) == []


@dataclass(frozen=True)
class Wrong:
    pair: VQAPair
    said: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong(pair("presence", "Is there a gun?", "No, there is none.", "no", [], "Gun"), "annotations say 'yes'"),
        Wrong(pair("presence", "Is there a gun?", "No, there is none.", "yes", [0], "Gun"), "does not say 'yes'"),
        Wrong(pair("presence", "Is there a gun?", "Perhaps.", "yes", [0], "Gun"), "does not say 'yes'"),
        Wrong(pair("presence", "Is there a knife?", "Yes.", "yes", [0], "Gun"), "its target is Gun"),
        Wrong(pair("presence", "Is there a gun?", "Yes.", "yes", [1], "Gun"), "evidence is [1]"),
        Wrong(pair("presence", "Is there a gun?", "Yes.", "yes", [7], "Gun"), "not among the 2 annotated items"),
        Wrong(pair("presence", "Is there anything?", "Yes.", "yes", [0]), "needs a target"),
        Wrong(pair("presence", "Is there a gun?", "Yes.", "yes", [0], "Sword"), "is no category"),
        Wrong(pair("listing", "What is prohibited?", "A gun.", "gun", [0]), "annotations say 'gun, knife'"),
        Wrong(pair("listing", "What is prohibited?", "A gun and a hammer.", "gun, knife", [0, 1]), "does not say"),
        Wrong(pair("location", "Where is the knife?", "In the lower-left.", "upper-center", [1], "Knife"), "not say"),
        Wrong(pair("location", "Where is the saw blade?", "There is no blade.", "none", [], "Blade"), "is not there"),
        Wrong(pair("absent", "Where is the hammer?", "In the center.", "none", [], "Hammer"), "does not say 'none'"),
        Wrong(pair("identification", "What lies in the upper-left?", "A knife.", "knife", [1]), "say 'gun'"),
        Wrong(pair("identification", "What lies in the center?", "A gun.", "gun", [0]), "do not tell"),
        Wrong(pair("count", "How many knives are there?", "Two.", "1", [1], "Knife"), "does not say '1'"),
        Wrong(pair("count", "How many guns and knives?", "Two.", "2", [0, 1]), "do not tell"),
        Wrong(pair("risk", "How risky is it?", "Low, it is only a knife.", "low", [1]), "annotations say 'critical'"),
        Wrong(pair("risk", "How risky is it?", "Critical or high.", "critical", [0]), "does not say 'critical'"),
        Wrong(pair("detailed", "Describe it.", "A bag with a hammer.", "", []), "names Hammer"),
        Wrong(pair("general", "What does the annotation say?", "A gun.", "gun", [0]), "question says 'annotation'"),
        Wrong(pair("general", "What is it?", "See its bounding box.", "", []), "answer says 'bounding box'"),
        Wrong(pair("presence", "Is there a gun?", "Yes.", "yes", [0], "Gun", categories=["Gun"]), "metadata names"),
    ],
    ids=lambda wrong: wrong.said,
)
def test_a_planted_fault_is_named(wrong):
    assert any(wrong.said in message for message in faults_of(wrong.pair)), faults_of(wrong.pair)


def test_a_category_that_the_source_does_not_label_cannot_be_denied():
    facts = read_facts(BAG, ("Gun", "Knife"))
    denied = pair("presence", "Is there an explosive?", "No.", "no", [], "Explosive")
    assert "do not tell" in check_image([denied], facts, POLICY)[0][1]


def test_the_same_question_twice_is_a_duplicate():
    first = pair("presence", "Is there a gun?", "Yes.", "yes", [0], "Gun")
    again = pair("presence", "is there a  GUN", "Yes, one.", "yes", [0], "Gun")
    assert any("asks the same" in message for message in faults_of(first, again))


def test_pairs_that_contradict_each_other_are_found_across_types():
    listed = pair("listing", "What is prohibited?", "A gun.", "gun", [0])
    counted = pair("count", "How many knives are there?", "One.", "1", [1], "Knife")
    assert any(
        "contradicts another pair of this image about Knife" in message for message in faults_of(listed, counted)
    )


def test_another_language_is_judged_by_its_short_answer():
    french = pair("presence", "Y a-t-il un pistolet ?", "Oui.", "yes", [0], "Gun", language="fr")
    assert faults_of(french) == []
    assert faults_of(french.model_copy(update={"metadata": french.metadata.model_copy(update={"short_answer": "no"})}))


def test_faults_of_a_file_are_named_by_line(tmp_path):
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / BAG.image_path).write_bytes(b"")
    good = TRUE_PAIRS[0].model_dump_json()
    bad = pair("presence", "Is there a knife?", "No.", "no", [], "Knife").model_dump_json()
    stranger = TRUE_PAIRS[1].model_copy(update={"image_path": "train/images/9.jpg"}).model_dump_json()
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{good}\n\n{{half\n{bad}\n{stranger}\n")
    lines = list(check_file(path, [BAG], CATEGORIES, POLICY, tmp_path))
    faults = [fault for line in lines for fault in line.faults]
    assert [line.pair is None for line in lines] == [True, False, False, False]
    assert {fault.position for fault in faults} == {3, 4, 5}
    assert str(faults[0]).startswith(f"{path}:3: no question-answer pair")
