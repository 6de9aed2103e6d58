"""Inspect scans from files and print the decisions: `xray-vqa inspect`."""

import argparse
import glob
import itertools
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from xray_vqa.cli.arguments import positive_count
from xray_vqa.core.lexicon import LANGUAGES
from xray_vqa.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from xray_vqa.core.inspection import Inspection
    from xray_vqa.inference.bulk import FileInspection

EPILOG = """\
examples:
  xray-vqa inspect scan.jpg
  xray-vqa inspect data/stcray/test/images --save-dir outputs/drawn
  xray-vqa inspect 'scans/*.png' --declared clothing electronics
  xray-vqa inspect scan.jpg --declared                    nothing to declare
  xray-vqa inspect scans --json | jq -r 'select(.action != "clear") | .scan_id'
  xray-vqa inspect scans --output findings.jsonl --manifest declared.csv --batch-size 8    stop it, start it again
  xray-vqa inspect scan.dcm --save-dir drawn --heat-maps --language fr
  xray-vqa inspect scans --engine ray --workers 8 --output findings.jsonl

Without --declared or --manifest no declaration was made. --json prints one object a line, as the API answers (audit_id
is null: this command keeps no record). XRAY_VQA_MODEL and the other variables of `xray-vqa serve` hold here too. A file
that cannot be read is named, counts as manual_inspection, and makes the exit code 1.

--output keeps one line a scan, with the digests of the file and of model and policy; the same command goes on from it,
and lines of other bytes, declarations, models or policies are moved to <output>_set_aside.jsonl. A manifest is CSV that
begins with the line `scan,declared_items` (items divided by `;`), or a JSON object of lists; a scan is named by its
path, its file name or its scan_id.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `xray-vqa inspect`."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image or DICOM files, folders of them, or globs")
    parser.add_argument(
        "--declared", nargs="*", action="extend", metavar="ITEM", help="what was declared; alone: nothing to declare"
    )
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="what was declared for each scan, CSV or JSON")
    parser.add_argument("--model", metavar="NAME", help="nano, a folder with weights or an adapter, or a hub name")
    parser.add_argument("--adapter", metavar="DIR", help="a LoRA adapter for the model")
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="transformers (default), openai, vllm, scripted (--model is a JSON file), or ray: the engine of "
        "XRAY_VQA_ENGINE on each worker of a Ray cluster; see docs/ENGINES.md",
    )
    parser.add_argument("--server-url", metavar="URL", help="for openai, for instance http://localhost:8000/v1")
    parser.add_argument("--server-model", metavar="NAME", help="for openai: the model's name there, if it has several")
    parser.add_argument("--workers", type=positive_count, metavar="N", help="models at once, for --engine ray (1)")
    parser.add_argument("--batch-size", type=positive_count, default=1, metavar="N", help="scans in one pass (1)")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: the first GPU, else the CPU)")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the rules (default: configs/policy.yaml)")
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of the reasoning (default en)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--output", type=Path, metavar="FILE", help="one JSON line a scan; the same command goes on")
    parser.add_argument("--save-dir", type=Path, metavar="DIR", help="write each scan with its findings drawn on it")
    parser.add_argument(
        "--heat-maps", action="store_true", help="in --save-dir too, by finding: what the model's answer rests on"
    )
    parser.add_argument(
        "--model-words",
        action="store_true",
        help="ask the model for a sentence too; it decides nothing",
    )


def run(args: argparse.Namespace) -> int:
    """Inspect each file. Returns 1 where one could not be read."""
    from tqdm import tqdm

    from xray_vqa.config.serve import load_settings
    from xray_vqa.core.jsonl import disk_errors
    from xray_vqa.inference.bulk import BulkSettings, FileJob, Journal, inspect_here
    from xray_vqa.inference.bulk_on_ray import inspect_on_ray

    on_ray = args.engine == "ray"
    _check(args, on_ray=on_ray)
    names = ("model", "adapter", "server_url", "server_model", "device", "policy")
    settings = load_settings(engine=None if on_ray else args.engine, **{name: getattr(args, name) for name in names})
    paths = find_images(args.paths)
    scan_ids = name_scans(paths)
    bulk = BulkSettings(
        engine=settings.engine,
        model=_findable(settings.model),
        answer=_answer,
        adapter=settings.adapter and _findable(settings.adapter),
        device=settings.device,
        engine_settings=settings,
        policy=settings.policy,
        stop_file=settings.stop_file,
        limits=settings.image_limits,
        language=args.language,
        batch_size=args.batch_size,
        save_dir=args.save_dir,
        heat_maps=args.heat_maps,
        in_words=args.model_words,
    )
    declared = _declared(args, paths, scan_ids)
    num_unreadable = num_replaced = 0
    with disk_errors(args.output or args.save_dir or Path()):
        journal = Journal(args.output) if args.output else None
        known = dict(journal.lines) if journal else {}
        jobs = [
            FileJob(str(path), scan_id, items, known.get(str(path)))
            for path, scan_id, items in zip(paths, scan_ids, declared, strict=True)
        ]
        lines = inspect_on_ray(jobs, bulk, args.workers or 1) if on_ray else inspect_here(jobs, bulk)
        with closing(lines), tqdm(total=len(jobs), unit="scan", desc="inspect", disable=None) as bar:
            for line in lines:
                if journal:
                    num_replaced += journal.add(line)
                if line.error:
                    tqdm.write(f"error: {line.error}", file=sys.stderr)
                    num_unreadable += 1
                tqdm.write(_shown(line, as_json=args.json), file=sys.stdout)
                sys.stdout.flush()
                bar.update()
        if journal and (num_aside := num_replaced + journal.finish([job.path for job in jobs])):
            print(f"{num_aside} lines of other files, declarations or models: {journal.aside_path}", file=sys.stderr)
    if num_unreadable:
        print(f"{num_unreadable} of {len(paths)} files could not be read; inspect these bags by hand", file=sys.stderr)
    return 1 if num_unreadable else 0


def _check(args: argparse.Namespace, *, on_ray: bool) -> None:
    if args.heat_maps and not args.save_dir:
        raise ConfigError("--heat-maps are written to --save-dir; give it too")
    if args.declared is not None and args.manifest:
        raise ConfigError("--declared holds for all scans and --manifest for each; give one of them")
    if args.workers and not on_ray:
        raise ConfigError("--workers is for --engine ray; in this process one model takes --batch-size scans at a time")


def _findable(name: str) -> str:
    """A model's folder or script by its whole path, which a worker finds from anywhere."""
    return str(Path(name).resolve()) if name != "nano" and Path(name).exists() else name


def _declared(
    args: argparse.Namespace, paths: Sequence[Path], scan_ids: Sequence[str]
) -> "list[tuple[str, ...] | None]":
    from xray_vqa.inference.declarations import lay_on, read_declarations

    if not args.manifest:
        return [tuple(args.declared) if args.declared is not None else None] * len(paths)
    laid = lay_on(read_declarations(args.manifest), paths, scan_ids)
    for names, what in ((laid.unknown, "names in it are no scan's"), (laid.missing, "scans are not in it")):
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            print(f"{args.manifest}: {len(names)} {what}: {shown}", file=sys.stderr)
    return laid.items


def _answer(inspection: "Inspection", processing_time_ms: float) -> "dict[str, JsonValue]":
    from xray_vqa.serving.schemas import inspect_response

    answer = inspect_response(inspection, audit_id=None, processing_time_ms=processing_time_ms)
    return answer.model_dump(mode="json")


def find_images(words: Iterable[str]) -> list[Path]:
    """Return the image files that some paths, folders (searched to any depth) and globs name, each once.

    Raises:
        DatasetError: One of them names no image file.
    """
    from xray_vqa.core.images import SUFFIXES
    from xray_vqa.dataset.importers.dicom import SUFFIXES as DICOM_SUFFIXES

    known = {*SUFFIXES.values(), ".jpeg", *filter(None, DICOM_SUFFIXES)}
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


def _shown(line: "FileInspection", *, as_json: bool) -> str:
    """A line for a program, or a block of lines for people, in which the decision stands first."""
    from xray_vqa.serving.schemas import InspectResponse

    answer = InspectResponse.model_validate(line.inspection)
    if as_json:
        return answer.model_dump_json()
    action = answer.action.value.replace("_", " ").upper()
    lines = [f"{line.path}: {action}, risk {answer.risk_level.value}  ({answer.processing_time_ms} ms)"]
    for finding in answer.findings:
        place = finding.region or "place not determined"
        box = " ".join(f"{value:.0f}" for value in finding.box) if finding.box else "-"
        lines.append(f"  {finding.category:<17} {finding.probability:4.0%}  {place:<13} box {box}")
    lines.append(f"  {answer.reasoning}")
    if line.model_words is not None:
        lines.append(f"  the model's own words, not checked: {line.model_words}")
    return "\n".join(lines)
