import importlib.util
import json

import pytest

from xray_vqa.cli.main import main
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.parquet import ParquetImporter
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import annotated_categories, read_split

pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
pq = pytest.importorskip("pyarrow.parquet")

FEATURES = {
    "image": {"_type": "Image"},
    "objects": {
        "feature": {"bbox": {"_type": "Sequence"}, "category": {"names": ["Gun", "Knife"], "_type": "ClassLabel"}},
        "_type": "Sequence",
    },
}  # fmt: skip


def write(folder, name, rows, features=FEATURES):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    metadata = {b"huggingface": json.dumps({"info": {"features": features}})} if features else None
    pq.write_table(table.replace_schema_metadata(metadata), folder / name)


def read(folder, scratch):
    return ParquetImporter().read(SourceFolder(folder, scratch))


@pytest.fixture
def folder(tmp_path, png):
    def row(seed, boxes, labels):
        return {"image": {"bytes": png(seed), "path": f"{seed}.png"}, "objects": {"bbox": boxes, "category": labels}}

    hub = tmp_path / "hub"
    write(hub, "data/train-00000-of-00001.parquet", [row(1, [[4.0, 4, 20, 10]], [1]), row(2, [], [])])
    write(hub, "data/test-00000-of-00001.parquet", [row(3, [[1.0, 2, 3, 4], [5, 6, 7, 8]], [0, 5])])
    return hub


def test_images_boxes_and_class_names_are_read_and_bytes_stay_as_they_are(folder, tmp_path, png):
    assert find_importer(SourceFolder(folder)).name == "parquet"
    import_source(read(folder, tmp_path / "out/.unpacked"), tmp_path / "out")
    first, clean = read_split(tmp_path / "out", "train").records
    assert (first.categories, first.bboxes, first.sha256) == (["Knife"], [(4, 4, 20, 10)], sha256_bytes(png(1)))
    assert (clean.categories, clean.original_name) == ([], "data/train-00000-of-00001.parquet#1 (2.png)")
    assert (tmp_path / "out/test/images/000000.png").read_bytes() == png(3)
    assert annotated_categories(tmp_path / "out") == ("Gun", "Knife")


def test_a_category_without_a_name_is_kept_under_its_number_and_named(folder, tmp_path):
    source = read(folder, tmp_path / "scratch")
    assert [item.label for item in source.scans[0].items] == ["Gun", "category 5"]
    assert "test-00000-of-00001.parquet:0: category 5 has no name" in str(source.faults[0])


def test_corners_are_told_from_sizes_by_what_fits(tmp_path, png):
    rows = [
        {"image": {"bytes": png(n), "path": None}, "bbox": [[40.0, 30, 60, 44]], "label": ["Gun"]} for n in range(2)
    ]
    write(tmp_path / "hub", "a.parquet", rows, features=None)
    source = read(tmp_path / "hub", tmp_path / "scratch")
    assert [item.box_xywh for scan in source.scans for item in scan.items] == [(40, 30, 20, 14)] * 2
    assert "boxes are taken as two corners: as x, y, width, height 2 would leave" in str(source.notices[0])


def test_fractions_are_told_by_their_size(tmp_path, png):
    write(tmp_path / "hub", "a.parquet", [{"image": png(1), "bbox": [[0.5, 0.25, 0.25, 0.5]], "label": ["Gun"]}], None)
    import_source(read(tmp_path / "hub", tmp_path / "scratch"), tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "train").records
    assert record.bboxes == [(32, 12, 16, 24)]


def test_a_label_of_the_whole_image_and_a_list_of_objects_are_understood(tmp_path, png):
    write(tmp_path / "one", "a.parquet", [{"image": png(1), "label": "Gun"}], None)
    objects = [{"bbox": [1.0, 2.0, 3.0, 4.0], "category": "Knife"}]
    write(tmp_path / "two", "a.parquet", [{"image": png(1), "objects": objects}], None)
    for name, item in (("one", ("Gun", None)), ("two", ("Knife", (1, 2, 3, 4)))):
        source = read(tmp_path / name, tmp_path / "scratch" / name)
        assert [(item.label, item.box_xywh) for item in source.scans[0].items] == [item]


def test_rows_without_a_readable_image_are_named(tmp_path, png):
    rows = [{"image": {"bytes": data, "path": ""}, "label": "Gun"} for data in (b"", b"no image", png(1))]
    write(tmp_path / "hub", "a.parquet", rows, None)
    source = read(tmp_path / "hub", tmp_path / "scratch")
    assert len(source.scans) == 1
    assert "a.parquet:0: row has no image bytes" in str(source.faults[0])
    assert "a.parquet:1: image is left out: the bytes are no image" in str(source.faults[1])


def test_a_table_of_text_is_named(tmp_path):
    write(tmp_path / "hub", "a.parquet", [{"question": "?", "answer": "!"}], None)
    with pytest.raises(Exception, match="no Parquet file with a column of images"):
        read(tmp_path / "hub", tmp_path / "scratch")


def test_an_interrupted_unpacking_goes_on(folder, tmp_path, png):
    read(folder, tmp_path / "scratch")
    image = tmp_path / "scratch/data/train-00000-of-00001/0000000"
    image.write_bytes(image.read_bytes()[:10])
    untouched = tmp_path / "scratch/data/train-00000-of-00001/0000001"
    before = untouched.stat().st_ctime_ns
    read(folder, tmp_path / "scratch")
    assert (image.read_bytes(), untouched.stat().st_ctime_ns) == (png(1), before)


def test_nothing_is_unpacked_into_the_source_or_left_in_a_folder_of_something_else(folder, tmp_path, capsys):
    before = sorted(folder.rglob("*"))
    assert main(["data", "import", str(folder), "--output-dir", str(folder / "out")]) == 2
    assert "lies inside the source" in capsys.readouterr().err
    (tmp_path / "mine/train").mkdir(parents=True)
    assert main(["data", "import", str(folder), "--output-dir", str(tmp_path / "mine")]) == 2
    assert "of unknown origin" in capsys.readouterr().err
    assert (sorted(folder.rglob("*")), list((tmp_path / "mine").iterdir())) == (before, [tmp_path / "mine/train"])


def test_without_the_package_the_command_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "pyarrow" else find_spec(name, *rest)
    )
    assert main(["data", "import", str(folder), "--output-dir", str(tmp_path / "out")]) == 2
    assert "pip install -e '.[parquet]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"objects": {"cls": [1], "where": [[1.0, 2.0, 3.0, 4.0]]}}, "objects have no label, only cls, where"),
        ({"bbox": [[1.0, 2.0, 3.0, 4.0]]}, "object has no label; kept as unlisted"),
        (
            {"verdict": "gun"},
            "has no column of labels or boxes, only image, verdict; nothing of it is taken as annotated",
        ),
    ],
)
def test_columns_that_nobody_knows_never_make_a_clean_bag(tmp_path, png, columns, said):
    write(tmp_path / "hub", "a.parquet", [{"image": png(1), **columns}], FEATURES if "verdict" in columns else None)
    source = read(tmp_path / "hub", tmp_path / "scratch")
    assert any(said in str(fault) for fault in (*source.faults, *source.notices))
    assert all(scan.items for scan in source.scans) or source.labels == ()
