"""What is exported and imported again is the same."""

import json

import pytest

from xray_vqa.cli.main import main
from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, read_manifest, write_manifest
from xray_vqa.core.records import SPLITS, PairMetadata, VQAPair, compact
from xray_vqa.dataset.exporters import EXPORTERS, find_exporter
from xray_vqa.dataset.exporters.parquet import ParquetExporter
from xray_vqa.dataset.importers import FORMATS, SourceFolder
from xray_vqa.dataset.importing import ImportOptions, import_source
from xray_vqa.dataset.layout import annotated_categories, read_split
from xray_vqa.errors import ConfigError, DatasetError

BOX = [4, 4, 20, 10]


@pytest.fixture
def dataset(coco, tmp_path):
    folder = coco(
        [
            {
                "name": "a.png",
                "split": "train",
                "group": "bag-1",
                "boxes": [("Pistol", BOX), ("Baton", [1, 2, 3.5, 4])],
            },
            {"name": "b.png", "split": "train", "group": "bag-1"},
            {"name": "c.png", "split": "test", "boxes": [("Pistol", None)]},
        ],
        labels=("Pistol", "Baton"),
    )
    import_source(FORMATS["coco"].read(SourceFolder(folder)), tmp_path / "out", ImportOptions(licence="research only"))
    return tmp_path / "out"


def facts(root):
    return {
        split: [
            (r.categories, r.bboxes, r.raw_labels, r.group, r.sha256, r.size_wh)
            for r in read_split(root, split).records
        ]
        for split in SPLITS
    }


def run(*words):
    return main([str(word) for word in words])


def test_parquet_comes_back_the_same(dataset, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    assert run("data", "export", dataset, "--format", "parquet", "--output", tmp_path / "hub") == 0
    assert sorted(path.name for path in (tmp_path / "hub/data").iterdir()) == [
        "test-00000-of-00001.parquet", "train-00000-of-00001.parquet",
    ]  # fmt: skip
    assert run("data", "import", tmp_path / "hub", "--output-dir", tmp_path / "again") == 0
    assert facts(tmp_path / "again") == facts(dataset)
    assert annotated_categories(tmp_path / "again") == annotated_categories(dataset)
    for split in SPLITS:
        for old, new in zip(*(read_split(root, split).records for root in (dataset, tmp_path / "again")), strict=True):
            assert (new.original_name, new.licence) == (old.original_name, old.licence)
            assert (tmp_path / "again" / new.image_path).read_bytes() == (dataset / old.image_path).read_bytes()
    assert not (tmp_path / "again/.unpacked").exists()


def test_many_scans_go_to_several_files_and_a_smaller_export_removes_the_others(dataset, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    assert len(ParquetExporter(shard_bytes=10_000).write(dataset, tmp_path / "hub").paths) == 3
    ParquetExporter().write(dataset, tmp_path / "hub")
    assert len(list((tmp_path / "hub/data").iterdir())) == 2


def test_a_scan_whose_bytes_have_changed_is_not_exported(dataset, tmp_path, capsys):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    (dataset / "train/images/000000.png").write_bytes((dataset / "train/images/000001.png").read_bytes())
    (dataset / "test/images/000000.png").unlink()
    assert run("data", "export", dataset, "--format", "parquet", "--output", tmp_path / "hub") == 1
    said = capsys.readouterr().err
    assert "000000.png: has other bytes than its record says; left out" in said
    assert "test/images/000000.png: cannot be read" in said


def test_coco_comes_back_the_same(dataset, tmp_path):
    assert run("data", "export", dataset, "--format", "coco", "--output", tmp_path / "coco") == 0
    assert run("data", "import", tmp_path / "coco", "--format", "coco", "--output-dir", tmp_path / "again") == 0
    before, after = facts(dataset), facts(tmp_path / "again")
    assert [(row[1], row[3], row[4]) for row in after["train"]] == [(row[1], row[3], row[4]) for row in before["train"]]
    assert after["train"][0][0] == ["Gun", "UNLISTED"]
    content = json.loads((tmp_path / "coco/test/instances.json").read_text())
    assert content["images"][0]["image_level"] == ["Gun"]  # COCO has no item without a box


def test_coco_goes_beside_the_images_by_default(dataset, capsys):
    assert run("data", "export", dataset, "--format", "coco", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"train": 2, "test": 1}
    assert (dataset / "train/instances.json").is_file()
    assert run("data", "verify", dataset) == 0


@pytest.fixture
def pairs(tmp_path):
    made = [
        VQAPair(
            image_path=f"train/images/{number:06d}.png", question=f"Is there a {word}?", answer="Ja – “no”.",
            metadata=PairMetadata(image_id=number, question_type="presence", generated_by="template"),
        )
        for number, word in enumerate(("gun", "knife", "gun"))
    ]  # fmt: skip
    path = tmp_path / "pairs/train.jsonl"
    write_jsonl(path, map(compact, made))
    write_manifest(path, make_manifest("generate", dataset_root="../out", split="train"))
    return path, made


def test_llava_json_says_what_the_pairs_say(pairs, tmp_path):
    path, made = pairs
    assert run("data", "export", path, "--format", "llava", "--output", tmp_path / "deep/er/llava.json") == 0
    again = [
        (
            entry["image"],
            entry["conversations"][0]["value"].removeprefix("<image>\n"),
            entry["conversations"][1]["value"],
        )
        for entry in json.loads((tmp_path / "deep/er/llava.json").read_text())
    ]
    assert again == [(pair.image_path, pair.question, pair.answer) for pair in made]
    manifest = read_manifest(tmp_path / "deep/er/llava.json")
    assert (manifest.dataset_root, manifest.split, manifest.counts) == ("../../out", "train", {"pairs": 3})


def test_messages_say_what_the_pairs_say(pairs, tmp_path):
    path, made = pairs
    assert run("data", "export", path, "--format", "messages", "--output", tmp_path / "chat.jsonl") == 0
    again = []
    for line in (tmp_path / "chat.jsonl").read_text().splitlines():
        user, assistant = json.loads(line)["messages"]
        image, text = user["content"]
        again.append((image["image"], text["text"], assistant["content"][0]["text"]))
    assert again == [(pair.image_path, pair.question, pair.answer) for pair in made]


def test_lines_that_are_no_pairs_are_named_and_the_rest_is_exported(pairs, tmp_path, capsys):
    path, _ = pairs
    path.write_text(path.read_text() + "{}\n")
    assert run("data", "export", path, "--format", "llava", "--output", tmp_path / "llava.json") == 1
    assert "train.jsonl:4: image_path: Field required" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "llava.json").read_text())) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{out}", "--format", "tfrecord", "--output", "x"], "there are coco, llava, messages, parquet, webdataset"),
        (["{out}", "--format", "parquet"], "--output is missing"),
        (["{out}", "--format", "llava", "--output", "{out}/x.json"], "takes a file of pairs"),
        (["{pairs}", "--format", "coco"], "is no folder; coco takes a dataset folder"),
        (["{out}", "--format", "coco", "--output", "{out}"], "is the source itself"),
        (["{out}", "--format", "coco", "--shard-mb", "5"], "coco writes no shards"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_2_and_says_why(dataset, pairs, capsys, words, said):
    assert run("data", "export", *(word.format(out=dataset, pairs=pairs[0]) for word in words)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_exporter_says_that_there_is_nothing_to_export(name, tmp_path):
    exporter = find_exporter(name)
    source = tmp_path / "empty"
    if exporter.takes == "pairs":
        source.touch()
    else:
        source.mkdir()
    with pytest.raises((DatasetError, ConfigError), match="empty"):
        exporter.write(source, tmp_path / "target")
