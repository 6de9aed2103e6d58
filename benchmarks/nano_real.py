"""What nano is worth on real scans after fine-tuning on them, beside the same training from random weights.

    python benchmarks/nano_real.py SIXRAY_COCO_DIR [--seeds 1 2 3] [--mix none sim tip sim+tip] [--json FILE]
    python benchmarks/nano_real.py SIXRAY_COCO_DIR --choose --grid learning_rate=3e-4,1e-3 num_train_epochs=10,20

SIXRAY_COCO_DIR holds real SIXray scans with COCO annotations (the data set's terms allow academic use alone, so it is
no part of this repository). Everything goes through the commands that a site would run: import, pairs, training by
configs/finetune_real.yaml, and the evaluation's own prediction and scoring. `--choose` never looks at the val split: it
trains on a part of the train split, measures on the rest of it, divided by group, and prints a table; figures of val
are made without it, once. The same command goes on where it stopped: what stands in --work-dir is not made again.
"""

import argparse
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from measuring import conditions, publish
from numpy.typing import NDArray

from xray_vqa.core.jsonl import read_jsonl, write_jsonl
from xray_vqa.core.manifest import read_manifest, write_manifest
from xray_vqa.core.records import VQAPair, compact
from xray_vqa.dataset.layout import read_split

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/finetune_real.yaml"
MIXES = ("none", "sim", "tip", "sim+tip")
STARTS = ("nano", "random")
DRAWS = 2000


@dataclass(frozen=True)
class Run:
    """One training with its evaluation."""

    mix: str
    start: str
    seed: int
    changes: tuple[str, ...] = ()
    fold: int | None = None
    """Which part of the train split is held out and measured on; None for the val split."""
    settings: str = ""
    """Digest of everything else that a run depends on; another one is another run."""

    @property
    def name(self) -> str:
        changes = "".join(f"_{change}" for change in self.changes)
        part = "val" if self.fold is None else f"fold{self.fold}"
        text = f"{part}_{self.mix}_{self.start}_{self.seed}{changes}_{self.settings}"
        return "".join(letter if letter.isalnum() or letter in "._=+-" else "-" for letter in text)


def settings_of(args: argparse.Namespace) -> str:
    names = ("set", "nano", "folds", "sim_scans", "sim_profiles", "sim_weight", "tip_weight", "max_train", "max_test")
    told = json.dumps([CONFIG.read_text(), *(getattr(args, name) for name in names)])
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def call(log: Path, *words: object, script: str = "") -> None:
    """Run an xray-vqa command, or this script, with its output in a file; what stands in the file is kept."""
    command = [sys.executable, *([script] if script else ["-m", "xray_vqa"]), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    environment |= {"OMP_NUM_THREADS": "1", "PROVIDER": "template"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        done = subprocess.run(command, stdout=stream, stderr=stream, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        end = log.read_text(errors="replace")[-3000:]
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}; the end of {log}:\n{end}")


# -- data
# ---------------------------------------------------------------------------------------------------------


def prepare(args: argparse.Namespace, mixes: Sequence[str]) -> None:
    """Make datasets and pairs that are not there yet."""
    work = args.work_dir
    work.mkdir(parents=True, exist_ok=True)
    logs = work / "logs"
    if not (work / "data_is_whole").is_file():
        say("import")
        words = ["--format", "coco", args.real_dir, "--output-dir", work / "data", "--source-name", "coco/sixray"]
        call(logs / "import.log", "data", "import", *words)
        (work / "data_is_whole").touch()
    if args.max_train:
        say(f"only {args.max_train} training scans, for a rehearsal")
    write_pairs(args, "data", "train", ["--max-images", args.max_train] if args.max_train else [])
    write_pairs(args, "data", "test", ["--max-images", args.max_test] if args.max_test else [])
    if any("tip" in mix for mix in mixes):
        say("threats projected into the training scans")
        words = [work / "data", "--output-dir", work / "tip", "--only-projected", "--workers", args.workers]
        words += ["--count", args.max_train] if args.max_train else ["--share", 1]
        call(logs / "tip.log", "data", "tip", *words, "--format", "jpg")
        write_pairs(args, "tip", "train")
    if any("sim" in mix for mix in mixes):
        say(f"{args.sim_scans} simulated scans")
        words = ["--output-dir", work / "sim", "--train", args.sim_scans, "--test", 0, "--workers", args.workers]
        words += ["--profile", *args.sim_profiles] if args.sim_profiles else []
        call(logs / "sim.log", "data", "synth", *words)
        write_pairs(args, "sim", "train")
    pairs, _ = read_jsonl(pairs_path(args, "data", "train"), VQAPair)
    groups = group_of_image(args)
    for fold in range(args.folds) if args.choose else ():
        held_out = fold_groups(args, fold)
        for part, wanted in (("rest", False), ("fold", True)):
            path = work / f"{part}{fold}of{args.folds}.jsonl"
            chosen = [pair for pair in pairs if (groups[pair.image_path] in held_out) == wanted]
            write_jsonl(path, [compact(pair) for pair in chosen])
            write_manifest(path, read_manifest(pairs_path(args, "data", "train")))


def pairs_path(args: argparse.Namespace, dataset: str, split: str) -> Path:
    return args.work_dir / f"{dataset}_{split}.jsonl"


def write_pairs(args: argparse.Namespace, dataset: str, split: str, more: Sequence[object] = ()) -> None:
    path = pairs_path(args, dataset, split)
    if not path.with_name(f"{path.stem}_stats.json").is_file():
        say(f"pairs about {dataset}/{split}")
        annotations = args.work_dir / dataset / split / "annotations.json"
        call(args.work_dir / "logs/pairs.log", "generate", "--annotations", annotations, "--output", path, *more)


def group_of_image(args: argparse.Namespace) -> dict[str, str]:
    records = read_split(args.work_dir / "data", "train").records
    return {record.image_path: record.group or f"image:{record.image_path}" for record in records}


def fold_groups(args: argparse.Namespace, fold: int) -> set[str]:
    """Return the groups of a fold: dealt out largest first, so that each has its share of each category."""
    contents: dict[str, Counter[str]] = defaultdict(Counter)
    for record in read_split(args.work_dir / "data", "train").records:
        contents[record.group or f"image:{record.image_path}"].update(record.categories or ["clean"])
    total = sum(contents.values(), Counter())
    folds: list[tuple[set[str], Counter[str]]] = [(set(), Counter()) for _ in range(args.folds)]
    for name in sorted(contents, key=lambda name: (-contents[name].total(), name)):
        inside = contents[name]
        chosen, held = min(folds, key=lambda part: sum(inside[kind] * part[1][kind] / total[kind] for kind in inside))
        chosen.add(name)
        held.update(inside)
    return folds[fold][0]


def start_of(args: argparse.Namespace, run: Run) -> str:
    """Return `nano`, or the folder of a model with random weights and all else as nano has it, made if need be."""
    if run.start == "nano":
        return args.nano
    target = args.work_dir / f"random-{run.seed}"
    if not (target / "xray_vqa.json").is_file():
        from xray_vqa.modeling.loading import load_model, write_card

        nano = load_model("nano", device="cpu")
        write_random_nano(target, run.seed)
        nano.encoder.tokenizer.save_pretrained(target)
        nano.processor.save(target)
        write_card(target, card_of_random(nano.processor.version))
    return str(target)


def write_random_nano(target: Path, seed: int) -> None:
    """Write nano's configuration with weights drawn as its pre-training begins with them."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from xray_vqa.modeling.loading import NANO_DIR

    torch.manual_seed(seed)
    Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(NANO_DIR)).float().save_pretrained(target)


def card_of_random(processor_version: str) -> Any:
    from xray_vqa.core.prompts import PROMPT_VERSION
    from xray_vqa.modeling.loading import ModelCard

    return ModelCard(
        prompt_version=PROMPT_VERSION,
        processor_version=processor_version,
        covered_categories=[],
        notes=["random weights, never trained"],
    )


# -- one run
# ---------------------------------------------------------------------------------------------------------


def carry_out(args: argparse.Namespace, run: Run) -> None:
    """Train and predict, unless the predictions are there."""
    folder = args.work_dir / "runs" / run.name
    if (folder / "done").is_file():
        return
    started = time.monotonic()
    train, measured = pairs_path(args, "data", "train"), pairs_path(args, "data", "test")
    words = [f"output_dir={folder / 'model'}", f"seed={run.seed}", "report_to=[]", f"model_name={start_of(args, run)}"]
    if run.fold is not None:
        part = f"{run.fold}of{args.folds}.jsonl"
        train, measured = args.work_dir / f"rest{part}", args.work_dir / f"fold{part}"
        words.append(f"eval_file={measured}")
    weights = {"sim": args.sim_weight, "tip": args.tip_weight}
    mixed = [
        {"file": str(pairs_path(args, name, "train")), "weight": weights[name]} for name in weights if name in run.mix
    ]
    words += [f"train_file={train}", f"mix_files={json.dumps(mixed)}", *args.set, *run.changes]
    call(folder / "train.log", "train", "--config", CONFIG, *words)
    trained = time.monotonic()
    call(folder / "predict.log", "--predict", folder / "model", measured, folder, script=__file__)
    seconds = {"training_s": round(trained - started), "predicting_s": round(time.monotonic() - trained)}
    if not args.keep:
        shutil.rmtree(folder / "model")
    (folder / "done").write_text(json.dumps(seconds))
    say(f"{run.name}: {seconds}; {one_line(figures_of(args, [run]))}")


def predict_only(model: Path, pairs: Path, folder: Path) -> None:
    """Write what a model reads out of the scans of a pairs file, without its questions; boxes from score 0.5."""
    from dataclasses import replace

    from xray_vqa.config.loading import load_policy
    from xray_vqa.evaluation.evaluate import running
    from xray_vqa.evaluation.predict import predict
    from xray_vqa.evaluation.records import OperatingPoint
    from xray_vqa.evaluation.testset import PlannedScan, load_test_set

    data = load_test_set(pairs)
    data = replace(data, scans=tuple(PlannedScan(scan.record) for scan in data.scans))
    with running("transformers", str(model), None) as (engine, info):
        point = OperatingPoint.of(info, load_policy(), data.annotated)
        predict(engine, info, data, folder / "predictions.jsonl", point)


# -- figures
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """What one or more models say of the same scans."""

    categories: tuple[str, ...]
    scores: NDArray[np.float64]
    """(models, scans, categories)"""
    truth: NDArray[np.bool_]
    """(scans, categories)"""
    groups: NDArray[np.str_]
    """(scans,)"""


def scores_of(args: argparse.Namespace, runs: Sequence[Run]) -> Scores:
    """Return the scores of runs that were measured on the same scans."""
    from xray_vqa.evaluation.predict import read_predictions
    from xray_vqa.evaluation.score import score_table
    from xray_vqa.evaluation.metrics.screening import worst_case

    tables = []
    for run in runs:
        predictions, header, _ = read_predictions(args.work_dir / "runs" / run.name / "predictions.jsonl")
        tables.append(score_table(sorted(predictions, key=lambda p: p.image_path), header.point))
    scores = np.stack([worst_case(table.scores, table.truth) for table in tables])
    return Scores(tables[0].categories, scores, tables[0].truth, np.array(tables[0].groups))


def aucs(scores: Scores, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return (models, categories) AUC of scans with a category against all others, each scan counted by its weight."""
    from xray_vqa.evaluation.metrics.screening import weighted_auc

    weights = np.ones(len(scores.groups)) if weights is None else weights
    return np.array(
        [
            [weighted_auc(model[:, c], scores.truth[:, c])(weights) for c in range(len(scores.categories))]
            for model in scores.scores
        ]
    )


def draws_of(scores: Scores, draws: int = DRAWS) -> NDArray[np.float64]:
    """Return (draws, scans) weights: whole groups drawn with replacement, the same draws for every model."""
    rng = np.random.default_rng(0)
    names, member = np.unique(scores.groups, return_inverse=True)
    size = len(names)
    return np.array([np.bincount(rng.integers(0, size, size), minlength=size)[member] for _ in range(draws)], float)


def bounds(values: NDArray[np.float64]) -> list[float]:
    values = values[~np.isnan(values)]
    return [round(float(v), 4) for v in np.quantile(values, (0.025, 0.975))] if len(values) > DRAWS / 2 else []


def figures_of(args: argparse.Namespace, runs: Sequence[Run], draws: int = 0) -> dict[str, Any]:
    """Return AUC by category over seeds, mean of the seeds, with intervals by group if draws are asked for."""
    scores = scores_of(args, runs)
    each = aucs(scores)
    drawn = np.array([aucs(scores, weights).mean(axis=0) for weights in draws_of(scores, draws)]) if draws else None
    categories = {
        name: {
            "auc": round(float(each[:, c].mean()), 4),
            **({"interval": bounds(drawn[:, c])} if drawn is not None else {}),
            "by_seed": [round(float(value), 4) for value in each[:, c]],
            "positive": int(scores.truth[:, c].sum()),
            "negative": int((~scores.truth[:, c]).sum()),
        }
        for c, name in enumerate(scores.categories)
    }
    macro = {"auc": round(float(each.mean()), 4)} | ({"interval": bounds(drawn.mean(1))} if drawn is not None else {})
    return {"categories": categories, "macro": macro, "groups": len(np.unique(scores.groups))}


def places_of(args: argparse.Namespace, runs: Sequence[Run]) -> dict[str, Any]:
    """Return the evaluation's own figures of bags and boxes, by seed."""
    from xray_vqa.evaluation.predict import read_predictions
    from xray_vqa.evaluation.score import Contender, rounded, score_contender

    found: dict[str, Any] = defaultdict(list)
    for run in runs:
        predictions, header, _ = read_predictions(args.work_dir / "runs" / run.name / "predictions.jsonl")
        made = score_contender(Contender("model", "", predictions, header.point))
        found["bag_auc"].append(made.screening.bag.auc)
        found["boxes_met"].append(made.localisation.accuracy)
        found["pd_at_pfa_0.05"].append(
            {name: row.pd_at_pfa["0.05"].value for name, row in made.screening.categories.items()}
        )
    return rounded(dict(found))


def difference(args: argparse.Namespace, better: Sequence[Run], worse: Sequence[Run]) -> dict[str, Any]:
    """Return how much higher the AUC of some runs is than that of others on the same scans, with intervals by group."""
    first, second = scores_of(args, better), scores_of(args, worse)
    drawn = np.array([aucs(first, w).mean(0) - aucs(second, w).mean(0) for w in draws_of(first)])
    point = aucs(first).mean(0) - aucs(second).mean(0)
    return {
        name: {"auc": round(float(point[c]), 4), "interval": bounds(drawn[:, c])}
        for c, name in enumerate(first.categories)
    }


def one_line(figures: dict[str, Any]) -> str:
    parts = [f"{name} {row['auc']:.3f}{shown(row)}" for name, row in figures["categories"].items()]
    return ", ".join([*parts, f"macro {figures['macro']['auc']:.3f}{shown(figures['macro'])}"])


def shown(row: dict[str, Any]) -> str:
    return " [{:.3f}, {:.3f}]".format(*row["interval"]) if row.get("interval") else ""


# -- the two modes
# ---------------------------------------------------------------------------------------------------------


def carry_out_all(args: argparse.Namespace, runs: Sequence[Run]) -> None:
    """Carry out runs, several at a time: nano leaves most of a GPU idle."""
    for run in runs:  # here, since two runs may begin from the same weights
        start_of(args, run)
    left = [run for run in runs if not (args.work_dir / "runs" / run.name / "done").is_file()]
    say(f"{len(runs)} runs, {len(left)} to do, {args.jobs} at a time")
    with ThreadPoolExecutor(args.jobs) as pool:
        tasks = [pool.submit(carry_out, args, run) for run in left]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def choose(args: argparse.Namespace) -> None:
    """Measure every point of the grid on folds of the train split and print a table, best first."""
    axes = [
        [f"{key}={value}" for value in values.split(",")] for key, _, values in (g.partition("=") for g in args.grid)
    ]
    points = [
        (mix, start, changes)
        for mix in args.mix
        for start in args.starts
        for changes in itertools.product(*axes)
    ]  # fmt: skip
    folds = args.use_folds or list(range(args.folds))
    settings = settings_of(args)
    of_point = {
        (mix, start, changes): {
            fold: [Run(mix, start, seed, changes, fold, settings) for seed in args.seeds] for fold in folds
        }
        for mix, start, changes in points
    }
    carry_out_all(args, [run for parts in of_point.values() for runs in parts.values() for run in runs])
    rows = []
    for (mix, start, changes), parts in of_point.items():
        found = [figures_of(args, runs) for runs in parts.values()]
        names = list(found[0]["categories"])
        by_name = {
            name: round(float(np.nanmean([f["categories"][name]["auc"] for f in found])), 4)
            for name in names
        }  # fmt: skip
        rows.append({"mix": mix, "start": start, "changes": list(changes), **by_name})
        rows[-1]["macro"] = round(float(np.nanmean(list(by_name.values()))), 4)
    rows.sort(key=lambda row: -row["macro"])
    for row in rows:
        told = "  ".join(f"{name} {row[name]:.3f}" for name in [*names, "macro"])
        say(f"{told}  {row['mix']:<8}{row['start']:<7}{' '.join(row['changes'])}")
    figures = {"measured_on": f"folds {folds} of {args.folds} of the train split, by group", "rows": rows}
    publish(figures | {"conditions": machine(args)}, args.json)


def report(args: argparse.Namespace) -> None:
    """Train on the whole train split (less its development part) and measure on val."""
    runs = {
        (mix, start): [Run(mix, start, seed, settings=settings_of(args)) for seed in args.seeds]
        for mix in args.mix
        for start in args.starts
    }
    carry_out_all(args, [run for group in runs.values() for run in group])
    figures: dict[str, Any] = {}
    for (mix, start), group in runs.items():
        found = figures_of(args, group, DRAWS) | places_of(args, group)
        say(f"{mix} from {start}: {one_line(found)}")
        figures.setdefault(mix, {})[start] = found
    for mix, found in figures.items():
        if set(STARTS) <= set(found):
            found["nano_minus_random"] = difference(args, runs[mix, "nano"], runs[mix, "random"])
    seconds = {
        run.name: json.loads((args.work_dir / "runs" / run.name / "done").read_text())
        for group in runs.values()
        for run in group
    }
    publish({"val": figures, "seconds": seconds, "conditions": machine(args)}, args.json)


def machine(args: argparse.Namespace) -> dict[str, object]:
    import torch

    return conditions(
        "numpy",
        "torch",
        "transformers",
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        jobs_at_a_time=args.jobs,
        seeds=args.seeds,
        configuration=yaml.safe_load(CONFIG.read_text()),
        changes=args.set,
        mixes={"sim_scans": args.sim_scans, "sim_weight": args.sim_weight, "tip_weight": args.tip_weight},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("real_dir", type=Path, nargs="?", help="sixray_coco")
    add(
        "--work-dir",
        type=Path,
        default=Path("outputs/nano_real"),
        help="everything is made in it (default %(default)s)",
    )
    add("--json", type=Path, help="write the figures here too")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], help="a training for each (default 1 2 3)")
    add("--mix", nargs="+", choices=MIXES, default=["none"], help="what is mixed in; a row of figures for each")
    add("--starts", nargs="+", choices=STARTS, default=list(STARTS), help="from which weights (default both)")
    add("--nano", default="nano", metavar="DIR", help="other weights to begin from than the shipped nano's")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to configs/finetune_real.yaml")
    add("--choose", action="store_true", help="measure on parts of the train split instead of val")
    add("--grid", nargs="+", default=[], metavar="KEY=V1,V2", help="with --choose: values to try, all combinations")
    add("--folds", type=int, default=4, help="with --choose: parts of the train split (default %(default)s)")
    add("--use-folds", type=int, nargs="+", help="with --choose: only these parts are held out (default all)")
    add("--sim-scans", type=int, default=4000, help="simulated scans for the mix (default %(default)s)")
    add("--sim-profiles", nargs="+", help="their scanner profiles (default all shipped ones)")
    add("--sim-weight", type=float, default=0.25, help="times that each is seen in an epoch (default %(default)s)")
    add("--tip-weight", type=float, default=0.5, help="the same of projected ones (default %(default)s)")
    add("--jobs", type=int, default=1, help="trainings at a time (default %(default)s)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes that simulate and project")
    add("--keep", action="store_true", help="keep the trained weights")
    add("--max-train", type=int, help="for a rehearsal: only so many training scans")
    add("--max-test", type=int, help="for a rehearsal: only so many val scans")
    add("--predict", type=Path, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.predict:
        predict_only(*args.predict)
        return
    if args.real_dir is None or not (args.real_dir / "annotations.json").is_file():
        sys.exit("error: name the folder with SIXray's annotations.json and images")
    args.real_dir, args.work_dir = args.real_dir.resolve(), args.work_dir.resolve()
    prepare(args, args.mix)
    if args.choose:
        choose(args)
    else:
        report(args)


if __name__ == "__main__":
    main()
