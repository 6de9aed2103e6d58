"""What rounding a merged model costs: its answers as bf16, fp8 and 4-bit weights beside those of the adapter.

    python benchmarks/export_drop.py ADAPTER PAIRS [--scans 200] [--json FILE] [--work-dir DIR]

ADAPTER is a fine-tuned nano and PAIRS questions about the test split of its scanner, as `xray-vqa demo` makes both.
Every form is written by the package's own merge, read back and widened: the figures are of the rounded weights,
calculated in fp32 on the CPU. `fp8 and activations` rounds what goes into each of these layers too, a scale a token,
as vLLM does with such a checkpoint; vLLM itself was not run. All of it is measured on nano, whose layers are 14 times
narrower than a 7B's.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import conditions, publish
from numpy.typing import NDArray

from xray_vqa.core.images import read_image
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.evaluation.metrics.bootstrap import Weights, over_groups
from xray_vqa.evaluation.metrics.ranking import Ranking
from xray_vqa.evaluation.testset import PlannedScan, load_test_set
from xray_vqa.modeling.export import Form, merge_adapter
from xray_vqa.modeling.fp8 import LARGEST
from xray_vqa.modeling.loading import LoadedModel, load_model
from xray_vqa.modeling.parity import Said, Trial, ask, compare

FORMS: dict[str, tuple[str, Form]] = {
    "fp32": ("fp32", "safetensors"),
    "bf16": ("bf16", "safetensors"),
    "fp8": ("bf16", "fp8"),
    "int4": ("bf16", "int4"),
}
DRAWS = 500


def round_activations(loaded: LoadedModel) -> None:
    """Round what goes into each linear layer of the decoder to float8_e4m3fn, with a scale a token."""

    def rounded(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        scale = inputs[0].abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / LARGEST
        return ((inputs[0] / scale).to(torch.float8_e4m3fn).to(inputs[0].dtype) * scale, *inputs[1:])

    for module in loaded.base.get_submodule(loaded.spec.language_model).modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(rounded)


def macro_auc(log_odds: torch.Tensor, truth: NDArray[np.bool_], weights: Weights) -> NDArray[np.float64]:
    """Return the mean over the categories of how well their probe tells bags with from bags without, by draw."""
    columns = zip(log_odds.numpy().T, truth.T, strict=True)
    return np.nanmean([Ranking(scores, present).auc(weights) for scores, present in columns], axis=0)


def figures_of(
    said: Said, adapter: Said, base: Said, truth: NDArray[np.bool_], groups: Sequence[str]
) -> dict[str, Any]:
    """Return one form's figures."""
    ones = np.ones((1, len(groups)))

    def loss(weights: Weights) -> NDArray[np.float64]:
        # A difference may be negative, an estimate of the package lies in 0 to 1: hence the half.
        return 0.5 + (macro_auc(said.log_odds, truth, weights) - macro_auc(adapter.log_odds, truth, weights)) / 2

    (spread,) = over_groups(lambda weights: loss(weights)[:, None], groups, [len(groups)], draws=DRAWS)
    parity = compare(said, adapter, base, "").record()
    return {
        "macro_auc": round(macro_auc(said.log_odds, truth, ones).item(), 4),
        "macro_auc_less_adapter": round(2 * loss(ones).item() - 1, 4),
        "macro_auc_less_adapter_95": [None if at is None else round(2 * at - 1, 4) for at in (spread.low, spread.high)],
        **{name: parity[name] for name in ("equal_decisions", "equal_texts", "mean_difference", "max_difference")},
    }


def trial_of(scans: Sequence[PlannedScan], root: Path, source: str) -> Trial:
    images = [read_image(root / scan.record.image_path) for scan in scans]
    return Trial(images, [[question.pair.question for question in scan.questions] for scan in scans], source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, help="an adapter of nano")
    parser.add_argument("pairs", type=Path, help="pairs of the test split")
    parser.add_argument("--scans", type=int, default=200, help="at most (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--work-dir", type=Path, default=Path("outputs/export_drop"), help="models (%(default)s)")
    args = parser.parse_args()
    data = load_test_set(args.pairs, max_images=args.scans)
    trial = trial_of(data.scans, data.root, args.pairs.name)
    truth = np.array([[name in scan.record.categories for name in CATEGORIES] for scan in data.scans])
    groups = [scan.group for scan in data.scans]
    loaded = load_model(str(args.adapter), device="cpu")
    adapter = ask(loaded, trial)
    with loaded.model.disable_adapter():
        base = ask(loaded, trial)
    forms: dict[str, dict[str, Any]] = {
        "base": {"macro_auc": round(macro_auc(base.log_odds, truth, np.ones((1, len(groups)))).item(), 4)},
        "adapter": {"macro_auc": round(macro_auc(adapter.log_odds, truth, np.ones((1, len(groups)))).item(), 4)},
    }
    for name, (precision, form) in FORMS.items():
        output = args.work_dir / name
        if not output.is_dir():
            merge_adapter(args.adapter, output, precision=precision, form=form, trial=None)
        written = load_model(str(output), device="cpu")
        size = sum(path.stat().st_size for path in output.glob("*.safetensors"))
        forms[name] = {
            "weights_mb": round(size / 1e6, 1),
            **figures_of(ask(written, trial), adapter, base, truth, groups),
        }
        if form == "fp8":
            round_activations(written)
            forms["fp8 and activations"] = figures_of(ask(written, trial), adapter, base, truth, groups)
    publish(
        {
            "scans": len(groups),
            "threats": int(truth.sum()),
            "questions": data.num_questions,
            "forms": forms,
            "conditions": conditions(
                "torch", "transformers", "peft", "numpy", base_digest=loaded.model_digest,
                adapter_digest=loaded.adapter_digest, calculated_in="fp32", device="cpu",
            ),
        },
        args.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
