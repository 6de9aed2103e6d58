"""Every reply, on disk before anything else is done with it.

The journal is append-only JSONL beside the output. A reply is kept under a key that holds all that it depends on, so
that a reply to other annotations, another plan or another provider is never taken for it. The output file is a pure
function of the plan and the journal.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import ValidationError

from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError, Incomplete
from xray_vqa.generation.plan import PLAN_VERSION, PlannedImage, identity_of
from xray_vqa.generation.providers.provider import Provider, Reply

logger = logging.getLogger(__name__)


class Event(Strict):
    """One line of the journal."""

    event: Literal["reply", "failed"]
    key: str
    image_path: str
    reply: Reply | None = None
    error: str = ""


def journal_path(output_path: Path) -> Path:
    return output_path.with_name(f"{output_path.stem}_checkpoint.jsonl")


def key_of(image: PlannedImage, provider: Provider) -> str:
    """Return the digest of all that the reply for an image depends on."""
    record = image.record
    value = [
        identity_of(record),
        record.size_wh,
        record.categories,
        record.bboxes,
        record.raw_labels,
        PLAN_VERSION,
        [slot.as_json() for slot in image.slots],
        provider.name,
        provider.model,
        provider.prompt_version,
        provider.parameters(),
    ]
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


class Journal:
    """The journal of one output, open for one process at a time.

    Args:
        path: Its file; made where it is missing.
        sync_every: Events after which the file is forced to the disk. 1 where each one costs money.

    Raises:
        ConfigError: Another process has it open.
    """

    def __init__(self, path: Path, *, sync_every: int = 1) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._sync_every, self._unsynced = path, sync_every, 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise ConfigError(f"{path}: another process is writing these pairs; wait for it or stop it") from error
        self.replies: dict[str, Reply] = {}
        """By key."""
        self.failures: dict[str, str] = {}
        """What went wrong by key, for images without a usable reply since."""
        self.cost_usd = 0.0
        """Of all replies ever kept here, used or not."""
        self.num_tokens: Counter[str] = Counter()
        self._read()

    def _read(self) -> None:
        data = self._path.read_bytes()
        unreadable = 0
        for line in data.splitlines():
            try:
                self._take(Event.model_validate_json(line))
            except ValidationError:
                unreadable += 1
        if unreadable:
            logger.warning("%s: %d lines are cut off or broken; what they held is written anew", self._path, unreadable)
        if data and not data.endswith(b"\n"):
            os.write(self._descriptor, b"\n")  # or the next event would be lost with the torn one

    def _take(self, event: Event) -> None:
        if event.reply is not None:
            self.replies[event.key] = event.reply
            self.failures.pop(event.key, None)
            self.cost_usd += event.reply.cost_usd
            self.num_tokens.update(input=event.reply.input_tokens, output=event.reply.output_tokens)
        else:
            # After a reply it says that this could not be used: paid for, kept, and asked for again.
            self.replies.pop(event.key, None)
            self.failures[event.key] = event.error

    def append(self, event: Event) -> None:
        """Keep an event. One write, so that a killed process leaves at most one torn line.

        Raises:
            Incomplete, OSError: The disk is full.
        """
        line = event.model_dump_json(exclude_defaults=True).encode() + b"\n"
        if os.write(self._descriptor, line) < len(line):
            raise Incomplete(f"{self._path}: the disk is full; make room and start the same command again")
        self._take(event)
        self._unsynced += 1
        if self._unsynced >= self._sync_every:
            self.sync()

    def sync(self) -> None:
        """Force to the disk what was written."""
        os.fsync(self._descriptor)
        self._unsynced = 0

    def num_foreign(self, keys: Sequence[str]) -> int:
        """Return how many replies are kept that belong to none of these keys."""
        return len(self.replies.keys() - set(keys))

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
