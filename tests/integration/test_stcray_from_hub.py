"""Steps 2 and 3.1 of the guide as printed, and downloads that are killed, against a hub that runs here."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stand_ins.hub import MEMBER_TOKEN, STRANGER_TOKEN, Behaviour, running
from stand_ins.rar import Member, rar_bytes
from stand_ins.stcray import archives, set_members

from xray_vqa.dataset.stcray import libarchive, readers

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = "data/stcray"

pytestmark = pytest.mark.skipif(libarchive.load() is None, reason=f"no libarchive on this machine; {readers.PACKAGES}")

PUBLISHED_HERE = '''
"""The archives of the stand-in are the published ones for every Python that is started with this folder on its path."""
from xray_vqa.dataset.stcray import published
published.ARCHIVES = tuple(
    known._replace(num_bytes=num_bytes, sha256=sha256)
    for known, (num_bytes, sha256) in zip(published.ARCHIVES, {digests!r})
)
'''


class Site:
    """A checkout as a stranger has it and the hub that it asks."""

    def __init__(self, folder: Path, behaviour: Behaviour, endpoint: str) -> None:
        self.folder, self.behaviour, self.endpoint = folder, behaviour, endpoint
        self.output = folder / OUTPUT
        for name in ("scripts", "configs"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "data").mkdir()
        for path in (ROOT / "data").glob("*.py"):
            shutil.copy(path, folder / "data")
        digests = [(len(data), hashlib.sha256(data).hexdigest()) for data in behaviour.files.values()]
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(PUBLISHED_HERE.format(digests=digests))

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "XRAY_VQA_", "HUGGING")) and name not in ("PROVIDER", "MODEL", "VIRTUAL_ENV")
        }
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{self.folder / 'site'}",
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / "hf"),
            "HF_TOKEN": MEMBER_TOKEN,
            **variables,
        }

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment(**variables), capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    def kill_when(self, command: str, happens: Callable[[], bool]) -> None:
        """Start a command and end it as the kernel does when memory is short, as soon as something has happened."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment(), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not happens():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def open_site(folder: Path, files: dict[str, bytes]) -> Iterator[Site]:
    behaviour = Behaviour(files=files)
    folder.mkdir(parents=True)
    with running(behaviour) as endpoint:
        yield Site(folder, behaviour, endpoint)


@pytest.fixture
def site(tmp_path):
    with open_site(tmp_path / "site", archives(num_bags=1)) as site:
        yield site


def dataset(folder: Path) -> dict[str, object]:
    """All that a download leaves, the time of making aside."""
    files: dict[str, object] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return files | {"manifest.json": {key: value for key, value in manifest.items() if key != "created"}}


DOWNLOAD = f"python data/download_stcray.py --output-dir {OUTPUT}"


def printed_commands() -> str:
    """The bash blocks of docs/WORKFLOW.md from step 2 to step 3.1."""
    text = (ROOT / "docs/WORKFLOW.md").read_text(encoding="utf-8")
    section = text[text.index("\n## 2. ") : text.index("\n### 3.2. ")]
    return "".join(re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def test_steps_2_and_3_1_run_as_printed(site):
    commands = printed_commands()
    for line in (DOWNLOAD, f"{DOWNLOAD} --verify", 'export ANTHROPIC_API_KEY="your_key_here"'):
        assert line in commands  # the guide's own lines
    done = site.run(f"set -euo pipefail\n{commands}\nbash scripts/test_llm_generation.sh")
    assert done.returncode == 0, done.stderr
    assert "no faults" in done.stderr

    assert sorted(path.name for path in site.output.iterdir()) == [
        ".archives", "import_report.json", "manifest.json", "test", "train",
    ]  # fmt: skip
    assert f"{OUTPUT}/.archives keeps the archives" in done.stderr
    manifest = json.loads((site.output / "manifest.json").read_text())
    assert len(manifest["annotated_categories"]) == 20
    assert manifest["counts"]["train"] == manifest["counts"]["test"] == 16
    packed = {str(member.name): member.data for name in ("Train", "Test") for member in set_members(name, num_bags=1)}
    for split in ("train", "test"):
        records = json.loads((site.output / split / "annotations.json").read_text())
        names = [f"{number:06d}.jpg" for number in range(16)]
        assert sorted(path.name for path in (site.output / split / "images").iterdir()) == names
        for record in records:
            assert (site.output / record["image_path"]).read_bytes() == packed[record["original_name"]]
            assert record["factors"]["bag"] == 1
            assert record["group"].startswith(f"{split}/")
            assert record["caption"] == "A suitcase, bag 1. Clutter."
            is_clean = record["factors"]["folder"] == "Non Threat"
            assert record["categories"] == [] if is_clean else record["categories"]
            assert record["bboxes"] == [[8, 6, 32, 24]] * len(record["categories"])
            assert is_clean or all(mask["counts"] for mask in record["masks"])
    assert len((site.folder / "data/stcray_vqa_train_test.jsonl").read_text().splitlines()) == 16 * 3


def test_max_samples_takes_a_part_and_the_archives_are_not_fetched_again(site):
    done = site.run(f"{DOWNLOAD} --max-samples 10 --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["scans"] == 10
    num_requests = len(site.behaviour.requests)
    done = site.run(DOWNLOAD)
    assert done.returncode == 0, done.stderr
    assert len(site.behaviour.requests) == num_requests
    assert json.loads((site.output / "manifest.json").read_text())["counts"]["scans"] == 32


def test_augmented_scans_come_on_demand(site):
    folder = "STCray_Augmented/Images/Class 2_Gun"
    image = next(member.data for member in set_members("Train") if str(member.name).endswith(".jpg"))
    site.behaviour.files["STCray_Augmented.rar"] = rar_bytes(
        [Member(f"{folder}/Gun1_B1_L2A_C2_Loc1_phi1_th1_1_flip.jpg", image + b"\0")]
    )
    done = site.run(f"{DOWNLOAD} --include-augmented --json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["train"] == 17


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"HF_TOKEN": ""}, 2, "STCray asks for a login: accept its conditions at https://huggingface.co/datasets/"),
        ({"HF_TOKEN": STRANGER_TOKEN}, 2, "The login is known"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 3, "http://127.0.0.1:9 cannot be reached"),
    ],
)
def test_who_may_not_or_cannot_hears_what_to_do(site, variables, code, said):
    done = site.run(DOWNLOAD, **variables)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not site.output.exists()


def test_a_damaged_download_ends_with_5_and_is_not_unpacked(site):
    site.behaviour.damage = True
    done = site.run(DOWNLOAD)
    assert done.returncode == 5, done.stderr
    assert list((site.output / ".archives").iterdir()) == []
    assert not (site.output / ".unpacked").exists()


def test_an_archive_that_the_disk_has_damaged_is_deleted_and_the_same_command_goes_on(site):
    archive = site.output / ".archives/STCray_TrainSet.rar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(site.behaviour.files[archive.name][:-1] + b"?")
    done = site.run(DOWNLOAD)
    assert done.returncode == 5, done.stderr
    assert "It is deleted: the same command fetches it again" in done.stderr
    assert site.run(DOWNLOAD).returncode == 0


def test_an_archive_of_somebody_else_is_taken_on_request_and_what_is_wrong_with_it_is_named(site):
    archive = site.folder / "STCray_TestSet.rar"
    members = [
        *set_members("Test", num_bags=1),
        Member("../../../evil.jpg", b"x"),
        Member("STCray_TestSet/l.jpg", link_to="/"),
    ]
    archive.write_bytes(rar_bytes(members))
    done = site.run(f"{DOWNLOAD} --source STCray_TestSet.rar")
    assert done.returncode == 5, done.stderr
    assert "STCray_TestSet.rar has" in done.stderr
    done = site.run(f"{DOWNLOAD} --source STCray_TestSet.rar --any-version")
    assert done.returncode == 1, done.stderr
    assert "fault: STCray_TestSet.rar: ../../../evil.jpg: a path out of the folder; left out" in done.stderr
    assert "fault: STCray_TestSet.rar: STCray_TestSet/l.jpg: a link; left out" in done.stderr
    assert "16 resource-fork files" in done.stderr
    done = site.run(f"{DOWNLOAD} --source . --any-version --allow-faults")
    assert done.returncode == 0, done.stderr
    assert json.loads((site.output / "manifest.json").read_text())["counts"]["test"] == 16
    assert list(site.folder.rglob("evil.jpg")) == []


def test_a_file_size_limit_ends_with_3_and_the_same_command_goes_on(site):
    done = site.run(f"ulimit -f 20; {DOWNLOAD}")
    assert done.returncode == 3, done.stderr
    assert "File too large; make room and start the same command again" in done.stderr
    assert site.run(DOWNLOAD).returncode == 0
    assert site.behaviour.asked("store", "GET")[1].headers["Range"] == "bytes=20480-"


def test_a_disk_without_room_is_said_with_numbers_before_anything_is_written(site, small_disk):
    site.output.mkdir()
    small_disk("100k", at=site.output)
    done = site.run(DOWNLOAD)
    assert done.returncode == 3, done.stderr
    needed = (
        r"data/stcray has 0\.10 MB free, and 0\.\d\d MB are needed for STCray_TrainSet.rar and .*, unpacked and as a"
    )
    assert re.search(needed, done.stderr), done.stderr
    assert site.behaviour.asked("store", "GET") == []


def test_a_download_that_is_killed_anywhere_ends_in_the_same_dataset(tmp_path):
    files = archives(num_bags=4)
    with open_site(tmp_path / "undisturbed", files) as site:
        assert site.run(DOWNLOAD).returncode == 0
        wanted = dataset(site.output)
    with open_site(tmp_path / "killed", files) as site:
        kept, unpacked = site.output / ".archives", site.output / ".unpacked"

        def num_there() -> int:
            return sum(path.stat().st_size for path in kept.glob(".*.part")) if kept.is_dir() else 0

        site.behaviour.bytes_per_s = 500_000
        site.kill_when(DOWNLOAD, lambda: num_there() > 30_000)
        had = num_there()
        site.behaviour.requests.clear()
        site.kill_when(DOWNLOAD, lambda: len(list(kept.glob("*.rar"))) == 1 and num_there() > 30_000)
        assert int(site.behaviour.asked("store", "GET")[0].headers["Range"][6:-1]) >= had
        site.behaviour.bytes_per_s = None
        site.kill_when(DOWNLOAD, lambda: len(list(unpacked.glob("STCray_TrainSet/*/*/*/*.jpg"))) > 20)
        assert not (unpacked / "STCray_TestSet/.complete").exists()
        site.kill_when(DOWNLOAD, lambda: (site.output / "train/images/000000.jpg").exists())
        assert not (site.output / "manifest.json").exists()
        done = site.run(DOWNLOAD)
        assert done.returncode == 0, done.stderr
        assert dataset(site.output) == wanted


def test_a_finished_download_is_seen_to_be_whole_without_the_hub_and_without_the_archives(site):
    assert site.run(DOWNLOAD).returncode == 0
    wanted = dataset(site.output)
    shutil.rmtree(site.output / ".archives")
    num_requests = len(site.behaviour.requests)
    done = site.run(f"{DOWNLOAD} --json", HF_TOKEN="", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "data/stcray is whole" in done.stderr
    assert "unpacking" not in done.stderr
    assert json.loads(done.stdout)["counts"]["scans"] == 32
    assert len(site.behaviour.requests) == num_requests
    assert dataset(site.output) == {name: data for name, data in wanted.items() if ".archives" not in name}


@pytest.mark.parametrize("damage", ["missing image", "empty image", "annotations", "report"])
def test_a_finished_download_that_lost_something_is_mended(site, damage):
    assert site.run(DOWNLOAD).returncode == 0
    wanted = dataset(site.output)
    match damage:
        case "missing image":
            (site.output / "train/images/000003.jpg").unlink()
        case "empty image":
            (site.output / "train/images/000003.jpg").write_bytes(b"")
        case "annotations":
            path = site.output / "test/annotations.json"
            path.write_text(path.read_text().replace("Gun", "Knife"))
        case "report":
            (site.output / "import_report.json").unlink()
    done = site.run(DOWNLOAD)
    assert done.returncode == 0, done.stderr
    assert "is whole" not in done.stderr
    assert dataset(site.output) == wanted
