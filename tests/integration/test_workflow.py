"""Walks docs/WORKFLOW.md and QUICKSTART.md: every command of their bash blocks runs, in order and in one shell, as a
reader would run it.

A walk takes place in a scratch project. Three things stand in for what a test cannot have, and nothing else does:
scans come from the simulator and not from the hub, the model is nano with a few steps and not the 7B, and the pairs
are worded by templates (which the document itself chooses). `RULES` and `QUICK_RULES` say how each command runs. A
command that no rule covers fails the test, and so does a rule that no command needs.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs" / "WORKFLOW.md"
QUICKSTART = ROOT / "QUICKSTART.md"
VENV = Path(sys.prefix)

MODEL_DIR = "outputs/qwen25vl_stcray_lora"

CONTRACT = """
bash scripts/setup_venv.sh
source .venv/bin/activate
python data/download_stcray.py --output-dir data/stcray
python data/download_stcray.py --output-dir data/stcray --verify
export ANTHROPIC_API_KEY="your_key_here"
export OPENAI_API_KEY="your_key_here"
bash scripts/test_llm_generation.sh
python data/llm_vqa_generator.py --output data/stcray_vqa_train_test.jsonl --validate
bash scripts/generate_full_vqa.sh
watch -n 10 "wc -l data/stcray_vqa_train.jsonl"
ls -lh data/*checkpoint*
cat configs/train_stcray.yaml
bash scripts/train.sh
tensorboard --logdir outputs/qwen25vl_stcray_lora/logs
tail -f outputs/qwen25vl_stcray_lora/train.log
bash scripts/train.sh configs/train_stcray.yaml outputs/qwen25vl_stcray_lora/checkpoint-1000
bash scripts/evaluate.sh
python evaluation/eval_operational.py --model outputs/qwen25vl_stcray_lora --test-file data/stcray_vqa_val.jsonl \
--output results/operational_benchmarks.json
bash scripts/deploy_inference.sh
curl http://localhost:8080/health
open http://localhost:8080/docs
bash scripts/test_api.sh
IMAGE_BASE64=$(base64 -i data/stcray/test/images/000000.jpg | tr -d '\\n')
bash scripts/run_full_pipeline.sh
python data/llm_vqa_generator.py --rate-limit-delay 2.0
python data/download_stcray.py --max-samples 1000
tail -n 100 outputs/qwen25vl_stcray_lora/train.log
nvidia-smi
ls -lh outputs/qwen25vl_stcray_lora/
lsof -i :8080
python training/train_local.py --config configs/train_stcray.yaml
TENSOR_PARALLEL_SIZE=4 bash scripts/deploy_inference.sh
""".strip().splitlines()
"""Commands that users rely on; the document may explain them in other words and may not lose one."""


def commands_of(document: Path) -> list[str]:
    """The commands in a document's bash blocks, in order; comment lines and comments behind a command left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    commands: list[str] = []
    for block in blocks:
        pending = ""
        for line in block.splitlines():
            if not pending and (not line.strip() or line.lstrip().startswith("#")):
                continue
            pending += line + "\n"
            if line.endswith("\\") or not _is_whole(pending):
                continue
            commands.append(re.sub(r"\s+# \S[^'\"]*$", "", pending.strip()))
            pending = ""
        assert not pending, f"unfinished command in {document.name}: {pending}"
    return commands


def _is_whole(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:  # an open quotation goes on in the next line
        return False
    return True


def flat(command: str) -> str:
    """A command in one line."""
    return re.sub(r"\s*\\\n\s*", " ", command)


class Walk:
    """One shell in the scratch project, and what a test wants to know of each command."""

    def __init__(self, project: Path, environment: dict[str, str], port: int) -> None:
        self.project, self.port = project, port
        self.log_dir = project.parent / "walk"
        self.log_dir.mkdir()
        self.server_pid = ""
        self._count = 0
        self._shell = subprocess.Popen(["bash"], cwd=project, env=environment, stdin=subprocess.PIPE, text=True)

    def run(self, command: str, answers: str = "", timeout_s: float = 600) -> tuple[int, str, str]:
        """Run a command in the shell, which keeps its variables, and return exit code, stdout and stderr."""
        self._count += 1
        out, err, given, code = (self.log_dir / f"{self._count:02d}.{kind}" for kind in ("out", "err", "in", "code"))
        given.write_text(answers)
        assert self._shell.stdin is not None
        self._shell.stdin.write(
            f"{{\n{command}\n}} >{out} 2>{err} <{given}\necho $? >{code}.part; mv {code}.part {code}\n"
        )
        self._shell.stdin.flush()
        deadline = time.monotonic() + timeout_s
        while not code.is_file():
            assert self._shell.poll() is None, f"the shell ended at: {command}"
            assert time.monotonic() < deadline, f"no end after {timeout_s:.0f} s: {command}\n{err.read_text()[-2000:]}"
            time.sleep(0.05)
        return int(code.read_text()), out.read_text(), err.read_text()

    def start_server(self, command: str) -> None:
        """Run a command that serves until it is stopped, and wait until it is ready. One at a time."""
        self.stop_server()
        log_path = self.log_dir / "server.log"
        self.server_pid = self.run(f"{command} >{log_path} 2>&1 & echo $!")[1].strip()
        deadline = time.monotonic() + 120
        ready = ["curl", "-sf", "-o", os.devnull, f"http://localhost:{self.port}/ready"]
        while subprocess.run(ready, check=False).returncode:
            assert self.run(f"kill -0 {self.server_pid}")[0] == 0, log_path.read_text()
            assert time.monotonic() < deadline, log_path.read_text()
            time.sleep(0.2)

    def stop_server(self) -> None:
        if self.server_pid:
            assert self.run(f"kill {self.server_pid}; wait {self.server_pid}")[0] == 0
            self.server_pid = ""

    def close(self) -> None:
        try:
            self.stop_server()
        finally:
            self._shell.kill()
            self._shell.wait()


@dataclass(frozen=True)
class Rule:
    """How the commands that begin with some text are run."""

    begins: str
    """A regular expression, for the beginning of a command in one line."""
    runs: Callable[[str, Walk], str] = lambda command, walk: command
    """What runs in its place; by default the command as it is printed."""
    codes: tuple[int, ...] = (0,)
    """The exit codes that are right."""
    says: str = ""
    """What has to stand in its stdout or stderr."""
    answers: str = ""
    """What a person types."""
    serves: bool = False
    """It runs until it is stopped: started in the background, ended when the walk is over."""


def instead(text: str) -> Callable[[str, Walk], str]:
    return lambda command, walk: text


def on_own_port(command: str, walk: Walk) -> str:
    return command.replace(":8080", f":{walk.port}")


def with_the_checkpoint_that_is_named(command: str, walk: Walk) -> str:
    """Checkpoint 2 of the short run takes the name that the document prints, and the run goes on from there."""
    model_dir = walk.project / MODEL_DIR
    shutil.copytree(model_dir / "checkpoint-2", model_dir / "checkpoint-1000")
    return command


RULES = (
    Rule("cd /path/to/", instead("cd .")),  # the shell is in the scratch project
    # Installing would re-point the environment that the test itself runs in; `make setup` is where it is run.
    Rule("bash scripts/setup_venv.sh", instead("bash -n scripts/setup_venv.sh && .venv/bin/xray-vqa --version")),
    Rule("source "),
    Rule("export "),
    Rule("python -c"),
    Rule(r"python data/download_stcray.py .*--verify", says="no faults"),
    Rule("python data/download_stcray.py"),  # the scratch project's, which simulates
    Rule("bash scripts/test_llm_generation.sh", says="template"),
    Rule("head "),
    Rule("python data/llm_vqa_generator.py .*--validate", says="0 faults"),
    Rule("python data/llm_vqa_generator.py .*--rate-limit-delay", says="ignored"),
    Rule("bash scripts/generate_full_vqa.sh"),
    Rule("watch ", lambda command, walk: shlex.split(command)[-1]),  # never ends; its command runs once
    Rule("ls "),
    Rule("cat "),
    Rule(r"bash scripts/train.sh configs/\S+ \S+checkpoint-1000", with_the_checkpoint_that_is_named,
         says="going on from outputs/qwen25vl_stcray_lora/checkpoint-1000"),
    Rule(r"bash scripts/train.sh$", says="updates"),
    Rule("tensorboard ", lambda command, walk: f"{command} --inspect", says="train"),  # reads the curves and ends
    Rule("tail -f ", lambda command, walk: command.replace("tail -f", "tail -n 20"), says="loss"),  # never ends
    Rule("tail -n "),
    Rule("bash scripts/evaluate.sh"),
    Rule("python evaluation/eval_operational.py"),
    # No server runs at this place of the walk; test_load_benchmark.py measures one.
    Rule("xray-vqa benchmark --url ", instead(".venv/bin/xray-vqa benchmark --help"), says="--find-capacity"),
    Rule("bash scripts/deploy_inference.sh", serves=True),
    Rule("curl http", on_own_port, says="ok"),
    Rule("open http", lambda command, walk: f"curl -sf {on_own_port(command, walk).split()[-1]}", says="<html"),
    Rule("bash scripts/test_api.sh", says="ok    /api/v1/inspect: 200"),
    Rule("IMAGE_BASE64="),
    Rule("printf "),
    Rule("curl -X POST http", on_own_port, says="TEST-001"),
    Rule("bash scripts/run_full_pipeline.sh", says="done in", answers="y\ny\n"),
    Rule("hf auth login", instead("hf auth login --help"), says="Usage"),  # asks a person for a token
    Rule("nvidia-smi", instead("command -v nvidia-smi && nvidia-smi || echo none")),
    Rule("lsof ", lambda command, walk: f"command -v lsof && {on_own_port(command, walk)} || echo none"),
    Rule("python training/train_local.py"),
    Rule("TENSOR_PARALLEL_SIZE=4 bash scripts/deploy_inference.sh", codes=(2,), says="one server for each GPU"),
)  # fmt: skip


def in_few_steps(command: str, walk: Walk) -> str:
    """The demo with a handful of scans; the test has set the number of steps in its configuration."""
    return ".venv/bin/xray-vqa demo --train 60 --test 6"


def with_scans_of_your_own(command: str, walk: Walk) -> str:
    """Stands in for scans with COCO annotations: those that the demo simulated, divided as somebody else would."""
    source, scans_dir = walk.project / "outputs/demo/stcray", walk.project.parent / "scans"
    coco: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    for split in ("train", "test"):
        (scans_dir / split).mkdir(parents=True, exist_ok=True)
        for record in json.loads((source / split / "annotations.json").read_text()):
            name = f"{split}/{record['image_filename']}"
            shutil.copy(source / record["image_path"], scans_dir / name)
            image_id = len(coco["images"])
            size = {"width": record["width"], "height": record["height"]}
            coco["images"].append({"id": image_id, "file_name": name, "split": split, **size})
            for category, box in zip(record["categories"], record["bboxes"], strict=True):
                names = [entry["name"] for entry in coco["categories"]]
                if category not in names:
                    names.append(category)
                    coco["categories"].append({"id": len(names), "name": category})
                item = {"id": len(coco["annotations"]), "image_id": image_id, "bbox": box}
                coco["annotations"].append({**item, "category_id": names.index(category) + 1})
    (scans_dir / "annotations.json").write_text(json.dumps(coco))
    return command.replace("/path/to/your/scans", str(scans_dir))


def with_clean_scans(command: str, walk: Walk) -> str:
    """Stands in for clean scans without annotations: the demo's, without what is known of them."""
    source, clean_dir = walk.project / "outputs/demo/stcray", walk.project.parent / "clean"
    clean_dir.mkdir(exist_ok=True)
    for record in json.loads((source / "train/annotations.json").read_text()):
        if not record["categories"]:
            shutil.copy(source / record["image_path"], clean_dir)
    return command.replace("/path/to/clean/scans", str(clean_dir))


QUICK_RULES = (
    Rule("make demo", in_few_steps, says="inspect a scan of your own"),
    Rule("source "),
    Rule("xray-vqa inspect "),
    Rule("xray-vqa data import /path/to/clean", with_clean_scans, says="clean"),
    Rule("xray-vqa data import .*--box-factor", with_scans_of_your_own),
    Rule("xray-vqa data import ", with_scans_of_your_own, says="train                   60"),
    Rule("xray-vqa data tip ", says="projected"),
    Rule("xray-vqa train configs/finetune_real.yaml"),
    Rule("xray-vqa data verify ", says="no faults"),
    Rule("xray-vqa generate ", says="pairs"),
    Rule("xray-vqa train configs/train_demo.yaml"),
    Rule("xray-vqa train configs/train_stcray.yaml", codes=(2,), says="needs a CUDA GPU"),  # there is none
    Rule("xray-vqa evaluate ", says="item_f1"),
    Rule("xray-vqa compare ", says="bag_auc"),
    Rule("xray-vqa serve ", serves=True),
    Rule("bash scripts/test_api.sh", says="ok    /api/v1/inspect: 200"),
)


WALKS = {WORKFLOW: RULES, QUICKSTART: QUICK_RULES}


def rule_of(command: str, document: Path) -> Rule:
    rule = next((rule for rule in WALKS[document] if re.match(rule.begins, flat(command))), None)
    assert rule is not None, f"no rule covers this command of {document.name}: {command}"
    return rule


@pytest.mark.parametrize("document", WALKS, ids=lambda path: path.name)
def test_every_command_has_a_rule_and_every_rule_a_command(document):
    used = {rule_of(command, document).begins for command in commands_of(document)}
    assert sorted(rule.begins for rule in WALKS[document] if rule.begins not in used) == []


def test_the_document_keeps_every_command_that_users_rely_on():
    printed = {flat(command) for command in commands_of(WORKFLOW)}
    assert sorted(command for command in CONTRACT if command not in printed) == []


def test_the_answer_that_the_document_shows_is_the_one_of_the_api_page():
    from xray_vqa.serving.schemas import ANSWER_EXAMPLE

    shown = json.loads(re.search(r"```json\n(.*?)```", WORKFLOW.read_text(), re.DOTALL).group(1))
    assert shown == {key: ANSWER_EXAMPLE[key] for key in shown}
    assert list(shown) == list(ANSWER_EXAMPLE)[: len(shown)]


STAND_IN_FOR_THE_HUB = '''
"""Stands in for the hub: simulated scans where the real one would fetch STCray; everything else is passed on."""
import runpy, subprocess, sys
from pathlib import Path
if "--verify" in sys.argv:
    runpy.run_path(str(Path(__file__).with_name("real_download_stcray.py")), run_name="__main__")
raise SystemExit(subprocess.run([sys.executable, "-m", "xray_vqa", "data", "synth", "--output-dir", "data/stcray",
                                 "--train", "24", "--test", "10", "--size", "256x192", "--workers", "1"]).returncode)
'''

SHORT_RUN = {
    "model_name": "nano", "max_steps": 4, "eval_steps": 2, "save_steps": 2, "logging_steps": 1,
    "gradient_accumulation_steps": 1, "dataloader_num_workers": 0, "image_resolution": 224,
    "lora": {"r": 4, "alpha": 8},
}  # fmt: skip


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would choose a provider, a model or a setting; no GPU, no hub."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("XRAY_VQA_")
        and name not in ("PROVIDER", "MODEL", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "VIRTUAL_ENV", "HF_TOKEN")
    }
    return {
        **kept,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing listens there
        **variables,
    }


def make_project(folder: Path) -> Path:
    """A checkout as a stranger has it: the scripts, doors and configurations copied, the environment linked."""
    project = folder / "project"
    project.mkdir()
    for name in ("scripts", "configs", "training", "evaluation"):
        shutil.copytree(ROOT / name, project / name)
    (project / "data").mkdir()
    for path in (ROOT / "data").glob("*.py"):
        shutil.copy(path, project / "data")
    (project / ".venv").symlink_to(VENV)
    return project


@pytest.fixture
def project(tmp_path) -> Path:
    return make_project(tmp_path)


@pytest.fixture
def walk(project):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = clean_environment(XRAY_VQA_PORT=str(port), API_URL=f"http://localhost:{port}",
                                    XRAY_VQA_TIMEOUT_S="60", PROVIDER="template")  # fmt: skip
    walk = Walk(project, environment, port)
    yield walk
    walk.close()


def shorten(config_path: Path, **settings: object) -> None:
    config_path.write_text(yaml.safe_dump({**yaml.safe_load(config_path.read_text()), **settings}))


def follow(document: Path, walk: Walk) -> dict[str, str]:
    """Run every command of a document and return what each one wrote to stdout."""
    said: dict[str, str] = {}
    for command in commands_of(document):
        rule = rule_of(command, document)
        words = rule.runs(command, walk)
        started = time.monotonic()
        if rule.serves:
            walk.start_server(words)
            continue
        code, out, err = walk.run(words, rule.answers)
        print(f"{time.monotonic() - started:6.1f} s  exit {code}  {flat(command)[:100]}")
        assert code in rule.codes, f"exit code {code} from: {command}\n{out[-1500:]}\n{err[-3000:]}"
        assert rule.says in out + err, f"{rule.says!r} is not said by: {command}\n{out[-1500:]}\n{err[-3000:]}"
        said[flat(command)] = out
    return said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_quick_start_runs_in_order(walk):
    project = walk.project
    shorten(project / "configs/train_demo.yaml", max_steps=2, eval_steps=2, save_steps=2)
    few = {"max_steps": 2, "eval_steps": 2, "save_steps": 2}
    shorten(project / "configs/finetune_real.yaml", per_device_train_batch_size=2, **few)
    said = follow(QUICKSTART, walk)
    assert (project / "outputs/demo/report.html").is_file()
    assert (project / "outputs/mine/calibration.json").is_file()
    assert (project / "results/mine.html").is_file()
    assert len(list((project / "outputs/drawn").glob("*.png"))) == 6
    [answer] = [json.loads(out) for command, out in said.items() if " --json " in command]
    assert [line["item"] for line in answer["declaration"]] == ["clothing", "scissors"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_workflow_runs_in_order(walk):
    project = walk.project
    (project / "data/download_stcray.py").rename(project / "data/real_download_stcray.py")
    (project / "data/download_stcray.py").write_text(STAND_IN_FOR_THE_HUB)
    shorten(project / "configs/train_stcray.yaml", **SHORT_RUN)
    said = follow(WORKFLOW, walk)

    for name in ("train", "test"):
        assert (project / "data/stcray" / name / "annotations.json").is_file()
        assert (project / "data/stcray" / name / "images/000000.jpg").is_file()
    lines = {name: (project / f"data/{name}.jsonl").read_text().splitlines()
             for name in ("stcray_vqa_train_test", "stcray_vqa_train", "stcray_vqa_val")}  # fmt: skip
    assert [len(lines[name]) for name in lines] == [72, 72, 30]
    manifest = json.loads((project / "data/stcray_vqa_val.jsonl.manifest.json").read_text())
    assert manifest["split"] == "test"

    for name in ("train.log", "logs", "adapter_model.safetensors", "checkpoint-4/trainer_state.json"):
        assert (project / MODEL_DIR / name).exists(), name

    four = ["exact_match_accuracy", "item_f1", "bleu", "rouge_l"]
    printed = json.loads(said["bash scripts/evaluate.sh"])
    written = json.loads((project / "results/evaluation.json").read_text())
    assert list(printed) == list(written)[:4] == four
    assert all(0 <= written[key] <= 1 for key in four)
    assert printed == {key: written[key] for key in four}

    five = ["latency_p50_ms", "latency_p95_ms", "throughput_batch1", "throughput_batch8", "gpu_memory_gb"]
    written = json.loads((project / "results/operational_benchmarks.json").read_text())
    assert list(written)[:5] == five
    assert all(written[key] > 0 for key in five[:4])
    assert written["gpu_memory_gb"] is None
    assert written["memory_rss_gb"] > 0

    answers = [json.loads(out) for command, out in said.items() if command.startswith("curl -X POST")]
    shown = json.loads(re.search(r"```json\n(.*?)```", WORKFLOW.read_text(), re.DOTALL).group(1))
    assert len(answers) == 2
    for answer in answers:
        assert list(answer)[: len(shown)] == list(shown)
        assert {type(answer[key]) for key in ("scan_id", "risk_level", "action", "reasoning")} == {str}
        assert isinstance(answer["processing_time_ms"], int)
        assert not answer["degraded"], answer
        assert answer["audit_id"]


def run_plain(project: Path, command: str, **variables: str) -> tuple[int, str]:
    run = subprocess.run(
        ["bash", "-c", command], cwd=project, env=clean_environment(**variables), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode, run.stderr


def test_without_a_gpu_the_7b_is_not_trained(project):
    code, said = run_plain(project, "bash scripts/train.sh")
    assert code == 2
    assert "needs a CUDA GPU" in said
    assert "model_name=nano" in said


@pytest.mark.parametrize("script", ["generate_full_vqa.sh", "test_llm_generation.sh", "run_full_pipeline.sh"])
def test_without_a_key_no_pairs_are_written_and_the_free_writer_is_named(project, script):
    code, said = run_plain(project, f"bash scripts/{script}")
    assert code == 2
    assert "PROVIDER=template" in said
    assert "ANTHROPIC_API_KEY" in said
    assert sorted(path.name for path in (project / "data").iterdir()) == ["download_stcray.py", "llm_vqa_generator.py"]


@pytest.mark.parametrize("variables", [{"ANTHROPIC_API_KEY": "your_key_here"}, {"PROVIDER": "tempalte"}])
def test_a_writer_that_is_not_there_stops_the_pipeline_before_anything_is_downloaded(project, variables):
    code, said = run_plain(project, "bash scripts/run_full_pipeline.sh --yes", **variables)
    assert code == 2
    assert "template" in said
    assert "download STCray" not in said


def test_without_a_network_the_download_can_be_resumed_later(project, tmp_path):
    code, said = run_plain(
        project, "source .venv/bin/activate; python data/download_stcray.py --output-dir data/stcray",
        HF_HOME=str(tmp_path / "empty"), HF_TOKEN="none",
    )  # fmt: skip
    assert code == 3, said
    assert "error:" in said


def test_without_a_network_a_model_of_the_hub_is_not_served_silently(project, tmp_path):
    code, said = run_plain(
        project, ".venv/bin/xray-vqa inspect --model Qwen/Qwen2.5-VL-7B-Instruct .venv/pyvenv.cfg",
        HF_HOME=str(tmp_path / "empty"),
    )  # fmt: skip
    assert code == 2, said
    assert "use `nano`" in said


def test_a_parallel_server_is_refused_with_what_to_do_instead(project):
    code, said = run_plain(project, "bash scripts/deploy_inference.sh", TENSOR_PARALLEL_SIZE="4")
    assert code == 2
    assert "one server for each GPU" in said
