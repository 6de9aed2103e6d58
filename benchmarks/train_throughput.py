"""Pairs a second of LoRA fine-tuning on one GPU: from the stock libraries to what `xray-vqa train` does, row by row.

    python benchmarks/train_throughput.py [--shape 7b] [--rows NAME ...] [--json FILE]

The model has the shape of Qwen2.5-VL-7B and random weights, on which speed does not depend; an image has 588 visual
tokens, a pair 120 tokens of which 24 are answer, the adapter is of rank 64 on the seven projections of each layer.
Every row runs through the transformers Trainer, optimizer and data loading included, in this process, one by one.
MFU counts 4 FLOP a decoder weight and token (forward and input gradients, the base frozen), of the figure that the
maker gives for dense bf16, in the rows with 8-bit products too; `mfu_with_head` adds the output layer for the tokens
that meet it.
"""

import argparse
import gc
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measuring import conditions, publish
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.utils.data import Dataset
from transformers import (
    AutoTokenizer,
    PrinterCallback,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from xray_vqa.modeling.aligned import use_aligned_mlps
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.compiling import compile_layers
from xray_vqa.modeling.fp8 import use_fp8_tower
from xray_vqa.modeling.fused_lora import fuse_adapters, use_fp8_products
from xray_vqa.modeling.loading import NANO_DIR, LoadedModel
from xray_vqa.modeling.patches import use_patch_products
from xray_vqa.modeling.precision import Precision
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX, Branch, build_row
from xray_vqa.modeling.registry import QWEN2_5_VL
from xray_vqa.training.inputs.collator import collate
from xray_vqa.training.tree_trainer import TreeModel, TreeTrainer

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
PREFIX_TOKENS = 30
"""Beside the image's."""
PAIR_TOKENS, ANSWER_TOKENS, PROBE_TOKENS = 120, 24, 4
SHAPES = {
    "7b": ({}, {}),
    "tiny": (
        {"hidden_size": 256, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 4096},
        {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "out_hidden_size": 256,
         "fullatt_block_indexes": [1]},
    ),
}  # fmt: skip
IMAGE_ID = 151655


@dataclass(frozen=True, slots=True)
class Row:
    """One way to train."""

    name: str
    images: int
    """In a step."""
    pairs: int = 3
    """An image."""
    probes: int = 0
    stock: bool = False
    trl: bool = False
    """Through TRL's SFTTrainer, which has to be installed beside (`pip install trl`)."""
    compiled: bool = False
    fused: bool = False
    fp8: bool = False
    dropout: float = 0.05
    """Of the adapter."""
    checkpointing: bool = False
    frame_hw: tuple[int, int] = (588, 784)


ROWS = (
    Row("stock Trainer, checkpointing", 4, pairs=1, stock=True, checkpointing=True),
    Row("stock Trainer", 2, pairs=1, stock=True),
    Row("TRL SFTTrainer, checkpointing", 4, pairs=1, stock=True, trl=True, checkpointing=True),
    Row("TRL SFTTrainer", 2, pairs=1, stock=True, trl=True),
    Row("packed prompt trees", 4),
    Row("packed prompt trees, checkpointing", 4, checkpointing=True),
    Row("compiled layers", 4, compiled=True),
    Row("compiled layers, 8 images", 8, compiled=True),
    Row("fused adapters, 8 images", 8, compiled=True, fused=True),
    Row("without dropout, 8 images", 8, compiled=True, fused=True, dropout=0.0),
    Row("without dropout, 12 images", 12, compiled=True, fused=True, dropout=0.0),
    Row("without dropout, 12 images, 20 probes", 12, probes=20, compiled=True, fused=True, dropout=0.0),
    Row("fp8, 12 images", 12, compiled=True, fused=True, fp8=True, dropout=0.0),
    Row("fp8, 16 images", 16, compiled=True, fused=True, fp8=True, dropout=0.0),
    Row("fp8, 12 images, 20 probes", 12, probes=20, compiled=True, fused=True, fp8=True, dropout=0.0),
)


class Clock(TrainerCallback):
    """Notes when each step was through, on a GPU without making the host wait for it."""

    def __init__(self) -> None:
        self._marks: list[Any] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._mark()

    def _mark(self) -> None:
        if not torch.cuda.is_available():
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def step_times_s(self) -> list[float]:
        """Return what each step took."""
        pairs = list(itertools.pairwise(self._marks))
        if not torch.cuda.is_available():
            return [end - start for start, end in pairs]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairs]


@dataclass(slots=True)
class Bench:
    """A model, and what is asked of it."""

    model: Any
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    decoder_weights: int = 0
    """Frozen ones, in its layers; counted before any are rounded to 8 bits."""
    is_fp8: bool = False
    """From the first such row on; these come last."""

    def __post_init__(self) -> None:
        layers = self.model.get_base_model().model.language_model.layers
        self.decoder_weights = sum(w.numel() for name, w in layers.named_parameters() if "lora" not in name)

    def loaded(self, processor: Processor) -> LoadedModel:
        """Return the model as the recipe knows it, without a tokenizer, which no step needs."""
        none: Any = None
        return LoadedModel(
            model=self.model,
            encoder=none,
            processor=processor,
            spec=QWEN2_5_VL,
            name="random weights",
            model_digest="",
            adapter_digest="",
            precision=Precision("bf16", "as trained"),
            covered_categories=(),
            weights_dir=Path(),
        )

    def tokens(self, count: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 1000, (count,), generator=self.generator).tolist())

    def tree_item(self, row: Row, processor: Processor) -> dict[str, Any]:
        grid = processor.grid_hw((row.frame_hw[1], row.frame_hw[0]))
        image = [self.model.config.image_token_id] * (grid[0] * grid[1])
        half = PREFIX_TOKENS // 2
        asked = [
            Branch(self.tokens(PAIR_TOKENS - ANSWER_TOKENS + 1), self.tokens(ANSWER_TOKENS)) for _ in range(row.pairs)
        ]
        asked += [Branch(self.tokens(PROBE_TOKENS), self.tokens(1)) for _ in range(row.probes)]
        tree = build_row([*self.tokens(half), *image, *self.tokens(half)], half, grid, asked)
        patch = processor.patch_size
        return {
            "frame": torch.randint(0, 255, (*row.frame_hw, 3), dtype=torch.uint8, generator=self.generator),
            "grid_thw": torch.tensor([1, row.frame_hw[0] // patch, row.frame_hw[1] // patch]),
            "row": tree,
            "weights": torch.ones(tree.labels.shape),
            "image": "noise",
        }

    def stock_item(self, row: Row, processor: Processor) -> dict[str, Any]:
        """One question behind an image, as a processor makes it."""
        item = self.tree_item(row, processor)
        tree = item["row"]
        labels = torch.cat([torch.tensor([IGNORE_INDEX]), tree.labels])  # which stand where the token itself stands
        ids = torch.cat([tree.input_ids, tree.labels[-1:]])
        patches, grid = processor.patches_of([item["frame"]])
        return {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self.model.config.image_token_id).long(),
            "pixel_values": patches,
            "image_grid_thw": grid,
        }


def stock_collate(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    joined = ("pixel_values", "image_grid_thw")
    return {name: (torch.cat if name in joined else torch.stack)([item[name] for item in items]) for name in items[0]}


class Endless(Dataset[dict[str, Any]]):
    """A few items again and again."""

    def __init__(self, items: Sequence[dict[str, Any]], length: int) -> None:
        self._items, self._length = items, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._items[index % len(self._items)]


def make_model(shape: str, device: str) -> Any:
    """Return the model with an adapter of rank 64."""
    text, vision = SHAPES[shape]
    config: Any = Qwen2_5_VLConfig(text_config=_of_7b() | text, vision_config=_vision_of_7b() | vision)
    config.image_token_id = IMAGE_ID if shape == "7b" else 5
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(before)
    lora = LoraConfig(
        r=64, lora_alpha=128, lora_dropout=0.05, target_modules=QWEN2_5_VL.lora_targets(), task_type="CAUSAL_LM"
    )
    return get_peft_model(model, lora)


def _of_7b() -> dict[str, Any]:
    return {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0,
        "mrope_section": [16, 24, 24]},
    }  # fmt: skip


def _vision_of_7b() -> dict[str, Any]:
    return {
        "hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16, "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip


def arguments_for(row: Row, steps: int, folder: Path) -> TrainingArguments:
    checkpointing: dict[str, Any] = {"gradient_checkpointing": True} if row.checkpointing else {}
    kind: Any = TrainingArguments
    if row.trl:
        from trl import SFTConfig  # pyright: ignore[reportMissingImports]

        kind = SFTConfig
        checkpointing = {"gradient_checkpointing": row.checkpointing}  # which TRL would do by default
        checkpointing |= {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return kind(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=row.images,
        learning_rate=2e-4,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        label_names=["labels"],
        accelerator_config={"non_blocking": True},
        disable_tqdm=True,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        dataloader_num_workers=4,
        **checkpointing,
    )


def measure(bench: Bench, row: Row, *, warm_up: int, steps: int) -> dict[str, Any]:
    """Train as a row says and return its figures."""
    model, processor = bench.model, Processor()
    base = model.get_base_model()
    base.gradient_checkpointing_disable()
    base.disable_input_require_grads()  # which checkpointing had asked for, the vision tower's input among them
    make = bench.stock_item if row.stock else bench.tree_item
    items = [make(row, processor) for _ in range(2 * row.images)]
    data = Endless(items, row.images * (warm_up + steps))
    if not row.stock:
        use_patch_products(base)
        use_segment_attention(base)
        model_of_trees = TreeModel(bench.loaded(processor))
    if row.fused and not bench.is_fp8:
        fuse_adapters(base)
        use_aligned_mlps(base)
    if row.fp8 and not bench.is_fp8:
        use_fp8_products(base)
        use_fp8_tower(base)
        bench.is_fp8 = True
    for module in base.modules():
        if isinstance(module, LoraLayer):
            dropout: Any = module.lora_dropout["default"]
            dropout.p = row.dropout
    if row.compiled:
        compile_layers(base)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_for(row, warm_up + steps, Path(folder))
        trainer: Trainer
        if row.trl:
            from datasets import IterableDataset  # pyright: ignore[reportMissingImports]
            from trl import SFTTrainer  # pyright: ignore[reportMissingImports]

            trainer = SFTTrainer(
                model,
                arguments,
                data_collator=stock_collate,
                train_dataset=IterableDataset.from_generator(lambda: (data[index] for index in range(len(data)))),
                callbacks=[clock],
                processing_class=AutoTokenizer.from_pretrained(NANO_DIR),  # asked for; the items are tokens already
            )
        elif row.stock:
            trainer = Trainer(model, arguments, data_collator=stock_collate, train_dataset=data, callbacks=[clock])
        else:
            trainer = TreeTrainer(
                model_of_trees, arguments, data_collator=collate, train_dataset=data, callbacks=[clock]
            )
        trainer.remove_callback(PrinterCallback)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    if row.trl:  # which leaves a forward of its own on the model
        vars(model).pop("forward", None)
    first, *_ = all_times = clock.step_times_s()
    times = all_times[warm_up:]
    step_s = statistics.median(times)
    lengths = [len(item["input_ids"]) if row.stock else len(item["row"].input_ids) for item in items]
    labels = [(item["labels"] if row.stock else item["row"].labels) for item in items]
    supervised = sum(int((label != IGNORE_INDEX).sum()) for label in labels) / 2
    return {
        "row": row.name,
        "images_per_step": row.images,
        "pairs_per_s": round(row.images * row.pairs / step_s, 2),
        "tokens_per_s": round(sum(lengths) / 2 / step_s),
        "step_ms": round(step_s * 1000, 1),
        "slowest_step_ms": round(max(times) * 1000, 1),
        "first_step_s": round(first, 1),
        **utilisation(bench, sum(lengths) / 2 / step_s, (sum(lengths) / 2 if row.stock else supervised) / step_s),
    }


def utilisation(bench: Bench, tokens_per_s: float, head_tokens_per_s: float) -> dict[str, Any]:
    """Return MFU without and with the head, and the peak of memory; nothing on a CPU."""
    if not torch.cuda.is_available():
        return {}
    peak = next(flops for name, flops in PEAK_FLOPS.items() if name in torch.cuda.get_device_name())
    head_weights = bench.model.get_base_model().lm_head.weight.numel()
    work, head = 4 * bench.decoder_weights * tokens_per_s, 4 * head_weights * head_tokens_per_s
    return {
        "mfu": round(work / peak, 3),
        "mfu_with_head": round((work + head) / peak, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b", help="`tiny` tries the script on a CPU")
    parser.add_argument("--rows", nargs="+", default=[row.name for row in ROWS], help="these alone, in this order")
    parser.add_argument("--warm-up", type=int, default=4, help="steps before those that are timed")
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bench = Bench(make_model(args.shape, device))
    chosen = {row.name: row for row in ROWS}
    rows: list[dict[str, Any]] = []
    for name in args.rows:
        try:
            rows.append(measure(bench, chosen[name], warm_up=args.warm_up, steps=args.steps))
        except torch.OutOfMemoryError as error:
            rows.append({"row": name, "out_of_memory": str(error).splitlines()[0]})
        print(rows[-1], file=sys.stderr, flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    machine = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    publish(
        {"shape": args.shape, "rows": rows, "conditions": conditions("torch", "transformers", "peft", **machine)},
        args.json,
    )


if __name__ == "__main__":
    main()
