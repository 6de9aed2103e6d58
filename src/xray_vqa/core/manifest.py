"""What made a file: every stage writes `manifest.json` or `<file>.manifest.json` beside its result."""

import datetime
import hashlib
import platform
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xray_vqa.core.jsonl import first_error, read_json, write_json
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError

MANIFEST_NAME = "manifest.json"
_USER_INFO = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(https?://[^\s?#'\"]*)[?#][^\s'\")]*", re.IGNORECASE)
"""Signed addresses carry their signature there."""


class Manifest(Strict):
    """The origin of a result, enough to make it again and to notice when its inputs have changed."""

    stage: str
    """`synth`, `import`, `download`, `generate`, `train`, `evaluate`, ..."""
    command: list[str]
    created: str
    """UTC, ISO 8601."""
    version: str
    """Of xray-vqa."""
    environment: dict[str, str] = {}
    config: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    """SHA-256 by path of what was read."""
    outputs: dict[str, str] = {}
    counts: dict[str, int] = {}
    checks: dict[str, Any] = {}
    """Figures of the gates that the result has passed."""
    seed: int | None = None
    cost_usd: float | None = None
    annotated_categories: list[str] | None = None
    """For a dataset: the categories that its source labels at all. Absence of any other is never taught."""
    dataset_root: str | None = None
    """For pairs and predictions: the folder that `image_path` is relative to, as seen from the manifest's folder."""
    split: str | None = None
    """For pairs and predictions: the split that the images come from, whatever the file is called."""
    notes: list[str] = []


def package_version() -> str:
    """Return the installed version of xray-vqa, or `0+unknown` from a bare source tree."""
    try:
        return metadata.version("xray-vqa")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def hide_credentials(text: str) -> str:
    """Return a text whose addresses have neither user and password nor what a web address says behind its path.

    >>> hide_credentials("https://me:secret@host/scans.tar?signature=abc s3://bucket/scans")
    'https://host/scans.tar?... s3://bucket/scans'
    """
    return _QUERY.sub(r"\1?...", _USER_INFO.sub("", text))


def make_manifest(stage: str, **fields: Any) -> Manifest:
    """Return a manifest with the command, time, version and machine of this process filled in."""
    return Manifest(
        stage=stage,
        command=[Path(sys.argv[0]).name, *map(hide_credentials, sys.argv[1:])],
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=package_version(),
        environment={"python": platform.python_version(), "platform": platform.platform()},
        **fields,
    )


def manifest_path(result: Path) -> Path:
    """Return where the manifest of a folder (inside it) or of a file (beside it) stands."""
    return result / MANIFEST_NAME if result.is_dir() else result.with_name(f"{result.name}.{MANIFEST_NAME}")


def write_manifest(result: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder or file where `manifest_path` says, whole or not at all."""
    write_json(manifest_path(result), manifest.model_dump(mode="json", exclude_defaults=True))


def read_manifest(result: Path) -> Manifest:
    """Return the manifest of a folder or file. Raises DatasetError where it is missing or of another form."""
    path = manifest_path(result)
    value = read_json(path)
    if not isinstance(value, Mapping):
        raise DatasetError(f"{path}: not a manifest (a JSON object), found {type(value).__name__}")
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        raise DatasetError(f"{path}: not a manifest of this version: {first_error(error)}") from error


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex. Raises DatasetError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
