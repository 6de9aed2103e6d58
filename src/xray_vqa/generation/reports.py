"""What stands beside a pairs file: its numbers, the images that failed, and the manifest."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xray_vqa.config.generate import GenerateConfig
from xray_vqa.config.loading import find_config
from xray_vqa.config.quality import load_gates
from xray_vqa.core.jsonl import write_json
from xray_vqa.core.manifest import MANIFEST_NAME, make_manifest, sha256_file, write_manifest
from xray_vqa.core.records import Split
from xray_vqa.generation.journal import Journal
from xray_vqa.generation.output import Output
from xray_vqa.generation.plan import PLAN_VERSION, PlannedImage
from xray_vqa.generation.providers import Provider
from xray_vqa.generation.quality import Making, Quality
from xray_vqa.generation.quality.checking import Checked, write_pages
from xray_vqa.generation.source import Source


@dataclass(slots=True)
class Outcome:
    """What a run did."""

    output_path: Path
    split: Split
    num_images: int
    num_kept: int
    """Images whose reply was in the journal already."""
    model: str
    failed: dict[str, str]
    """Why, by image path."""
    num_silent: int
    """Images about which nothing can be asked honestly."""
    num_rejected: int
    cost_usd: float
    """Of all replies that ever came."""
    lost_usd: float
    """What calls whose replies never came may have cost, at most."""
    num_lost: int
    refused: dict[str, int]
    """Refusals by step of the ladder and category in the bag."""
    disputed: list[str]
    """Images whose annotations a writer doubts: worth a look of the people who labelled them."""
    quality: Quality


def outcome_of(
    config: GenerateConfig,
    source: Source,
    plan: Sequence[PlannedImage],
    provider: Provider,
    num_kept: int,
    written: Output,
    journal: Journal,
) -> Outcome:
    refused = {f"{rung}: {category}": count for (rung, category), count in sorted(written.refused.items())}
    making = Making(
        num_rejected=written.num_rejected,
        rejected_by_category=dict(sorted(written.rejected_by_category.items())),
        refusals=refused,
        num_tokens=dict(journal.num_tokens),
        cost_usd=round(journal.cost_usd, 6),
    )
    quality = written.meter.result(load_gates(config.gates_path), making)
    return Outcome(
        output_path=config.output_path,
        split=source.split,
        num_images=len(plan),
        num_kept=num_kept,
        model=provider.model,
        failed=dict(sorted(written.failed.items())),
        num_silent=sum(not image.slots for image in plan),
        num_rejected=written.num_rejected,
        cost_usd=round(journal.cost_usd, 6),
        lost_usd=round(journal.lost_usd, 6),
        num_lost=journal.num_lost,
        disputed=written.disputed,
        refused=refused,
        quality=quality,
    )


def write_reports(
    config: GenerateConfig,
    source: Source,
    provider: Provider,
    outcome: Outcome,
    written: Output,
    num_tokens: Counter[str],
) -> None:
    output, quality = config.output_path, outcome.quality
    stats = {
        "total_vqa_pairs": quality.num_pairs,
        "total_images": outcome.num_images,
        "samples_per_image": config.samples_per_image,
        "failed_images": len(outcome.failed),
        "question_types": quality.question_types,
        "category_counts": quality.category_counts,
        "model": provider.model,
        "provider": provider.name,
        "prompt_version": provider.prompt_version,
        "plan_version": PLAN_VERSION,
        "seed": config.seed,
        "split": source.split,
        "images_without_questions": outcome.num_silent,
        "rejected_pairs": outcome.num_rejected,
        "rejected_examples": written.rejected,
        "rejected_by_category": dict(sorted(written.rejected_by_category.items())),
        "rejected_by_kind": dict(sorted(written.rejected_by_kind.items())),
        "absent_targets_chosen": dict(sorted(written.negatives.items())),
        "input_tokens": num_tokens["input"],
        "cache_read_tokens": num_tokens["cache_read"],
        "cache_write_tokens": num_tokens["cache_write"],
        "output_tokens": num_tokens["output"],
        "cost_usd": outcome.cost_usd,
        "calls_without_reply": outcome.num_lost,
        "calls_without_reply_usd_at_most": outcome.lost_usd,
        "refusals": outcome.refused,
        "disputed_annotations": outcome.disputed,
        "quality": quality.model_dump(mode="json"),
    }
    write_json(beside(output, "stats"), stats)
    write_pages(
        output, source, Checked(quality, written.meter, Making.from_stats(stats), [], load_gates(config.gates_path))
    )
    failed_path = beside(output, "failed")
    if outcome.failed:
        write_json(failed_path, [{"image_path": path, "error": error} for path, error in outcome.failed.items()])
    else:
        failed_path.unlink(missing_ok=True)
    policy_path = config.policy_path or find_config("policy.yaml")
    inputs = [config.annotations_path, source.root / MANIFEST_NAME, policy_path]
    write_manifest(
        output,
        make_manifest(
            "generate",
            config=json.loads(config.model_dump_json()),
            inputs={str(path): sha256_file(path) for path in inputs},
            outputs={output.name: sha256_file(output)},
            counts=_counts(outcome),
            seed=config.seed,
            cost_usd=outcome.cost_usd,
            dataset_root=os.path.relpath(source.root, output.parent),
            split=source.split,
            notes=[f"plan {PLAN_VERSION}", f"written by {provider.model}"],
        ),
    )


def _counts(outcome: Outcome) -> dict[str, Any]:
    return {
        "pairs": outcome.quality.num_pairs,
        **{f"pairs_{language}": count for language, count in outcome.quality.languages.items()},
        "images": outcome.num_images,
        "failed_images": len(outcome.failed),
        "images_without_questions": outcome.num_silent,
        "rejected_pairs": outcome.num_rejected,
    }


def beside(output: Path, name: str) -> Path:
    return output.with_name(f"{output.stem}_{name}.json")
