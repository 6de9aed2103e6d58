"""Every reply, on disk before anything else is done with it.

The journal is append-only JSONL beside the output. Replies are kept under a key that holds all that they depend on, so
that a reply to other annotations, another plan or another provider is never taken for them. The output file is a pure
function of the plan and the journal.

A call that can cost money is announced before it is made. An announcement without a reply is money that may be lost: it
is booked at what was set aside for it, and told apart from what replies are known to have cost. The calls of a batch
are announced one by one too, and stay so until the batch is collected.
"""

import asyncio
import fcntl
import hashlib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import ValidationError

from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError, Incomplete
from xray_vqa.generation.plan import PLAN_VERSION, PlannedImage, identity_of
from xray_vqa.generation.providers.batch_service import Account
from xray_vqa.generation.providers.provider import Provider, Reply
from xray_vqa.generation.wording import WORDING_VERSION

logger = logging.getLogger(__name__)


class Answer(Strict):
    """What one call brought for some questions of an image."""

    rung: int = 0
    """Which step of the refusal ladder asked."""
    slots: list[int]
    """The questions that were asked, by number in the plan; the reply numbers them anew from 0."""
    is_repair: bool = False
    """Whether the answer before this one was complained about."""
    reply: Reply | None = None
    """None where the provider failed for good."""
    error: str = ""


class Event(Strict):
    """One line of the journal."""

    event: Literal["sent", "void", "answer", "done", "failed", "submitting", "submitted", "collected", "forgotten"]
    """`sent`: a call begins that may cost up to `most_usd`; `void`: it cost nothing; `answer`: it brought this; `done`:
    the image has its pairs; `failed`: none could be made, and it is asked about from the beginning the next time.

    Of a batch: `sent` for each of its calls, then `submitting`: from here on the service may have it; `submitted`: it
    has, as `batch_id`; `collected`: all that it brought is above; `void` without a call: the service never got it;
    `forgotten`: a person gave it up, and it may have cost what was set aside."""
    key: str
    """Of the image; of a batch's own events the tag of the batch."""
    image_path: str = ""
    call: int = 0
    """Number of the call that this belongs to, from 1; 0 where nothing was announced."""
    most_usd: float = 0.0
    answer: Answer | None = None
    """Of `sent` in a batch what was asked, still without a reply."""
    error: str = ""
    batch: str = ""
    """Tag of the batch that this belongs to: chosen by us and known before the service has it."""
    batch_id: str = ""
    """The service's own name for it."""
    provider: str = ""
    """Of a batch."""
    model: str = ""
    num_requests: int = 0
    """In a batch."""
    at: float = 0.0
    """When a batch was announced, in seconds since 1970 by the service's clock."""
    account: Account | None = None
    """Whose a batch is."""

    @property
    def custom_id(self) -> str:
        """What the service calls this call of a batch: at most 64 of A-Z, a-z, 0-9, - and _ are allowed."""
        assert self.answer is not None
        return f"{self.batch}-{self.key[:32]}-{self.answer.rung}"


@dataclass(slots=True)
class OpenBatch:
    """A batch whose results are not all here."""

    tag: str
    calls: dict[str, Event] = field(default_factory=dict[str, Event])
    """What was announced and has no result yet, by custom id."""
    announced: Event | None = None
    """None where the run ended before the service could have heard of it."""
    batch_id: str = ""
    """Empty as long as nobody knows whether the service has it."""

    @property
    def most_usd(self) -> float:
        return sum(call.most_usd for call in self.calls.values())


class BatchBook:
    """The open batches of a journal."""

    def __init__(self) -> None:
        self.open: dict[str, OpenBatch] = {}
        """By tag, in the order in which they were announced."""
        self.ids: set[str] = set()
        """All that services ever gave to batches of this journal."""
        self._places: dict[int, tuple[str, str]] = {}

    def take(self, event: Event) -> list[int]:
        """Follow an event. Returns the calls that it ends for nothing besides its own."""
        tag = event.batch
        match event.event:
            case "sent" if tag:
                batch = self.open.setdefault(tag, OpenBatch(tag))
                batch.calls[event.custom_id] = event
                self._places[event.call] = tag, event.custom_id
            case "submitting":
                # Without calls where their lines are broken.
                self.open.setdefault(tag, OpenBatch(tag)).announced = event
            case "submitted" if tag in self.open:
                self.open[tag].batch_id = event.batch_id
                self.ids.add(event.batch_id)
            case "answer" | "void" if event.call in self._places:
                tag, custom_id = self._places.pop(event.call)
                del self.open[tag].calls[custom_id]
            case "collected" | "forgotten" | "void" if tag in self.open:
                calls = [call.call for call in self.open.pop(tag).calls.values()]
                for call in calls:
                    del self._places[call]
                return calls if event.event == "void" else []
        return []

    def keys(self) -> set[str]:
        """Return which images open batches ask about."""
        return {call.key for batch in self.open.values() for call in batch.calls.values()}


def journal_path(output_path: Path) -> Path:
    return output_path.with_name(f"{output_path.stem}_checkpoint.jsonl")


def read_events(path: Path) -> Iterator[Event]:
    """Give the events of a journal; lines that are cut off or broken are counted and named."""
    unreadable = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                yield Event.model_validate_json(line)
            except ValidationError:
                unreadable += 1
    if unreadable:
        logger.warning("%s: %d lines are cut off or broken; what they held is written anew", path, unreadable)


def key_of(image: PlannedImage, providers: Sequence[Provider]) -> str:
    """Return the digest of all that the replies for an image depend on."""
    record = image.record
    value = [
        identity_of(record),
        record.image_path,  # byte-equal scans under two names are two images
        record.size_wh,
        record.categories,
        record.bboxes,
        record.raw_labels,
        PLAN_VERSION,
        [slot.as_json() for slot in image.slots],
        *([each.name, each.model, each.prompt_version, each.parameters()] for each in providers),
    ]
    if image.language != "en":  # English keys are those of before there were languages: paid replies stay good
        value.append([image.language, WORDING_VERSION])
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


class Journal:
    """The journal of one output, open for one process at a time.

    Args:
        path: Its file; made where it is missing.
        sync_every: Events after which `append` itself forces the file to the disk; `synced` does for those who wait.

    Raises:
        ConfigError: Another process has it open.
    """

    def __init__(self, path: Path, *, sync_every: int = 1) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._sync_every = path, sync_every
        self._num_written = self._num_synced = 0
        self._syncing: asyncio.Task[None] | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise ConfigError(f"{path}: another process is writing these pairs; wait for it or stop it") from error
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        """By key, in the order in which they came."""
        self.done: set[str] = set()
        """Keys of the images that need nothing more."""
        self.failures: dict[str, str] = {}
        """What went wrong by key, for images without usable answers since."""
        self.cost_usd = 0.0
        """Of all replies ever kept here, used or not."""
        self.num_tokens: Counter[str] = Counter()
        self.num_calls = 0
        self.batches = BatchBook()
        self._announced: dict[int, float] = {}
        self._read()

    @property
    def lost_usd(self) -> float:
        """What calls may have cost whose replies never came, at most."""
        return sum(self._announced.values())

    @property
    def num_lost(self) -> int:
        return len(self._announced)

    def _read(self) -> None:
        for event in read_events(self._path):
            self._take(event)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")  # or the next event would be lost with the torn one

    def _take(self, event: Event) -> None:
        self.num_calls = max(self.num_calls, event.call)
        for call in self.batches.take(event):
            self._announced.pop(call, None)
        match event.event:
            case "sent":
                self._announced[event.call] = event.most_usd
            case "void":
                self._announced.pop(event.call, None)
            case "answer":
                self._announced.pop(event.call, None)
                assert event.answer is not None
                self.answers[event.key].append(event.answer)
                self.failures.pop(event.key, None)
                if reply := event.answer.reply:
                    self.cost_usd += reply.cost_usd
                    self.num_tokens.update(
                        input=reply.input_tokens,
                        cache_read=reply.cache_read_tokens,
                        cache_write=reply.cache_write_tokens,
                        output=reply.output_tokens,
                    )
            case "done":
                self.done.add(event.key)
            case "failed":
                # After answers it says that none could be used: paid for, kept, and asked for again.
                self.answers.pop(event.key, None)
                self.done.discard(event.key)
                self.failures[event.key] = event.error

    def append(self, event: Event) -> None:
        """Keep an event. One write, so that a killed process leaves at most one torn line.

        Raises:
            Incomplete, OSError: The disk is full.
        """
        line = event.model_dump_json(exclude_defaults=True).encode() + b"\n"
        written = os.write(self._descriptor, line)
        if written < len(line):
            # Or a shorter line of another process, which still finds room, would go on in the middle of this one.
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise Incomplete(f"{self._path}: the disk is full; make room and start the same command again")
        self._take(event)
        self._num_written += 1
        if self._num_written - self._num_synced >= self._sync_every:
            self.sync()

    def sync(self) -> None:
        """Force to the disk what was written."""
        num_written = self._num_written
        os.fsync(self._descriptor)
        self._num_synced = max(self._num_synced, num_written)

    async def synced(self) -> None:
        """Wait until all that was appended so far is on the disk; those who wait together are served by one sync."""
        wanted = self._num_written
        while self._num_synced < wanted:
            if self._syncing is None or self._syncing.done():
                self._syncing = asyncio.create_task(asyncio.to_thread(self.sync))
            await asyncio.shield(self._syncing)

    def num_foreign(self, keys: Sequence[str]) -> int:
        """Return of how many images answers are kept that belong to none of these keys."""
        return len(self.answers.keys() - set(keys))

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
