"""What a folder from outside may hold: links, strange names, other files, very many of them."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.dataset.importers import FORMATS, SourceFolder, find_importer, open_folder, read_source
from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES, box_around, top_keys
from xray_vqa.errors import ConfigError, DatasetError


@pytest.fixture
def folder(coco) -> Path:
    return coco([{"name": "a.png", "split": "train"}, {"name": "b.png", "split": "train"}])


def test_links_out_of_the_folder_are_counted_and_not_followed(folder, tmp_path, png):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/s.png").write_bytes(png(7))
    (folder / "images/b.png").unlink()
    (folder / "images/b.png").symlink_to(tmp_path / "secret/s.png")
    (folder / "more").symlink_to(tmp_path / "secret")
    opened = open_folder(folder)
    source = read_source(opened, FORMATS["coco"])
    assert [scan.original_name for scan in source.scans] == ["images/a.png"]
    assert "2 symbolic links lead out of the folder" in str(source.faults[0])
    assert "image 'b.png' is missing" in str(source.faults[1])


def test_a_link_to_a_file_within_the_folder_is_that_file(folder):
    (folder / "images/b.png").rename(folder / "kept.png")
    (folder / "images/b.png").symlink_to("../kept.png")
    assert len(read_source(open_folder(folder), FORMATS["coco"]).scans) == 2


def test_names_that_are_not_utf8_are_counted_and_the_rest_is_read(folder, png):
    Path(os.fsdecode(os.fsencode(folder) + b"/images/\xff\xe9.png")).write_bytes(png(9))
    source = read_source(open_folder(folder), FORMATS["coco"])
    assert len(source.scans) == 2
    (fault,) = source.faults
    assert "1 names are not UTF-8; rename the files, first" in str(fault)
    str(fault).encode()  # can be printed


def test_a_folder_of_unknown_files_is_described(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png(1))
    for name in ("a.mat", "b.mat", "list.xlsx"):
        (tmp_path / name).write_bytes(b"?")
    with pytest.raises(ConfigError, match=r"holds 2 \.mat, 1 \.png, 1 \.xlsx\. Known are .*--format images takes"):
        find_importer(SourceFolder(tmp_path))


def test_several_formats_in_one_folder_are_named(folder, png):
    (folder / "images/a.json").write_text(json.dumps({"shapes": [], "imagePath": "a.png"}))
    with pytest.raises(
        ConfigError, match="coco and labelme annotations; choose one with --format, or import them apart"
    ):
        find_importer(SourceFolder(folder))


def test_images_alone_are_imported_as_knowing_nothing(tmp_path, png):
    for name in ("gun/a.png", "normal/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(png(ord(name[0])))
    (tmp_path / "README.md").write_text("scans")
    folder = SourceFolder(tmp_path)
    assert find_importer(folder).name == "images"
    source = FORMATS["images"].read(folder)
    assert (source.labels, [scan.items for scan in source.scans]) == ((), [(), ()])
    assert "the names of 2 folders (gun, normal) are not taken as labels" in str(source.notices[1])


def test_folder_names_become_labels_when_the_user_says_so(tmp_path, png):
    for name in ("train/Gun/a.png", "train/normal/b.png", "test/Knife/images/c.png", "test/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(ord(name[-5])))
    source = FORMATS["class-folders"].read(SourceFolder(tmp_path))
    assert {scan.original_name: (scan.items[0].label, scan.split) for scan in source.scans} == {
        "train/Gun/a.png": ("Gun", "train"), "train/normal/b.png": ("normal", "train"),
        "test/Knife/images/c.png": ("Knife", "test"),
    }  # fmt: skip
    assert source.labels == ("Knife", "Gun")
    assert "d.png: lies in no folder that is named like an item" in str(source.faults[0])


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_that_an_empty_folder_holds_nothing_of_it(name, tmp_path):
    folder = SourceFolder(tmp_path)
    assert not FORMATS[name].recognises(folder)
    with pytest.raises(DatasetError):
        FORMATS[name].read(folder)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_junk_without_falling_over(name, tmp_path, png):
    """Whatever the bytes are, the answer is a fault, a notice or DatasetError."""
    junk = [b"", b"\0" * 200, b"{", b"[]", b"{}", b'{"objects": 3, "shapes": {}, "images": 1}', b"\xff\xfe\xff",
            b"<annotation>", b"filename,region_shape_attributes\nx", b"name,Gun\na,-1\n", b"0 0.5 0.5 nan 1",
            b"PAR1junkPAR1", b"\0" * 128 + b"DICM" + b"\1" * 90, b"names: [Gun", b"x Gun 1 2 3 4"]  # fmt: skip
    for number, data in enumerate(junk):
        for suffix in (".json", ".xml", ".csv", ".txt", ".yaml", ".parquet", ".dcm", ".png"):
            (tmp_path / f"{number}{suffix}").write_bytes(data)
    folder = SourceFolder(tmp_path, tmp_path / "scratch")
    FORMATS[name].recognises(folder)
    try:
        source = FORMATS[name].read(folder)
    except DatasetError:
        return
    assert all(str(fault).startswith(str(tmp_path)) for fault in source.faults)


def test_a_folder_with_very_many_files_is_looked_through_in_linear_time(tmp_path):
    def lines_run(count: int) -> int:
        root = tmp_path / str(count)
        for part in ("images", "labels"):
            (root / part).mkdir(parents=True)
        (root / "classes.txt").write_text("Gun\n")
        for number in range(count):
            (root / f"images/{number}.png").touch()
            (root / f"labels/{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        lines = 0

        def trace(frame, event, argument):
            nonlocal lines
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            folder = SourceFolder(root)
            assert find_importer(folder).name == "yolo"
            assert len(FORMATS["yolo"].read(folder).scans) == count
        finally:
            sys.settrace(before)
        return lines

    lines_run(10)  # what is made once
    assert lines_run(800) < 4.5 * lines_run(200)


def test_the_same_folder_names_a_hundred_times_are_not_searched_a_hundred_times_each(tmp_path):
    for number in range(100):
        (tmp_path / f"cam{number}/images").mkdir(parents=True)
        (tmp_path / f"cam{number}/images/0.png").touch()
    finder = SourceFolder(tmp_path).images
    assert finder.with_stem("0", "cam7/labels/0.txt") == ["cam7/images/0.png"]
    assert finder.named("0.png", "cam7/labels/x.json") == ["cam7/images/0.png"]
    assert finder.named("../cam8/images/0.png", "cam7/labels/x.json") == ["cam7/images/0.png"]


def test_image_suffixes_are_in_lower_case():
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6), st.booleans())
def test_the_keys_of_a_long_object_are_found_as_those_of_a_short_one(tmp_path_factory, value, indented):
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(value, indent=1 if indented else None, ensure_ascii=False))
    keys, is_whole = top_keys(path)
    assert (keys, is_whole) == (frozenset(value), True)
    path.write_text(json.dumps(value | {"filler": "x" * 70_000}))
    assert top_keys(path)[0] - {"filler"} == {json.dumps(key)[1:-1] for key in value if key != "filler"}


@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=2, max_size=9))
def test_the_box_around_points_holds_all_of_them(points):
    x, y, w, h = box_around(points)
    assert all(x - 1e-5 <= px <= x + w + 1e-5 and y - 1e-5 <= py <= y + h + 1e-5 for px, py in points)


@pytest.mark.parametrize("points", [None, 3, [[1, 2]], [[1, 2], [3]], [["a", 1], [2, 3]], [[0, 0], [float("nan"), 1]]])
def test_what_is_no_list_of_points_has_no_box(points):
    assert box_around(points) is None
