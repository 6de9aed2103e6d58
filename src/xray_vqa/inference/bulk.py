"""Inspects many files: one line for each, kept in a journal, so that a stopped run goes on where it was.

A line is kept where the file's bytes, its declaration, the model and the policy are those of now; any other line is set
aside in a file beside the journal, and the scan is inspected again. `bulk_on_ray` does the same over a cluster.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import JsonValue

from xray_vqa.config.loading import load_policy
from xray_vqa.config.serve import EngineSettings
from xray_vqa.core.images import DEFAULT_LIMITS, ImageLimits, decode_image
from xray_vqa.core.inspection import Inspection, Scan
from xray_vqa.core.jsonl import append_jsonl, read_jsonl, replacing
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.core.policy.stop import StopSwitch
from xray_vqa.core.records import Strict
from xray_vqa.dataset.importers.dicom import single_picture
from xray_vqa.errors import AnswerUnreadable, ConfigError, ImageUnreadable
from xray_vqa.inference.drawing import draw_findings, draw_heat
from xray_vqa.inference.engines import open_engine
from xray_vqa.inference.inspector import Inspector

logger = logging.getLogger(__name__)

QUESTION = "What prohibited items are in this bag, and where?"
"""Put to the model where its own words are wanted."""
_RETRIED = frozenset({"timeout", "overloaded", "unavailable", "unreadable", "engine_error"})
"""Faults of the engine, not of the file: another run may not have them."""


class FileInspection(Strict):
    """One line of `--output`."""

    path: str
    sha256: str
    """Of the file's bytes; empty where it could not be opened."""
    identity: str
    """Digest of all that an answer depends on beside the file and its declaration."""
    declared_items: list[str] | None = None
    error: str = ""
    """Why the file is no image; empty where it is one."""
    model_words: str | None = None
    """What the model itself says, where that was asked for. Not checked, and no part of the decision."""
    inspection: dict[str, JsonValue]
    """As the API answers."""

    @property
    def may_be_kept(self) -> bool:
        reasons = self.inspection.get("reasons")
        return bool(self.sha256) and not (isinstance(reasons, list) and _RETRIED.intersection(map(str, reasons)))


@dataclass(frozen=True, slots=True)
class FileJob:
    """One file, and the line that an earlier run has written about it."""

    path: str
    scan_id: str
    declared_items: tuple[str, ...] | None = None
    known: FileInspection | None = None


@dataclass(frozen=True, slots=True)
class BulkSettings:
    """All that a worker needs, on this machine or another."""

    engine: str
    model: str
    answer: Callable[[Inspection, float], dict[str, JsonValue]]
    """Makes the answer of an inspection and its milliseconds."""
    adapter: str | None = None
    device: str | None = None
    engine_settings: EngineSettings | None = None
    """None: what the environment says where the worker runs."""
    policy: Path | None = None
    stop_file: Path | None = None
    limits: ImageLimits = DEFAULT_LIMITS
    language: str = "en"
    batch_size: int = 1
    save_dir: Path | None = None
    heat_maps: bool = False
    in_words: bool = False


class FileInspector:
    """Inspects files with one engine."""

    def __init__(self, settings: BulkSettings) -> None:
        self.settings = settings
        self._engine = open_engine(
            settings.engine,
            settings.model,
            adapter=settings.adapter,
            device=settings.device,
            settings=settings.engine_settings,
        )
        policy, stop = load_policy(settings.policy), StopSwitch(settings.stop_file) if settings.stop_file else None
        self._inspector = Inspector(self._engine, policy, settings.language, stop)
        info = self._inspector.start()
        if settings.heat_maps and self._engine.loaded is None:
            raise ConfigError(f"--heat-maps needs the transformers engine, which {settings.engine} is not")
        said = (
            info.identity.model_dump_json(),
            info.calibration.model_dump_json() if info.calibration else "",
            policy.label,
            str(stop and stop.is_on(policy.lane)),  # or a line from before would clear a bag while it is on
            settings.language,
            str(settings.limits),
            str(settings.in_words),
        )
        self.identity = hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]

    def close(self) -> None:
        self._engine.close()

    def inspect(self, jobs: Sequence[FileJob]) -> list[FileInspection]:
        """Return a line for each file, in order; lines that still hold are returned as they are."""
        lines: dict[int, FileInspection] = {}
        read: dict[int, tuple[str, Scan]] = {}
        for at, job in enumerate(jobs):
            sha256, image = "", None
            try:
                data = Path(job.path).read_bytes()
                sha256 = sha256_bytes(data)
                if job.known and self._holds(job.known, job, sha256):
                    lines[at] = job.known
                    continue
                image = _decode(data, self.settings.limits)
            except (ImageUnreadable, OSError) as error:
                cause = error.strerror if isinstance(error, OSError) else error
                # A blank picture stands for it: the policy sends that to a person too.
                blank = Scan(job.scan_id, Image.new("RGB", (64, 64), "white"), job.declared_items)
                inspection = self._inspector.degraded(blank, "image_unreadable")
                lines[at] = self._line(job, sha256, inspection, 0.0, error=f"{job.path}: {cause}")
                continue
            read[at] = (sha256, Scan(job.scan_id, image, job.declared_items))
        for (at, (sha256, scan)), (inspection, ms) in zip(read.items(), self._inspect(read.values()), strict=True):
            lines[at] = self._line(jobs[at], sha256, inspection, ms, words=self._words(scan, inspection))
            if self.settings.save_dir:
                self._draw(self.settings.save_dir, scan, inspection)
        return [lines[at] for at in range(len(jobs))]

    def _holds(self, line: FileInspection, job: FileJob, sha256: str) -> bool:
        declared = list(job.declared_items) if job.declared_items is not None else None
        same = (line.sha256, line.identity, line.declared_items) == (sha256, self.identity, declared)
        return same and line.may_be_kept and line.inspection.get("scan_id") == job.scan_id

    def _inspect(self, read: Iterable[tuple[str, Scan]]) -> list[tuple[Inspection, float]]:
        scans = [scan for _, scan in read]
        started = time.perf_counter()
        inspections = self._inspector.inspect(scans) if scans else []
        ms = (time.perf_counter() - started) * 1000
        if len(scans) > 1 and any(inspection.engine_faults for inspection in inspections):
            # One scan that the engine cannot take must not send all others of its batch to a person.
            return [self._inspect([("", scan)])[0] for scan in scans]
        return [(inspection, ms) for inspection in inspections]

    def _line(
        self, job: FileJob, sha256: str, inspection: Inspection, ms: float, *, error: str = "", words: str | None = None
    ) -> FileInspection:
        return FileInspection(
            path=job.path,
            sha256=sha256,
            identity=self.identity,
            declared_items=list(job.declared_items) if job.declared_items is not None else None,
            error=error,
            model_words=words,
            inspection=self.settings.answer(inspection, ms),
        )

    def _words(self, scan: Scan, inspection: Inspection) -> str | None:
        if not self.settings.in_words or inspection.engine_faults:
            return None
        try:
            return self._inspector.ask(scan.image, QUESTION)
        except AnswerUnreadable as error:
            return f"{error.text} ..."
        except Exception:  # the inspection stands without a sentence that decides nothing
            logger.exception("%s: the model's own words are missing", scan.scan_id)
            return None

    def _draw(self, save_dir: Path, scan: Scan, inspection: Inspection) -> None:
        save_dir.mkdir(parents=True, exist_ok=True)
        _save(draw_findings(scan.image, inspection.findings), save_dir / f"{scan.scan_id}.png")
        loaded = self._engine.loaded
        if not self.settings.heat_maps or not inspection.findings or loaded is None:
            return
        from xray_vqa.inference.explain import explain

        for category, heat in explain(loaded, scan.image, [f.category for f in inspection.findings]).items():
            name = f"{scan.scan_id}.{category.lower().replace(' ', '-')}"
            own = [finding for finding in inspection.findings if finding.category == category]
            _save(heat.picture(), save_dir / f"{name}.heat.png")
            _save(draw_findings(draw_heat(scan.image, heat.at_pixels()), own), save_dir / f"{name}.overlay.png")


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as stream:
        picture.save(stream, "PNG")


def _decode(data: bytes, limits: ImageLimits) -> Image.Image:
    if data[128:132] == b"DICM":
        if len(data) > limits.max_bytes:
            raise ImageUnreadable(f"has {len(data):,} bytes, more than {limits.max_bytes:,}", code="too_many_bytes")
        data = single_picture(data)
    return decode_image(data, limits)


def inspect_here(jobs: Sequence[FileJob], settings: BulkSettings) -> Generator[FileInspection]:
    """Inspect files with one model in this process, in order."""
    inspector = FileInspector(settings)
    try:
        for start in range(0, len(jobs), settings.batch_size):
            yield from inspector.inspect(jobs[start : start + settings.batch_size])
    finally:
        inspector.close()


class Journal:
    """The lines of `--output`, each written whole as soon as it is there."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises ConfigError where the file holds something else."""
        self.path = path
        self.lines: dict[str, FileInspection] = {}
        self._order: list[str] = []
        if not path.is_file():
            return
        records, faults = read_jsonl(path, FileInspection)
        whole = path.read_bytes().endswith(b"\n")
        if faults and (len(faults) > 1 or whole):
            raise ConfigError(f"{faults[0]}; it is no file of `xray-vqa inspect --output`, so nothing is written to it")
        self.lines = {line.path: line for line in records}
        self._order = [line.path for line in records]
        if not whole:  # cut off by a kill or a full disk
            self._write(records)

    @property
    def aside_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_set_aside.jsonl")

    def add(self, line: FileInspection) -> bool:
        """Keep a line; returns whether it took the place of another one, which is set aside."""
        before = self.lines.get(line.path)
        if before == line:
            return False
        if before is not None:
            _append_whole(self.aside_path, [before])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _append_whole(self.path, [line])
        self.lines[line.path] = line
        self._order.append(line.path)
        return before is not None

    def finish(self, paths: Sequence[str]) -> int:
        """Bring the lines into the order of some paths and set aside those of others; returns how many of these."""
        if self._order == list(paths):
            return 0
        others = [line for path, line in self.lines.items() if path not in set(paths)]
        if others:
            _append_whole(self.aside_path, others)
        self._write([self.lines[path] for path in paths])
        return len(others)

    def _write(self, lines: Iterable[FileInspection]) -> None:
        with replacing(self.path) as stream:
            stream.writelines(line.model_dump_json(exclude_none=True).encode() + b"\n" for line in lines)


def _append_whole(path: Path, lines: Sequence[FileInspection]) -> None:
    """Append whole lines or nothing."""
    size = path.stat().st_size if path.exists() else 0
    try:
        append_jsonl(path, lines)
    except BaseException:
        with suppress(OSError):
            os.truncate(path, size)
        raise
