"""How many small faults in the policy's code its tests notice.

    python benchmarks/policy_mutants.py [--processes 2] [--json benchmarks/results/policy_mutants.json]

Each mutant is the policy's source with one change: a comparison turned or shifted, `and` for `or`, a `not` left out, a
constant altered, `any` for `all`, a filter or a branch dropped, a result thrown away. Its tests run in a process of its
own, forked from one that has collected them. A mutant that no test refuses is alive and is named. Those of the
code that `clear` depends on are counted by themselves; that is all of the modules but the names in `BESIDE_CLEAR`.
"""

import argparse
import ast
import copy
import gc
import importlib
import os
import sys
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy.random  # noqa: F401  (loaded before the fork, for its time)
import pytest
from hypothesis import settings
from measuring import conditions, publish

import xray_vqa.core.calibration
import xray_vqa.core.images  # noqa: F401
from xray_vqa.core.lexicon import LANGUAGES, load_lexicon

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("ontology", "rules", "decision", "stop")
"""Of `xray_vqa.core.policy`, in the order in which they import each other."""
TESTS = ("test_stop_switch.py", "test_declared_lines.py", "test_policy.py")
FIRST_TEST = {"stop": "test_stop_switch.py", "ontology": "test_declared_lines.py"}
NUM_EXAMPLES = 15
"""Of each property test; by default they have a hundred."""
BESIDE_CLEAR = {"RISK_RULES", "RiskRule", "outcome_of", "label", "unsure_risk_of", "risk_of_declaring"}
"""Functions, classes and constants that speak of risk or words and on which no `clear` depends."""
TIMEOUT_S = 240

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr
}  # fmt: skip
_LEFT_OUT = (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom)
_CALLS = {"any": "all", "all": "any", "max": "min", "min": "max"}


@dataclass(frozen=True)
class Mutant:
    """One changed module."""

    module: str
    line: int
    what: str
    inside: str
    """The outermost function, class or constant that it lies in, down to the innermost."""
    kind: Literal["function", "constant", "class"]
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line} {self.inside}: {self.what}"

    @property
    def is_on_clear_path(self) -> bool:
        return BESIDE_CLEAR.isdisjoint(self.inside.split("."))


def mutants_of(module: str) -> Iterator[Mutant]:
    """Yield each mutant of a module, in the order of its lines."""
    tree = ast.parse(_source(module))
    for index, (node, inside) in enumerate(_walk(tree, ())):
        for number, what in enumerate(_changes(node)):
            changed = copy.deepcopy(tree)
            twin = next(there for at, (there, _) in enumerate(_walk(changed, ())) if at == index)
            _apply(twin, number)
            ast.fix_missing_locations(changed)
            # The constants of `rules` are types of its models' fields.
            line, kind = getattr(node, "lineno", 0), _kind_of(tree, inside)
            kind = "class" if module == "rules" and kind == "constant" else kind
            yield Mutant(module, line, what, ".".join(inside), kind, changed)


def _kind_of(tree: ast.Module, inside: tuple[str, ...]) -> Literal["function", "constant", "class"]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            if isinstance(statement.targets[0], ast.Name) and (statement.targets[0].id,) == inside[:1]:
                return "constant"
        elif isinstance(statement, ast.ClassDef) and (statement.name,) == inside[:1]:
            return "function" if len(inside) > 1 else "class"
    return "function"


def _walk(node: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """Yield what can be changed with the names around it; annotations, docstrings and messages are left out."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, _LEFT_OUT):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            named = inside
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                named = (*inside, child.name)
            elif isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name) and not inside:
                named = (child.targets[0].id,)
            yield child, named
            yield from _walk(child, named)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _changes(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Compare):
        return [f"{type(op).__name__} turned" for op in node.ops if type(op) in _COMPARISONS]
    if isinstance(node, ast.BoolOp):
        return ["and for or" if isinstance(node.op, ast.Or) else "or for and"]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ["not left out"]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return [f"{type(node.op).__name__} turned"]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        return [f"{_CALLS[node.func.id]} for {node.func.id}"]
    if isinstance(node, ast.comprehension) and node.ifs:
        return ["filter dropped"]
    if isinstance(node, ast.Return) and not (node.value is None or _is_none(node.value)):
        return ["result thrown away"]
    if isinstance(node, ast.IfExp):
        return ["always first", "always second"]
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return [f"{node.value!r} altered"]
    return []


def _apply(node: ast.AST, number: int) -> None:
    if isinstance(node, ast.Compare):
        known = [at for at, op in enumerate(node.ops) if type(op) in _COMPARISONS]
        node.ops[known[number]] = _COMPARISONS[type(node.ops[known[number]])]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif isinstance(node, ast.UnaryOp):
        node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.BinOp):
        node.op = _ARITHMETIC[type(node.op)]()
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        node.func.id = _CALLS[node.func.id]
    elif isinstance(node, ast.comprehension):
        node.ifs = []
    elif isinstance(node, ast.Return):
        node.value = ast.Constant(None)
    elif isinstance(node, ast.IfExp):
        node.test = ast.Constant(number == 0)
    elif isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            node.value = not value
        else:
            node.value = f"{value}x" if isinstance(value, str) else value + 1  # pyright: ignore[reportOperatorIssue]


class MutantRunner:
    """A pytest plugin that collects the tests once and then runs them for each mutant in a fork of that process."""

    def __init__(self, mutants: list[Mutant], processes: int) -> None:
        self.mutants = mutants
        self.processes = processes
        self.fates: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if (fate := self._run(session, [None])) != ["alive"]:
            raise SystemExit(f"the tests do not pass on the unchanged policy: {fate}")
        self.fates = self._run(session, self.mutants)
        return True

    def _run(self, session: pytest.Session, mutants: Sequence[Mutant | None]) -> list[str]:
        fates = [""] * len(mutants)
        waiting, running = list(enumerate(mutants)), dict[int, tuple[int, float]]()
        while waiting or running:
            while waiting and len(running) < self.processes:
                at, mutant = waiting.pop(0)
                child = os.fork()
                if child == 0:
                    os._exit(_run_tests(session, mutant))
                running[child] = (at, time.monotonic())
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended:
                at, _ = running.pop(ended)
                fates[at] = fates[at] or ("alive" if status == 0 else "killed")
                print(f"{at + 1}/{len(mutants)} {fates[at]} {mutants[at]}", file=sys.stderr, flush=True)
                continue
            for child, (at, started) in running.items():
                if time.monotonic() - started > TIMEOUT_S and not fates[at]:
                    fates[at] = "timeout"
                    os.kill(child, 9)
            time.sleep(0.01)
        return fates


def _run_tests(session: pytest.Session, mutant: Mutant | None) -> int:
    """Put the mutant in place and run the tests up to the first that fails. Returns 0 where they all pass."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    module = mutant.module if mutant else ""
    try:
        if mutant is not None:
            if mutant.kind == "class":  # a model's fields: everything that uses it has to be made anew
                return _run_anew(mutant)
            _put_in_place(mutant)
        for item in sorted(session.items, key=lambda item: item.path.name != FIRST_TEST.get(module, TESTS[-1])):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if session.testsfailed:
                return 1
    except BaseException:  # noqa: BLE001  (a mutant that cannot even be loaded, or that ends the process, is noticed)
        return 1
    return 0


def _put_in_place(mutant: Mutant) -> None:
    module = sys.modules[f"xray_vqa.core.policy.{mutant.module}"]
    code = compile(mutant.tree, str(module.__file__), "exec")
    for there in list(vars(module).values()):  # what was read while the tests were collected
        if hasattr(there, "cache_clear"):
            there.cache_clear()
    if mutant.kind == "constant":
        scratch = {**vars(module)}
        exec(code, scratch)
        name = mutant.inside.split(".")[0]
        setattr(module, name, scratch[name])
        return
    changed = {(inner.co_qualname, inner.co_firstlineno): inner for inner in _codes_in(code)}
    for function in [there for there in gc.get_objects() if isinstance(there, types.FunctionType)]:
        key = (function.__code__.co_qualname, function.__code__.co_firstlineno)
        if function.__module__ == module.__name__ and key in changed:
            function.__code__ = changed[key]


def _codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes_in(constant)


def _run_anew(mutant: Mutant) -> int:
    """Import package and tests again, with one of the modules changed, in a pytest of their own."""
    import xray_vqa.core

    folder = ROOT / "src/xray_vqa/core/policy"
    for name in [name for name in sys.modules if name.startswith(("xray_vqa.core.policy", "xray_vqa.config", "test_"))]:
        del sys.modules[name]
    package = types.ModuleType("xray_vqa.core.policy")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    setattr(xray_vqa.core, "policy", package)  # noqa: B010 - pyright knows no attribute of that name
    for name in MODULES:
        if name != mutant.module:
            importlib.import_module(f"{package.__name__}.{name}")
            continue
        module = types.ModuleType(f"{package.__name__}.{name}")
        module.__file__ = str(folder / f"{name}.py")
        sys.modules[module.__name__] = module
        setattr(package, name, module)
        exec(compile(mutant.tree, module.__file__, "exec"), vars(module))
    exec(compile((folder / "__init__.py").read_text(encoding="utf-8"), "__init__.py", "exec"), vars(package))
    return int(pytest.main(_options()))


def _options() -> list[str]:
    paths = [str(ROOT / "tests/unit/core" / test) for test in TESTS]
    return ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", f"--rootdir={ROOT}", *paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="mutants tried at once (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    settings.register_profile("mutants", max_examples=NUM_EXAMPLES, database=None, deadline=None)
    for language in LANGUAGES:
        load_lexicon(language)
    mutants = [mutant for module in reversed(MODULES) for mutant in mutants_of(module)]
    runner = MutantRunner(mutants, args.processes)
    pytest.main(_options(), plugins=[runner])
    alive = [mutant for mutant, fate in zip(mutants, runner.fates, strict=True) if fate == "alive"]
    on_path = [mutant for mutant in mutants if mutant.is_on_clear_path]
    publish(
        {
            "conditions": conditions("hypothesis", "pytest"),
            "mutants": len(mutants),
            "killed": len(mutants) - len(alive),
            "killed_share": round(1 - len(alive) / len(mutants), 4),
            "timeouts": runner.fates.count("timeout"),
            "by_module": {
                module: {
                    "mutants": sum(mutant.module == module for mutant in mutants),
                    "alive": sum(mutant.module == module for mutant in alive),
                }
                for module in MODULES
            },
            "on_clear_path": {"mutants": len(on_path), "alive": sum(mutant.is_on_clear_path for mutant in alive)},
            "alive": list(map(str, alive)),
        },
        args.json,
    )


def _source(module: str) -> str:
    return (ROOT / f"src/xray_vqa/core/policy/{module}.py").read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
