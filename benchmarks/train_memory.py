"""What training takes of a GPU's memory beside what the planner predicts, and a real overflow that is recovered from.

    python benchmarks/train_memory.py [--shape 7b] [--json FILE]

Model, images and adapter are those of train_throughput.py, nothing is compiled. Peaks are of a second update, so that
the optimizer's numbers are there. `recovered` allows torch a share of the GPU that the batch does not fit into, first
with a planner that knows nothing of it, then with one that has probed; loss and norm of the gradients stand beside
those of the run without limits. QLoRA is measured where bitsandbytes is installed.
"""

import argparse
import gc
import importlib.util
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import conditions, publish
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from train_throughput import SHAPES, Bench, Endless, Row, arguments_for, make_model
from transformers import PrinterCallback, TrainerCallback

from xray_vqa.modeling.aligned import use_aligned_mlps
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.fused_lora import fuse_adapters
from xray_vqa.modeling.patches import use_patch_products
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.registry import QWEN2_5_VL
from xray_vqa.training.inputs.collator import collate
from xray_vqa.training.inputs.demand import Demand, Item
from xray_vqa.training.planning.memory import GIB, MemoryPlan, PassSettings, pass_cost, state_bytes
from xray_vqa.training.planning.parts import Budget
from xray_vqa.training.tree_trainer import TreeModel, TreeTrainer

LARGE = (896, 1120)
"""1,280 visual tokens."""
LORA_ROWS = (
    Row("LoRA, 1,280 visual tokens, checkpointing", 1, frame_hw=LARGE, checkpointing=True),
    Row("LoRA, 1,280 visual tokens, 2 images, checkpointing", 2, frame_hw=LARGE, checkpointing=True),
    Row("LoRA, 4 images", 4),
    Row("LoRA, 8 images", 8),
    Row("LoRA without dropout, 8 images", 8, dropout=0.0),
)
QLORA_ROWS = (
    Row("QLoRA, 588 visual tokens, checkpointing", 1, checkpointing=True),
    Row("QLoRA, 1,280 visual tokens, checkpointing", 1, frame_hw=LARGE, checkpointing=True),
)
RECOVERED = Row("LoRA without dropout, 8 images", 8, dropout=0.0)
SHARE = 0.6
"""Of the activations of a batch, what the overflow leaves room for."""


class SecondStep(TrainerCallback):
    """Begins to look for the peak anew when the first update of several is through."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available() and state.global_step == 1 < state.max_steps:
            torch.cuda.reset_peak_memory_stats()


class Memory:
    """The rows of one model."""

    def __init__(self, bench: Bench, *, fused: bool) -> None:
        self.bench, self.fused, self.processor = bench, fused, Processor()
        self.base = bench.model.get_base_model()
        use_patch_products(self.base)
        use_segment_attention(self.base)
        if fused:
            fuse_adapters(self.base)
            use_aligned_mlps(self.base)
        self.tree = TreeModel(bench.loaded(self.processor))
        trained = ((name, weight) for name, weight in self.base.named_parameters() if weight.requires_grad)
        self._start = {name: weight.detach().cpu().clone() for name, weight in trained}

    def items(self, row: Row) -> list[Item]:
        return [self.bench.tree_item(row, self.processor) for _ in range(row.images)]

    def plan(self, row: Row, items: Sequence[Item], capacity: float) -> MemoryPlan:
        settings = PassSettings(row.dropout, trains_vision=False, compiled=False, fused=self.fused)
        element = self.base.lm_head.weight.element_size()
        cost = pass_cost(self.base.config, element, settings, checkpointing=row.checkpointing)
        demands = tuple(Demand.of([item]) for item in items)
        return MemoryPlan(state_bytes(self.bench.model), capacity, (cost,), row.checkpointing, demands)

    def train(self, row: Row, items: Sequence[Item], steps: int, **more: Any) -> dict[str, float]:
        """Train from the same start as ever and return loss and norm of the gradients of the first update."""
        for name, weight in self.base.named_parameters():
            if name in self._start:
                weight.data.copy_(self._start[name])
        self.base.gradient_checkpointing_disable()
        self.base.disable_input_require_grads()  # else a frozen tower is kept for the backward pass
        for module in self.base.modules():
            if isinstance(module, LoraLayer):
                dropout: Any = module.lora_dropout["default"]
                dropout.p = row.dropout
        with tempfile.TemporaryDirectory() as folder:
            arguments = arguments_for(row, steps, Path(folder))
            arguments.dataloader_num_workers, arguments.logging_strategy, arguments.logging_steps = 0, "steps", 1  # type: ignore[assignment]
            trainer = TreeTrainer(
                self.tree, arguments, data_collator=collate, train_dataset=Endless(items, steps * row.images),
                callbacks=[SecondStep()], **more,
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        first = trainer.state.log_history[0]
        return {"loss": round(first["loss"], 4), "grad_norm": round(first["grad_norm"], 4)}

    def measure(self, row: Row) -> dict[str, Any]:
        """Return predicted and measured peak."""
        items = self.items(row)
        plan = self.plan(row, items, math.inf)
        self.train(row, items, 2)
        return {"row": row.name, "tokens": Demand.total(plan.longest).tokens, "predicted_gib": gib(plan.peak), **peak()}

    def recover(self, row: Row) -> list[dict[str, Any]]:
        """Return the same update without limits, after a real overflow, and after a probe."""
        items = self.items(row)
        plan = self.plan(row, items, math.inf)
        rows = [{"row": "without limits", **self.train(row, items, 1), **peak()}]
        if not torch.cuda.is_available():
            return rows
        total = torch.cuda.get_device_properties().total_memory
        allowed = plan.state + SHARE * (plan.peak - plan.state)
        try:
            for name, given, more in (
                ("overflow", plan, {}),
                ("probed", replace(plan, capacity=allowed), {"longest": lambda: items}),
            ):
                clean()
                torch.cuda.set_per_process_memory_fraction(allowed / total)
                budget = Budget(given)
                row_found = {
                    "row": name,
                    **self.train(row, items, 1, budget=budget, **more),
                    "allowed_gib": gib(allowed),
                }
                parts = len(budget.parts_of(items))
                rows.append({**row_found, "overflows": budget.num_overflows, "parts": parts, **peak()})
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return rows


def make_quantized(base: Any) -> Any:
    """Return the model with its decoder's products in NF4 and a new adapter."""
    import bitsandbytes as bnb  # pyright: ignore[reportMissingImports]

    for layer in base.model.language_model.layers.modules():
        for name, linear in list(layer.named_children()):
            if type(linear) is torch.nn.Linear:
                narrow = bnb.nn.Linear4bit(
                    linear.in_features, linear.out_features, linear.bias is not None, compute_dtype=torch.bfloat16,
                    quant_type="nf4", compress_statistics=True, device="meta",
                )  # fmt: skip
                narrow.weight = bnb.nn.Params4bit(
                    linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
                ).cuda()
                narrow.bias = linear.bias
                setattr(layer, name, narrow)
    base.is_loaded_in_4bit = True  # PEFT asks for it
    lora = LoraConfig(
        r=64, lora_alpha=128, lora_dropout=0.05, target_modules=QWEN2_5_VL.lora_targets(), task_type="CAUSAL_LM"
    )
    return get_peft_model(base, lora)


def gib(count: float) -> float:
    return round(count / GIB, 1)


def peak() -> dict[str, float]:
    """Return the measured peak; nothing on a CPU."""
    return {"measured_gib": gib(torch.cuda.max_memory_allocated())} if torch.cuda.is_available() else {}


def clean() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b", help="`tiny` tries the script on a CPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    memory = Memory(Bench(make_model(args.shape, device)), fused=True)
    rows: list[dict[str, Any]] = []
    for row in LORA_ROWS:
        clean()
        rows.append(memory.measure(row))
        print(rows[-1], file=sys.stderr, flush=True)
    clean()
    recovered = memory.recover(RECOVERED)
    print(*recovered, sep="\n", file=sys.stderr, flush=True)
    quantized = "bitsandbytes is not installed"
    if torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes"):
        quantized = "measured"
        base = memory.bench.model.unload()
        del memory
        memory = Memory(Bench(make_quantized(base)), fused=False)
        for row in QLORA_ROWS:
            clean()
            rows.append(memory.measure(row))
            print(rows[-1], file=sys.stderr, flush=True)
    machine = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    publish(
        {
            "shape": args.shape,
            "rows": rows,
            "recovered": recovered,
            "qlora": quantized,
            "conditions": conditions("torch", "transformers", "peft", **machine),
        },
        args.json,
    )


if __name__ == "__main__":
    main()
