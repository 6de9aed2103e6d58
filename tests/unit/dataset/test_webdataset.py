"""Tar shards: what is exported comes back the same, and shards of others are read as far as they say something."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xray_vqa.cli.main import main
from xray_vqa.core.manifest import make_manifest, sha256_bytes, write_manifest
from xray_vqa.core.records import SPLITS, ScanRecord
from xray_vqa.dataset.exporters.webdataset import WebDatasetExporter
from xray_vqa.dataset.importers import SourceFolder, find_importer
from xray_vqa.dataset.importers.webdataset import MARK_NAME, WebDatasetImporter, read_mark
from xray_vqa.dataset.importing import import_source
from xray_vqa.dataset.layout import annotated_categories, read_split, write_split
from xray_vqa.errors import ConfigError, DatasetError


@pytest.fixture
def dataset(tmp_path, png):
    """A dataset in which every field of a record is used."""
    root = tmp_path / "mine"
    for split, count in (("train", 5), ("test", 2)):
        (root / split / "images").mkdir(parents=True)
        records = []
        for number in range(count):
            data = png(len(split) * 100 + number)
            name = f"{number:06d}.png"
            (root / split / "images" / name).write_bytes(data)
            items = number % 3
            records.append(
                ScanRecord(
                    image_id=number,
                    image_filename=name,
                    image_path=f"{split}/images/{name}",
                    width=64,
                    height=48,
                    sha256=sha256_bytes(data),
                    caption=f"Koffer – {number}",
                    categories=["Gun", "UNLISTED"][:items],
                    bboxes=[(4.5, 4, 20, 10.25), None][:items],
                    group=f"{split}-bag",
                    source="synth/x@3",
                    licence="own",
                    masks=[{"size": [48, 64], "counts": [5, 3067]}, None][:items] or None,
                    occlusion=[0.25, 0.5][:items] or None,
                    factors={"view": number, "b": [1, None]},
                    co_items=["laptop"],
                    declared_items=["shoes"],
                    views=["top"],
                    raw_labels=["Glock", "Baton"][:items] or None,
                    original_name=f"{split}/ü {number}.png",
                )
            )  # fmt: skip
        write_split(root, split, records)
    write_manifest(root, make_manifest("synth", annotated_categories=["Gun", "Knife"]))
    return root


def run(*words):
    return main([str(word) for word in words])


def names_in(path):
    with tarfile.open(path) as tar:
        return tar.getnames()


def read(folder, scratch):
    return WebDatasetImporter().read(SourceFolder(folder, scratch))


def write_tar(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in entries:
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def said(source):
    return [fault.message for fault in (*source.faults, *source.notices)]


# --- our own ---------------------------------------------------------------------------------------------------------


def test_every_field_of_every_record_and_every_image_byte_comes_back(dataset, tmp_path):
    assert run("data", "export", dataset, "--format", "webdataset", "--output", tmp_path / "w", "--shard-scans", 2) == 0
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [
        "manifest.json", "test-000000.tar", "train-000000.tar", "train-000001.tar", "train-000002.tar",
    ]  # fmt: skip
    assert names_in(tmp_path / "w/train-000001.tar") == [
        MARK_NAME, "train-000002.png", "train-000002.json", "train-000003.png", "train-000003.json",
    ]  # fmt: skip
    assert run("data", "import", tmp_path / "w", "--output-dir", tmp_path / "again") == 0
    for split in SPLITS:
        old, new = read_split(dataset, split).records, read_split(tmp_path / "again", split).records
        assert new == old
        for record in old:
            assert (tmp_path / "again" / record.image_path).read_bytes() == (dataset / record.image_path).read_bytes()
    assert annotated_categories(tmp_path / "again") == ("Gun", "Knife")
    assert not (tmp_path / "again/.unpacked").exists()


def test_shards_are_the_same_bytes_whenever_they_are_written(dataset, tmp_path):
    WebDatasetExporter(shard_bytes=20_000).write(dataset, tmp_path / "a")
    os.utime(dataset / "train/images/000000.png", (1, 1))
    WebDatasetExporter(shard_bytes=20_000).write(dataset, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").glob("*.tar"))
    assert len(names) == 4
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    with tarfile.open(tmp_path / "a/train-000000.tar") as tar:
        assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) for e in tar} == {(0, 0, 0, "", "", 0o644)}


def test_whole_shards_are_kept_and_others_are_written_again(dataset, tmp_path):
    exporter = WebDatasetExporter(shard_scans=2)
    exporter.write(dataset, tmp_path / "w")
    paths = sorted((tmp_path / "w").glob("*.tar"))
    wanted = {path: path.read_bytes() for path in paths}
    before = {path: path.stat().st_ino for path in paths}
    paths[0].unlink()
    paths[2].write_bytes(wanted[paths[2]][:5000])
    exporter.write(dataset, tmp_path / "w")
    assert {path: path.read_bytes() for path in paths} == wanted
    assert [path.stat().st_ino == before[path] for path in paths[1:]] == [True, False, True]


def test_a_changed_record_changes_its_shard_and_a_smaller_export_removes_the_rest(dataset, tmp_path):
    WebDatasetExporter(shard_scans=2).write(dataset, tmp_path / "w")
    old = (tmp_path / "w/train-000000.tar").read_bytes()
    records = [record.model_copy(update={"caption": "other"}) for record in read_split(dataset, "train").records]
    write_split(dataset, "train", records[:2])
    WebDatasetExporter(shard_scans=2).write(dataset, tmp_path / "w")
    assert (tmp_path / "w/train-000000.tar").read_bytes() != old
    assert sorted(p.name for p in (tmp_path / "w").glob("*.tar")) == ["test-000000.tar", "train-000000.tar"]


def test_an_export_that_is_killed_goes_on_and_ends_in_the_same_bytes(dataset, tmp_path):
    records = read_split(dataset, "train").records
    write_split(dataset, "train", records * 400)
    words = ["data", "export", str(dataset), "--format", "webdataset", "--shard-scans", "100", "--output"]
    assert run(*words, tmp_path / "undisturbed") == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "xray_vqa", *words, str(tmp_path / "killed")], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("train-*.tar")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/manifest.json").exists()
    kept = {path: path.stat().st_ino for path in (tmp_path / "killed").glob("train-*.tar")}
    assert run(*words, tmp_path / "killed") == 0
    for path in (tmp_path / "undisturbed").glob("*.tar"):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()
    assert all(path.stat().st_ino == number for path, number in kept.items())


def test_a_scan_that_has_changed_is_left_out_by_name_and_taken_when_it_is_mended(dataset, tmp_path, capsys):
    path = dataset / "train/images/000001.png"
    right = path.read_bytes()
    path.write_bytes(right[:-1] + b"?")
    (dataset / "train/images/000002.png").rename(tmp_path / "kept.png")
    words = ["data", "export", dataset, "--format", "webdataset", "--output", tmp_path / "w"]
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert "000001.png: has other bytes than its record says; left out" in error
    assert "000002.png: cannot be read: No such file or directory; left out" in error
    path.write_bytes(right)
    (tmp_path / "kept.png").rename(dataset / "train/images/000002.png")
    assert run(*words) == 0
    assert len(names_in(tmp_path / "w/train-000000.tar")) == 1 + 2 * 5


def test_shards_of_somebody_else_are_not_written_over(dataset, tmp_path, png):
    path = write_tar(tmp_path / "w/train-000007.tar", [("a.png", png(1))])
    with pytest.raises(ConfigError, match=r"train-000007\.tar is a shard of somebody else"):
        WebDatasetExporter().write(dataset, tmp_path / "w")
    assert names_in(path) == ["a.png"]


def test_what_only_some_shards_annotate_is_not_taught_as_absent_in_the_others(dataset, tmp_path):
    WebDatasetExporter().write(dataset, tmp_path / "w/one")
    write_manifest(dataset, make_manifest("synth", annotated_categories=["Knife", "Battery"]))
    WebDatasetExporter().write(dataset, tmp_path / "w/two")
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert source.labels == ("Knife",)
    assert any("taken as annotated is what all do: Knife" in message for message in said(source))


def test_a_record_that_does_not_belong_to_its_image_is_left_out_by_name(dataset, tmp_path, png):
    WebDatasetExporter().write(dataset, tmp_path / "w")
    with tarfile.open(tmp_path / "w/test-000000.tar") as tar:
        entries = [(entry.name, tar.extractfile(entry).read()) for entry in tar]
    entries[1] = (entries[1][0], png(999))
    entries[4] = (entries[4][0], b'{"image_id": 1}')
    write_tar(tmp_path / "w/test-000000.tar", entries)
    (tmp_path / "w/train-000000.tar").unlink()
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert source.scans == ()
    assert [fault.message for fault in source.faults] == [
        "sample 'test-000000' is left out: its image has other bytes than its record says",
        "sample 'test-000001' is left out: its record does not fit: image_filename: Field required (and 5 more)",
    ]


def test_the_webdataset_package_reads_our_shards(dataset, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="needs the package webdataset")
    WebDatasetExporter(shard_scans=2).write(dataset, tmp_path / "w")
    urls = str(tmp_path / "w/train-{000000..000002}.tar")
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == [f"train-{number:06d}" for number in range(5)]
    assert {sample["png"].size for sample in samples} == {(64, 48)}
    assert samples[2]["json"]["raw_labels"] == ["Glock", "Baton"]


# --- of others -------------------------------------------------------------------------------------------------------


def test_json_of_others_says_items_under_common_names(tmp_path, png):
    write_tar(
        tmp_path / "w/train-0.tar",
        [
            ("a.json", b'{"labels": ["pistol", "knife"], "bbox": [[4, 4, 20, 10], [1, 2, 60, 40]], "caption": "x"}'),
            ("a.png", png(1)),
            ("b.png", png(2)),
            ("b.json", b'{"objects": [{"category": "gun", "bbox": [1, 1, 5, 5]}], "split": "test"}'),
            ("c.png", png(3)),
            ("c.json", b'{"labels": [], "bbox": []}'),
            ("d.png", png(4)),
            ("e.png", png(5)),
            ("e.json", b"{"),
        ],
    )
    assert find_importer(SourceFolder(tmp_path / "w")).name == "webdataset"
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert [(s.original_name, [i.label for i in s.items], s.split, s.caption) for s in source.scans] == [
        ("train-0.tar#a", ["pistol", "knife"], "train", "x"),
        ("train-0.tar#b", ["gun"], "test", ""),
        ("train-0.tar#c", [], "train", ""),
    ]
    assert [fault.message for fault in source.faults] == [
        "sample 'e' is left out: its JSON cannot be read, and what it says may be a threat"
    ]
    assert any("1 samples say nothing of items and are left out, first train-0.tar#d" in one for one in said(source))


def test_cls_is_a_label_and_its_numbers_have_names_in_classes_txt(tmp_path, png):
    entries = [("1.png", png(1)), ("1.cls", b"1\n"), ("2.png", png(2)), ("2.cls", b"normal"), ("3.png", png(3)),
               ("3.cls", b"7"), ("4.png", png(4)), ("4.cls", b"")]  # fmt: skip
    write_tar(tmp_path / "w/a.tar", entries)
    (tmp_path / "w/classes.txt").write_text("Gun\nKnife\n")
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert [[item.label for item in scan.items] for scan in source.scans] == [["Knife"], ["normal"], ["category 7"]]
    assert source.labels == ("Gun", "Knife")
    assert [fault.message for fault in source.faults] == [
        "category 7 has no name in classes.txt",
        "image a.tar#4 is left out: what cannot be read of it may be a threat",
    ]


@pytest.mark.parametrize(
    ("texts", "labels", "captions", "notice"),
    [
        ((b"pistol", b"Non Threat"), [["pistol"], ["Non Threat"]], ["", ""], "2 .txt are taken as labels"),
        ((b"pistol", b"a bag with a gun"), [[], []], ["pistol", "a bag with a gun"], "2 .txt are taken as captions"),
    ],
)
def test_txt_is_a_label_where_all_of_them_name_categories_and_else_a_caption(
    tmp_path, png, texts, labels, captions, notice
):
    entries = [entry for n, text in enumerate(texts) for entry in ((f"{n}.jpg", png(n)), (f"{n}.txt", text))]
    write_tar(tmp_path / "w/a.tar", entries)
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert [[item.label for item in scan.items] for scan in source.scans] == labels
    assert [scan.caption for scan in source.scans] == captions
    assert notice in said(source)


def test_images_alone_are_scans_of_which_nothing_is_known(tmp_path, png):
    write_tar(tmp_path / "w/val-0.tar", [("./x/a.png", png(1)), ("./x/a.__depth__.npy", b"?"), ("b.jpeg", png(2))])
    report = import_source(read(tmp_path / "w", tmp_path / "out/.unpacked"), tmp_path / "out")
    assert (report.counts["test"], report.annotated) == (2, ())
    assert [record.original_name for record in read_split(tmp_path / "out", "test").records] == [
        "val-0.tar#x/a", "val-0.tar#b",
    ]  # fmt: skip
    assert any("nothing is taken as annotated" in notice.message for notice in report.notices)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_shard_that_is_cut_off_gives_what_came_before_and_says_so(dataset, tmp_path):
    WebDatasetExporter().write(dataset, tmp_path / "w")
    path = tmp_path / "w/train-000000.tar"
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        starts = {entry.name: entry.offset for entry in tar}
    image = starts["train-000002.png"]
    for cut in (image, image + 100, image + 600, starts["train-000002.json"], starts["train-000003.png"]):
        path.write_bytes(data[:cut])
        source = read(tmp_path / "w", tmp_path / "scratch")
        kept = [s.original_name for s in source.scans if s.original_name.startswith("train")]
        assert kept in ([f"train/ü {number}.png" for number in range(count)] for count in (1, 2))
        assert "it is cut off or damaged after sample 'train-00000" in source.faults[0].message


def test_a_shard_that_is_damaged_in_the_middle_says_so(dataset, tmp_path):
    WebDatasetExporter().write(dataset, tmp_path / "w")
    path = tmp_path / "w/train-000000.tar"
    with tarfile.open(path) as tar:
        offset = next(entry.offset for entry in tar if entry.name == "train-000003.png")
    data = bytearray(path.read_bytes())
    data[offset : offset + 512] = b"x" * 512
    path.write_bytes(data)
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert len([scan for scan in source.scans if scan.split == "train"]) == 2
    assert "cut off or damaged" in source.faults[0].message


def test_two_entries_of_one_key_and_two_images_are_left_out_by_name(tmp_path, png):
    entries = [("a.png", png(1)), ("a.png", png(2)), ("b.png", png(3)), ("b.jpg", png(4)), ("c.png", png(5)),
               ("c.cls", b"gun"), ("c.cls", b"normal"), ("d.cls", b"gun"), ("e.png", png(6)),
               ("e.cls", b"gun")]  # fmt: skip
    write_tar(tmp_path / "w/a.tar", entries)
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert [scan.original_name for scan in source.scans] == ["a.tar#e"]
    assert [fault.message for fault in source.faults] == [
        "sample 'a' is left out: it has two entries .png",
        "sample 'b' is left out: it has two images, .png and .jpg",
        "sample 'c' is left out: it has two entries .cls",
        "sample 'd' is left out: it has no image",
    ]


def test_the_same_key_in_two_shards_is_two_scans(tmp_path, png):
    for number in range(2):
        write_tar(tmp_path / f"w/{number}.tar", [("0.png", png(number)), ("0.cls", b"gun")])
    assert len(read(tmp_path / "w", tmp_path / "scratch").scans) == 2


def test_names_that_lead_out_of_the_folder_are_keys_and_nothing_else(tmp_path, png):
    link = tarfile.TarInfo("l.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    names = ["../../evil.png", "/tmp/absolute_evil.png", "a/../../../b.png"]
    entries = [*((name, png(n)) for n, name in enumerate(names)), ("", link), ("._r.png", b"?"), ("README", b"?")]
    write_tar(tmp_path / "w/../w/a.tar", entries)
    import_source(read(tmp_path / "w", tmp_path / "out/.unpacked"), tmp_path / "out")
    assert list(tmp_path.rglob("*evil*")) == []
    source = read(tmp_path / "w", tmp_path / "out/.unpacked")
    assert [scan.original_name for scan in source.scans] == ["a.tar#../../evil", "a.tar#/tmp/absolute_evil",
                                                            "a.tar#a/../../../b"]  # fmt: skip
    assert [fault.message for fault in source.faults] == [
        "1 links, devices or other entries that are no plain files are left aside"
    ]
    assert "2 entries have no name of the form KEY.SUFFIX and are left aside" in said(source)


def test_names_that_are_no_utf8_are_counted(tmp_path, png):
    write_tar(tmp_path / "w/a.tar", [("a.png", png(1)), ("\udcff\udce9.png", png(2))])
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert len(source.scans) == 1
    assert "1 links or files whose names are not UTF-8 are left aside" in said(source)


def test_compressed_shards_and_files_that_are_no_tar_are_named(tmp_path, png):
    write_tar(tmp_path / "w/a.tar", [("a.png", png(1))])
    (tmp_path / "w/b.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "w/c.tar").write_bytes(b"")
    (tmp_path / "w/d.tar.gz").write_bytes(b"?")
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert len(source.scans) == 1
    text = "\n".join(map(str, source.faults))
    assert "b.tar: cannot be read on" in text
    assert "c.tar: cannot be read on" in text
    assert "d.tar.gz: is compressed; unpack it" in text


def test_an_entry_that_claims_to_be_huge_is_not_read(tmp_path, png):
    path = write_tar(tmp_path / "w/a.tar", [("a.png", png(1)), ("b.png", b"x" * (13 << 20)), ("c.png", png(3))])
    source = read(tmp_path / "w", tmp_path / "scratch")
    assert [scan.original_name for scan in source.scans] == ["a.tar#a", "a.tar#c"]
    assert "its .png has 13,631,488 bytes, more than 12,582,912" in source.faults[0].message
    assert read_mark(path) is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 4095), value=st.integers(0, 255))
def test_a_wrong_byte_anywhere_is_an_error_of_ours_or_none(tmp_path_factory, png, position, value):
    folder = tmp_path_factory.mktemp("w")
    path = write_tar(
        folder / "a.tar", [("a.json", b'{"label": "gun"}'), ("a.png", png(1, (32, 32))), ("b.cls", b"gun")]
    )
    data = bytearray(path.read_bytes())
    data[position] = value
    path.write_bytes(data)
    with contextlib.suppress(DatasetError):
        read(folder, tmp_path_factory.mktemp("scratch"))
