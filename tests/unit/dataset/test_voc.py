import pytest

from xray_vqa.dataset.importers.source import SourceFolder
from xray_vqa.dataset.importers.voc import VocImporter
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import read_split
from xray_vqa.errors import DatasetError


def READ(folder):
    return VocImporter().read(SourceFolder(folder))


BOMB = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
OUTSIDE = """<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation><filename>x</filename></annotation>"""


def test_the_image_is_the_one_with_the_xmls_own_name(voc):
    folder = voc(
        [
            {"stem": "0001", "folder": "train", "filename": "0002.png", "boxes": [("Gun", (1, 2, 3, 4))]},
            {"stem": "0002", "folder": "test", "filename": "P00001.jpg"},
        ]
    )
    assert [(scan.original_name, len(scan.items)) for scan in READ(folder).scans] == [
        ("train/0001.png", 1), ("test/0002.png", 0),
    ]  # fmt: skip


def test_the_filename_helps_where_no_image_has_the_xmls_name(voc):
    folder = voc([{"stem": "0001", "filename": "scan.png"}])
    (folder / "images/0001.png").rename(folder / "images/scan.png")
    assert [scan.original_name for scan in READ(folder).scans] == ["images/scan.png"]


def test_names_of_owners_and_parts_are_no_labels(voc):
    source = READ(voc([{"stem": "a", "boxes": [("Gun", (1, 2, 3, 4))]}]))
    assert source.labels == ("Gun",)


def test_decimals_are_kept(voc, tmp_path):
    folder = voc([{"stem": "a", "folder": "train", "boxes": [("Knife", (1.731, 2.028, 20.601, 30.824))]}])
    import_source(READ(folder), tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "train").records
    assert record.bboxes == [(1.731, 2.028, 18.87, 28.796)]


def test_folders_name_the_splits(voc):
    folder = voc([{"stem": word, "folder": word} for word in ("train", "val", "test", "images")])
    assert {scan.image_path.stem: scan.split for scan in READ(folder).scans} == {
        "train": "train", "val": "val", "test": "test", "images": "",
    }  # fmt: skip


def test_image_sets_name_the_splits_and_test_wins(voc):
    folder = voc([{"stem": stem} for stem in "abc"])
    sets = folder / "ImageSets/Main"
    sets.mkdir(parents=True)
    (sets / "trainval.txt").write_text("a\nb\n")
    (sets / "test.txt").write_text("b\n")
    (sets / "Gun_test.txt").write_text("a -1\n")
    assert {scan.image_path.stem: scan.split for scan in READ(folder).scans} == {"a": "train", "b": "test", "c": ""}


@pytest.mark.parametrize("text", [BOMB, OUTSIDE, BOMB.encode("utf-16").decode("latin-1")])
def test_entities_are_refused_and_not_expanded(voc, text):
    folder = voc([{"stem": "good"}, {"stem": "bad"}])
    data = text.encode("latin-1")
    (folder / "Annotation/bad.xml").write_bytes(data)
    source = READ(folder)
    assert [scan.image_path.stem for scan in source.scans] == ["good"]
    assert "bad.xml: has a DOCTYPE" in str(source.faults[0])


@pytest.mark.parametrize("text", ["<annotation><object>", "", "no xml at all"])
def test_broken_xml_is_named_and_the_rest_is_read(voc, text):
    folder = voc([{"stem": "good"}, {"stem": "bad"}])
    (folder / "Annotation/bad.xml").write_text(text)
    source = READ(folder)
    assert len(source.scans) == 1
    assert "bad.xml: is not XML" in str(source.faults[0])


def test_a_box_without_numbers_keeps_its_label(voc):
    folder = voc([{"stem": "a", "boxes": [("Gun", (1, 2, "wide", 4)), ("Knife", (1, 2, 3, 4))]}])
    source = READ(folder)
    assert [(item.label, item.box_xywh) for item in source.scans[0].items] == [("Gun", None), ("Knife", (1, 2, 2, 2))]
    assert "a.xml:0: Gun has no box with four numbers" in str(source.notices[0])


def test_an_xml_without_its_image_is_a_fault(voc):
    folder = voc([{"stem": "a"}, {"stem": "b"}])
    (folder / "images/b.png").unlink()
    assert [str(fault).rpartition("/")[2] for fault in READ(folder).faults] == ["b.xml: its image is missing"]


def test_an_image_without_xml_is_not_taken_for_a_clean_bag(voc, png):
    folder = voc([{"stem": "a"}])
    (folder / "images/bare.png").write_bytes(png(9))
    source = READ(folder)
    assert len(source.scans) == 1
    assert "1 images have no XML and are left out" in str(source.notices[0])


def test_other_xml_is_left_aside_by_name(voc):
    folder = voc([{"stem": "a"}])
    (folder / "settings.xml").write_text("<project/>")
    assert any("settings.xml: is no VOC annotation but <project>" in str(n) for n in READ(folder).notices)


def test_a_folder_without_voc_is_said_to_have_none(tmp_path):
    with pytest.raises(DatasetError, match="no VOC file"):
        READ(tmp_path)
