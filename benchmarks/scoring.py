"""How long scoring takes and how much memory it holds, on predictions that are made up: 46,000 scans, 140,000 answers.

Two processes: one writes the predictions, a fresh one reads and scores them, so that its memory is scoring's alone.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from measuring import calibration_loop_ms, conditions, publish

from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.core.inspection import ScoreState
from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import compact
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.evaluation.predict import read_predictions
from xray_vqa.evaluation.records import AnswerRecord, OperatingPoint, PredictionsHeader, ScanPrediction, ScoreRecord
from xray_vqa.evaluation.score import score

THREAT_SHARE = 0.5
PREVALENCE = 0.05
"""Of each category."""


def made_up(num_scans: int, num_answers: int, seed: int = 0):
    """Yield predictions with scores that tell scans apart about as a good model's do, and answers short and long."""
    rng = np.random.default_rng(seed)
    line = 0
    for number in range(num_scans):
        is_threat = rng.random() < THREAT_SHARE
        there = rng.random(len(CATEGORIES)) < (2 * PREVALENCE if is_threat else 0)
        scores = 1 / (1 + np.exp(-rng.normal(np.where(there, 1.5, -3.0), 1.5)))
        answers = []
        for _ in range((number + 1) * num_answers // num_scans - number * num_answers // num_scans):
            answers.append(_answer(rng, line, there))
            line += 1
        names = [name for name, here in zip(CATEGORIES, there, strict=True) if here]
        box = [float(value) for value in rng.integers(10, 200, 4)]
        near = [value + float(rng.integers(0, 40)) for value in box]
        yield ScanPrediction.model_validate(
            {
                "image_path": f"test/images/{number:06d}.jpg",
                "image_id": number,
                "group": f"bag-{number}",
                "width": 512,
                "height": 384,
                "truth": [{"category": name, "box": box} for name in names],
                "annotated_categories": list(CATEGORIES),
                "scores": {
                    name: ScoreRecord(state=ScoreState.VALUE, probability=round(float(value), 6))
                    for name, value in zip(CATEGORIES, scores, strict=True)
                },
                "boxes": {name: [near] for name in names},
                "answers": answers,
            }
        )


def _answer(rng: np.random.Generator, line: int, there: np.ndarray) -> AnswerRecord:
    names = [name.lower() for name, here in zip(CATEGORIES, there, strict=True) if here]
    kind = ("presence", "listing", "detailed")[line % 3]
    right = rng.random() < 0.8
    if kind == "presence":
        short, truth = ("yes", "Yes.") if names else ("no", "No.")
        said = truth if right else ("No." if names else "Yes.")
    else:
        short = ", ".join(names) or "none"
        where = f"at {int(rng.integers(0, 100))} and {int(rng.integers(0, 100))} of the frame"
        truth = f"The bag holds {short}, seen {where} beneath other things." if kind == "detailed" else f"{short}."
        said = truth if right else truth.replace("holds", "may hold").replace("beneath", "above")
    return AnswerRecord(
        pair=line, question="?", question_type=kind, truth=truth, short_truth=short, answer=said,
        language=("en", "es", "fr")[line % 3 if line % 7 == 0 else 0],
    )  # fmt: skip


def header() -> PredictionsHeader:
    identity = EngineIdentity(
        engine="none", model_digest="0" * 64, dtype="fp32", processor_version="1", prompt_version="1"
    )
    point = OperatingPoint(thresholds=dict.fromkeys(CATEGORIES, 0.5), origins=dict.fromkeys(CATEGORIES, "default"))
    return PredictionsHeader(
        identity=identity, model_name="made-up", covered_categories=list(CATEGORIES), variant="model", point=point,
        answer_tokens=64,
    )  # fmt: skip


def write(path: Path, num_scans: int, num_answers: int) -> None:
    write_jsonl(path, map(compact, made_up(num_scans, num_answers)))
    counts = {"scans": num_scans, "done": num_scans}
    write_manifest(path, make_manifest("predict", config=header().model_dump(mode="json"), split="test", counts=counts))


def measure(path: Path, draws: int, workers: int) -> dict[str, object]:
    started = time.perf_counter()
    predictions, made, manifest = read_predictions(path)
    read_s = time.perf_counter() - started
    started = time.perf_counter()
    results = score(predictions, made, manifest, draws=draws, workers=workers)
    score_s = time.perf_counter() - started
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "scans": len(predictions),
        "answers": results.scored.num_questions,
        "draws": draws,
        "read_s": round(read_s, 1),
        "score_s": round(score_s, 1),
        "workers": workers,
        "processor_s": round(sum(each.ru_utime + each.ru_stime for each in used), 1),
        "peak_memory_mib": round(used[0].ru_maxrss / 1024),
        "bag_auc": results.screening.bag.auc.model_dump(),
        "exact_match": results.text.exact_match.model_dump(),
    }


def watched_mib(process: subprocess.Popen[str]) -> int:
    """Return the most memory that a process and its children held together, looked at five times a second."""
    most = 0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            most = max(most, sum(each.memory_info().rss for each in (parent, *parent.children(recursive=True))))
        time.sleep(0.2)
    return round(most / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=46_000)
    parser.add_argument("--answers", type=int, default=140_000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--predictions", type=Path, help="score these and print; for the process that is measured")
    args = parser.parse_args()
    if args.predictions:
        print(json.dumps(measure(args.predictions, args.draws, args.workers)))
        return
    before = calibration_loop_ms()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        write(path, args.scans, args.answers)
        command = [sys.executable, __file__, "--predictions", str(path)]
        command += ["--draws", str(args.draws), "--workers", str(args.workers)]
        load = os.getloadavg()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            together = watched_mib(process)
            found = json.loads(process.communicate()[0])
    publish(
        {
            **found,
            "peak_memory_with_workers_mib": together,
            "calibration_loop_ms": [before, calibration_loop_ms()],
            "load_of_the_machine": [round(load[0], 1), round(os.getloadavg()[0], 1)],
            "conditions": conditions("numpy", "scipy", "numba", "pydantic", "sacrebleu"),
        },
        args.json,
    )


if __name__ == "__main__":
    main()
