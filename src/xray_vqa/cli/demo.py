"""Run the whole pipeline: scans, question-answer pairs, training, evaluation, inspection."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EPILOG = """\
examples:
  xray-vqa demo                         simulated scans and nano, on a laptop, in minutes
  xray-vqa demo --profile full          STCray and Qwen2.5-VL-7B; asks before it spends money or hours
  xray-vqa demo --profile full --yes    the same, unattended

Every stage is an ordinary command that is printed before it runs. Stopped at any moment, the same command goes on
with what is not done yet.
"""

DEMO_DIR = Path("outputs/demo")


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of the pipeline."""

    title: str
    expects: str
    """Time and cost, for a person who wonders whether to wait."""
    command: Sequence[str]
    asks: bool = False
    """Whether it spends money or hours, so that a person is asked first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=("demo", "full"), default="demo", help="which pipeline (default: demo)")
    parser.add_argument("--yes", action="store_true", help="do not ask before spending money or hours")
    parser.add_argument("--train", type=int, default=300, help="demo: training scans to simulate (default: 300)")
    parser.add_argument("--test", type=int, default=100, help="demo: test scans to simulate (default: 100)")
    parser.add_argument("--seed", type=int, default=7, help="demo: seed of the simulation (default: 7)")


def run(args: argparse.Namespace) -> int:
    if args.profile == "full":
        _check_provider()
        stages = _full_stages()
    else:
        stages = _demo_stages(args.train, args.test, args.seed)
    started = time.monotonic()
    for number, stage in enumerate(stages, start=1):
        print(f"\n[{number}/{len(stages)}] {stage.title} ({stage.expects})", file=sys.stderr)
        if stage.asks and not args.yes and not _confirmed():
            print("stopped before this stage; the same command goes on from here", file=sys.stderr)
            return 3
        print(f"  $ {' '.join(stage.command)}", file=sys.stderr, flush=True)
        at = time.monotonic()
        code = subprocess.run(_resolved(stage.command), check=False).returncode
        print(f"  {time.monotonic() - at:.0f} s", file=sys.stderr)
        if code:
            print(f"error: this stage ended with exit code {code}; the same command goes on from here", file=sys.stderr)
            return code
    print(f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes", file=sys.stderr)
    if args.profile == "demo":
        model, report = DEMO_DIR / "model", (DEMO_DIR / "report.html").resolve()
        print(f"report: {report}")
        print(f"inspect a scan of your own: xray-vqa inspect --model {model} YOUR.jpg")
    return 0


def _demo_stages(num_train: int, num_test: int, seed: int) -> list[Stage]:
    data, model = DEMO_DIR / "stcray", DEMO_DIR / "model"
    train_pairs, test_pairs = DEMO_DIR / "stcray_vqa_train.jsonl", DEMO_DIR / "stcray_vqa_val.jsonl"
    three = [str(data / "test/images" / f"{number:06d}.jpg") for number in range(min(3, num_test))]
    return [
        Stage(
            f"simulate {num_train + num_test} scans of a scanner that nano has never seen",
            "half a minute",
            ["xray-vqa", "data", "synth", "--output-dir", str(data), "--train", str(num_train), "--test", str(num_test),
             "--profile", "configs/scanners/reversed.yaml", "--seed", str(seed)],
        ),
        *(
            Stage(
                f"write question-answer pairs about the {split} scans",
                "seconds, no key needed",
                ["xray-vqa", "generate", "--provider", "template", "--output", str(pairs),
                 "--annotations", str(data / split / "annotations.json")],
            )
            for split, pairs in (("train", train_pairs), ("test", test_pairs))
        ),
        Stage(
            "fine-tune nano with LoRA",
            "up to five minutes on two cores",
            ["xray-vqa", "train", "configs/train_demo.yaml", f"train_file={train_pairs}", f"output_dir={model}"],
        ),
        Stage(
            "calibrate on held-out training scans, then measure on the test scans beside untuned, majority and blind",
            "two minutes",
            ["xray-vqa", "evaluate", "--model", str(model), "--test-file", str(test_pairs), "--calibrate",
             "--baseline", "nano", "--blind", "--output", str(DEMO_DIR / "evaluation.json"),
             "--report", str(DEMO_DIR / "report.html")],
        ),
        Stage(
            "inspect three test scans",
            "seconds",
            ["xray-vqa", "inspect", "--model", str(model), "--save-dir", str(DEMO_DIR / "inspected"), *three],
        ),
    ]  # fmt: skip


def _full_stages() -> list[Stage]:
    return [
        Stage(
            "download STCray",
            "2 GB, minutes",
            [sys.executable, "data/download_stcray.py", "--output-dir", "data/stcray"],
        ),
        Stage(
            "write pairs about 100 images, to judge their quality",
            "minutes; an estimated $2 to $6 with an LLM, free with PROVIDER=template",
            ["bash", "scripts/test_llm_generation.sh"],
        ),
        Stage(
            "write all pairs",
            "hours and an estimated $90 to $920 with an LLM, minutes and free with PROVIDER=template",
            ["bash", "scripts/generate_full_vqa.sh", "--yes"],
            asks=True,
        ),
        Stage("fine-tune", "hours on GPUs", ["bash", "scripts/train.sh"], asks=True),
        Stage("evaluate", "minutes to an hour", ["bash", "scripts/evaluate.sh"]),
    ]


def _check_provider() -> None:
    """Stop before anything is downloaded where no pair writer was chosen, or one that this version does not have."""
    from xray_vqa.config.generate import ProviderSettings
    from xray_vqa.generation.providers import open_provider, provider_from_environment

    open_provider(ProviderSettings(provider=provider_from_environment(os.environ)))


def _confirmed() -> bool:
    """Ask on the terminal; without one the answer is no."""
    try:
        return input("  go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print("\n  no terminal to ask on; use --yes for unattended runs", file=sys.stderr)
        return False


def _resolved(command: Sequence[str]) -> list[str]:
    """Run `xray-vqa` with this interpreter, whether or not its environment is activated."""
    head = [sys.executable, "-m", "xray_vqa"] if command[0] == "xray-vqa" else [command[0]]
    return [*head, *command[1:]]
