"""Archives as an enemy packs them. What unpacks them is libarchive, so most need that."""

import io
import json
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from stand_ins.rar import Member, write_rar
from stand_ins.stcray import set_members

from xray_vqa.dataset.stcray import libarchive, published, readers
from xray_vqa.dataset.stcray.published import check_archive, find_archives, wanted_archives
from xray_vqa.dataset.stcray.unpack import UnpackLimits, unpack
from xray_vqa.dataset.storing import require_space
from xray_vqa.errors import ConfigError, DatasetError, Incomplete, IntegrityError

needs_libarchive = pytest.mark.skipif(
    libarchive.load() is None, reason=f"no libarchive on this machine; {readers.PACKAGES}"
)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Tests need no disk that survives a power cut, and elsewhere on this machine much may wait to be written."""
    monkeypatch.setattr("os.sync", lambda: None)


def contents(folder: Path) -> dict[str, bytes]:
    """All that was unpacked, without the notes of how far it is."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.name[0] != "."}


@needs_libarchive
def test_a_set_is_unpacked_byte_for_byte_without_what_no_reader_wants(tmp_path):
    members = set_members("Test")
    report = unpack(write_rar(tmp_path / "a.rar", members), tmp_path / "out")
    wanted = {
        str(member.name): member.data
        for member in members
        if not member.is_folder and "/._" not in str(member.name) and not str(member.name).endswith(".DS_Store")
    }
    assert contents(tmp_path / "out") == wanted
    assert report.num_files == len(wanted)
    assert report.left_out == {"files that are no image, JSON or caption": 1, "resource-fork files (._*)": 32}
    assert (report.refused, report.faults(tmp_path)) == ({}, [])


HOSTILE = {
    "../out.jpg": "a path out of the folder",
    "a/../../out.jpg": "a path out of the folder",
    "a\\..\\..\\out.jpg": "a path out of the folder",
    "/tmp/out.jpg": "an absolute path",
    "C:/out.jpg": "an absolute path",
    "C:\\out.jpg": "an absolute path",
    "a/\x1b[2J.jpg": "no usable name",
    "a/b\n.jpg": "no usable name",
    "x" * 250 + ".jpg": "a name too long",
    "d/" * 600 + "x.jpg": "a name too long",
}


@needs_libarchive
@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_left_out_by_name(tmp_path, name):
    archive = write_rar(tmp_path / "in/a.rar", [Member(name, b"evil"), Member("ok/b.jpg", b"good")])
    report = unpack(archive, tmp_path / "in/deep/out")
    assert contents(tmp_path / "in/deep/out") == {"ok/b.jpg": b"good"}
    assert report.refused == {HOSTILE[name]: 1}
    assert HOSTILE[name] in str(report.faults(archive)[0])
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != ".") == [
        "a.rar",
        "b.jpg",
    ]


@needs_libarchive
def test_links_bytes_and_doubles_are_left_out_by_name(tmp_path):
    members = [
        Member("ok/b.jpg", b"first"),
        Member("ok/b.jpg", b"second"),
        Member("ok/b.jpg/c.jpg", b"below a file"),
        Member("ok/link.jpg", link_to="/etc/passwd"),
        Member("ok/link.jpg/passwd.txt", b"through the link"),
        Member(b"ok/\xff\xfe.jpg", b"no text"),
    ]
    report = unpack(write_rar(tmp_path / "a.rar", members), tmp_path / "out")
    assert contents(tmp_path / "out") == {"ok/b.jpg": b"first", "ok/link.jpg/passwd.txt": b"through the link"}
    assert report.refused == {
        "a file and a folder of one name": 1, "a link": 1, "a second file of this name": 1, "the name is no UTF-8": 1,
    }  # fmt: skip
    assert r"ok/\xff\xfe.jpg: the name is no UTF-8" in report.refused_names
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


@needs_libarchive
def test_links_and_devices_in_a_tar_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("s.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE), ("f.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("ok.jpg")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"good"))
    report = unpack(tmp_path / "a.tar", tmp_path / "out")
    assert contents(tmp_path / "out") == {"ok.jpg": b"good"}
    assert report.refused == {"a link": 2, "no plain file": 1}


@needs_libarchive
@pytest.mark.parametrize("limits", [UnpackLimits(floor_bytes=2 << 20), UnpackLimits(max_file_bytes=1 << 20)])
def test_a_bomb_is_refused_as_a_whole_or_its_file_alone(tmp_path, limits):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small.jpg", b"x")
        archive.writestr("bomb.jpg", bytes(8 << 20))
    if limits.max_file_bytes > 8 << 20:
        with pytest.raises(DatasetError, match="20 times its own"):
            unpack(tmp_path / "a.zip", tmp_path / "out", limits=limits)
        assert not (tmp_path / "out").exists()
    else:
        report = unpack(tmp_path / "a.zip", tmp_path / "out", limits=limits)
        assert (list(contents(tmp_path / "out")), report.refused) == (["small.jpg"], {"longer than 1,048,576 bytes": 1})


@needs_libarchive
def test_a_bomb_of_many_small_files_is_refused(tmp_path):
    archive = write_rar(tmp_path / "a.rar", [Member(f"{n}.jpg") for n in range(30)])
    with pytest.raises(DatasetError, match="more than 20 entries"):
        unpack(archive, tmp_path / "out", limits=UnpackLimits(max_entries=20))
    assert not (tmp_path / "out").exists()


@needs_libarchive
@pytest.mark.parametrize("num_bytes", [3, 400])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, num_bytes):
    archive = write_rar(tmp_path / "a.rar", [Member("b.jpg", b"whole"), Member("a.jpg", b"data", num_bytes=num_bytes)])
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_libarchive
def test_an_archive_that_was_cut_off_is_never_taken_for_whole(tmp_path):
    whole = write_rar(tmp_path / "whole.rar", set_members("Test", num_bags=1, num_frames=1)).read_bytes()
    archive = tmp_path / "a.rar"
    for length in [*range(0, 400, 17), *range(400, len(whole), 2999), *range(len(whole) - 12, len(whole))]:
        archive.write_bytes(whole[:length])
        try:
            report = unpack(archive, tmp_path / "out")
        except DatasetError:
            continue
        assert "cut off" in str(report.faults(archive)), length


@needs_libarchive
def test_rubbish_is_a_clear_error(tmp_path):
    noise = random.Random(0)
    for _ in range(50):
        (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x01\x00" + noise.randbytes(300))
        try:
            report = unpack(tmp_path / "a.rar", tmp_path / "out")
        except DatasetError:
            continue
        assert report.refused


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing is cleaned up."""


@needs_libarchive
def test_an_unpacking_that_was_stopped_anywhere_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    archive = write_rar(tmp_path / "a.rar", set_members("Test", num_bags=1))
    unpack(archive, tmp_path / "whole")
    total = len(contents(tmp_path / "whole"))
    monkeypatch.setattr("xray_vqa.dataset.stcray.unpack._SYNC_EVERY_S", 0)
    for stop_after in range(0, total, 3):
        entries = readers.read_entries

        def some(*args, entries=entries, stop_after=stop_after, **options):
            for number, entry in enumerate(entries(*args, **options)):
                if number > stop_after + 20:
                    raise Killed
                yield entry

        with monkeypatch.context() as patch:
            patch.setattr("xray_vqa.dataset.stcray.unpack.read_entries", some)
            with pytest.raises(Killed):
                unpack(archive, tmp_path / "out")
    assert 0 < len(contents(tmp_path / "out")) <= total
    report = unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert report == unpack(archive, tmp_path / "whole")


@needs_libarchive
def test_files_that_the_disk_may_have_lost_are_written_again_and_known_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("xray_vqa.dataset.stcray.unpack._SYNC_EVERY_S", 0)
    archive = write_rar(tmp_path / "a.rar", [Member(f"{n}.jpg", b"data") for n in range(5)])
    unpack(archive, tmp_path / "out")
    (tmp_path / "out/.complete").unlink()
    progress = {"archive": "a.rar", "num_bytes": archive.stat().st_size, "num_files": 2}
    (tmp_path / "out/.progress").write_text(json.dumps(progress))
    (tmp_path / "out/1.jpg").write_bytes(b"safe")  # stands in for: known to be on disk
    (tmp_path / "out/2.jpg").write_bytes(b"\0\0\0\0")  # what a power cut leaves
    unpack(archive, tmp_path / "out")
    assert [contents(tmp_path / "out")[f"{n}.jpg"] for n in range(4)] == [b"data", b"safe", b"data", b"data"]


@needs_libarchive
def test_what_was_begun_with_another_archive_is_thrown_away(tmp_path):
    unpack(write_rar(tmp_path / "a.rar", [Member("old.jpg", b"old")]), tmp_path / "out")
    unpack(write_rar(tmp_path / "a.rar", [Member("new.jpg", b"newer")]), tmp_path / "out")
    assert contents(tmp_path / "out") == {"new.jpg": b"newer"}


# --- who unpacks -----------------------------------------------------------------------------------------------------


def make_tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A machine without libarchive, whose PATH is one folder; and a tar that its fake tools can read."""
    monkeypatch.setattr(libarchive, "load", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    source = tmp_path / "packed/STCray_TestSet"
    source.mkdir(parents=True)
    (source / "b.jpg").write_bytes(b"good")
    (source / "link.jpg").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "STCray_TestSet.rar", "w") as archive:
        archive.add(source, "STCray_TestSet")
    return tmp_path / "STCray_TestSet.rar"


def test_bsdtar_hands_over_a_stream_that_we_write(tools, tmp_path):
    make_tool(tmp_path / "bin", "bsdtar", 'exec /bin/cat "${5#@}"')
    report = unpack(tools, tmp_path / "out")
    assert contents(tmp_path / "out") == {"STCray_TestSet/b.jpg": b"good"}
    assert report.refused == {"a link": 1}


def test_an_entry_that_bsdtar_has_no_name_for_is_counted(tools, tmp_path):
    said = "bsdtar: (null): Can't record entry in tar file without pathname"
    make_tool(tmp_path / "bin", "bsdtar", f'echo "{said}" >&2; exec /bin/cat "${{5#@}}"')
    assert unpack(tools, tmp_path / "out").refused == {"a link": 1, "the name is no UTF-8": 1}


def test_bsdtar_that_fails_is_quoted_and_leaves_nothing(tools, tmp_path):
    make_tool(tmp_path / "bin", "bsdtar", "echo broken header >&2; exit 1")
    with pytest.raises(DatasetError, match="bsdtar ended with 1: broken header"):
        unpack(tools, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tool_that_writes_by_itself_unpacks_published_archives_alone(tools, tmp_path):
    make_tool(tmp_path / "bin", "unrar", 'exec /bin/tar -x -f "$5" -C "$6"')
    with pytest.raises(ConfigError, match="not one of the published archives"):
        unpack(tools, tmp_path / "out")
    report = unpack(tools, tmp_path / "out", trusted=True)
    assert contents(tmp_path / "out") == {"STCray_TestSet/b.jpg": b"good"}
    assert report.refused == {"a link": 1}
    assert not (tmp_path / "out.tool").exists()
    make_tool(tmp_path / "bin", "unrar", "exit 9")
    unpack(tools, tmp_path / "out", trusted=True)  # it is whole already, so no tool is asked


def test_without_a_tool_the_package_is_named(tools, tmp_path):
    with pytest.raises(ConfigError, match="apt-get install libarchive13"):
        unpack(tools, tmp_path / "out")


# --- what was published ----------------------------------------------------------------------------------------------


def test_archives_are_found_by_their_names(tmp_path):
    for name in ("stcray_testset.RAR", "STCray_TrainSet.rar", "STCray_Augmented.rar", "other.rar"):
        (tmp_path / name).write_bytes(b"x")
    found = find_archives(tmp_path, wanted_archives(augmented=False))
    assert [path.name for path in found] == ["STCray_TrainSet.rar", "stcray_testset.RAR"]
    assert find_archives(tmp_path, wanted_archives(augmented=True))[2].name == "STCray_Augmented.rar"


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "STCray_TrainSet.rar"
    path.write_bytes(b"abcd")
    with pytest.raises(IntegrityError, match="has 4 bytes instead of 1,094,236,470"):
        check_archive(path)
    digest = check_archive(path, any_version=True)
    known = published.ARCHIVES[0]
    monkeypatch.setattr(published, "ARCHIVES", (known._replace(num_bytes=4),))
    with pytest.raises(IntegrityError, match="has the SHA-256"):
        check_archive(path)
    monkeypatch.setattr(published, "ARCHIVES", (known._replace(num_bytes=4, sha256=digest),))
    assert check_archive(path) == digest
    assert published.is_published(path, digest)


def test_room_is_looked_for_beforehand(tmp_path):
    require_space(tmp_path / "not/there/yet", 1, "this")
    with pytest.raises(Incomplete, match=r"free, and 1,000,000.0 GB are needed for unpacking; make room"):
        require_space(tmp_path, 10**15, "unpacking")


@needs_libarchive
def test_a_full_disk_ends_with_3_and_goes_on_with_room(tmp_path, small_disk):
    archive = write_rar(tmp_path / "a.rar", [Member(f"{n}.jpg", bytes([n]) * 100_000) for n in range(10)])
    disk = small_disk("600k")
    with pytest.raises(Incomplete, match="No space left on device; make room"):
        unpack(archive, disk / "out")
    small_disk("4m", at=disk)
    unpack(archive, disk / "out")
    assert len(contents(disk / "out")) == 10


@needs_libarchive
@pytest.mark.skipif(
    shutil.which("bsdtar") is None, reason="no bsdtar on this machine; apt-get install libarchive-tools"
)
def test_bsdtar_and_the_library_unpack_the_same(tmp_path, monkeypatch):
    members = [
        *set_members("Test", num_bags=1),
        Member("../evil.jpg", b"x"),
        Member("a/link.jpg", link_to="/etc/passwd"),
    ]
    members += [Member("/abs.jpg", b"x"), Member(b"a/\xff.jpg", b"x"), Member("a/\u00e9t\u00e9.jpg", b"x")]
    archive = write_rar(tmp_path / "a.rar", members)
    by_library = unpack(archive, tmp_path / "library")
    monkeypatch.setattr(libarchive, "load", lambda: None)
    assert unpack(archive, tmp_path / "bsdtar") == by_library.model_copy(
        update={"refused_names": unpack(archive, tmp_path / "bsdtar").refused_names}
    )
    assert contents(tmp_path / "bsdtar") == contents(tmp_path / "library")
