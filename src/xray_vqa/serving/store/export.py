"""Writes a part of the chain as JSON lines, which can be verified without the database, and reads it back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, read_manifest, sha256_file, write_manifest
from xray_vqa.errors import DatasetError, IntegrityError
from xray_vqa.serving.store.chain import Head, Row, canonical
from xray_vqa.serving.store.reading import head_before, reading, rows_of, span_of
from xray_vqa.serving.store.records import Tombstone
from xray_vqa.serving.store.verify import Erased


def export(url: str, output: Path, since: str | None, until: str | None) -> int:
    """Write the records of some time, whole or not at all, with their manifest, and return how many.

    Each line is a row of the chain; `body` is an object, whose canonical form the row's `body_hash` covers.
    """
    with reading(url) as connection:
        first, last = span_of(connection, since, until)
        follows = head_before(connection, first)
        count = write_jsonl(output, map(_line, rows_of(connection, first, last)))
    manifest = make_manifest(
        "audit",
        config={
            "since": since,
            "until": until,
            "first_row": first,
            "last_row": last,
            "previous_hash": follows.row_hash,
        },
        outputs={output.name: sha256_file(output)},
        counts={"records": count},
    )
    write_manifest(output, manifest)
    return count


def rows_in(path: Path) -> tuple[Iterator[Row], Head, Erased]:
    """Return the rows of an export, the row that they follow, and those that tombstones among them name.

    Raises:
        DatasetError: There is no export, or it has no manifest.
        IntegrityError: The file is not the one that its manifest tells of.
    """
    manifest = read_manifest(path)
    if manifest.outputs.get(path.name) != sha256_file(path):
        raise IntegrityError(f"{path}: not the file that its manifest was written for")
    follows = Head(manifest.config["first_row"] - 1, manifest.config["previous_hash"], "")
    stones = [Tombstone.model_validate(row.record()) for row in _rows(path) if row.kind == "tombstone"]
    return _rows(path), follows, Erased(part for stone in stones for part in stone.rows)


def _line(row: Row) -> dict[str, Any]:
    return {**row._asdict(), "body": json.loads(row.body) if row.body is not None else None}


def _rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                values = json.loads(line)
                body = values["body"]
                yield Row(**{**values, "body": canonical(body) if body is not None else None})
            except (ValueError, TypeError, KeyError) as error:
                raise DatasetError(f"{path}, line {number}: no record of an audit store") from error
