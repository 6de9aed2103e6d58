"""Fine-tune a model on a dataset (`configs/train_stcray.yaml`), or pre-train nano (`configs/pretrain_nano.yaml`)."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import psutil
import yaml

from xray_vqa.config.loading import load_config
from xray_vqa.config.train import PretrainConfig, TrainConfig
from xray_vqa.core.records import ScanRecord
from xray_vqa.errors import ConfigError, DatasetError, ModelUnavailable

if TYPE_CHECKING:
    from xray_vqa.evaluation.examiner import DevelopmentExaminer
    from xray_vqa.modeling.chat import PromptEncoder
    from xray_vqa.modeling.processor import Processor
    from xray_vqa.training.pretraining.stream import QuestionWriter

logger = logging.getLogger(__name__)

EPILOG = """\
examples:
  xray-vqa train configs/train_demo.yaml                           nano, on a CPU, in minutes
  xray-vqa train configs/train_stcray.yaml learning_rate=1e-4      a 7B on all GPUs of this machine
  xray-vqa train configs/train_stcray.yaml outputs/qwen25vl_stcray_lora/checkpoint-1000
  xray-vqa train configs/train_stcray.yaml --dry-run               the resolved configuration, and the steps

Stopped at any moment, the same command goes on from the newest whole checkpoint; SIGTERM and Ctrl-C let it write one
first. With several GPUs torchrun is started by itself; its variables (PET_NNODES and others, see docs/TRAINING.md) add
more hosts. Watch with `tail -f OUTPUT/train.log` or `tensorboard --logdir OUTPUT/logs`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="CONFIG | CHECKPOINT | key=value", help="see the examples")
    parser.add_argument("--config", type=Path, help="the configuration, as the first word may name it too")
    parser.add_argument("--resume-from-checkpoint", type=Path, metavar="CHECKPOINT", help="a folder checkpoint-N")
    parser.add_argument("--dry-run", action="store_true", help="show the resolved configuration and the plan, and stop")


def run(args: argparse.Namespace) -> int:
    config_path, checkpoint, overrides = _sort_words(args)
    is_pretraining = _recipe_of(config_path) == "pretrain"
    config = load_config(PretrainConfig if is_pretraining else TrainConfig, config_path, overrides)
    import torch

    num_gpus = torch.cuda.device_count()
    wants_torchrun = num_gpus > 1 or any(name in os.environ for name in ("PET_NNODES", "PET_NPROC_PER_NODE"))
    if wants_torchrun and "LOCAL_RANK" not in os.environ and not args.dry_run:
        return _launch(num_gpus)
    if isinstance(config, PretrainConfig):
        return _pretrain(config)
    from xray_vqa.training.recipe import finetune

    output_dir = finetune(config, checkpoint, dry_run=args.dry_run, find_examiner=find_examiner)
    if output_dir is not None and os.environ.get("RANK", "0") == "0":
        if config.calibrate:
            _calibrate(config, output_dir)
        print(output_dir)
    return 0


def _calibrate(config: TrainConfig, output_dir: Path) -> None:
    """Write the calibration of what was trained. Without one it clears no bag, and the weights stand all the same."""
    import gc

    import torch

    from xray_vqa.evaluation.evaluate import calibrate_trained

    gc.collect()  # the model that was trained goes before it is loaded as it will be served
    torch.cuda.empty_cache()
    try:
        calibrate_trained(output_dir, config.train_file, config.eval_file)
    except (DatasetError, ModelUnavailable) as error:
        logger.warning("not calibrated: %s; it clears no bag before `xray-vqa evaluate --calibrate`", error)


def _sort_words(args: argparse.Namespace) -> tuple[Path, Path | None, list[str]]:
    """Tell configuration, checkpoint and overrides apart: a YAML file, a folder, and words with `=`."""
    config, checkpoint = args.config, args.resume_from_checkpoint
    overrides: list[str] = []
    for word in args.words:
        if "=" in word:
            overrides.append(word)
        elif word.endswith((".yaml", ".yml")) and config is None:
            config = Path(word)
        elif checkpoint is None:
            checkpoint = Path(word)
        else:
            raise ConfigError(f"do not know what {word!r} is; expected CONFIG.yaml, a checkpoint folder or key=value")
    if checkpoint is not None and not checkpoint.is_dir():
        raise ConfigError(f"{checkpoint}: no such checkpoint folder")
    return config or Path("configs/train_stcray.yaml"), checkpoint, overrides


def _recipe_of(path: Path) -> str:
    """Return which recipe a configuration is for, before it is checked as that recipe's type."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return "finetune"  # load_config says what is wrong
    return str(values.get("recipe", "finetune")) if isinstance(values, dict) else "finetune"


def _launch(num_gpus: int) -> int:
    """Start this command again under torchrun, one process a GPU, and return the exit code of those processes.

    What torchrun's environment variables say goes before: several hosts, or another number of processes.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # torchrun itself would kill processes that are not through 30 seconds after a signal, checkpoint or not.
    options = ["--signals-to-handle=SIGHUP,SIGQUIT"]
    if "PET_NNODES" not in os.environ:
        options.append("--standalone")
    if "PET_NPROC_PER_NODE" not in os.environ:
        options.append(f"--nproc-per-node={max(1, num_gpus)}")
    handlers = {number: signal.signal(number, _pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        torchrun.run(torchrun.parse_args([*options, "-m", "xray_vqa", "train", *_own_arguments()]))
    except ChildFailedError as error:
        # A process that fails takes the others with it, by a lost connection (1) or a signal (negative).
        codes = [failure.exitcode for failure in error.failures.values()]
        return max(codes) if max(codes) > 0 else 128 - max(codes)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Pass a signal on to the training processes, which end in their own time; without any yet, stop at once."""
    processes = psutil.Process().children()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    if not processes:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def _own_arguments() -> Sequence[str]:
    words = sys.argv[1:]
    return words[1:] if words[:1] == ["train"] else words


def find_examiner(config: TrainConfig, images: Collection[Path]) -> "DevelopmentExaminer":
    """Return the examiner of a run: this command is where training and evaluation meet."""
    from xray_vqa.config.loading import load_policy
    from xray_vqa.evaluation.examiner import DevelopmentExaminer
    from xray_vqa.evaluation.testset import load_test_set

    pairs = config.eval_file or config.train_file
    data = load_test_set(pairs, max_images=config.eval_generate_images, only=images)
    return DevelopmentExaminer(data, load_policy())


class TemplateQuestions:
    """Writes template questions about scans, balanced over all that it has seen."""

    def __init__(self, per_scan: int, seed: int) -> None:
        from xray_vqa.config.loading import load_policy
        from xray_vqa.core.taxonomy import CATEGORIES
        from xray_vqa.generation.plan import Planner

        self._planner = Planner(CATEGORIES, load_policy(), samples_per_image=per_scan, seed=seed)
        self._seed = seed

    def __call__(self, record: ScanRecord) -> list[tuple[str, str]]:
        from xray_vqa.generation.providers.template import word_slots

        slots = self._planner.plan(record).slots
        return [(pair.question, pair.answer) for pair in word_slots(record, slots, self._seed)]


@dataclass(frozen=True)
class PretrainTools:
    """Makes what each producer process needs: this command is where simulation, modelling and pair writing meet."""

    tokenizer_dir: Path
    questions_per_scan: int
    seed: int

    def __call__(self) -> "tuple[PromptEncoder, Processor, QuestionWriter]":
        from transformers import AutoTokenizer

        from xray_vqa.modeling.chat import PromptEncoder
        from xray_vqa.modeling.nano import PROCESSOR

        encoder = PromptEncoder(AutoTokenizer.from_pretrained(self.tokenizer_dir))
        return encoder, PROCESSOR, TemplateQuestions(self.questions_per_scan, self.seed)


def _pretrain(config: PretrainConfig) -> int:
    from transformers import AutoTokenizer

    from xray_vqa.modeling.loading import NANO_DIR
    from xray_vqa.training.pretraining.pretrain import pretrain

    tokenizer_dir = config.tokenizer_dir or NANO_DIR
    tools = PretrainTools(tokenizer_dir, config.questions_per_scan, config.seed)
    print(pretrain(config, AutoTokenizer.from_pretrained(tokenizer_dir), tools))
    return 0
