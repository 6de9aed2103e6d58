"""Images are kept where somebody asked for it, under their content's hash, and no longer than was said."""

import base64
import hashlib
import json

import fsspec
import pytest
from service_kit import SCAN, make_request, metric, service_of, wait_until
from store_kit import records_in

from xray_vqa.cli.main import main
from xray_vqa.serving.store.images import ImageStore

HASH = hashlib.sha256(base64.b64decode(SCAN)).hexdigest()


@pytest.fixture(params=["folder", "memory://scans"])
def images(request, tmp_path):
    store = ImageStore(str(tmp_path / "scans") if request.param == "folder" else request.param)
    yield store
    if request.param != "folder":
        fsspec.filesystem("memory").rm("scans", recursive=True)


def test_an_image_is_kept_once_and_comes_back_unchanged(images: ImageStore):
    for _ in range(2):
        images.put(HASH, b"the bytes")
    assert images.get(HASH) == b"the bytes"
    assert list(images.hashes()) == [HASH]
    images.delete(HASH)
    assert list(images.hashes()) == []
    images.put(HASH, b"the bytes")


def test_a_scans_image_is_kept_under_the_hash_that_its_record_names(open_client, tmp_path):
    client = open_client(image_store=str(tmp_path / "scans"))
    client.post("/api/v1/inspect", json=make_request())
    wait_until(lambda: list(ImageStore(str(tmp_path / "scans")).hashes()) == [HASH])
    assert ImageStore(str(tmp_path / "scans")).get(HASH) == base64.b64decode(SCAN)
    intent = next(row for row in records_in(f"sqlite:///{tmp_path}/audit.sqlite3") if row.kind == "intent")
    assert intent.image_hash == HASH


def test_an_image_that_cannot_be_kept_is_counted_and_its_scan_answered(open_client, tmp_path, caplog):
    (tmp_path / "scans").write_text("a file where the folder should be")
    client = open_client(image_store=str(tmp_path / "scans"))
    assert client.post("/api/v1/inspect", json=make_request()).status_code == 200
    wait_until(lambda: metric(client, "xray_vqa_images_lost_total") == 1)
    assert "is not kept in" in caplog.text


def test_images_that_no_recent_record_names_are_deleted(open_client, tmp_path, monkeypatch, capsys):
    images = ImageStore(str(tmp_path / "scans"))
    client = open_client(image_store=str(tmp_path / "scans"))
    client.post("/api/v1/inspect", json=make_request())
    wait_until(lambda: list(images.hashes()) == [HASH])
    service_of(client).store.close()
    images.put("0" * 64, b"nobody's")
    monkeypatch.setenv("XRAY_VQA_IMAGE_STORE", str(tmp_path / "scans"))
    assert main(["audit", "retain", "--database-url", f"sqlite:///{tmp_path}/audit.sqlite3"]) == 0
    assert json.loads(capsys.readouterr().out) == {"records": 0, "images": 1}
    assert list(images.hashes()) == [HASH]
