"""`xray-vqa data ...` and `data/download_stcray.py` as a user calls them."""

import fcntl
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.cli.data_synth import counts_of
from xray_vqa.cli.main import main

REPO_DIR = Path(__file__).resolve().parents[3]


def make_png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(make_png(ord(name[0])))
    images = [
        {"id": 0, "file_name": "a.png", "split": "train"},
        {"id": 1, "file_name": "b.png", "split": "val"},
    ]
    annotations = [{"image_id": 0, "category_id": 1, "bbox": [4, 4, 20, 10]}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Gun"}]}
    (folder / "labels.json").write_text(json.dumps(content))
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def run_script(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XRAY_VQA_"))}
    return subprocess.run(
        [sys.executable, REPO_DIR / "data/download_stcray.py", *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False, env=variables | environment,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["--format", "coco", "{source}"], ["{source}", "--format", "coco"], ["{source}"]])
def test_import_takes_its_words_in_any_order(source, tmp_path, capsys, words):
    words = [word.format(source=source) for word in words]
    assert run("data", "import", *words, "--output-dir", tmp_path / "mine") == 0
    assert run("data", "verify", tmp_path / "mine") == 0
    out = capsys.readouterr().out
    assert "train: 1 scans (0 clean), 1 items" in out
    assert "test: 1 scans (1 clean), 0 items" in out


def test_import_reports_as_json_on_stdout(source, tmp_path, capsys):
    assert run("data", "import", source, "--output-dir", tmp_path / "mine", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["counts"]["train"], report["categories"]["train"]) == (1, {"Gun": 1})


def test_import_with_a_missing_image_ends_with_1_unless_faults_are_allowed(source, tmp_path, capsys):
    (source / "b.png").unlink()
    assert run("data", "import", source, "--output-dir", tmp_path / "mine") == 1
    assert "labels.json:1: image 'b.png' is missing" in capsys.readouterr().err
    assert run("data", "import", source, "--output-dir", tmp_path / "mine", "--allow-faults") == 0
    assert run("data", "verify", tmp_path / "mine") == 0


def test_import_maps_splits(source, tmp_path, capsys):
    assert run("data", "import", source, "--output-dir", tmp_path / "mine", "--split-map", "val=train") == 0
    assert "the test split is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/no/such/folder"], "no such folder"),
        (["{source}", "--format", "yolo9000"], "no format 'yolo9000'; there are cityscapes, class-folders, coco"),
        (["{source}", "--split-map", "val=dev"], "a split maps to train, test or skip"),
        (["{source}", "--test-share", "1.5"], "give a share"),
        (["{source}", "--annotated", "Gun,Laptop"], "Laptop is no category"),
        (["{source}", "--group-pattern", "("], "--group-pattern"),
    ],
)
def test_wrong_use_of_import_ends_with_2_and_says_why(source, tmp_path, capsys, words, said):
    words = [word.format(source=source) for word in words]
    assert run("data", "import", *words, "--output-dir", tmp_path / "mine") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_verify_ends_with_1_where_something_is_wrong(source, tmp_path, capsys):
    run("data", "import", source, "--output-dir", tmp_path / "mine")
    (tmp_path / "mine/train/images/000000.png").write_bytes(b"")
    capsys.readouterr()
    assert run("data", "verify", tmp_path / "mine", "--json") == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["faults"]) == 2  # other bytes, and no image
    assert "train/annotations.json:0:" in captured.err


@pytest.mark.parametrize("name", ["synth", "download", "import", "export", "tip", "verify"])
def test_help_of_each_subcommand_has_examples(name, capsys):
    with pytest.raises(SystemExit) as stop:
        run("data", name, "--help")
    assert stop.value.code == 0
    assert f"xray-vqa data {name}" in capsys.readouterr().out.split("examples:")[1]


def test_help_of_data_names_the_subcommands(capsys):
    with pytest.raises(SystemExit) as stop:
        run("data", "--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(name in out for name in ("synth", "download", "import", "export", "tip", "verify", "examples:"))


def test_only_the_chosen_subcommand_is_imported():
    code = (
        "import sys\nfrom xray_vqa.cli.main import main\n"
        "try: main(['data', 'verify', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numba', 'huggingface_hub', 'xray_vqa.cli.data_synth',"
        " 'xray_vqa.cli.data_download', 'xray_vqa.dataset.importing'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# --- Simulated scans --------------------------------------------------------------------------------------------------

SMALL_SYNTH = ["--size", "128x96", "--profile", "stcray-like", "--workers", 1]


@pytest.mark.parametrize(
    ("words", "train", "test"),
    [(["--count", 5], 4, 1), (["--train", 2], 2, 100), ([], 300, 100), (["--test", 0], 300, 0)],
)
def test_counts_of_bags_go_to_the_splits(words, train, test):
    options = dict(zip(words[::2], words[1::2], strict=True))
    counts = counts_of(*(options.get(name) for name in ("--count", "--train", "--test")))
    assert counts == {"train": train, "test": test}


def test_synth_writes_coco_beside_the_layout_when_asked(tmp_path):
    assert run("data", "synth", "--output-dir", tmp_path / "s", "--count", 4, "--coco", "--masks", *SMALL_SYNTH) == 0
    coco = json.loads((tmp_path / "s/train/instances.json").read_text())
    assert len(coco["images"]) == 3
    assert all(sum(item["segmentation"]["counts"]) == 128 * 96 for item in coco["annotations"])


def test_a_contact_sheet_is_one_picture_and_no_dataset(tmp_path, capsys):
    assert run("data", "synth", "--contact-sheet", tmp_path / "new/look.png", *SMALL_SYNTH) == 0
    with Image.open(tmp_path / "new/look.png") as sheet:
        assert sheet.size == (4 * 132, 6 * 100)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["look.png", "new"]


def test_the_profiles_are_listed_with_their_files(capsys):
    assert run("data", "synth", "--list-profiles") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 5
    assert all(Path(line.split()[-1]).is_file() for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", 4], "--output-dir is missing"),
        (["--output-dir", "{tmp}/s", "--count", 4, "--train", 2], "leave out --train and --test"),
        (["--output-dir", "{tmp}/s", "--count", 0], "0 bags"),
        (["--output-dir", "{tmp}/s", "--count", 4, "--profile", "smiths"], "no scanner profile 'smiths'"),
        (["--output-dir", "{tmp}/s", "--count", 2000000], "1000000 images at most"),
        (["--contact-sheet", "{tmp}/look.tiff"], "ends in .png or .jpg"),
    ],
)
def test_wrong_use_of_synth_ends_with_2_and_says_why(tmp_path, capsys, words, said):
    assert run("data", "synth", *(str(word).format(tmp=tmp_path) for word in words)) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- Threat image projection -----------------------------------------------------------------------------------------


@pytest.fixture
def simulated(tmp_path):
    """Four clean simulated scans, as a host whose categories are all labelled."""
    words = ["--train", 4, "--test", 1, "--size", "256x192", "--clean-share", 1, "--profile", "stcray-like"]
    assert run("data", "synth", "--output-dir", tmp_path / "host", "--workers", 1, *words) == 0
    return tmp_path / "host"


def test_tip_writes_a_dataset_that_verifies_and_the_same_command_again_does_nothing(simulated, tmp_path, capsys):
    words = ["data", "tip", simulated, "--output-dir", tmp_path / "out", "--count", 2, "--categories", "Gun,Knife"]
    assert run(*words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["counts"]["projected"], report["counts"]["scans"]) == (2, 5)
    assert run("data", "verify", tmp_path / "out") == 0
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert run(*words) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == written


def test_tip_ends_with_1_where_no_scan_got_a_threat(tmp_path, capsys):
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise/a.png").write_bytes(make_png(1))
    words = ["--output-dir", tmp_path / "out", "--categories", "Gun", "--host-is-clean"]
    assert run("data", "tip", tmp_path / "noise", *words) == 1
    assert "refused: 1, first a.png: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{host}/none"], "no such folder"),
        (["{host}", "--count", "0"], "--count"),
        (["{host}", "--share", "1.5"], "--share"),
        (["{host}", "--categories", "Laptop"], "Laptop is no category"),
        (["{host}", "--profile", "smiths"], "no scanner profile 'smiths'"),
        (["{host}/train/images"], "labels no category"),
    ],
)
def test_wrong_use_of_tip_ends_with_2_and_says_why(simulated, tmp_path, capsys, words, said):
    words = [word.format(host=simulated) for word in words]
    assert run("data", "tip", *words, "--output-dir", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- STCray ----------------------------------------------------------------------------------------------------------


def test_without_network_the_download_ends_within_seconds_with_3_and_says_what_to_do(tmp_path):
    start = time.monotonic()
    done = run_script("--output-dir", tmp_path / "out", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - start < 20
    for word in ("http://127.0.0.1:9 cannot be reached", "--source DIR", "STCray_TestSet.rar", "xray-vqa data synth"):
        assert word in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_hub_that_accepts_and_stays_silent_is_not_waited_for(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom xray_vqa.dataset.stcray import hub, published\n"
        "from xray_vqa.errors import Incomplete\nhub.PROBE_TIMEOUT_S = 0.5\n"
        "try: hub.fetch_archives(published.ARCHIVES, Path('x'))\nexcept Incomplete as error: sys.exit(str(error))"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HOME": str(tmp_path)}
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | settings,
        )  # fmt: skip
    assert "did not answer within" in done.stderr
    assert time.monotonic() - start < 8  # the request itself would wait for 10 s


def test_verify_of_what_is_not_there_ends_with_2(tmp_path):
    done = run_script("--output-dir", tmp_path / "out", "--verify")
    assert done.returncode == 2
    assert "no such folder" in done.stderr


def test_max_samples_has_to_be_a_number_of_scans():
    done = run_script("--max-samples", "0")
    assert done.returncode == 2
    assert "no number of scans" in done.stderr


def make_set(folder: Path, name: str, labels: tuple[str, ...]) -> None:
    for number, label in enumerate(labels):
        base = folder / f"STCray_{name}Set"
        stem = f"{label}1_B{number}_L1_C2_Loc1_phi1_th1_1"
        for part in ("Images", "Json_BB"):
            (base / part / f"Class 2_{label}").mkdir(parents=True)
        (base / f"Images/Class 2_{label}/{stem}.png").write_bytes(make_png(10 * len(name) + number))
        shapes = [{"label": label, "points": [[2, 2], [30, 30]]}]
        content = {"shapes": shapes if label != "Non Threat" else [], "imageWidth": 64, "imageHeight": 48}
        (base / f"Json_BB/Class 2_{label}/{stem}.json").write_text(json.dumps(content))


def test_an_unpacked_copy_becomes_a_dataset_that_verifies(tmp_path):
    make_set(tmp_path / "copy", "Train", ("Gun", "Non Threat"))
    make_set(tmp_path / "copy", "Test", ("Knife",))
    done = run_script("--source", tmp_path / "copy", "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    done = run_script("--output-dir", tmp_path / "out", "--verify")
    assert done.returncode == 0, done.stderr
    assert "train: 2 scans (1 clean), 1 items" in done.stdout
    assert "test: 1 scans (0 clean), 1 items" in done.stdout


def test_a_source_that_is_not_there_is_said(tmp_path, capsys):
    assert run("data", "download", "--source", tmp_path / "none", "--output-dir", tmp_path / "out") == 2
    assert "give hub, an archive or a folder with archives" in capsys.readouterr().err


def test_two_downloads_into_one_folder_do_not_meet(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert run("data", "download", "--source", tmp_path, "--output-dir", tmp_path / "out") == 2
    assert "another download is at work here" in capsys.readouterr().err
    os.close(descriptor)
