"""The chain of records, apart from any database: what a row is and what its hash covers.

A row's hash covers its number, kind, time, id, the hash of its body and the hash of the row before. So a row that is
changed, taken out, put in or moved does not fit its neighbours. Whoever rewrites all rows from there on lacks the key:
each row has a seal (HMAC), and every minute a checkpoint signs the head of the chain (Ed25519), which others can check
with the public key alone (`keys.py`). A chain that was cut off at its end, or set back to an old backup, fits in
itself; it is found by the copies of checkpoints that lie elsewhere (`anchors.py`).

The body stands outside the row's hash by its own hash, so that it can be erased and the chain still be verified. It
holds a random salt: nobody can try out what an erased body may have said.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

FORMAT = 1
FIRST_HASH = "0" * 64
"""What the first row has for the hash of the row before."""

_SALT_BYTES = 16


class Row(NamedTuple):
    """One record as it stands in the database, its fields in the order of the table's columns."""

    sequence: int
    """From 1, without gaps."""
    kind: str
    """`key` (the first), `opened`, `intent`, `result`, `late`, `question`, `checkpoint` or `tombstone`; and what people
    did: `api_key`, `stop`, `override`, `feedback` or `view`."""
    audit_id: str
    """The same for the records of one inspection."""
    recorded_at: str
    """UTC, ISO 8601 with microseconds. The order is that of the numbers, whatever the clock did."""
    scan_id: str | None
    principal: str | None
    lane: str | None
    image_hash: str | None
    body: str | None
    """Canonical JSON; None once it is erased."""
    body_hash: str
    previous_hash: str
    row_hash: str
    seal: str

    def record(self) -> dict[str, Any]:
        """Return what the body tells. Call it on a row whose body is there."""
        assert self.body is not None
        return json.loads(self.body)["record"]


class Head(NamedTuple):
    """The last row of a chain."""

    sequence: int
    row_hash: str
    recorded_at: str


EMPTY = Head(0, FIRST_HASH, "")


@dataclass(frozen=True, slots=True)
class FoundBy:
    """What a record can be looked up by."""

    scan_id: str | None = None
    principal: str | None = None
    lane: str | None = None
    image_hash: str | None = None


def canonical(value: Any) -> str:
    """Return a JSON value in its one form: keys sorted, no spaces, no escapes that need not be, no NaN."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def now() -> str:
    """Return the time as rows hold it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def next_row(
    head: Head,
    seal: Callable[[str], str],
    kind: str,
    audit_id: str | None,
    record: Mapping[str, Any],
    found_by: FoundBy | None = None,
) -> Row:
    """Return the row that follows a head. `seal` is `SigningKey.seal`; without an `audit_id` it gets one of its own."""
    audit_id = audit_id or uuid.uuid4().hex
    found_by = found_by or FoundBy()
    body = canonical({"found_by": found_by_of(found_by), "record": record, "salt": os.urandom(_SALT_BYTES).hex()})
    body_hash, recorded_at, sequence = sha256_text(body), now(), head.sequence + 1
    row_hash = hash_of_header(sequence, kind, audit_id, recorded_at, body_hash, head.row_hash)
    return Row(
        sequence, kind, audit_id, recorded_at, found_by.scan_id, found_by.principal, found_by.lane,
        found_by.image_hash, body, body_hash, head.row_hash, row_hash, seal(row_hash),
    )  # fmt: skip


def head_of(row: Row) -> Head:
    """Return a row as the head of the chain that ends with it."""
    return Head(row.sequence, row.row_hash, row.recorded_at)


def found_by_of(found_by: FoundBy | Row) -> dict[str, str | None]:
    """Return what a record is found by, as its body holds it."""
    return {
        "image_hash": found_by.image_hash,
        "lane": found_by.lane,
        "principal": found_by.principal,
        "scan_id": found_by.scan_id,
    }


def hash_of_header(
    sequence: int, kind: str, audit_id: str, recorded_at: str, body_hash: str, previous_hash: str
) -> str:
    """Return the hash of a row: of all but its body, which is in by its own hash, and of the row before."""
    header = {
        "audit_id": audit_id,
        "body_hash": body_hash,
        "format": FORMAT,
        "kind": kind,
        "previous_hash": previous_hash,
        "recorded_at": recorded_at,
        "sequence": sequence,
    }
    return sha256_text(canonical(header))


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
