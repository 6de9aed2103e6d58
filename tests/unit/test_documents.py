"""What the documents promise exists: commands, options, files, configurations."""

import argparse
import contextlib
import importlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from xray_vqa.cli.main import COMMANDS
from xray_vqa.config.llm import LlmConfig
from xray_vqa.config.loading import load_config, load_policy
from xray_vqa.config.quality import PairGates
from xray_vqa.config.serve import ServeSettings
from xray_vqa.config.train import PretrainConfig, TrainConfig
from xray_vqa.simulation.profile import load_profile

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")] if path.is_file())
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

DOORS = {
    "data/download_stcray.py": "data_download",
    "data/llm_vqa_generator.py": "generate",
    "training/train_local.py": "train",
    "evaluation/eval_operational.py": "benchmark",
    "scripts/test_llm_generation.sh": "generate",
    "scripts/generate_full_vqa.sh": "generate",
    "scripts/train.sh": "train",
    "scripts/evaluate.sh": "evaluate",
    "scripts/deploy_inference.sh": "serve",
    "scripts/run_full_pipeline.sh": "demo",
}
"""The command behind each documented path; arguments are passed on to it."""

OWN_ARGUMENTS = ("scripts/setup_venv.sh", "scripts/test_api.sh")
"""Scripts that take none of the command's options."""


def code_of(text: str) -> list[str]:
    """The commands in a document: lines of bash blocks, and inline code."""
    blocks = re.findall(r"^[ ]*```bash\n(.*?)^[ ]*```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines()]
    without_blocks = re.sub(r"^[ ]*```.*?^[ ]*```", "", text, flags=re.MULTILINE | re.DOTALL)
    return lines + [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_blocks)]


def calls_in(line: str) -> list[list[str]]:
    """The words of each call of ours in a line, from the command's or the script's name on."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # part of a quotation over several lines: none of our commands has one
        return []
    calls: list[list[str]] = []
    call: list[str] | None = None
    for word in words:
        if set(word) <= set("|&;<>()"):
            call = None
        elif call is not None:
            call.append(word)
        elif word == "xray-vqa" or word in DOORS:
            call = [word]
            calls.append(call)
    return calls


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command)
    importlib.import_module(f"xray_vqa.cli.{command}").add_arguments(parser)
    return parser


def check_call(words: list[str]) -> str | None:
    """Why the real parsers refuse a call, or None. A command that is only named, and `--help`, are calls too."""
    name, *rest = words
    command = DOORS.get(name)
    if command is None:
        if not rest or rest[0] in ("--help", "--version", "COMMAND"):
            return None
        command, *rest = rest
        if command not in COMMANDS:
            return f"there is no command {command}"
        if command == "data" and rest and rest[0] == "SUBCOMMAND":
            return None
        if not rest or (command == "data" and len(rest) == 1):  # only named
            rest = [*rest, "--help"]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(io.StringIO()):
            parser_of(command).parse_args(rest)
    except SystemExit as error:
        return None if error.code == 0 else complaint.getvalue().strip().splitlines()[-1]
    return None


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_in_a_document_exists(name):
    calls = [call for line in code_of((ROOT / name).read_text(encoding="utf-8")) for call in calls_in(line)]
    refused = {" ".join(call): reason for call in calls if (reason := check_call(call))}
    assert refused == {}


def test_the_check_finds_what_does_not_exist():
    for wrong in ("xray-vqa tran", "xray-vqa serve --prot 1", "bash scripts/train.sh --confg x", "xray-vqa data sinth"):
        [call] = calls_in(wrong)
        assert check_call(call), wrong
    for right in ("xray-vqa data", "FOO=1 bash scripts/train.sh a.yaml lora.r=8 | tail", "xray-vqa --help"):
        [call] = calls_in(right)
        assert check_call(call) is None, right


def test_documents_with_commands_are_looked_at():
    found = {name for name in NAMES if any(map(calls_in, code_of((ROOT / name).read_text(encoding="utf-8"))))}
    assert {"QUICKSTART.md", "docs/WORKFLOW.md", "docs/AI_AGENT_VQA_GENERATION.md"} <= found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_help_names_is_there(command):
    assert parser_of(command).format_help()


def test_every_script_is_known_here():
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("[!_]*.sh")}
    assert scripts == {name for name in DOORS if name.startswith("scripts/")} | set(OWN_ARGUMENTS)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_in_a_document_leads_to_a_file(name):
    path = ROOT / name
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    missing = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        if not linked.exists() or (anchor and anchor not in anchors_of(linked)):
            missing.append(target)
    assert missing == []


def anchors_of(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_the_repository_that_a_document_names_exists(name):
    """Paths into folders that git keeps; what the commands make (outputs/, results/, data/*.jsonl) comes later."""
    text = (ROOT / name).read_text(encoding="utf-8")
    kept = r"(?:configs|scripts|docs|tests|examples|training|evaluation|src|benchmarks)"
    named = set(re.findall(rf"(?<![\w./-])({kept}/[\w./-]+\.(?:py|sh|yaml|json|md|jsonl|svg|png))\b", text))
    assert (
        sorted(
            path for path in named if not (ROOT / path).exists() and not (ROOT / name).parent.joinpath(path).exists()
        )
        == []
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_in_a_document_is_a_setting(name):
    named = set(re.findall(r"XRAY_VQA_([A-Z_]+[A-Z])", (ROOT / name).read_text(encoding="utf-8")))
    assert named <= {field.upper() for field in ServeSettings.model_fields} | {"LOG_LEVEL", "REAL_DIR", "SERVER_KEY"}


CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_loads_as_what_its_stage_uses(name):
    path = ROOT / name
    if path.suffix == ".json":
        settings = json.loads(path.read_text())
        assert "zero_optimization" in settings
        assert settings["train_micro_batch_size_per_gpu"] == "auto"  # the Trainer fills in what the run says
        return
    if path.parent.name == "scanners":
        assert load_profile(path).name == path.stem
        return
    if path.stem.startswith("policy"):
        assert load_policy(path).lane in (path.stem.removeprefix("policy_"), "any")
        return
    values = yaml.safe_load(path.read_text())
    if path.stem == "llm":
        kind = LlmConfig
    elif path.stem == "pair_quality":
        kind = PairGates
    else:
        kind = PretrainConfig if values.get("recipe") == "pretrain" else TrainConfig
    config = load_config(kind, path)
    if isinstance(config, TrainConfig) and config.deepspeed:
        assert (ROOT / config.deepspeed).is_file()


def test_the_configuration_of_deepspeed_that_a_comment_names_is_there():
    named = re.findall(r"deepspeed: (\S+\.json)", (ROOT / "configs/train_stcray.yaml").read_text())
    assert named
    assert all((ROOT / path).is_file() for path in named)


def test_the_commands_in_the_heads_of_configurations_and_scripts_exist():
    files = [*(ROOT / "configs").glob("*.yaml"), *(ROOT / "scripts").glob("*.sh")]
    lines = [
        line.removeprefix("#").strip()
        for path in files
        for line in path.read_text().splitlines()
        if line.startswith("#   ") and "[" not in line
    ]
    calls = [call for line in lines for call in calls_in(re.split(r" {3,}", line)[0])]
    refused = {" ".join(call): reason for call in calls if (reason := check_call(call))}
    assert calls
    assert refused == {}
