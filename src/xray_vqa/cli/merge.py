"""Merge a LoRA adapter into its base model and write the result as an ordinary checkpoint."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xray_vqa.errors import ConfigError, XrayVqaError

if TYPE_CHECKING:
    from xray_vqa.modeling.parity import Trial

EPILOG = """\
examples:
  xray-vqa merge outputs/qwen25vl_stcray_lora --output-dir outputs/qwen25vl_stcray_merged
  xray-vqa merge outputs/qwen25vl_stcray_lora --output-dir outputs/qwen25vl_stcray_fp8 --format fp8
  xray-vqa merge outputs/qwen25vl_stcray_lora --output-dir outputs/merged --check-with data/stcray_vqa_val.jsonl

The sum is made in fp32 and then written. What was written is loaded back and asked the same as the adapter: all probes
of some scans, and questions about them. If it answers otherwise, or as the base does, the exit code is 4 and no output
folder is left. The figures stand in the output's manifest.json. The merged model has another digest, so calibrate it
again: xray-vqa evaluate --model outputs/qwen25vl_stcray_merged --calibrate
"""

MAX_SCANS = 16
NUM_SIMULATED = 8
SEED = 20_000
"""Of the simulated scans."""
QUESTIONS = ("What is in the bag?", "Are there any prohibited items?", "Where is the most dangerous item?")
"""Asked about scans that come without questions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", type=Path, help="the folder with the adapter")
    parser.add_argument("--output-dir", type=Path, required=True, help="where the merged model is written")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="bf16", help="of the written weights (default: bf16)"
    )
    parser.add_argument(
        "--format",
        choices=("safetensors", "fp8", "int4"),
        default="safetensors",
        help="plain weights (default), or the decoder's linear layers rounded to 8-bit floats or 4-bit integers, as "
        "vLLM loads them",
    )
    parser.add_argument(
        "--check-with",
        metavar="PAIRS|FOLDER|N",
        help=f"scans to ask adapter and merged model about: a pairs file, a folder of images (of both at most "
        f"{MAX_SCANS} scans) or a number of simulated scans; 0 writes unchecked. Default: the adapter's own training "
        f"pairs if they are there, else {NUM_SIMULATED}",
    )


def run(args: argparse.Namespace) -> int:
    from xray_vqa.modeling.export import merge_adapter

    trial = make_trial(args.check_with, args.adapter)
    merge_adapter(args.adapter, args.output_dir, precision=args.precision, form=args.format, trial=trial)
    print(args.output_dir)
    return 0


def make_trial(word: str | None, adapter_dir: Path) -> "Trial | None":
    """Return what adapter and merged model are asked; None for nothing.

    Raises:
        ConfigError: The word is neither a number nor a file or folder that is there.
        DatasetError: The pairs or images cannot be read.
    """
    if word is None:
        return _own_trial(adapter_dir) or _simulated_trial(NUM_SIMULATED)
    if word.isdecimal():
        return _simulated_trial(int(word)) if int(word) else None
    path = Path(word)
    if path.is_file():
        return _trial_of_pairs(path)
    if path.is_dir():
        return _trial_of_folder(path)
    raise ConfigError(f"--check-with {word}: no such file or folder, and no number of scans to simulate")


def _own_trial(adapter_dir: Path) -> "Trial | None":
    """Scans that the adapter was trained on: what was written has to answer about any scan as the adapter does."""
    from xray_vqa.core.manifest import read_manifest

    try:
        pairs = Path(read_manifest(adapter_dir).config["train_file"])
        return _trial_of_pairs(pairs) if pairs.is_file() else None
    except (XrayVqaError, KeyError) as error:
        print(f"the adapter's own training pairs cannot be read ({error}); simulating scans instead", file=sys.stderr)
        return None


def _trial_of_pairs(path: Path) -> "Trial":
    from xray_vqa.core.images import read_image
    from xray_vqa.evaluation.testset import load_test_set
    from xray_vqa.modeling.parity import Trial

    data = load_test_set(path, max_images=MAX_SCANS)
    images = [read_image(data.root / scan.record.image_path) for scan in data.scans]
    questions = [[question.pair.question for question in scan.questions] for scan in data.scans]
    return Trial(images, questions, f"{len(images)} scans of {path.name}")


def _trial_of_folder(path: Path) -> "Trial":
    from xray_vqa.cli.inspect import find_images
    from xray_vqa.core.images import read_image
    from xray_vqa.modeling.parity import Trial

    images = [read_image(each) for each in find_images([str(path)])[:MAX_SCANS]]
    return Trial(images, [QUESTIONS] * len(images), f"{len(images)} images of {path.name}")


def _simulated_trial(count: int) -> "Trial":
    from PIL import Image

    from xray_vqa.modeling.parity import Trial
    from xray_vqa.simulation.simulate import ScanStream

    stream = ScanStream(SEED)
    images = [Image.fromarray(stream.scan(number).image) for number in range(count)]
    return Trial(images, [QUESTIONS] * count, f"{count} simulated scans, seed {SEED}")
