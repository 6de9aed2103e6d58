"""Write requirements.lock: the versions of everything that this project needs, as installed in this environment.

    python scripts/lock.py

Walks the requirements of pyproject.toml (with the extras `serve` and `dev`) and pins what it meets. torch's own CUDA
packages are left to torch: they differ between its CPU and GPU builds.
"""

import importlib.metadata as metadata
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("serve", "dev")
BUILD = ("hatchling", "editables", "pathspec", "pluggy", "trove-classifiers")
"""What an editable installation without network builds with."""


def pinned() -> dict[str, str]:
    """Return name and version of every distribution that the project needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(name for extra in EXTRAS for name in project["optional-dependencies"][extra])]
    waiting = [Requirement(text) for text in (*wanted, *BUILD)]
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add(key)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            sys.exit(f"error: {name} is not installed here; install it first, then lock")
        versions[name] = distribution.version.split("+")[0]
        for text in distribution.requires or []:
            inner = Requirement(text)
            environments = [{"extra": extra} for extra in (*requirement.extras, "")]
            if inner.marker is None or any(inner.marker.evaluate(environment) for environment in environments):
                waiting.append(inner)
    return versions


if __name__ == "__main__":
    lines = [f"{name}=={version}" for name, version in sorted(pinned().items())]
    header = "# Made by scripts/lock.py; tried with Python 3.11 on Linux. torch: its CPU or its GPU build.\n"
    (ROOT / "requirements.lock").write_text(header + "\n".join(lines) + "\n")
    print(f"{len(lines)} packages")
