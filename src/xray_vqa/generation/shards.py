"""One set written by several machines: each writes every n-th image of the plan, and their journals become one.

All plan the whole set, so a shard's pairs are those of a run that was not divided, and so is the merged file.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xray_vqa.core.jsonl import replacing
from xray_vqa.errors import ConfigError
from xray_vqa.generation.journal import Event, Journal, journal_path, read_events

_NAME = re.compile(r"_shard(\d+)of(\d+)_checkpoint")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/8`. Raises ValueError."""
        number, _, count = text.partition("/")
        shard = cls(int(number), int(count))
        if not 1 <= shard.number <= shard.count:
            raise ValueError(f"{text!r} is no part of a whole; the first of eight is 1/8")
        return shard

    def holds(self, index: int) -> bool:
        """Return whether an image, by its place in the plan, belongs to this part."""
        return index % self.count == self.number - 1

    def path_for(self, output: Path) -> Path:
        """Return where this part of an output is written."""
        return output.with_name(f"{output.stem}_shard{self.number}of{self.count}{output.suffix}")


def _replies(events: Iterable[Event]) -> set[tuple[str, str]]:
    """Return what was paid for, without the numbers of the calls, which are others in a merged journal."""
    return {(event.key, event.answer.model_dump_json()) for event in events if event.event == "answer" and event.answer}


def merge_journals(output: Path) -> list[Path]:
    """Make the journal of an output from those of its shards, and return which these were.

    Raises:
        ConfigError: There are none, some are missing or still being written, or the output has a journal of its own.
    """
    found: dict[Shard, Path] = {}
    for path in sorted(output.parent.glob(f"{output.stem}_shard*_checkpoint.jsonl")):
        if match := _NAME.search(path.name):
            found[Shard(int(match[1]), int(match[2]))] = path
    counts = {shard.count for shard in found}
    if not found:
        raise ConfigError(f"{output}: no {output.stem}_shard1of2_checkpoint.jsonl or the like lies beside it")
    if len(counts) > 1:
        raise ConfigError(f"{output}: shards of several divisions lie beside it ({sorted(counts)}); remove the others")
    missing = sorted(set(range(1, counts.pop() + 1)) - {shard.number for shard in found})
    if missing:
        raise ConfigError(f"{output}: shards {missing} are missing; copy their _checkpoint.jsonl here too")
    events: list[Event] = []
    num_calls = 0
    for path in found.values():
        with Journal(path) as journal:  # raises where another process still writes it
            own = journal.num_calls
        events += [
            event.model_copy(update={"call": event.call + num_calls}) if event.call else event
            for event in read_events(path)
        ]
        num_calls += own
    target = journal_path(output)
    if target.exists() and not _replies(read_events(target)) <= _replies(events):
        raise ConfigError(
            f"{target} holds replies that none of the shards has; move it away or choose another --output"
        )
    with replacing(target) as stream:
        stream.writelines(event.model_dump_json(exclude_defaults=True).encode() + b"\n" for event in events)
    return list(found.values())
