"""What the authors of STCray published, and whether a file is that.

Names, sizes and digests are those of February 2026.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from xray_vqa.core.manifest import sha256_file
from xray_vqa.core.records import Split
from xray_vqa.errors import IntegrityError

REPO_ID = "Naoufel555/STCray-Dataset"
PAGE = f"https://huggingface.co/datasets/{REPO_ID}"


class Archive(NamedTuple):
    """One file on the hub."""

    file_name: str
    split: Split
    num_bytes: int
    sha256: str
    """Empty where nobody has published it: then the hub's own digest has to do."""


ARCHIVES: tuple[Archive, ...] = (
    Archive("STCray_TrainSet.rar", "train", 1_094_236_470,
            "d003765c0e17775aaebd0c4ce873b7ba493df5a746b59f4b8d34194bf0b5638c"),
    Archive("STCray_TestSet.rar", "test", 980_265_948,
            "9379a5ad5b292d1024e9155c6666c494b9a3ae80cb0ce91e90215daf46885c65"),
)  # fmt: skip

AUGMENTED = Archive("STCray_Augmented.rar", "train", 21_500_000_000, "")
"""Fetched on demand only. Its size is rounded; its digest and its inner layout are unknown to us."""


def wanted_archives(*, augmented: bool) -> tuple[Archive, ...]:
    return (*ARCHIVES, AUGMENTED) if augmented else ARCHIVES


def find_archives(folder: Path, wanted: Sequence[Archive]) -> list[Path]:
    """Return those of the wanted archives that lie in a folder."""
    names = [archive.file_name.lower() for archive in wanted]
    found = [path for path in sorted(folder.iterdir()) if path.name.lower() in names and path.is_file()]
    return sorted(found, key=lambda path: names.index(path.name.lower()))


def is_published(path: Path, digest: str) -> bool:
    """Whether a file is, byte for byte, one that the authors published."""
    known = _published_as(path.name)
    return known is not None and known.sha256 == digest


def _published_as(name: str) -> Archive | None:
    return next((archive for archive in ARCHIVES if archive.file_name.lower() == name.lower()), None)


def check_archive(path: Path, *, any_version: bool = False) -> str:
    """Return an archive's SHA-256.

    Raises:
        IntegrityError: Another one is published under its name, and not just any version is wanted.
    """
    known = _published_as(path.name)
    num_bytes = path.stat().st_size
    if any_version or known is None:
        return sha256_file(path)
    found = f"has {num_bytes:,} bytes instead of {known.num_bytes:,}"
    if num_bytes == known.num_bytes:  # else there is no need to read it
        digest = sha256_file(path)
        if digest == known.sha256:
            return digest
        found = f"has the SHA-256 {digest} instead of {known.sha256}"
    raise IntegrityError(
        f"{path} {found}: it is damaged, or the authors have changed it. Fetch it again, or pass --any-version if you "
        "trust it"
    )
