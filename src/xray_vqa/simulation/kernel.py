"""Compile the inner loops: numba, cached on disk where that is possible."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event

_OPTIONS = {
    "fastmath": True,
    "nogil": True,
    "error_model": "numpy",
    "no_rewrites": True,  # of array expressions, which these have none of
    "no_cfunc_wrapper": True,  # nobody calls these from C, and it is a third of the time that compiling takes
    # Of a kernel that is called by two others, LLVM would run the first copy that a process loads, in the process that
    # compiles them another one than in those that read the cache: other roundings, other bytes from the same seed.
    "forceinline": True,
}
_PART_OPTIONS = {**_OPTIONS, "no_cpython_wrapper": True}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba: fast floating point, no GIL, on-disk cache if some cache folder is writable.

    The cache saves about ten seconds a process. In a read-only installation without a home folder numba finds no place
    for it and raises RuntimeError at decoration; then every process compiles for itself.
    """
    try:
        compiled = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return njit(**_OPTIONS)(function)
    _drop_stale(compiled.stats.cache_path)
    return compiled


def part_of_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that kernels alone call: without a door for Python, and cached within its callers."""
    return njit(**_PART_OPTIONS)(function)


def has_to_be_compiled(function: Callable[..., Any]) -> bool:
    """Tell whether the disk cache lacks a kernel and would keep it."""
    folder = function.stats.cache_path  # pyright: ignore[reportFunctionMemberAccess]
    if folder is None:
        return False
    module = function.__module__.rpartition(".")[2]
    return not any(Path(folder).glob(f"{module}.{function.__name__}-*.nbi"))


@contextmanager
def second_process(statement: str) -> Iterator[None]:
    """Run a Python statement in a process of its own beside the block, and wait for its end; it may fail.

    A kernel that is compiled there comes back by way of the disk cache. Numba compiles in one thread at a time, and
    its memory goes with the process.
    """
    process = subprocess.Popen(  # noqa: S603  (our own interpreter and statement)
        [sys.executable, "-c", statement],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.wait()


class _WithoutCollector(event.Listener):
    """Holds the garbage collector while numba compiles, which takes a tenth less then: it finds next to nothing.

    Kernels are compiled within kernels, but in one thread at a time, under numba's lock.
    """

    def __init__(self) -> None:
        self._was_on: list[bool] = []

    def on_start(self, event: event.Event) -> None:
        self._was_on.append(gc.isenabled())
        gc.disable()

    def on_end(self, event: event.Event) -> None:
        if self._was_on.pop():
            gc.enable()


event.register("numba:compile", _WithoutCollector())


@cache
def _drop_stale(cache_path: str) -> None:
    """Empty the cache of this package's kernels if any of their sources has changed since it was filled.

    Numba looks at the file of the outermost kernel alone, and would run an old copy of one that it calls in another.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    stamp = Path(cache_path) / "kernels.sha256"
    with suppress(OSError):
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        for pattern in ("*.nbi", "*.nbc"):
            for compiled in stamp.parent.glob(pattern):
                compiled.unlink(missing_ok=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest.hexdigest())
