"""Whether a scan is read the same alone and among others, in any order and mix of sizes.

    python benchmarks/batch_parity.py [--scans 500] [--precision fp32] [--json FILE]

Inspects simulated scans of three sizes with nano one by one, then twice in shuffled batches of eight, and compares
scores, actions and findings. bf16 needs a GPU, and is read there by the packed decoder; fp32 by the padded one.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from measuring import conditions, publish
from PIL import Image
from tqdm import tqdm

from xray_vqa.config.loading import load_policy
from xray_vqa.core.inspection import Inspection, Scan
from xray_vqa.inference.engines.transformers import TransformersEngine
from xray_vqa.inference.inspector import Inspector
from xray_vqa.simulation.packing import sample_scene
from xray_vqa.simulation.simulate import simulate

SIZES_WH = ((512, 384), (504, 392), (364, 420))
TOGETHER = 8
ORDERS = 2
NEAR = 0.01
"""Of a threshold: there a rounding may turn an answer."""


def scans_of(count: int) -> list[Scan]:
    scans: list[Scan] = []
    for seed in tqdm(range(count), desc="simulate", unit="scan"):
        pixels = simulate(sample_scene(seed, size_wh=SIZES_WH[seed % len(SIZES_WH)]), "sixray-white-like").image
        scans.append(Scan(f"S{seed}", Image.fromarray(pixels)))
    return scans


def inspect_in_batches(inspector: Inspector, scans: Sequence[Scan], order: Sequence[int]) -> list[Inspection]:
    """Return the inspections in the scans' order, whatever the order they were read in."""
    found: dict[int, Inspection] = {}
    starts = range(0, len(order), TOGETHER)
    for start in tqdm(starts, desc=f"batches of {TOGETHER}", unit="batch"):
        places = order[start : start + TOGETHER]
        found.update(zip(places, inspector.inspect([scans[at] for at in places]), strict=True))
    return [found[at] for at in range(len(scans))]


def compare(alone: Sequence[Inspection], batched: Sequence[Inspection]) -> dict[str, object]:
    """Return how far the readings of the same scans are apart."""
    largest, states, answers, near = 0.0, 0, 0, 0
    for one, other in zip(alone, batched, strict=True):
        for name, score in one.scores.items():
            beside = other.scores[name]
            states += score.state is not beside.state
            if score.probability is not None and beside.probability is not None:
                largest = max(largest, abs(score.probability - beside.probability))
        if _answer(one) != _answer(other):
            answers += 1
            near += _is_near(one)
    return {
        "largest_difference_of_a_score": float(f"{largest:.2e}"),
        "scores_of_another_state": states,
        "scans_answered_otherwise": answers,
        f"of_these_within_{NEAR}_of_a_threshold": near,
    }


def _answer(inspection: Inspection) -> tuple[object, ...]:
    return inspection.decision.action, tuple(sorted({finding.category for finding in inspection.findings}))


def _is_near(inspection: Inspection) -> bool:
    scores = inspection.scores
    limits = inspection.thresholds.items()
    known = [(scores[name].probability, limit) for name, limit in limits if name in scores]
    return any(probability is not None and abs(probability - limit) <= NEAR for probability, limit in known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=500)
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    scans = scans_of(args.scans)
    figures: dict[str, object] = {"scans": len(scans), "sizes_wh": SIZES_WH, "scans_in_a_batch": TOGETHER}
    for precision in args.precision:
        inspector = Inspector(TransformersEngine("nano", precision=precision), load_policy())
        info = inspector.start()
        alone = [inspector.inspect([scan])[0] for scan in tqdm(scans, desc=f"{precision}, alone", unit="scan")]
        orders = [random.Random(seed).sample(range(len(scans)), len(scans)) for seed in range(ORDERS)]
        figures[f"{info.identity.dtype} on {info.device}"] = {
            "scans_with_findings": sum(bool(inspection.findings) for inspection in alone),
            **{
                f"order {seed}": compare(alone, inspect_in_batches(inspector, scans, order))
                for seed, order in enumerate(orders)
            },
        }
        inspector.engine.close()
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    publish({**figures, "conditions": conditions("torch", "transformers", **gpu)}, args.json)


if __name__ == "__main__":
    main()
