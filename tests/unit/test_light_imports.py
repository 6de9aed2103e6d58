"""What a laptop may import in milliseconds stays light, and modules import only what stands to their right."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "xray_vqa"

HEAVY = ("torch", "transformers", "peft", "fastapi", "prometheus_client", "anthropic", "openai", "numba", "scipy",
         "torchvision", "accelerate", "sqlalchemy", "alembic", "psycopg", "cryptography",
         "pyarrow", "pydicom")  # fmt: skip

# cli -> serving | evaluation | training | generation -> inference -> modeling -> simulation | dataset -> config
#     -> core -> errors; what stands in one line here knows nothing of its neighbours.
LAYERS = (
    {"cli"},
    {"serving", "evaluation", "training", "generation"},
    {"inference"},
    {"modeling"},
    {"simulation", "dataset"},
    {"config"},
    {"core"},
    {"errors"},
)
EXCEPTIONS = {("simulation", "xray_vqa.dataset.layout")}
"""The simulator writes datasets, and the layout on disk has one home."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def module_names(*folders: str) -> list[str]:
    paths = [path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))]
    words = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in paths]
    return [".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in words]


def loaded_after_importing(names: list[str]) -> list[str]:
    """The heavy packages that a fresh process has loaded after importing some modules."""
    program = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "names",
    [["xray_vqa"], module_names("core"), module_names("config"), module_names("cli"), module_names("dataset")],
    ids=["xray_vqa", "core", "config", "cli", "dataset"],
)
def test_a_fresh_process_stays_light(names):
    assert names
    assert loaded_after_importing(names) == []


def test_help_of_the_command_loads_nothing_heavy():
    program = (
        "import sys\nfrom xray_vqa.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of every import in a file, those inside functions and under TYPE_CHECKING included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from xray_vqa.evaluation import score` names a module, `from xray_vqa import errors` a layer.
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def part_of(parts: tuple[str, ...]) -> str:
    """The layer of a module: the folder or file right under the package."""
    return Path(parts[0]).stem


def test_no_module_imports_torchvision():
    files = list(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    offending = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in files
        for line, name in imports_of(path)
        if name.split(".")[0] == "torchvision"
    ]
    assert offending == []


def test_loading_the_model_code_leaves_torchvision_out():
    names = module_names("modeling", "inference", "training", "evaluation", "generation", "simulation", "dataset")
    if importlib.util.find_spec("triton") is None:  # which comes with torch for GPUs alone
        names.remove("xray_vqa.modeling.kernels")
    assert "torchvision" not in loaded_after_importing(names)


def test_a_module_imports_only_what_stands_to_its_right():
    offending = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = part_of(path.relative_to(PACKAGE).parts)
        if own in ("__init__", "__main__"):
            continue
        for line, name in imports_of(path):
            words = name.split(".")
            if words[0] != "xray_vqa" or len(words) < 2:
                continue
            other = words[1]
            assert other in RANK, f"{path}:{line}: xray_vqa.{other} has no place in the layers"
            excepted = (own, ".".join(words[:3])) in EXCEPTIONS
            if other != own and RANK[other] <= RANK[own] and not excepted:
                offending.append(f"{path.relative_to(PACKAGE)}:{line} ({own}) imports {name}")
    assert offending == []


def test_every_part_of_the_package_has_its_place_in_the_layers():
    parts = {part_of(path.relative_to(PACKAGE).parts) for path in PACKAGE.rglob("*.py")}
    assert parts - {"__init__", "__main__"} == set(RANK)
