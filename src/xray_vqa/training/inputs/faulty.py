"""What of a run's data cannot be learnt from: found before the first step, counted, and named in one file.

A few faulty scans are left out, so that one cut-off file does not cost a night; many stop the run, since then
something else is wrong. Either way `left_out.jsonl` holds all of them, not the first one.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from xray_vqa.core.jsonl import disk_errors, write_jsonl
from xray_vqa.core.records import Strict
from xray_vqa.errors import DatasetError

logger = logging.getLogger(__name__)

LEFT_OUT_NAME = "left_out.jsonl"
KINDS = {
    "entry": ("images without a usable entry in annotations.json", "generate the pairs again from this dataset"),
    "missing": ("images that are not there", "fetch or mount them; `xray-vqa data verify` lists them"),
    "unreadable": ("images that cannot be decoded", "export these scans again"),
    "bytes": ("images with other bytes than their annotation's sha256", "import the changed images again"),
    "size": ("images of another size than their annotation says", "their boxes would be wrong: import them again"),
    "too long": (
        "images that with one question exceed max_seq_length",
        "raise max_seq_length or lower image_max_pixels",
    ),
    "cut": ("questions that do not fit into max_seq_length any more", "raise it or lower image_max_pixels"),
}
"""What can be wrong with a scan, each in words with what its owner can do. All but `cut` leave the scan out whole."""
NUM_SHOWN = 3


class ScanFaulty(DatasetError):
    """One scan cannot be trained on. `kind` is one of `KINDS`."""

    def __init__(self, message: str, *, kind: str = "unreadable") -> None:
        # With a default, since torch raises the error of a worker again from its message alone.
        super().__init__(message)
        self.kind = kind


class LeftOut(Strict):
    """One line of `left_out.jsonl`: a scan that is not trained on, or what of it is not."""

    kind: str
    """One of `KINDS`."""
    path: str
    """Of the image."""
    reason: str
    pairs: int
    """How many question-answer pairs are lost with it."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the scan is trained on."""
        return self.kind != "cut"

    @classmethod
    def of(cls, path: Path, fault: ScanFaulty, pairs: int) -> "LeftOut":
        """Return the line of a scan that is left out whole."""
        return cls(kind=fault.kind, path=str(path), reason=str(fault), pairs=pairs)


def describe(left_out: Sequence[LeftOut]) -> list[str]:
    """Return a line for each kind that occurs: how many, what, the first few paths, what to do."""
    by_kind: dict[str, list[LeftOut]] = defaultdict(list)
    for each in left_out:
        by_kind[each.kind].append(each)
    lines: list[str] = []
    for kind in (kind for kind in KINDS if kind in by_kind):
        what, advice = KINDS[kind]
        found = by_kind[kind]
        shown = ", ".join(each.path for each in found[:NUM_SHOWN]) + (", ..." if len(found) > NUM_SHOWN else "")
        pairs = sum(each.pairs for each in found)
        lines.append(f"{len(found)} {kind}, {pairs} pairs with them: {what}: {shown}; {advice}")
    return lines


def report(left_out: Sequence[LeftOut], num_scans: int, *, most: float, output_dir: Path, write: bool) -> None:
    """Name what is left out, in the log and in `left_out.jsonl`, and stop where it is too much.

    Args:
        left_out: All that was found.
        num_scans: Scans that the pairs files name.
        most: Share of them that may be left out whole.
        output_dir: Where the file goes; one of an earlier start is taken away where nothing is left out now.
        write: Whether this process writes the file; one of a run's processes does.

    Raises:
        DatasetError: More is left out than allowed, or everything is.
    """
    path = output_dir / LEFT_OUT_NAME
    if write and left_out:
        with disk_errors(output_dir):
            write_jsonl(path, (each.model_dump() for each in left_out))
    elif write:
        path.unlink(missing_ok=True)
    lines = describe(left_out)
    num_whole = sum(each.is_whole for each in left_out)
    if num_whole > most * num_scans or num_whole == num_scans:
        raise DatasetError(
            f"{num_whole} of {num_scans} scans cannot be trained on, more than max_left_out={most:g} allows; {path} "
            "names each:\n  " + "\n  ".join(lines)
        )
    for line in lines:
        logger.warning("left out: %s", line)


def counts(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """Return how many scans are of each kind, in the order of `KINDS`."""
    found = Counter(each.kind for each in left_out)
    return {kind: found[kind] for kind in KINDS if kind in found}
