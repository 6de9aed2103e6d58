from pathlib import Path

import pytest
from pydantic import ValidationError

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import Annotation, Fault, PairMetadata, ScanRecord, VQAPair, compact

SCAN = {
    "image_id": 3, "image_filename": "000003.jpg", "image_path": "train/images/000003.jpg", "width": 100, "height": 80,
    "categories": ["Gun", "UNLISTED", "Knife", "Gun"], "bboxes": [[90, 10, 20, 10], [1, 1, 5, 5], None, [5, 5, 10, 10]],
}  # fmt: skip


def make_scan(**values) -> ScanRecord:
    return ScanRecord.model_validate(SCAN | values)


def test_annotations_are_the_known_items_with_boxes_inside_the_image():
    assert make_scan().annotations == (
        Annotation("Gun", Box(90, 10, 10, 10)),
        Annotation("Knife", None),
        Annotation("Gun", Box(5, 5, 10, 10)),
    )


def test_present_names_each_category_once_and_nothing_unlisted():
    assert make_scan().present == {"Gun", "Knife"}
    assert make_scan(categories=[], bboxes=[]).present == frozenset()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bboxes": [None]}, "4 categories but 1 bboxes"),
        ({"categories": ["Gun", "pistol", "Knife", "Gun"]}, r"unknown categories \['pistol'\]"),
        ({"width": 0}, "greater than 0"),
        ({"image_id": -1}, "greater than or equal to 0"),
        ({"bboxes": [[1, 2, 3], None, None, None]}, "Field required"),
        ({"bbox": []}, "Extra inputs are not permitted"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(values, said):
    with pytest.raises(ValidationError, match=said):
        make_scan(**values)


def test_box_faults_name_boxes_outside_and_without_area():
    boxes = [[90, 10, 20, 10], [10, 10, 0, 5], None, [-0.9, 0, 101.8, 80]]
    assert make_scan(bboxes=boxes).box_faults() == [
        "Gun box [90.0, 10.0, 20.0, 10.0] lies outside the 100x80 image",
        "UNLISTED box [10.0, 10.0, 0.0, 5.0] has no area",
    ]


@pytest.mark.parametrize("values", [[10, 10, 0, 5], [10, 10, 5, -2], [float("nan"), 1, 5, 5], [1, 1, float("inf"), 5]])
def test_a_box_that_is_none_is_a_fault_and_its_item_stays(values):
    scan = make_scan(categories=["Gun"], bboxes=[values])
    assert scan.annotations == (Annotation("Gun", None),)
    assert len(scan.box_faults()) == 1


def test_records_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        make_scan().width = 5  # pyright: ignore[reportAttributeAccessIssue]


def test_compact_leaves_unused_keys_out_and_keeps_null_boxes():
    written = compact(make_scan(factors={"clutter_level": 2}))
    assert "masks" not in written
    assert written["bboxes"][2] is None
    assert written["factors"] == {"clutter_level": 2}
    assert ScanRecord.model_validate(written) == make_scan(factors={"clutter_level": 2})


def test_a_fault_says_where_it_is():
    assert str(Fault(Path("a.json"), "is broken", 7)) == "a.json:7: is broken"
    assert str(Fault(Path("a.json"), "is broken")) == "a.json: is broken"


def make_pair(**values) -> VQAPair:
    metadata = PairMetadata(image_id=1, question_type=values.pop("question_type", "presence"), generated_by="template")
    return VQAPair(**{"image_path": "a.jpg", "question": "Gun?", "answer": "No.", "metadata": metadata} | values)


def test_a_pair_has_a_known_question_type():
    assert make_pair(question_type="absent").metadata.question_type == "absent"
    with pytest.raises(ValidationError, match="'presense' is none of general"):
        make_pair(question_type="presense")


@pytest.mark.parametrize("key", ["question", "answer"])
def test_a_pair_without_words_is_refused(key):
    with pytest.raises(ValidationError, match="at least 1 character"):
        make_pair(**{key: ""})
