"""Pairs a second of LoRA fine-tuning on 1, 2 and 4 GPUs of one host, and what share of the GPUs' own pace that is.

    python benchmarks/train_scaling.py [--shape 7b] [--ranks 1 2 4] [--json FILE]

The model and the images are those of train_throughput.py, but an image has one to five pairs, so that ranks have as
different work as they have in a run; every rank gets as many images, dealt out by their tokens. An update is one
micro-batch a rank by default, after which gradients are exchanged: with `--accumulation` it is rarer. On a CPU
processes take the place of GPUs, with `--shape tiny`, which tries the script and measures nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measuring import conditions, publish
from train_throughput import SHAPES, Bench, Clock, Row, arguments_for, make_model
from transformers import PrinterCallback

from xray_vqa.modeling.aligned import use_aligned_mlps
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.compiling import compile_layers
from xray_vqa.modeling.fused_lora import fuse_adapters
from xray_vqa.modeling.patches import use_patch_products
from xray_vqa.modeling.processor import Processor
from xray_vqa.training.inputs.collator import collate
from xray_vqa.training.inputs.sampling import DealtBatches
from xray_vqa.training.ranks import Ranks
from xray_vqa.training.tree_trainer import TreeModel, TreeTrainer

NUM_DIFFERENT = 20
PAIRS = (1, 2, 3, 4, 5)


class Images:
    """So many images, a few different ones again and again."""

    def __init__(self, bench: Bench, count: int) -> None:
        processor = Processor()
        self.pairs = [PAIRS[number % len(PAIRS)] for number in range(NUM_DIFFERENT)]
        self._items = [bench.tree_item(Row("", images=1, pairs=pairs), processor) for pairs in self.pairs]
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._items[index % NUM_DIFFERENT]

    def start_epoch(self, epoch: int) -> None:
        """There is one."""

    def num_tokens(self, index: int) -> int:
        return len(self[index]["row"].input_ids)


def measure(args: argparse.Namespace) -> None:
    """Train as one of the ranks that torchrun started; the first writes what all of them reached together."""
    ranks = Ranks.join()
    on_gpu = torch.cuda.is_available()
    bench = Bench(make_model(args.shape, str(ranks.device)))
    base = bench.model.get_base_model()
    use_patch_products(base)
    use_segment_attention(base)
    model = TreeModel(bench.loaded(Processor()))
    fuse_adapters(base)
    use_aligned_mlps(base)
    if on_gpu:
        compile_layers(base)
    per_update = args.images * args.accumulation * ranks.world
    images = Images(bench, per_update * (args.warm_up + args.steps))
    batches = DealtBatches(
        images,
        images_per_update=per_update,
        images_per_micro_batch=args.images,
        seed=0,
        rank=ranks.rank,
        num_ranks=ranks.world,
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_for(Row("", images=args.images), args.warm_up + args.steps, Path(folder))
        arguments.gradient_accumulation_steps = args.accumulation
        arguments.ddp_find_unused_parameters = False
        trainer = TreeTrainer(model, arguments, data_collator=collate, train_dataset=images, callbacks=[clock])
        trainer.batches = batches
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    alone = DealtBatches(images, images_per_update=per_update, images_per_micro_batch=per_update, seed=0)
    timed = list(alone)[args.warm_up :]
    num_pairs = sum(images.pairs[index % NUM_DIFFERENT] for update in timed for index in update)
    seconds = sum(clock.step_times_s()[args.warm_up :])
    peak = {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)} if on_gpu else {}
    row = {
        "ranks": ranks.world,
        "images_per_update": per_update,
        "pairs_per_s": round(num_pairs / seconds, 2),
        "update_ms": round(seconds / args.steps * 1000, 1),
        **peak,
    }
    if ranks.is_first:
        args.found.write_text(json.dumps(row))
    ranks.leave()


def launch(num_ranks: int, words: list[str]) -> dict[str, Any]:
    """Start this script under torchrun and return what its first rank found."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
        subprocess.run([sys.executable, *torchrun, __file__, *words, "--found", str(found)], check=True)
        return json.loads(found.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b", help="`tiny` tries the script on a CPU")
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4], help="numbers of GPUs; 1 must be the first")
    parser.add_argument("--images", type=int, default=8, help="in a micro-batch")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches an update")
    parser.add_argument("--warm-up", type=int, default=6, help="updates before those that are timed")
    parser.add_argument("--steps", type=int, default=20, help="updates that are timed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)  # what torchrun starts writes there
    args = parser.parse_args()
    if args.found:
        measure(args)
        return
    rows: list[dict[str, Any]] = []
    for num_ranks in args.ranks:
        row = launch(num_ranks, sys.argv[1:])
        alone = (rows or [row])[0]["pairs_per_s"]
        rows.append(row | {"efficiency": round(row["pairs_per_s"] / (num_ranks * alone), 3)})
        print(rows[-1], file=sys.stderr, flush=True)
    machine = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    publish(
        {"shape": args.shape, "rows": rows, "conditions": conditions("torch", "transformers", "peft", **machine)},
        args.json,
    )


if __name__ == "__main__":
    main()
