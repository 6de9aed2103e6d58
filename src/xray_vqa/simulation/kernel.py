"""Compile the inner loops: numba on one thread, cached on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba: fast floating point, no GIL, on-disk cache if some cache folder is writable.

    The cache saves about ten seconds a process. In a read-only installation without a home folder numba finds no place
    for it and raises RuntimeError at decoration; then every process compiles for itself.

    Whoever edits a kernel removes the package's __pycache__ folders: numba looks at the file of the outermost kernel
    alone and would run an old copy of one that it calls in another file.
    """
    try:
        return njit(fastmath=True, nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:
        return njit(fastmath=True, nogil=True, error_model="numpy")(function)
