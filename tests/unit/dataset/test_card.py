import hashlib
import json

import pytest

from xray_vqa.cli.main import main
from xray_vqa.dataset.card import write_card
from xray_vqa.dataset.importers import FORMATS, SourceFolder
from xray_vqa.dataset.importing import ImportOptions, import_source
from xray_vqa.errors import DatasetError


@pytest.fixture
def root(coco, tmp_path):
    scans = [
        {"name": "a.png", "split": "train", "group": "bag-1", "boxes": [("Gun", [4, 4, 20, 10])] * 2},
        {"name": "b.png", "split": "train", "group": "bag-2"},
        {"name": "c.png", "split": "test", "group": "bag-3", "boxes": [("Knife", [4, 4, 20, 10])]},
    ]
    options = ImportOptions(licence="CC-BY | 4.0", source_name="gate-4")
    import_source(FORMATS["coco"].read(SourceFolder(coco(scans))), tmp_path / "mine", options)
    return tmp_path / "mine"


def test_the_card_tells_counts_terms_sources_and_what_is_not_annotated(root):
    write_card(root)
    card = (root / "DATASET_CARD.md").read_text()
    for line in (
        "# mine",
        "3 X-ray scans of bags, annotated for 2 categories of items.",
        "| scans | 2 | 1 |",
        "| without an item | 1 | 0 |",
        "| Gun | 2 | 0 | yes |",
        "| Knife | 0 | 1 | yes |",
        "| width | 64 | 64 | 64 |",
        "| CC-BY \\| 4.0 | 3 |",
        "| gate-4 | 3 |",
    ):
        assert line in card.splitlines()
    assert "The source says nothing of Explosive, 3D Gun" in card


def test_the_checksums_are_those_of_the_files(root):
    write_card(root)
    lines = [line.split("  ") for line in (root / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {
        "manifest.json", "train/annotations.json", "test/annotations.json",
        "train/images/000000.png", "train/images/000001.png", "test/images/000000.png",
    }  # fmt: skip
    for digest, name in lines:
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest


def test_croissant_has_what_the_specification_demands(root):
    write_card(root, licence="https://example.org/terms", url="https://example.org/mine")
    about = json.loads((root / "croissant.json").read_text())
    assert about["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert {"@context", "@type", "name", "description", "license", "url", "creator", "datePublished"} <= about.keys()
    assert about["license"] == "https://example.org/terms"
    files = {part["@id"]: part for part in about["distribution"]}
    assert (
        files["train/annotations.json"]["sha256"]
        == hashlib.sha256((root / "train/annotations.json").read_bytes()).hexdigest()
    )
    assert files["train-images.png"]["includes"] == "train/images/*.png"
    for records in about["recordSet"]:
        for field in records["field"]:
            assert field["source"]["fileObject"]["@id"] in files
            assert field["@id"].startswith(f"{records['@id']}/")


def test_the_croissant_file_is_read_by_its_own_library(root):
    croissant = pytest.importorskip("mlcroissant", reason="needs mlcroissant (pip install mlcroissant)")
    write_card(root)
    dataset = croissant.Dataset(str(root / "croissant.json"))
    assert not dataset.metadata.issues.errors
    rows = list(dataset.records("train"))
    assert [row["train/categories"] for row in rows] == [[b"Gun", b"Gun"], []]


def test_the_command_says_that_no_licence_is_named(coco, tmp_path, capsys):
    source = FORMATS["coco"].read(SourceFolder(coco([{"name": "a.png", "split": "train"}])))
    import_source(source, tmp_path / "mine")
    assert main(["data", "card", str(tmp_path / "mine"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["name"] == "mine"
    assert "1 scans name no licence" in said.err


def test_a_dataset_with_faults_gets_no_card(root):
    path = root / "train/annotations.json"
    entries = json.loads(path.read_text())
    entries[0]["width"] = 0
    path.write_text(json.dumps(entries))
    with pytest.raises(DatasetError, match="names every fault"):
        write_card(root)
