"""What the writing of pairs by a language model bears: its rate, its bad days, kills, and how large a set may get.

    python benchmarks/generation.py [--parts rate faults kills size] [--images N] [--kills N] [--json FILE]

A server of its own speaks Anthropic's or OpenAI's interface on loopback (tests/stand_ins/llm.py) and keeps a ledger;
`xray-vqa generate` runs against it with the vendor's own SDK, as a user starts it. No vendor is called.

rate: replies after half a second, 64 at once; images a second beside the ideal 128.
faults: a twentieth each of too fast, overloaded, never answered, cut off, refused, no JSON and cut connections; every
    pair has to be there once, and the bill to agree with the ledger.
kills: the same run is killed (-9) at random moments and started again, until it ends; its file has to have the bytes
    of one that was left alone, and no reply that was journaled may be paid for again.
size: 140,000 pairs; seconds to read the journal, to write the file, and to check and measure it with its page, memory.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measuring import calibration_loop_ms, conditions, publish
from PIL import Image

from xray_vqa.core.jsonl import read_jsonl
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import ScanRecord, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import write_split
from xray_vqa.generation.journal import Event, journal_path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rate", "faults", "kills", "size")
PRICE = "0.1,0.5"
LEDGER_PRICE = "0.1,0.1,0.125,0.5"
"""What `--price 0.1,0.5` makes of reading and writing a cache."""
LATENCY_S, AT_ONCE = 0.5, 64
FAULT_SHARE = 0.05
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


def run(command: list[str], address: str) -> float:
    """Run a command to its end and return the seconds."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment(address), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def stats_of(output: Path) -> dict[str, Any]:
    return json.loads(output.with_name(f"{output.stem}_stats.json").read_text())


def events_of(output: Path) -> list[Event]:
    return read_jsonl(journal_path(output), Event)[0]


def measure_rate(annotations: Path, work: Path, count: int) -> dict[str, Any]:
    output = work / "rate.jsonl"
    with stand_in("--latency", LATENCY_S) as address:
        alone = run([*command_for(annotations, output, 1)], address)  # start-up, plan and one reply
        seconds = run(command_for(annotations, output, count), address) - (alone - LATENCY_S)
    ideal = AT_ONCE / LATENCY_S
    rate = (count - 1) / seconds
    return {"images": count, "images_per_s": round(rate, 1), "share_of_ideal": round(rate / ideal, 3)}


def check_pairs(output: Path, count: int) -> dict[str, Any]:
    """Return what is wrong with a pairs file, in numbers; all have to be 0."""
    pairs, faults = read_jsonl(output, VQAPair)
    images = [pair.image_path for pair in pairs]
    asked = {(pair.image_path, pair.question) for pair in pairs}
    stats = stats_of(output)
    return {
        "pairs": len(pairs),
        "unreadable_lines": len(faults),
        "doubled_pairs": len(pairs) - len(asked),
        "lost_images": count - len(set(images)) - stats["images_without_questions"],
        "failed_images": stats["failed_images"],
        "rejected_pairs": stats["rejected_pairs"],
    }


def measure_faults(annotations: Path, work: Path, count: int) -> dict[str, Any]:
    output = work / "faults.jsonl"
    with stand_in("--latency", 0.02, "--faults", FAULT_SHARE, "--retry-after", 0.1) as address:
        command = [*command_for(annotations, output, count), "--timeout", "2"]
        seconds = run(command, address)
        ledger = ledger_of(address)
    stats = stats_of(output)
    return {
        "images": count,
        "seconds": round(seconds, 1),
        **check_pairs(output, count),
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
        seconds = run(command_for(annotations, alone, count), address)
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
    answers = [event for event in events_of(killed) if event.event == "answer" and event.call]
    asked = [(event.key, event.answer.rung, event.answer.is_repair) for event in answers if event.answer]
    return {
        "images": count,
        "kills": kills,
        "seconds_of_a_whole_run": round(seconds, 1),
        "bytes_equal": killed.read_bytes() == alone.read_bytes(),
        "journaled_replies": len(asked),
        "journaled_replies_paid_again": len(asked) - len(set(asked)),
    }


def validate(output: Path) -> tuple[float, int]:
    """Check and measure a pairs file, page and card included; return seconds and the peak of its memory in MiB."""
    script = (
        "import resource, sys; from xray_vqa.cli.main import main; code = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    started = time.perf_counter()
    command = [sys.executable, "-c", script, "generate", "--output", str(output), "--validate"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 4):  # 4: a gate is not passed, which is no failure of the measurement
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started, round(int(done.stderr.split()[-1]) / 1024)


def measure_size(work: Path) -> dict[str, Any]:
    count = PAIRS_IN_ALL // 3 + 1
    annotations = make_dataset(work / "size", count)
    output = work / "size.jsonl"
    words = [sys.executable, "-m", "xray_vqa", "generate", "--provider", "template", "--annotations", str(annotations)]
    words += ["--output", str(output)]
    write_s = run(words, "")
    again_s = run(words, "")
    script = "import sys, pathlib as p; from xray_vqa.generation.journal import Journal; Journal(p.Path(sys.argv[1]))"
    replay_s = run([sys.executable, "-c", script, str(journal_path(output))], "")
    report_s, report_mib = validate(output)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "pairs": stats_of(output)["total_vqa_pairs"],
        "written_s": round(write_s, 1),
        "written_from_the_journal_s": round(again_s, 1),
        "journal_read_s": round(replay_s, 1),
        "validated_and_measured_s": round(report_s, 1),
        "validated_and_measured_peak_mib": report_mib,
        "page_kib": round(output.with_name(f"{output.stem}_quality.html").stat().st_size / 1024),
        "largest_peak_mib": round(peak_mib),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", type=int, default=4000, help="for rate and faults (default %(default)s)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kill-images", type=int, default=600, help="for kills (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too; parts that are there stay")
    args = parser.parse_args()
    figures: dict[str, Any] = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    work = Path(tempfile.mkdtemp(prefix="generation-"))
    try:
        annotations = make_dataset(work / "scans", max(args.images, args.kill_images))
        for part in args.parts:
            match part:
                case "rate":
                    found = measure_rate(annotations, work, args.images)
                case "faults":
                    found = measure_faults(annotations, work, args.images)
                case "kills":
                    found = measure_kills(annotations, work, args.kill_images, args.kills)
                case _:
                    found = measure_size(work)
            figures[part] = {**found, "calibration_loop_ms": calibration_loop_ms()}
            figures["conditions"] = conditions("anthropic", "pydantic")
            publish(figures, args.json)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
