"""Inspect scans from files and print the decisions: `xray-vqa inspect`."""

import argparse
import glob
import itertools
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xray_vqa.errors import DatasetError, ImageUnreadable

if TYPE_CHECKING:
    from xray_vqa.core.inspection import Inspection, Scan
    from xray_vqa.inference.inspector import Inspector

EPILOG = """\
examples:
  xray-vqa inspect scan.jpg
  xray-vqa inspect data/stcray/test/images --save-dir outputs/drawn
  xray-vqa inspect 'scans/*.png' --declared clothing electronics
  xray-vqa inspect scan.jpg --declared                    nothing to declare
  xray-vqa inspect scans --json | jq -r 'select(.action != "clear") | .scan_id'

Without --declared no declaration was made. --json prints one object a line, as the API answers (audit_id is null:
this command keeps no record). XRAY_VQA_MODEL and the other variables of `xray-vqa serve` hold here too. A file that
cannot be read is named, counts as manual_inspection, and makes the exit code 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa inspect`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files, folders with images, or globs")
    parser.add_argument(
        "--declared", nargs="*", action="extend", metavar="ITEM", help="what was declared; alone: nothing to declare"
    )
    parser.add_argument("--model", metavar="NAME", help="nano, a folder with weights or an adapter, or a hub name")
    parser.add_argument("--adapter", metavar="DIR", help="a LoRA adapter for the model")
    parser.add_argument("--engine", metavar="NAME", help="transformers (default) or scripted (--model is a JSON file)")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: the first GPU, else the CPU)")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the rules (default: configs/policy.yaml)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--save-dir", type=Path, metavar="DIR", help="write each scan with its findings drawn on it")


def run(args: argparse.Namespace) -> int:
    """Inspect each file. Returns 1 where one could not be read."""
    from PIL import Image

    from xray_vqa.config.loading import load_policy
    from xray_vqa.config.serve import load_settings
    from xray_vqa.core.images import read_image
    from xray_vqa.core.inspection import Scan
    from xray_vqa.inference.drawing import draw_findings
    from xray_vqa.inference.engines import open_engine
    from xray_vqa.inference.inspector import Inspector
    from xray_vqa.serving.schemas import inspect_response

    names = ("model", "adapter", "engine", "device", "policy")
    settings = load_settings(**{name: getattr(args, name) for name in names})
    paths = find_images(args.paths)
    engine = open_engine(settings.engine, settings.model, adapter=settings.adapter, device=settings.device)
    inspector = Inspector(engine, load_policy(settings.policy))
    inspector.start()
    declared = tuple(args.declared) if args.declared is not None else None
    num_unreadable = 0
    try:
        for path, scan_id in zip(paths, name_scans(paths), strict=True):
            try:
                scan, fault = Scan(scan_id, read_image(path, settings.image_limits), declared), None
            except ImageUnreadable as error:
                print(f"error: {error}", file=sys.stderr)
                # A blank picture stands for it: the policy sends that to a person too.
                scan, fault = Scan(scan_id, Image.new("RGB", (64, 64), "white"), declared), "image_unreadable"
                num_unreadable += 1
            inspection, processing_time_ms = _inspect_file(inspector, scan, fault)
            if args.json:
                answer = inspect_response(inspection, audit_id=None, processing_time_ms=processing_time_ms)
                print(answer.model_dump_json(), flush=True)
            else:
                print(format_inspection(inspection, str(path), processing_time_ms), flush=True)
            if args.save_dir and fault is None:
                args.save_dir.mkdir(parents=True, exist_ok=True)
                draw_findings(scan.image, inspection.findings).save(args.save_dir / f"{scan_id}.png")
    finally:
        engine.close()
    if num_unreadable:
        print(f"{num_unreadable} of {len(paths)} files could not be read; inspect these bags by hand", file=sys.stderr)
    return 1 if num_unreadable else 0


def find_images(words: Iterable[str]) -> list[Path]:
    """Return the image files that some paths, folders (searched to any depth) and globs name, each once.

    Raises:
        DatasetError: One of them names no image file.
    """
    from xray_vqa.core.images import SUFFIXES

    known = {*SUFFIXES.values(), ".jpeg"}
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word)
        if path.is_dir():
            matches = sorted(file for file in path.rglob("*") if file.suffix.lower() in known and file.is_file())
        elif path.exists():
            matches = [path]
        else:
            names = glob.glob(word, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
            matches = sorted(file for file in map(Path, names) if file.is_file())
        if not matches:
            what = "holds no image" if path.is_dir() else "no such file or folder"
            raise DatasetError(f"{word}: {what} ({', '.join(sorted(known))})")
        found.update(dict.fromkeys(matches))
    return list(found)


def name_scans(paths: Sequence[Path]) -> list[str]:
    """Return a different scan_id for each file: its stem, with its folder or a number where that is taken."""
    from xray_vqa.serving.schemas import scan_id_of

    taken: dict[str, None] = {}
    for path in paths:
        stem = scan_id_of(path.stem)[:48]
        folder = scan_id_of(path.parent.name)[:12]
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        candidates = itertools.chain((stem, f"{folder}-{stem}"), numbered)
        taken[next(name for name in candidates if name not in taken)] = None
    return list(taken)


def _inspect_file(inspector: "Inspector", scan: "Scan", fault: str | None) -> "tuple[Inspection, float]":
    started = time.perf_counter()
    inspection = inspector.degraded(scan, fault, started) if fault else inspector.inspect([scan])[0]
    return inspection, (time.perf_counter() - started) * 1000


def format_inspection(inspection: "Inspection", name: str, processing_time_ms: float) -> str:
    """Return a block of lines for people; the decision stands first."""
    decision = inspection.decision
    action = decision.action.value.replace("_", " ").upper()
    lines = [f"{name}: {action}, risk {decision.risk_level.value}  ({processing_time_ms:.0f} ms)"]
    for finding in inspection.findings:
        place = finding.region or "place not determined"
        box = " ".join(f"{value:.0f}" for value in finding.box.as_xywh()) if finding.box else "-"
        lines.append(f"  {finding.category:<17} {finding.probability:4.0%}  {place:<13} box {box}")
    lines.append(f"  {inspection.reasoning}")
    return "\n".join(lines)
