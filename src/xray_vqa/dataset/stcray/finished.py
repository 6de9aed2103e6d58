"""Whether a download has been finished before: then the same command has nothing to do and asks nobody."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import read_json
from xray_vqa.core.manifest import package_version, read_manifest, sha256_file
from xray_vqa.core.records import SPLITS
from xray_vqa.dataset.importing import REPORT_NAME
from xray_vqa.dataset.layout import annotations_path
from xray_vqa.errors import DatasetError

_IMAGE_NAME = re.compile(r"(\d{6})\.(?:jpg|png|bmp)")


def finished_report(root: Path, request: Mapping[str, Any], digests: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the report of the download that made a folder, or None where the same command has something to do.

    Annotations are compared with their digests; images are counted and not read, which is `--verify`'s work.

    Args:
        root: The dataset.
        request: The options that decide what a download holds, as `import_source` was told them.
        digests: Of the archives that are wanted, by name; empty where any will do.
    """
    try:
        manifest = read_manifest(root)
        report = read_json(root / REPORT_NAME)
        outputs = {
            f"{split}/{annotations_path(root, split).name}": sha256_file(annotations_path(root, split))
            for split in SPLITS
        }
    except DatasetError:
        return None
    is_same = (
        (manifest.stage, manifest.version) == ("download", package_version())
        and manifest.config.get("request") == request
        and manifest.outputs == outputs
        and all(name in manifest.inputs and digest in ("", manifest.inputs[name]) for name, digest in digests.items())
    )
    if not is_same or any(_num_images(root / split / "images") != manifest.counts.get(split) for split in SPLITS):
        return None
    return report


def _num_images(folder: Path) -> int | None:
    """Return how many images stand there from 000000 on; None where one is missing or empty."""
    numbers = {
        int(match.group(1))
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _IMAGE_NAME.fullmatch(path.name)) and path.stat().st_size
    }
    return len(numbers) if numbers == set(range(len(numbers))) else None
