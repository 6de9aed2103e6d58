import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.yolo import YoloImporter, format_line, parse_line
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import annotated_categories, read_split
from xray_vqa.errors import DatasetError


def READ(folder):
    return YoloImporter().read(SourceFolder(folder))


@pytest.fixture
def roboflow(tmp_path, png):
    """What Roboflow exports: train/images, train/labels, data.yaml with names."""
    folder = tmp_path / "robo"
    for number, split in enumerate(("train", "valid")):
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "labels").mkdir()
        (folder / split / "images/a.png").write_bytes(png(number))
    (folder / "train/labels/a.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (folder / "valid/labels/a.txt").write_text("")
    (folder / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['Gun', 'Knife']\n")
    (folder / "README.roboflow.txt").write_text("Exported by a tool\n")
    return folder


def test_a_roboflow_folder_is_recognised_and_its_boxes_are_in_pixels(roboflow, tmp_path):
    folder = SourceFolder(roboflow)
    assert find_importer(folder).name == "yolo"
    report = import_source(YoloImporter().read(folder), tmp_path / "out")
    (train,), (test,) = (read_split(tmp_path / "out", split).records for split in ("train", "test"))
    assert (train.categories, train.bboxes) == (["Knife"], [(24, 12, 16, 24)])
    assert (test.original_name, test.categories) == ("valid/images/a.png", [])
    assert (report.faults, annotated_categories(tmp_path / "out")) == ([], ("Gun", "Knife"))


def test_an_image_without_a_txt_file_is_not_taken_for_a_clean_bag(roboflow, png):
    (roboflow / "train/images/bare.png").write_bytes(png(9))
    source = READ(roboflow)
    assert len(source.scans) == 2
    assert "1 images have no txt file and are left out" in str(source.notices[0])


def test_names_may_be_a_mapping_or_a_list_of_lines(roboflow):
    (roboflow / "data.yaml").write_text("names:\n  0: Gun\n  1: Knife\n")
    assert READ(roboflow).labels == ("Gun", "Knife")
    (roboflow / "data.yaml").unlink()
    (roboflow / "classes.txt").write_text("Gun\nKnife\n")
    assert READ(roboflow).labels == ("Gun", "Knife")


def test_numbers_without_names_are_refused(roboflow):
    (roboflow / "data.yaml").unlink()
    with pytest.raises(DatasetError, match=r"no file says what they mean; put a data\.yaml"):
        READ(roboflow)


def test_two_lists_of_names_that_differ_are_refused(roboflow):
    (roboflow / "classes.txt").write_text("Knife\nGun\n")
    with pytest.raises(DatasetError, match=r"classes\.txt and data\.yaml give different class names"):
        READ(roboflow)


def test_a_class_without_a_name_and_a_line_of_words_are_named(roboflow):
    (roboflow / "train/labels/a.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    (roboflow / "valid/labels/a.txt").write_text("hello world\n")
    source = READ(roboflow)
    lines = "\n".join(map(str, source.faults))
    assert "train/labels/a.txt:0: class 7 is not among the 2 names" in lines
    assert "valid/labels/a.txt:0: line 'hello world' is no YOLO label" in lines
    assert "image valid/images/a.png is left out: what cannot be read of it may be a threat" in lines
    assert [[item.label for item in scan.items] for scan in source.scans] == [["class 7"]]


def test_pixels_instead_of_fractions_lose_the_box_aloud_and_keep_the_label(roboflow):
    (roboflow / "train/labels/a.txt").write_text("0 30 20 16 10\n")
    source = READ(roboflow)
    assert (source.scans[0].items[0].label, source.scans[0].items[0].box_xywh) == ("Gun", None)
    assert "Gun box is not in fractions of the image" in str(source.notices[0])


def test_cameras_in_parallel_trees_are_not_mixed_up(tmp_path, png):
    for number, camera in enumerate(("cam1", "cam2")):
        for kind in ("images", "labels"):
            (tmp_path / kind / camera).mkdir(parents=True)
        (tmp_path / f"images/{camera}/7.png").write_bytes(png(number))
        (tmp_path / f"labels/{camera}/7.txt").write_text(f"{number} 0.5 0.5 0.1 0.1\n")
    (tmp_path / "classes.txt").write_text("Gun\nKnife\n")
    source = READ(tmp_path)
    assert {scan.original_name: scan.items[0].label for scan in source.scans} == {
        "images/cam1/7.png": "Gun", "images/cam2/7.png": "Knife",
    }  # fmt: skip


def test_an_outline_becomes_the_box_around_it():
    number, box = parse_line("3 0.1 0.1 0.5 0.1 0.5 0.3")
    assert number == 3
    assert box == pytest.approx((0.1, 0.1, 0.4, 0.2))


fractions = st.floats(0.01, 0.49)


@given(st.integers(0, 50), fractions, fractions, fractions, fractions)
def test_a_box_that_is_written_is_read_again(number, x, y, w, h):
    again, box = parse_line(format_line(number, (x, y, w, h)))
    assert again == number
    assert box == pytest.approx((x, y, w, h), abs=2e-6)


@given(st.text(max_size=60))
def test_any_line_is_read_or_refused(line):
    try:
        number, box = parse_line(line)
    except ValueError:
        return
    assert isinstance(number, int)
    assert box is None or len(box) == 4
