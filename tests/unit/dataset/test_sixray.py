import pytest

from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.sixray import SixrayImporter
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import annotated_categories, read_split


def READ(folder):
    return SixrayImporter().read(SourceFolder(folder))


def write_list(folder, name, *rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["name,Gun,Knife,Wrench,Pliers,Scissors", *rows]) + "\n")


@pytest.fixture
def folder(voc, png):
    """SIXray's own layout: boxes for some scans, image-level labels for all."""
    source = voc([{"stem": "P1", "boxes": [("Gun", (1, 2, 11, 12))]}])
    for number, name in enumerate(("N1", "P2")):
        (source / f"images/{name}.png").write_bytes(png(10 + number))
    write_list(source, "ImageSet/10/train.csv", "P1,1,-1,-1,-1,-1", "N1,-1,-1,-1,-1,-1")
    write_list(source, "ImageSet/10/test.csv", "P2,-1,1,-1,-1,1")
    return source


def test_boxes_and_image_level_labels_come_together(folder, tmp_path):
    assert find_importer(SourceFolder(folder)).name == "sixray"
    report = import_source(READ(folder), tmp_path / "out")
    train = {r.original_name: (r.categories, r.bboxes) for r in read_split(tmp_path / "out", "train").records}
    (test,) = read_split(tmp_path / "out", "test").records
    assert train == {"images/P1.png": (["Gun"], [(1, 2, 10, 10)]), "images/N1.png": ([], [])}
    assert (test.categories, test.bboxes) == (["Knife", "Scissors"], [None, None])
    assert report.faults == []


def test_the_columns_are_what_is_annotated(folder, tmp_path):
    import_source(READ(folder), tmp_path / "out")
    assert annotated_categories(tmp_path / "out") == ("Gun", "Knife", "Scissors", "Pliers", "Wrench")


def test_an_item_of_the_list_without_a_box_is_kept_without_one(folder):
    write_list(folder, "ImageSet/10/train.csv", "P1,1,1,-1,-1,-1", "N1,-1,-1,-1,-1,-1")
    scan = next(scan for scan in READ(folder).scans if scan.original_name == "images/P1.png")
    assert [(item.label, item.box_xywh) for item in scan.items] == [("Gun", (1, 2, 10, 10)), ("Knife", None)]


def test_a_box_that_the_list_denies_is_kept_and_named(folder):
    write_list(folder, "ImageSet/10/train.csv", "P1,-1,-1,-1,-1,-1")
    source = READ(folder)
    assert [item.label for item in source.scans[0].items] == ["Gun"]
    assert any("the list says that there is no Gun and Annotation/P1.xml draws one" in str(n) for n in source.notices)


def test_the_xmls_file_name_finds_the_row_where_the_file_on_disk_has_another(folder):
    (folder / "images/P1.png").rename(folder / "images/0000.png")
    (folder / "Annotation/P1.xml").rename(folder / "Annotation/0000.xml")
    path = folder / "Annotation/0000.xml"
    path.write_text(path.read_text().replace("other.jpg", "P1.jpg"))
    source = READ(folder)
    assert {scan.original_name: scan.split for scan in source.scans}["images/0000.png"] == "train"
    assert source.faults == ()


def test_an_image_in_several_sets_is_taken_once_and_a_test_scan_stays_one(folder):
    write_list(folder, "ImageSet/100/train.csv", "P2,-1,1,-1,-1,1", "N1,-1,-1,-1,-1,-1")
    source = READ(folder)
    assert {scan.original_name: scan.split for scan in source.scans} == {
        "images/P1.png": "train", "images/N1.png": "train", "images/P2.png": "test",
    }  # fmt: skip
    assert any("2 images stand in a list before" in str(notice) for notice in source.notices)


def test_an_undecided_item_leaves_its_scan_out_by_name(folder):
    write_list(folder, "ImageSet/10/test.csv", "P2,-1,0,-1,-1,1")
    source = READ(folder)
    assert len(source.scans) == 2
    assert "Knife is 0, undecided; left out" in str(source.faults[0])


def test_missing_images_and_broken_rows_are_counted_with_the_first_name(folder):
    write_list(folder, "ImageSet/10/test.csv", "P2,-1,1,-1,-1,1", "X1,1,1,1,1,1", "X2,1,1,1,1,1", "X3,1,1")
    lines = "\n".join(map(str, READ(folder).faults))
    assert "2 images of the list are missing, first X1" in lines
    assert "row 'X3,1,1' does not have 1 or -1 for each item" in lines


def test_a_table_of_ones_and_zeros_is_another_format(folder):
    for path in folder.rglob("*.csv"):
        path.write_text("name,Gun\nP1,1\nN1,0\n")
    assert find_importer(SourceFolder(folder)).name == "voc"
