"""Real scans to measure against: where they lie, and the kinds of background that SIXray's have."""

import os
import sys
from pathlib import Path

from xray_vqa.core.images import SUFFIXES


def find_real_scans(folder: Path | None, beneath: str = "") -> tuple[Path, list[Path]]:
    """Return a folder and the images in it, searched to any depth; without a folder what XRAY_VQA_REAL_DIR names."""
    named = os.environ.get("XRAY_VQA_REAL_DIR")
    if folder is None and not named:
        sys.exit("error: no real scans; name their folder, or set XRAY_VQA_REAL_DIR")
    root = folder or Path(str(named), beneath)
    known = {*SUFFIXES.values(), ".jpeg"}
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in known)
    if not paths:
        sys.exit(f"error: {root}: no real scans there")
    return root, paths


def kind_of(air: tuple[float, float, float]) -> str:
    """Return the kind of scan by the colour of its empty belt, RGB."""
    level = sum(air) / 3
    return "white" if level > 246 else "light grey" if level > 218 else "dark grey"
