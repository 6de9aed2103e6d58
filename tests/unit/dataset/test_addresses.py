"""Importing from an address: memory, archives, a web server, and a line that breaks."""

import functools
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile

import fsspec
import pytest
from stand_ins.flaky import FlakyFileSystem, Line

from xray_vqa.cli.main import main
from xray_vqa.core.manifest import hide_credentials, read_manifest
from xray_vqa.core.records import SPLITS
from xray_vqa.dataset import fetching
from xray_vqa.dataset.address import local_path, open_address
from xray_vqa.dataset.fetching import MAX_TRIES, fetch_tree
from xray_vqa.dataset.layout import read_split
from xray_vqa.dataset.stcray import transfer
from xray_vqa.errors import ConfigError, DatasetError, Incomplete

BOX = [4, 4, 20, 10]


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The clock: what was waited, without waiting."""
    waits: list[float] = []
    monkeypatch.setattr(transfer, "wait", waits.append)
    return waits


@pytest.fixture
def folder(coco):
    scans = [
        {"name": f"{number} scan.png", "split": "test" if number > 3 else "train", "boxes": [("Gun", BOX)]}
        for number in range(6)
    ]
    return coco(scans)


def fill(files, folder):
    files.store.clear()
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/scans/{path.relative_to(folder)}", path.read_bytes())


@pytest.fixture
def memory(folder):
    files = fsspec.filesystem("memory")
    fill(files, folder)
    yield "memory://scans"
    files.store.clear()


@pytest.fixture
def flaky(folder):
    fill(FlakyFileSystem(), folder)
    FlakyFileSystem.line = Line()
    yield "flaky://scans"
    FlakyFileSystem.store.clear()


def run(*words):
    return main([str(word) for word in words])


def bring(source, output):
    return run("data", "import", source, "--output-dir", output)


def content(root, but=("manifest.json", "import_report.json")):
    """Every file of a dataset, without where it came from."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for split in SPLITS:
        name = f"{split}/annotations.json"
        files[name] = [entry | {"source": ""} for entry in json.loads(files[name])]
    return {name: data for name, data in files.items() if name not in but}


def fetch(address, scratch):
    copy = fetch_tree(open_address(address), scratch)
    return {path.relative_to(copy.folder).as_posix(): path.read_bytes() for path in copy.folder.rglob("*.*")}, copy


def test_an_address_is_imported_as_its_folder_is(memory, folder, tmp_path, capsys):
    assert bring(folder, tmp_path / "local") == 0
    capsys.readouterr()
    assert bring(memory, tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(tmp_path / "local")
    assert "memory://scans: JSON files with the lists" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "import_report.json", "manifest.json", "test", "train",
    ]  # fmt: skip


def test_what_is_written_names_the_address_and_never_the_copy(memory, tmp_path, png, capsys):
    fsspec.filesystem("memory").pipe_file("/scans/images/unknown.png", png(99))
    fsspec.filesystem("memory").pipe_file("/scans/images/2 scan.png", b"no image")
    assert bring(memory, tmp_path / "out") == 1
    output = capsys.readouterr()
    assert "fault: memory://scans/annotations.json:2: image images/2 scan.png is left out" in output.err
    manifest = read_manifest(tmp_path / "out")
    assert manifest.config["origin"] == "memory://scans"
    assert {record.source for record in read_split(tmp_path / "out", "train").records} == {"coco/memory://scans"}
    told = output.out + output.err + "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    assert ".fetched" not in told


def test_a_refused_import_names_the_address_and_keeps_the_copy_for_the_next_try(memory, tmp_path, capsys):
    fsspec.filesystem("memory").rm("/scans/annotations.json")
    fsspec.filesystem("memory").pipe_file("/scans/list.xyz", b"?")
    assert bring(memory, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "error: memory://scans: no annotations of a known format found" in error
    assert "keeps what was fetched" in error
    assert len(list((tmp_path / "out/.fetched").rglob("*.png"))) == 6


def test_a_dataset_of_another_origin_is_refused_before_anything_is_fetched(memory, folder, tmp_path, capsys):
    assert bring(folder, tmp_path / "out") == 0
    assert bring(memory, tmp_path / "out") == 2
    assert "holds a dataset made by `import` from" in capsys.readouterr().err
    assert not (tmp_path / "out/.fetched").exists()


def test_an_archive_is_an_address_too_and_so_is_a_single_file(memory, folder, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    assert bring(folder, tmp_path / "local") == 0
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    assert bring(f"zip://::{tmp_path}/scans.zip", tmp_path / "zip") == 0
    assert content(tmp_path / "zip") == content(tmp_path / "local")
    assert run("data", "export", tmp_path / "local", "--format", "webdataset", "--output", tmp_path / "w") == 0
    fsspec.filesystem("memory").put(str(tmp_path / "w/train-000000.tar"), "/shards/train-000000.tar")
    assert bring("memory://shards/train-000000.tar", tmp_path / "tar") == 0
    assert content(tmp_path / "tar")["train/annotations.json"] == content(tmp_path / "local")["train/annotations.json"]
    assert read_manifest(tmp_path / "tar").config["origin"] == "memory://shards/train-000000.tar"


@pytest.mark.parametrize(
    ("text", "path"),
    [("data/mine", "data/mine"), ("file:///srv/my%20scans", "/srv/my scans"), ("a:b", "a:b"), ("s3://b/c", None),
     ("zip://::a.zip", None), ("simplecache::s3://b", None)],
)  # fmt: skip
def test_what_is_a_folder_and_what_an_address(text, path):
    assert (None if local_path(text) is None else str(local_path(text))) == path


# --- lines that break ------------------------------------------------------------------------------------------------


def test_a_line_that_breaks_ends_with_3_and_the_same_command_goes_on(flaky, folder, tmp_path, capsys):
    line = FlakyFileSystem.line
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*.*") if path.is_file()}
    line.bytes_left = sum(sizes.values()) // 2
    assert bring(flaky, tmp_path / "out") == 3
    error = capsys.readouterr().err
    assert "the connection failed (ConnectionResetError); the same command goes on" in error
    assert "Traceback" not in error
    whole = len(list((tmp_path / "out/.fetched").glob("*/tree/**/*.png")))
    (part,) = (tmp_path / "out/.fetched").glob("*/parts/*")
    assert 0 < whole < 6
    assert part.stat().st_size > 0
    line.bytes_left = None
    line.opened.clear()
    assert bring(flaky, tmp_path / "out") == 0
    assert len(line.opened) == len(sizes) - whole - 1  # annotations.json came first
    assert bring(folder, tmp_path / "local") == 0
    assert content(tmp_path / "out") == content(tmp_path / "local")


def test_a_line_that_breaks_is_tried_again_in_the_same_run_and_not_for_ever(flaky, tmp_path, waits):
    line = FlakyFileSystem.line
    line.bytes_left = 100
    with pytest.raises(Incomplete, match=r"annotations\.json: stopped after 100 bytes"):
        fetch(flaky, tmp_path / "s")
    assert len(line.opened) == MAX_TRIES
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("problem", [TimeoutError(), OSError(5, "Input/output error"), RuntimeError("of a library")])
def test_whatever_breaks_on_the_line_can_be_gone_on_from(flaky, tmp_path, capsys, problem):
    FlakyFileSystem.line.bytes_left, FlakyFileSystem.line.breaks_with = 1000, problem
    assert bring(flaky, tmp_path / "out") == 3
    FlakyFileSystem.line.bytes_left = None
    assert bring(flaky, tmp_path / "out") == 0


def test_a_permission_that_ends_in_the_middle_is_said_at_once(flaky, tmp_path, capsys, waits):
    FlakyFileSystem.line.bytes_left, FlakyFileSystem.line.breaks_with = 1000, PermissionError("token expired")
    assert bring(flaky, tmp_path / "out") == 2
    assert "no permission to read it (token expired)" in capsys.readouterr().err
    assert waits == []


def test_a_file_that_has_changed_meanwhile_is_fetched_again_and_one_that_is_gone_is_removed(flaky, tmp_path, png):
    fetch(flaky, tmp_path / "s")
    files = FlakyFileSystem()
    old = files.cat_file("/scans/images/0 scan.png")
    time.sleep(0.001)
    files.pipe_file("/scans/images/0 scan.png", old[::-1])
    files.rm_file("/scans/images/1 scan.png")
    FlakyFileSystem.line.opened.clear()
    found, _ = fetch(flaky, tmp_path / "s")
    assert FlakyFileSystem.line.opened == ["/scans/images/0 scan.png"]
    assert found["images/0 scan.png"] == old[::-1]
    assert "images/1 scan.png" not in found


def test_the_copy_of_another_address_makes_room(flaky, memory, tmp_path):
    fetch(memory, tmp_path / "s")
    fetch(flaky, tmp_path / "s")
    assert len(list((tmp_path / "s").iterdir())) == 1


def test_a_full_disk_ends_with_3_and_goes_on_with_room(memory, tmp_path, small_disk, capsys):
    disk = small_disk("40k")
    assert bring(memory, disk / "out") == 3
    assert "are needed for a copy of memory://scans and the dataset; make room" in capsys.readouterr().err
    small_disk("4m", at=disk)
    assert bring(memory, disk / "out") == 0


def test_a_disk_that_is_filled_meanwhile_ends_with_3_and_goes_on_with_room(memory, tmp_path, small_disk, monkeypatch):
    disk = small_disk("40k")
    with monkeypatch.context() as patch:
        patch.setattr(fetching, "require_space", lambda *args: None)
        assert bring(memory, disk / "out") == 3
    small_disk("4m", at=disk)
    assert bring(memory, disk / "out") == 0


def test_an_import_from_an_archive_that_is_killed_goes_on(tmp_path, png, folder):
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for number in range(600):
            archive.writestr(f"images/{number}.png", png(number))
    words = ["data", "import", f"zip://::{tmp_path}/scans.zip", "--format", "images", "--workers", "1", "--output-dir"]
    assert run(*words, tmp_path / "undisturbed") == 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "xray_vqa", *words, str(tmp_path / "killed")], env=environment,
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed").rglob("*.png"))) < 50:
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/manifest.json").exists()
    assert run(*words, tmp_path / "killed") == 0
    assert content(tmp_path / "killed") == content(tmp_path / "undisturbed")


# --- names and errors ------------------------------------------------------------------------------------------------


def test_names_that_would_leave_the_folder_are_refused_and_the_rest_is_read(flaky, tmp_path, capsys):
    store = FlakyFileSystem.store
    image = store["/scans/images/0 scan.png"]
    for name in ("../../../evil.png", "x/../../evil.png", "a\nb.png", "images/0 scan.png/c.png", "n" * 300 + ".png"):
        store[f"/scans/{name}"] = image
    assert bring(flaky, tmp_path / "deep/er/out") == 1
    error = capsys.readouterr().err
    for why in (
        "2 files are not fetched: a path out of the folder, first '../../../evil.png'",
        "1 files are not fetched: no usable name, first 'a\\nb.png'",
        "1 files are not fetched: a file and a folder of one name, first 'images/0 scan.png/c.png'",
        "1 files are not fetched: a name too long, first 'nnn",
    ):
        assert f"fault: flaky://scans: {why}" in error
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("memory://nowhere", 2, "memory://nowhere: nothing is there"),
        ("nothing://like/this", 2, "nothing://like/this: cannot be opened as an address: Protocol not known: nothing"),
        ("zip://::{tmp}/none.zip", 2, "nothing is there"),
        ("zip://::{tmp}/broken.zip", 1, "is no archive of this kind, or damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said(tmp_path, capsys, address, code, said):
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    assert bring(address.format(tmp=tmp_path), tmp_path / "out") == code
    error = capsys.readouterr().err
    assert said in error
    assert not (tmp_path / "out").exists()


def test_who_may_not_read_hears_where_credentials_go(flaky, tmp_path, capsys):
    FlakyFileSystem.line.forbidden = True
    assert bring(flaky, tmp_path / "out") == 2
    assert "flaky://scans: no permission to read it (Access Denied); credentials go" in capsys.readouterr().err


def test_an_empty_place_is_said(tmp_path):
    fsspec.filesystem("memory").mkdir("/empty")
    with pytest.raises(DatasetError, match="memory://empty: holds no file"):
        fetch("memory://empty", tmp_path / "s")


@pytest.mark.parametrize(
    ("address", "module", "package"),
    [("s3://bucket/scans", "s3fs", "s3fs"), ("gs://b/s", "gcsfs", "gcsfs"), ("smb://h/s", "smbclient", "smbprotocol"),
     ("https://me:secret@host.invalid/scans/", "aiohttp", "aiohttp")],
)  # fmt: skip
def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch, address, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.delitem(
        sys.modules["fsspec.registry"]._registry, "https", raising=False
    )  # what was met before would be taken again
    with pytest.raises(ConfigError, match=f"need a package that is missing .*; install it with: pip install {package}"):
        open_address(address)
    with pytest.raises(ConfigError) as caught:
        open_address(address)
    assert "secret" not in str(caught.value)


def test_credentials_are_hidden_wherever_an_address_stands():
    assert hide_credentials("ftp://u:p@ss@h/x") == "ftp://h/x"
    assert hide_credentials("zip://::https://u:p@h/a.zip?X-Amz-Signature=1&b=2") == "zip://::https://h/a.zip?..."
    assert hide_credentials("hf://datasets/a/b@main/x") == "hf://datasets/a/b@main/x"
    assert hide_credentials("data/mine@home key=a@b") == "data/mine@home key=a@b"


# --- a web server ----------------------------------------------------------------------------------------------------


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Lists folders as Python does, with a link to the parent as others do, and asks for a password where told to."""

    wants = ""

    def log_message(self, *args):
        pass

    def send_head(self):
        if self.wants and self.headers.get("Authorization") != self.wants:
            self.send_error(401)
            return None
        return super().send_head()

    def list_directory(self, path):
        stream = super().list_directory(path)
        body = stream.read().replace(b"<ul>", b'<ul><a href="/">up</a><a href="../">up</a><a href="?C=N;O=D">name</a>')
        return io.BytesIO(body)

    def end_headers(self):  # without the length of a list, which is another now
        if self.path.endswith("/"):
            self._headers_buffer = [line for line in self._headers_buffer if not line.startswith(b"Content-Length")]
            self.close_connection = True
        super().end_headers()


@pytest.fixture
def server(folder, tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec reads web addresses with aiohttp")
    (tmp_path / "secret.png").write_bytes(b"not beneath the address")
    handler = type("Handler", (_Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=tmp_path))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def test_a_page_that_lists_files_is_a_folder_and_links_elsewhere_are_not_followed(server, folder, tmp_path):
    host, _ = server
    assert bring(folder, tmp_path / "local") == 0
    assert bring(f"http://{host}/source/", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(tmp_path / "local")


def test_a_password_in_an_address_is_used_and_never_written(server, tmp_path, capsys, monkeypatch, caplog):
    host, handler = server
    handler.wants = "Basic bWU6c2VjcmV0"
    address = f"http://me:secret@{host}/source/"
    caplog.set_level("DEBUG")
    monkeypatch.setattr(sys, "argv", ["xray-vqa", "data", "import", address, "--output-dir", "out"])
    assert bring(f"http://{host}/source/", tmp_path / "out") == 2
    assert "no permission to read it" in capsys.readouterr().err
    assert bring(address, tmp_path / "out") == 0
    output = capsys.readouterr()
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    assert "secret@" not in output.out + output.err + written + caplog.text
    assert f"http://{host}/source" in written


@pytest.mark.parametrize("name", ["big.bin", "source/annotations.json"])
def test_a_single_file_comes_over_a_server_without_ranges_too(server, tmp_path, name):
    host, _ = server
    (tmp_path / "big.bin").write_bytes(os.urandom(20 << 20))
    found, copy = fetch(f"http://{host}/{name}?token=abc", tmp_path / "s")
    assert found == {name.rsplit("/")[-1]: (tmp_path / name).read_bytes()}
    assert copy.address == f"http://{host}/{name}?..."


def test_a_server_that_is_not_there_or_has_nothing_there_is_said(server, tmp_path, capsys):
    host, _ = server
    assert bring(f"http://{host}/nowhere/", tmp_path / "out") == 2
    assert "/nowhere/: nothing is there" in capsys.readouterr().err
    assert bring("http://127.0.0.1:9/x/", tmp_path / "out") == 3
    assert "http://127.0.0.1:9/x/: the connection failed" in capsys.readouterr().err
