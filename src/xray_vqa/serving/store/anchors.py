"""Copies of checkpoints outside the database: what shows that a chain was cut off or set back to an old backup.

A file of this machine, which grows by a line for each checkpoint, or an address of an object store, which gets an
object for each. They protect as far as whoever can change the database cannot change them too.
"""

import os

from pydantic import ValidationError

from xray_vqa.core.manifest import hide_credentials
from xray_vqa.dataset.address import local_path, open_address, remote_errors
from xray_vqa.errors import IntegrityError
from xray_vqa.serving.store.keys import Checkpoint


class Anchors:
    """Checkpoints in a file (`audit.anchors.jsonl`) or under an address (`s3://bucket/anchors`)."""

    def __init__(self, where: str) -> None:
        self.shown = hide_credentials(where)
        self._where = where
        self._path = local_path(where)

    def append(self, checkpoint: Checkpoint) -> None:
        """Return when a checkpoint is kept. Raises XrayVqaError or OSError."""
        line = checkpoint.model_dump_json().encode() + b"\n"
        if self._path is None:
            address = open_address(self._where)
            with remote_errors(self.shown):
                address.filesystem.pipe_file(f"{address.path.rstrip('/')}/{checkpoint.sequence:015d}.json", line)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as stream:
            if stream.tell() and not self._ends_with_a_line():
                stream.write(b"\n")  # a crash cut the last one off
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> list[Checkpoint]:
        """Return the checkpoints, in the order in which they were kept; none where there is no file yet.

        Raises:
            IntegrityError: A line is no checkpoint and was not just cut off at the end.
            XrayVqaError: The place cannot be read.
        """
        lines = self._lines()
        checkpoints: list[Checkpoint] = []
        for number, line in enumerate(lines, start=1):
            try:
                checkpoints.append(Checkpoint.model_validate_json(line))
            except ValidationError as error:
                if line and not line.endswith(b"}"):
                    continue  # a crash, or a full disk, while it was written
                raise IntegrityError(f"{self.shown}: line {number} is no checkpoint") from error
        return checkpoints

    def newest(self) -> Checkpoint | None:
        """Return the checkpoint that was kept last, without reading all of them. Raises as `read`."""
        if self._path is None:
            return max(self.read(), key=lambda checkpoint: checkpoint.sequence, default=None)
        if not self._path.is_file():
            return None
        with self._path.open("rb") as stream:
            stream.seek(max(0, self._path.stat().st_size - 4096))
            lines = [line for line in stream.read().splitlines() if line.endswith(b"}")]
        try:
            return Checkpoint.model_validate_json(lines[-1]) if lines else None
        except ValidationError as error:
            raise IntegrityError(f"{self.shown}: the last line is no checkpoint") from error

    def _lines(self) -> list[bytes]:
        if self._path is not None:
            return self._path.read_bytes().splitlines() if self._path.is_file() else []
        address = open_address(self._where)
        with remote_errors(self.shown):
            if not address.filesystem.exists(address.path):
                return []
            names = sorted(address.filesystem.find(address.path))
            return [address.filesystem.cat_file(name).strip() for name in names]

    def _ends_with_a_line(self) -> bool:
        assert self._path is not None
        with self._path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) == b"\n"
