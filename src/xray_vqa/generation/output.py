"""The pairs file while it grows: a pure function of plan and journal, always its finished beginning."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from xray_vqa.core.jsonl import replacing
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.journal import Event, Journal
from xray_vqa.generation.making import Made, PairMaker
from xray_vqa.generation.plan import PlannedImage
from xray_vqa.generation.quality import QualityMeter

SHOWN = 20
"""Rejected pairs that the stats file shows."""


class Output:
    """The pairs file while it grows: always the finished beginning of the plan, in the plan's order."""

    def __init__(
        self,
        path: Path,
        plan: Sequence[PlannedImage],
        keys: Sequence[str],
        journal: Journal,
        maker: PairMaker,
        failed: dict[str, str],
    ) -> None:
        self._path, self._plan, self._keys, self._journal, self.maker = path, plan, keys, journal, maker
        self._position = 0
        self.failed = failed
        """Why, by image path; of this run alone, for the next one tries again."""
        self.meter = QualityMeter()
        self.rejected: list[str] = []
        self.num_rejected = 0
        self._made: dict[int, Made] = {}
        """What was taken and waits for its turn."""
        self.negatives: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        """Pairs by language."""
        self.refused: Counter[tuple[str, str]] = Counter()
        """Refusals by rung and by what the bag holds."""
        self.disputed: list[str] = []
        """Images in which somebody saw something else than their annotations say."""

    def __enter__(self) -> "Output":
        with replacing(self._path) as stream:
            stream.writelines(self._finished())
        self._stream = self._path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
        finally:
            with suppress(OSError):  # what a full disk did not take is written by the next run
                self._stream.close()

    def take(self, index: int, made: Made) -> None:
        """Take what was made for an image about which nothing more is asked, and journal that."""
        image, key = self._plan[index], self._keys[index]
        if made.pairs:
            self._journal.append(Event(event="done", key=key))
            self._made[index] = made
        else:
            self._fail(image, key, made)

    def _fail(self, image: PlannedImage, key: str, made: Made) -> None:
        error = next(iter(made.faults.values()))
        self.failed[image.record.image_path] = error
        self._journal.append(Event(event="failed", key=key, image_path=image.record.image_path, error=error))

    def grow(self) -> None:
        """Append what is finished by now."""
        self._stream.writelines(self._finished())
        self._stream.flush()

    def _finished(self) -> Iterator[bytes]:
        while self._position < len(self._plan):
            image, key = self._plan[self._position], self._keys[self._position]
            if image.slots and image.record.image_path not in self.failed:
                if key not in self._journal.done:
                    return
                made = self._made.pop(self._position, None) or self.maker.make(image, self._journal.answers[key])
                if made.pairs:
                    yield from self._lines(image, made)
                else:  # words that an earlier version found good enough
                    self._fail(image, key, made)
            self._position += 1

    def _lines(self, image: PlannedImage, made: Made) -> Iterator[bytes]:
        self.num_rejected += len(made.faults)
        rejected = [f"{image.record.image_path}: {message}" for _, message in sorted(made.faults.items())]
        self.rejected += rejected[: SHOWN - len(self.rejected)]
        self.negatives.update(slot.negative for slot in image.slots if slot.negative)
        if made.disagrees:
            self.disputed.append(image.record.image_path)
        for rung, count in made.num_refused.items():
            for category in read_facts(image.record, self.maker.source.annotated).present or ("none",):
                self.refused[rung, category] += count
        for _, pair in sorted(made.pairs.items()):
            self.meter.add(pair)
            self.languages[pair.metadata.language] += 1
            yield pair.model_dump_json().encode() + b"\n"
