"""`xray-vqa`: one command for every stage.

A subcommand's module has `add_arguments(parser)` and `run(args) -> int`, and imports torch and the like inside `run`,
so that `--help` answers at once.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from xray_vqa import errors
from xray_vqa.core.manifest import package_version

COMMANDS = {
    "data": "simulate, download, import and verify scans",
    "generate": "write question-answer pairs about scans",
    "train": "fine-tune a model on a dataset",
    "merge": "merge an adapter into its base model",
    "evaluate": "measure a model on a test file",
    "compare": "say whether one model is better than another on the same test set",
    "robustness": "measure how detection falls when scans get worse or other",
    "suite": "run benchmarks of others, and export ours to their tools",
    "benchmark": "measure latency, throughput and memory of a model",
    "policy": "check a policy file, compare two, or replay one over the record",
    "inspect": "inspect scans from files and print the decisions",
    "serve": "start the inspection API",
    "keys": "make, list, rotate and revoke the keys of the inspection API",
    "audit": "verify, export and thin out what the inspection API has put on record",
    "demo": "run the whole pipeline: scans, pairs, training, evaluation, inspection",
    "doctor": "say what this machine has and what is missing",
}

EXIT_CODES: dict[type[BaseException], int] = {
    errors.ConfigError: 2,
    errors.ModelUnavailable: 2,
    errors.Incomplete: 3,
    errors.GateFailed: 4,
    errors.IntegrityError: 5,
    errors.XrayVqaError: 1,
}
"""First match counts. 0 done, 1 failed or faults found, 2 wrong use, 3 incomplete and resumable, 4 gate not passed."""

_EPILOG = """\
examples:
  xray-vqa demo                                     the whole pipeline on simulated scans, on a laptop
  xray-vqa inspect YOUR.jpg                         inspect a scan with the shipped nano model
  xray-vqa data import --format coco DIR --output-dir data/mine
  xray-vqa train configs/train_demo.yaml learning_rate=1e-3

`xray-vqa COMMAND --help` tells more. Exit codes: 0 done, 1 failed or faults found, 2 wrong use, configuration or
missing key/GPU/extra, 3 incomplete and resumable, 4 a gate was not passed, 5 integrity, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="xray-vqa",
        description="Fine-tune a vision-language model on X-ray baggage scans and serve it to a checkpoint.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"xray-vqa {package_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, help_text in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=help_text, description=help_text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == chosen:
            module = importlib.import_module(f"xray_vqa.cli.{name}")
            module.add_arguments(subparser)
            subparser.epilog = getattr(module, "EPILOG", None)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(words)
    return guarded(args.run, args)


def run_module(name: str, prog: str, argv: Sequence[str] | None = None) -> int:
    """Run one subcommand (`train`, or `data_download` for `data download`) under a documented path's own name."""
    module = importlib.import_module(f"xray_vqa.cli.{name}")
    parser = argparse.ArgumentParser(
        prog=prog,
        description=module.__doc__,
        epilog=getattr(module, "EPILOG", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return guarded(module.run, parser.parse_args(argv))


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a subcommand; errors made for users become one clean line and an exit code, others a traceback."""
    logging.basicConfig(
        level=os.environ.get("XRAY_VQA_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    try:
        return run(args)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here, or begins anew where nothing was kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has what it wants; without this Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except errors.XrayVqaError as error:
        print(f"error: {error}", file=sys.stderr)
        return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
