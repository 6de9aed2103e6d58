"""What a finished run says of itself: `README.md` in the form of the hub's model cards, and its curves as a picture."""

import importlib.metadata as metadata
import importlib.util
import logging
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData
from transformers import TrainerState

from xray_vqa.config.train import GENERATION_METRICS, LOSS_METRIC, TrainConfig
from xray_vqa.core.manifest import Manifest, package_version
from xray_vqa.training.planning.plan import RunPlan
from xray_vqa.training.watching.before_training import PAGE_NAME

logger = logging.getLogger(__name__)

CARD_NAME = "README.md"
CURVES_NAME = "training_curves.png"
PACKAGES = ("torch", "transformers", "peft", "accelerate")
METRICS = (LOSS_METRIC, *GENERATION_METRICS)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """Everything that the card tells of."""

    config: TrainConfig
    plan: RunPlan
    manifest: Manifest
    state: TrainerState
    first_update: int
    """At which this process began; later than 0 where it went on from a checkpoint."""
    seconds: float
    """Of training in this process, evaluations included."""
    base_digest: str
    """Of the weights that it began with."""
    data_digest: str
    """Of the scans, annotations and pairs, in order, as `run.json` holds it for a resumed run."""
    gates: Sequence[str]
    """What each gate found, in words."""

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The figures of each evaluation, over all processes that worked on the run."""
        return [entry for entry in self.state.log_history if LOSS_METRIC in entry]

    @property
    def best(self) -> dict[str, Any] | None:
        """The figures of the evaluation whose weights were kept; None without evaluations."""
        if not self.evaluations:
            return None
        if self.state.best_model_checkpoint is None or not self.config.load_best_model_at_end:
            return self.evaluations[-1] if self.evaluations[-1]["step"] == self.state.global_step else None
        kept = int(Path(self.state.best_model_checkpoint).name.rpartition("-")[2])
        return next((e for e in self.evaluations if e["step"] == kept), None)


def write_run_card(run: FinishedRun, output_dir: Path) -> None:
    """Write the card and, where matplotlib is installed, the curves."""
    has_curves = importlib.util.find_spec("matplotlib") is not None
    if has_curves:
        draw_curves(run.state.log_history, output_dir / CURVES_NAME, run.best["step"] if run.best else None)
    else:  # no reason to fail at the end of a night
        logger.warning("no %s: matplotlib is not installed (pip install matplotlib)", CURVES_NAME)
    (output_dir / CARD_NAME).write_text(describe_run(run, output_dir.name, has_curves=has_curves), encoding="utf-8")


def describe_run(run: FinishedRun, name: str, *, has_curves: bool) -> str:
    """Return the card: the hub's front matter, then what a person wants to know first."""
    config = run.config
    what = f"LoRA adapter of rank {config.lora.r} for" if config.method == "lora" else "full fine-tune of"
    shown = [metric for metric in METRICS if any(metric in entry for entry in run.evaluations)]
    best = run.best
    lines = [
        f"---\n{_front_matter(run, name)}\n---\n",
        f"# {name}\n",
        f"A {what} `{config.model_name}` on {run.plan.num_images:,} X-ray scans with {run.plan.num_pairs:,} "
        f"question-answer pairs, made by xray-vqa {package_version()}. The figures here are of development scans, "
        "which also chose the checkpoint: they are no test. Nothing is cleared by this model before it is "
        "calibrated on scans of the scanner that it is to serve (`calibration.json` says on which it was at the end of "
        "the run) and measured on others:\n",
        f"```bash\nxray-vqa evaluate --calibrate --model {name} --test-file PAIRS.jsonl\n```\n",
        "## Evaluations\n",
    ]
    if shown:
        lines += [_table(run.evaluations, shown, best["step"] if best else None)]
        if best:
            lines += [f"The weights here are those of update {best['step']} (bold): {_why_chosen(run)}.\n"]
    else:
        lines += ["None: the run had no development scans, or ended before its first evaluation.\n"]
    if has_curves:
        lines += [f"![Loss, metrics and learning rate by update]({CURVES_NAME})\n"]
    lines += [
        "## The run\n",
        _rows(_facts(run)),
        "## Gates\n",
        *(f"- {result}" for result in run.gates if result),
        *(["- of earlier processes of this run: see `train.log`"] if run.first_update else []),
        f"- what was trained on, token by token, and every trained tensor: [{PAGE_NAME}]({PAGE_NAME})\n",
        "## Data\n",
        _rows({f"`{path}`": f"sha256 `{digest}`" for path, digest in run.manifest.inputs.items()}),
        f"What was trained on (image names, annotations and pairs, in order) has the digest `{run.data_digest}`. "
        f"{', '.join(f'{key}: {value:,}' for key, value in run.manifest.counts.items())}.\n",
        "## Configuration\n",
        f"```yaml\n{yaml.safe_dump(config.model_dump(mode='json'), sort_keys=False)}```\n",
    ]
    return "\n".join(lines)


def _front_matter(run: FinishedRun, name: str) -> str:
    config, best = run.config, run.best
    is_hub_name = config.model_name.count("/") == 1 and not Path(config.model_name).exists()
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type="xray-vqa-development",
            dataset_name=f"development scans of {config.eval_file or config.train_file}",
            metric_type=metric.removeprefix("eval_"),
            metric_value=round(best[metric], 4),
        )
        for metric in METRICS
        if best and metric in best
    ]
    card = ModelCardData(
        base_model=config.model_name if is_hub_name else None,
        library_name="peft" if config.method == "lora" else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["x-ray", "baggage-screening", "visual-question-answering", f"{config.method}-fine-tuning"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return card.to_yaml().strip()


def _table(evaluations: Sequence[Mapping[str, Any]], metrics: Sequence[str], best_step: int | None) -> str:
    head = ["update", *(metric.removeprefix("eval_") for metric in metrics)]
    rows: list[str] = []
    for entry in evaluations:
        cells = [str(entry["step"]), *(f"{entry[m]:.4f}" if m in entry else "" for m in metrics)]
        marked = [f"**{cell}**" if cell and entry["step"] == best_step else cell for cell in cells]
        rows.append(f"| {' | '.join(marked)} |")
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""])


def _why_chosen(run: FinishedRun) -> str:
    if not run.config.load_best_model_at_end:
        return "the last ones (`load_best_model_at_end: false`)"
    how = "greatest" if run.config.best_is_greatest else "smallest"
    return f"the {how} `{run.config.metric_for_best_model}` among the checkpoints"


def _facts(run: FinishedRun) -> dict[str, str]:
    evaluating = sum(e.get("eval_runtime", 0.0) for e in run.evaluations if e["step"] > run.first_update)
    training = max(run.seconds - evaluating, 1e-9)
    updates = run.state.global_step - run.first_update
    images = updates * run.plan.images_per_update
    pairs = images * run.plan.num_pairs / max(1, run.plan.num_images)
    facts = {"updates": f"{run.state.global_step}, of {run.plan.images_per_update} images each"}
    if run.first_update:
        facts["updates"] += f"; what follows is of the last process, which went on from update {run.first_update}"
    if updates:
        facts["time"] = f"{run.seconds / 60:.1f} minutes, {evaluating / 60:.1f} of them evaluations"
        facts["speed without evaluations"] = f"{pairs / training:.2f} pairs/s, {images / training:.2f} images/s"
    return facts | {
        "peak memory": _peak_memory(),
        "base model": f"`{run.config.model_name}`, digest `{run.base_digest[:12]}`",
        "machine": _machine(),
        "versions": f"xray-vqa {package_version()}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES),
        "command": f"`{' '.join(run.manifest.command)}`",
        "finished": run.manifest.created,
    }


def _peak_memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the first GPU"
    # The kernel counts in KiB on Linux and in bytes on macOS.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.1f} GiB of main memory"


def _machine() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{torch.get_num_threads()} threads of a CPU, {platform.machine()}"


def _rows(facts: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items()), ""])


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path, best_step: int | None = None) -> None:
    """Draw loss, evaluation metrics and learning rate by update into a PNG.

    Args:
        history: The Trainer's, a mapping of figures by name with their `step`.
        path: Of the picture.
        best_step: Marked, where there is one.
    """
    from matplotlib.figure import Figure

    metrics = [metric for metric in GENERATION_METRICS if any(metric in entry for entry in history)]
    panels = [("loss", {"loss": "training", LOSS_METRIC: "development"})]
    if metrics:
        panels.append(("development scans", {metric: metric.removeprefix("eval_") for metric in metrics}))
    panels.append(("learning rate", {"learning_rate": "learning rate"}))
    figure = Figure(figsize=(9, 3 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, labels) in zip(axes, panels, strict=True):
        for number, (name, label) in enumerate(labels.items()):
            points = [(entry["step"], entry[name]) for entry in history if name in entry]
            if points:
                mark, dashes = "o" if name.startswith("eval_") else None, ("-", "--", ":")[number % 3]
                # The first ones on top: two curves that fall together show the dashes of the upper one.
                style = {"linestyle": dashes, "marker": mark, "markersize": 3, "zorder": 3 - number / 100}
                axis.plot(*zip(*points, strict=True), label=label, **style)
        if best_step is not None:
            axis.axvline(best_step, color="grey", linewidth=1, label="weights kept")
        axis.set_ylabel(title)
        axis.grid(alpha=0.25)
        if len(labels) > 1:
            axis.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes[-1].set_xlabel("update")
    figure.savefig(path, dpi=120)
