"""Walks along a chain and says which row is the first that is not as it was written."""

import hmac
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import ValidationError

from xray_vqa.serving.store.chain import EMPTY, Head, Row, canonical, found_by_of, hash_of_header, head_of, sha256_text
from xray_vqa.serving.store.keys import Checkpoint, PublicKey, SigningKey

_SHOWN_FAULTS = 20
_FORGED_ANCHOR = "has a checkpoint elsewhere that is not signed with this key"


class ChainFault(NamedTuple):
    """Something in a chain that is not as it was written."""

    sequence: int
    """The first row that it concerns, which may be one that is missing."""
    message: str


@dataclass(slots=True)
class Verification:
    """What a walk along a chain found."""

    faults: list[ChainFault] = field(default_factory=list[ChainFault])
    """The first few, by row."""
    num_faults: int = 0
    rows: int = 0
    erased: int = 0
    checkpoints: int = 0
    anchors: int = 0
    signed_up_to: int = 0
    """The last row that a checkpoint of this chain vouches for."""
    head: Head = EMPTY

    def add(self, sequence: int, message: str) -> None:
        """Count a fault, and keep it if it is one of the first."""
        self.num_faults += 1
        if len(self.faults) < _SHOWN_FAULTS:
            self.faults.append(ChainFault(sequence, message))

    def add_before(self, sequence: int, last: int, when: str) -> None:
        """Count a signature that does not fit, which says no more than between which rows the first bad one lies."""
        if any(fault.sequence > self.signed_up_to for fault in self.faults):
            self.add(sequence, f"is not as it was when {when}, nor are those before it")
        else:
            self.add(self.signed_up_to + 1, f"or one behind it, up to {last}, is not as it was when {when}")


class Erased:
    """The rows that tombstones name, as ranges of numbers with both ends."""

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._ranges = sorted((first, last) for first, last in ranges)
        self._firsts = [first for first, _ in self._ranges]

    def __contains__(self, sequence: int) -> bool:
        index = bisect_right(self._firsts, sequence)
        return any(last >= sequence for _, last in self._ranges[:index])


def verify(
    rows: Iterable[Row],
    key: PublicKey,
    *,
    erased: Erased | None = None,
    anchors: Iterable[Checkpoint] = (),
    follows: Head = EMPTY,
) -> Verification:
    """Walk along a chain and return everything that does not fit.

    Args:
        rows: By number.
        key: A SigningKey checks each row's seal and so names the first row of a rewritten chain; a public key alone
            can tell between which two checkpoints it lies.
        erased: Rows that may lack their body.
        anchors: Checkpoints that were kept elsewhere.
        follows: The row before the first one, for a part of a chain.
    """
    found = Verification(signed_up_to=follows.sequence, head=follows)
    erased = erased or Erased()
    held: dict[int, set[Checkpoint]] = {}
    for anchor in anchors:
        if anchor.sequence > follows.sequence:
            held.setdefault(anchor.sequence, set()).add(anchor)  # two of one row: an older copy went on
    seal = key.seal if isinstance(key, SigningKey) else None
    last = follows
    furthest = 0  # where the last checkpoint that is kept elsewhere stands: right behind the row that it signs
    for row in rows:
        _check_place(row, last, found)
        covered = hash_of_header(
            row.sequence, row.kind, row.audit_id, row.recorded_at, row.body_hash, row.previous_hash
        )
        if row.row_hash != covered:
            found.add(row.sequence, "was changed, or stands in the place of another row")
        elif seal and not hmac.compare_digest(seal(row.row_hash), row.seal):
            found.add(row.sequence, "has no seal of this key: somebody else wrote it, or rewrote the rows from here on")
        _check_body(row, erased, found)
        if row.kind == "checkpoint":
            _check_checkpoint(row, last, key, found)
        for anchor in held.pop(row.sequence, ()):
            found.anchors += 1
            if anchor.row_hash != row.row_hash:
                if key.signed(anchor):
                    found.add_before(row.sequence, row.sequence, "a checkpoint was kept elsewhere")
                else:
                    found.add(row.sequence, _FORGED_ANCHOR)
            furthest = max(furthest, row.sequence + 1)
        found.rows += 1
        last = head_of(row)
    found.head = last
    for anchor in (anchor for of_a_row in held.values() for anchor in of_a_row):
        if key.signed(anchor):
            furthest = max(furthest, anchor.sequence + 1)
        else:
            found.add(anchor.sequence, _FORGED_ANCHOR)
    if furthest > last.sequence:
        found.add(
            last.sequence + 1,
            f"is missing, and all up to {furthest}: checkpoints of them were kept elsewhere, so the end of the chain "
            "was cut off, or this is an old backup",
        )
    found.faults.sort(key=lambda fault: fault.sequence)
    return found


def _check_place(row: Row, last: Head, found: Verification) -> None:
    expected = last.sequence + 1
    if row.sequence > expected:
        found.add(expected, f"is missing; the next one that is there is {row.sequence}")
    elif row.sequence < expected:
        found.add(row.sequence, "stands twice")
    elif row.previous_hash != last.row_hash:
        found.add(row.sequence, "does not follow from the row before")


def _check_body(row: Row, erased: Erased, found: Verification) -> None:
    columns = (row.scan_id, row.principal, row.lane, row.image_hash)
    if row.body is None:
        found.erased += 1
        if row.sequence not in erased:
            found.add(row.sequence, "has lost its body, and no tombstone says that it was erased")
        elif any(column is not None for column in columns):
            found.add(row.sequence, "is erased, but can still be found by what it was about")
    elif sha256_text(row.body) != row.body_hash:
        found.add(row.sequence, "has a body that was changed")
    elif f'"found_by":{canonical(found_by_of(row))},' not in row.body:
        # Quotes inside a text are escaped, so only the key itself can match.
        found.add(row.sequence, "is filed under another scan, lane or key than its body says")


def _check_checkpoint(row: Row, last: Head, key: PublicKey, found: Verification) -> None:
    try:
        checkpoint = Checkpoint.model_validate(row.record()) if row.body is not None else None
    except (ValidationError, ValueError, KeyError, TypeError):
        checkpoint = None
    if checkpoint is None or not key.signed(checkpoint):
        found.add(row.sequence, "is a checkpoint that is not signed with this key")
    elif (checkpoint.sequence, checkpoint.row_hash) != (last.sequence, last.row_hash):
        found.add_before(row.sequence, last.sequence, f"checkpoint {row.sequence} was signed")
    else:
        found.checkpoints += 1
        found.signed_up_to = last.sequence
