"""What the writing of pairs by a language model bears: its rate, its bad days, kills, and how large a set may get.

    python benchmarks/generation.py [--parts rate faults kills size] [--scans N] [--kills N] [--json FILE]

A server of its own speaks Anthropic's or OpenAI's interface on loopback (tests/stand_ins/llm.py) and keeps a ledger;
`xray-vqa generate` runs against it with the vendor's own SDK, as a user starts it. No vendor is called.

rate: replies after half a second, 64 at once; images a second beside the ideal 128.
faults: quick replies with a twentieth each of too fast, overloaded, never answered, cut off, refused, no JSON and cut
    connections; every pair has to be there once and to hold, and the bill to agree with the ledger.
kills: the same run is killed (-9) at random moments and started again, until it ends; its file has to have the bytes
    of one that was left alone, and no reply that was journaled may be paid for again.
size: 140,000 pairs of templates, and as many whose texts all differ, in English and in six languages; seconds to read
    the journal, to write the file, and to check and measure it with its page, and the peak of memory.

Each part writes its own figures alone, with the machine, the versions and the command that they are of.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import calibration_loop_ms, conditions, publish
from PIL import Image
from varied_pairs import SAID_BY, vary

from xray_vqa.config.loading import load_policy
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import write_split
from xray_vqa.generation.journal import journal_path, read_events
from xray_vqa.generation.plan import PLAN_VERSION
from xray_vqa.generation.source import open_source
from xray_vqa.generation.validation import check_file, kind_of

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rate", "faults", "kills", "size")
PRICE = "0.1,0.5"
LEDGER_PRICE = "0.1,0.1,0.125,0.5"
"""What `--price 0.1,0.5` makes of reading and writing a cache."""
LATENCY_S, AT_ONCE = 0.5, 64
FAULT_SHARE = 0.05
FAULT_LATENCY_S, FAULT_TIMEOUT_S, RETRY_AFTER_S = 0.02, 1, 0.05
"""Short, since a tenth of all calls meets a complaint: the pace sinks to some five calls at once, whatever is allowed,
so that half-second replies to 46,642 scans would take hours."""
PAIRS_IN_ALL = 140_000


def make_dataset(root: Path, count: int) -> Path:
    """Write scans that share one picture, with random items; return the annotation file."""
    annotations = root / "train/annotations.json"
    if annotations.is_file():
        return annotations
    images = root / "train/images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (56, 72, 3), np.uint8)
    Image.fromarray(noise).resize((504, 392)).save(root / "picture.jpg", quality=85)
    records = []
    for number in range(count):
        name = f"{number:06d}.jpg"
        os.link(root / "picture.jpg", images / name)
        num_items = int(rng.choice(4, p=(0.2, 0.55, 0.2, 0.05)))
        records.append(
            ScanRecord(
                image_id=number, image_filename=name, image_path=f"train/images/{name}", width=504, height=392,
                sha256=f"{number:064x}", categories=[str(name) for name in rng.choice(CATEGORIES, num_items)],
                bboxes=[(float(x), float(y), 80.0, 60.0) for x, y in rng.integers(0, 320, (num_items, 2))],
            )
        )  # fmt: skip
    write_split(root, "train", records)
    write_manifest(root, make_manifest("synth", annotated_categories=list(CATEGORIES)))
    return annotations


@contextmanager
def stand_in(*options: object) -> Iterator[str]:
    """Run the server and give its address."""
    command = [sys.executable, ROOT / "tests/stand_ins/llm.py", "--port", 0, "--price", LEDGER_PRICE, *options]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait(timeout=20)


def ledger_of(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/ledger", timeout=30) as reply:
        return json.load(reply)


def command_for(annotations: Path, output: Path, count: int) -> list[str]:
    words = [sys.executable, "-m", "xray_vqa", "generate", "--provider", "anthropic", "--price", PRICE, "--yes"]
    words += ["--rate-limit-delay", 0, "--annotations", annotations, "--output", output, "--max-images", count]
    return list(map(str, words))


def environment(address: str) -> dict[str, str]:
    return {**os.environ, "ANTHROPIC_API_KEY": "key", "ANTHROPIC_BASE_URL": address}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command took."""

    seconds: float
    peak_mib: int


def run(command: list[str], address: str = "", may_end_with: Sequence[int] = (0,)) -> Ran:
    """Run a command to its end."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment(address), stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in may_end_with:
            errors.seek(0)
            sys.exit(f"error: {' '.join(command)} ended with {process.returncode}:\n{errors.read()[-3000:]}")
    return Ran(round(seconds, 1), round(used.ru_maxrss / 1024))


def read_the_journal(output: Path) -> float:
    """Return the seconds of a process that reads a journal and does nothing else."""
    script = "import sys, pathlib as p; from xray_vqa.generation.journal import Journal; Journal(p.Path(sys.argv[1]))"
    return run([sys.executable, "-c", script, str(journal_path(output))]).seconds


def stats_of(output: Path) -> dict[str, Any]:
    return json.loads(output.with_name(f"{output.stem}_stats.json").read_text())


def measure_rate(annotations: Path, work: Path, count: int) -> dict[str, Any]:
    output = work / "rate.jsonl"
    with stand_in("--latency", LATENCY_S) as address:
        alone = run(command_for(annotations, output, 1), address).seconds  # start-up, plan and one reply
        seconds = run(command_for(annotations, output, count), address).seconds - (alone - LATENCY_S)
    ideal = AT_ONCE / LATENCY_S
    rate = (count - 1) / seconds
    return {"scans": count, "scans_per_s": round(rate, 1), "share_of_ideal": round(rate / ideal, 3)}


def check_pairs(annotations: Path, output: Path, count: int) -> dict[str, Any]:
    """Return what is wrong with a pairs file, in numbers; all but that of the pairs have to be 0."""
    source, stats = open_source(annotations), stats_of(output)
    images: set[str] = set()
    num_pairs, faults = 0, Counter[str]()
    for line in check_file(output, source.records, source.annotated, load_policy(), source.root):
        faults.update(kind_of(fault.message) for fault in line.faults)
        if line.pair:
            num_pairs += 1
            images.add(line.pair.image_path)
    return {
        "pairs": num_pairs,
        "faulty_pairs": faults.total() - faults["repeat"],
        "doubled_pairs": faults["repeat"],
        "lost_scans": count - len(images) - stats["images_without_questions"],
        "failed_scans": stats["failed_images"],
        "rejected_pairs": stats["rejected_pairs"],
    }


def measure_faults(annotations: Path, work: Path, count: int) -> dict[str, Any]:
    output = work / "faults.jsonl"
    with stand_in("--latency", FAULT_LATENCY_S, "--faults", FAULT_SHARE, "--retry-after", RETRY_AFTER_S) as address:
        ran = run([*command_for(annotations, output, count), "--timeout", str(FAULT_TIMEOUT_S)], address)
        ledger = ledger_of(address)
    stats = stats_of(output)
    return {
        "scans": count,
        "seconds": ran.seconds,
        "peak_mib": ran.peak_mib,
        "journal_read_s": read_the_journal(output),
        **check_pairs(annotations, output, count),
        "written_by": stats["quality"]["writers"],
        "seen": ledger["seen"],
        "reported_usd": stats["cost_usd"],
        "ledger_delivered_usd": round(ledger["delivered_usd"], 6),
        "calls_without_reply": stats["calls_without_reply"],
        "ledger_lost_requests": ledger["lost_requests"],
        "calls_without_reply_usd_at_most": stats["calls_without_reply_usd_at_most"],
        "ledger_lost_usd": round(ledger["lost_usd"], 6),
        "refusals": sum(stats["refusals"].values()),
    }


def measure_kills(annotations: Path, work: Path, count: int, num_kills: int) -> dict[str, Any]:
    # Faults that are mended by asking again: words that depend on how often somebody asked would differ by themselves.
    options = ("--latency", 0.05, "--fault", "throttled=0.05", "--fault", "overloaded=0.05", "--fault", "cut=0.05")
    alone, killed = work / "alone.jsonl", work / "killed.jsonl"
    with stand_in(*options, "--retry-after", 0.05) as address:
        seconds = run(command_for(annotations, alone, count), address).seconds
    chance = random.Random(0)
    kills = 0
    with stand_in(*options, "--retry-after", 0.05) as address:
        while kills < num_kills:
            process = subprocess.Popen(
                command_for(annotations, killed, count),
                env=environment(address), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(chance.uniform(0.2, 4.0))
            process.send_signal(signal.SIGKILL)
            if process.wait() == 0:  # it was done: begin anew
                for path in work.glob("killed*"):
                    path.unlink()
            else:
                kills += 1
        run(command_for(annotations, killed, count), address)
    events = (event for event in read_events(journal_path(killed)) if event.event == "answer" and event.call)
    asked = [(event.key, event.answer.rung, event.answer.is_repair) for event in events if event.answer]
    return {
        "scans": count,
        "kills": kills,
        "seconds_of_a_whole_run": seconds,
        "bytes_equal": killed.read_bytes() == alone.read_bytes(),
        "journaled_replies": len(asked),
        "journaled_replies_paid_again": len(asked) - len(set(asked)),
    }


def validate(output: Path, annotations: Path) -> dict[str, Any]:
    """Check and measure a pairs file, page and card included."""
    words = [sys.executable, "-m", "xray_vqa", "generate", "--output", output, "--annotations", annotations]
    ran = run([*map(str, words), "--validate"], may_end_with=(0, 4))  # 4: a gate is not passed, which is no failure
    page = output.with_name(f"{output.stem}_quality.html")
    return {"seconds": ran.seconds, "peak_mib": ran.peak_mib, "page_kib": round(page.stat().st_size / 1024)}


def measure_size(work: Path) -> dict[str, Any]:
    count = PAIRS_IN_ALL // 3 + 1
    annotations = make_dataset(work / "size", count)
    templates, translated = work / "size.jsonl", work / "six.jsonl"
    words = [sys.executable, "-m", "xray_vqa", "generate", "--provider", "template", "--annotations", str(annotations)]
    written = run([*words, "--output", str(templates)])
    again = run([*words, "--output", str(templates)])
    run([*words, "--output", str(translated), "--language", ",".join(SAID_BY)])
    different, translated_different = work / "different.jsonl", work / "six_different.jsonl"
    vary(templates, different)
    vary(translated, translated_different)
    return {
        "pairs": stats_of(templates)["total_vqa_pairs"],
        "written_s": written.seconds,
        "written_peak_mib": written.peak_mib,
        "written_from_the_journal_s": again.seconds,
        "written_from_the_journal_peak_mib": again.peak_mib,
        "journal_read_s": read_the_journal(templates),
        "validated": {
            "templates": validate(templates, annotations),
            "all_texts_differ": validate(different, annotations),
            "all_texts_differ_in_six_languages": validate(translated_different, annotations),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scans", type=int, default=4000, help="for rate and faults (default %(default)s)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kill-scans", type=int, default=600, help="for kills (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too; parts that are there stay")
    args = parser.parse_args()
    figures: dict[str, Any] = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    work = Path(tempfile.mkdtemp(prefix="generation-"))
    try:
        annotations = make_dataset(work / "scans", max(args.scans, args.kill_scans))
        for part in args.parts:
            match part:
                case "rate":
                    found = measure_rate(annotations, work, args.scans)
                case "faults":
                    found = measure_faults(annotations, work, args.scans)
                case "kills":
                    found = measure_kills(annotations, work, args.kill_scans, args.kills)
                case _:
                    found = measure_size(work)
            machine = conditions("anthropic", "pydantic", plan_version=PLAN_VERSION)
            figures[part] = {**found, "calibration_loop_ms": calibration_loop_ms(), "conditions": machine}
            publish(figures, args.json)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
