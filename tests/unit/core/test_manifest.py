import hashlib
import sys

import pytest

from xray_vqa.core.jsonl import write_json
from xray_vqa.core.manifest import (
    make_manifest,
    manifest_path,
    read_manifest,
    sha256_bytes,
    sha256_file,
    write_manifest,
)
from xray_vqa.errors import DatasetError


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    manifest = make_manifest("import", seed=7, counts={"train": 3}, annotated_categories=["Gun"], cost_usd=0.0)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_it_says_command_time_and_machine(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/xray-vqa", "data", "verify"])
    manifest = make_manifest("import")
    assert manifest.command == ["xray-vqa", "data", "verify"]
    assert manifest.created.endswith("+00:00")
    assert set(manifest.environment) == {"python", "platform"}


def test_a_folders_manifest_stands_inside_and_a_files_beside(tmp_path):
    assert manifest_path(tmp_path) == tmp_path / "manifest.json"
    assert manifest_path(tmp_path / "pairs.jsonl") == tmp_path / "pairs.jsonl.manifest.json"
    write_manifest(tmp_path / "pairs.jsonl", make_manifest("generate", split="test"))
    assert read_manifest(tmp_path / "pairs.jsonl").split == "test"


def test_naming_no_category_is_kept_apart_from_not_naming_any(tmp_path):
    write_manifest(tmp_path, make_manifest("import", annotated_categories=[]))
    assert read_manifest(tmp_path).annotated_categories == []
    write_manifest(tmp_path, make_manifest("import"))
    assert read_manifest(tmp_path).annotated_categories is None


@pytest.mark.parametrize(
    ("value", "said"), [([], "not a manifest"), ({"stage": "x"}, "Field required"), ("x", "not a manifest")]
)
def test_what_is_no_manifest_is_named(tmp_path, value, said):
    write_json(tmp_path / "manifest.json", value)
    with pytest.raises(DatasetError, match=said) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path / "manifest.json") in str(caught.value)


def test_a_manifest_with_an_unknown_key_is_refused(tmp_path):
    write_json(tmp_path / "manifest.json", make_manifest("import").model_dump() | {"anotated_categories": ["Gun"]})
    with pytest.raises(DatasetError, match="anotated_categories: Extra inputs"):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"manifest\.json: no such file"):
        read_manifest(tmp_path)


def test_digests_of_bytes_and_files_agree(tmp_path):
    data = b"scan" * 100_000
    (tmp_path / "a.png").write_bytes(data)
    assert sha256_file(tmp_path / "a.png") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    with pytest.raises(DatasetError, match=r"b\.png: cannot be read"):
        sha256_file(tmp_path / "b.png")


def test_a_password_in_the_command_is_not_kept(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["xray-vqa", "data", "import", "https://me:secret@host/a.tar?X-Signature=abc"])
    assert make_manifest("import").command == ["xray-vqa", "data", "import", "https://host/a.tar?..."]
