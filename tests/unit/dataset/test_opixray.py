import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.opixray import OpixrayImporter, parse_line
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import annotated_categories, read_split


def READ(folder):
    return OpixrayImporter().read(SourceFolder(folder))


@pytest.fixture
def folder(tmp_path, png):
    """The authors' layout: {train,test}/{split}_image, {split}_annotation and a list of names."""
    source = tmp_path / "opi"
    for number, split in enumerate(("train", "test")):
        (source / f"{split}/{split}_image").mkdir(parents=True)
        (source / f"{split}/{split}_annotation").mkdir()
        (source / f"{split}/{split}_image/009{number}.png").write_bytes(png(number))
        line = f"009{number}.jpg Folding_Knife 10 5 30 20\n"
        (source / f"{split}/{split}_annotation/009{number}.txt").write_text(line)
        (source / f"{split}/{split}_knife.txt").write_text(f"009{number}\n")
    return source


def test_the_authors_layout_is_recognised_and_split(folder, tmp_path):
    assert find_importer(SourceFolder(folder)).name == "opixray"
    report = import_source(READ(folder), tmp_path / "out")
    (train,), (test,) = (read_split(tmp_path / "out", split).records for split in ("train", "test"))
    assert (train.categories, train.bboxes, train.raw_labels) == (["Knife"], [(10, 5, 20, 15)], ["Folding_Knife"])
    assert (test.original_name, report.faults) == ("test/test_image/0091.png", [])


def test_labels_of_the_data_set_stand_for_all_of_its_classes(folder, tmp_path):
    import_source(READ(folder), tmp_path / "out")
    assert annotated_categories(tmp_path / "out") == ("Knife", "Cutter", "Scissors")


def test_hixray_is_told_by_its_classes(folder):
    for path in folder.rglob("*_annotation/*.txt"):
        path.write_text(f"{path.stem}.jpg Portable_Charger_1 1 2 30 40\n")
    assert "Nonmetallic_Lighter" in READ(folder).labels


def test_other_classes_are_those_that_occur(folder):
    (folder / "train/train_annotation/0090.txt").write_text("0090.jpg Samurai_Sword 1 2 30 40\n")
    source = READ(folder)
    assert source.labels == ("Folding_Knife", "Samurai_Sword")
    assert "no list of categories" in str(source.notices[-1])


def test_a_broken_line_is_named(folder):
    path = folder / "train/train_annotation/0090.txt"
    path.write_text(path.read_text() + "0090.jpg Scissor 1 2\n")
    assert "0090.txt:1: line '0090.jpg Scissor 1 2' is not" in str(READ(folder).faults[0])


@given(st.from_regex(r"[A-Z][a-z]+_[A-Za-z]{1,20}", fullmatch=True), st.tuples(*[st.integers(0, 2000)] * 4))
def test_a_line_that_is_written_is_read_again(label, corners):
    x0, y0, x1, y1 = corners
    assert parse_line(f"scan.jpg {label} {x0} {y0} {x1} {y1}") == (label, (x0, y0, x1 - x0, y1 - y0))
