"""Which way of making heat maps shows best what nano's answer rests on, on simulated scans with exact masks.

    python benchmarks/explain.py [--scans 200] [--bags 320] [--seed 4242] [--workers 2] [--json FILE] [--work-dir DIR]

Of each scan the first threat whose probe says yes is explained. Energy: the share of a map that lies on tokens that the
threat's mask touches. Pointing: whether the hottest token is one of these. Deletion: the yes-probability's mean over
the scan with the hottest 5 and 20 % of its tokens blurred, lower is better. Insertion: the same of a blurred scan with
only these tokens sharp, higher is better. Beside the candidates stand a random map, a blob in the centre, and the mask
itself, which no method can know. Stopped at any moment, the same command goes on from the work folder.
"""

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import calibration_loop_ms, conditions, publish
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from xray_vqa.core.records import ScanRecord
from xray_vqa.dataset.layout import read_split
from xray_vqa.modeling.loading import LoadedModel, load_model
from xray_vqa.modeling.prompt_tree import TreeRow, build_row, tree_mask
from xray_vqa.modeling.relevance import log_odds, relevance, see
from xray_vqa.simulation.writer import SynthSettings, write_dataset

SHARES = (0.05, 0.2)
BLUR_PX = 20
MEASURES = ("energy", "pointing", "deletion", "insertion")


def row_of(loaded: LoadedModel, frame: NDArray[np.uint8], category: str) -> TreeRow:
    grid_hw = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
    prefix, start = loaded.encoder.prefix(grid_hw[0] * grid_hw[1])
    return build_row(prefix, start, grid_hw, [loaded.encoder.probe(category)])


def odds_of(loaded: LoadedModel, frame: NDArray[np.uint8], category: str) -> float:
    with torch.no_grad():
        return float(log_odds(loaded, row_of(loaded, frame, category), see(loaded, torch.from_numpy(frame))))


def candidates(loaded: LoadedModel, frame: NDArray[np.uint8], category: str) -> dict[str, torch.Tensor]:
    """Return the map of each way, not below 0, (tokens,)."""
    base, row = loaded.base, row_of(loaded, frame, category)
    (seen,) = see(loaded, torch.from_numpy(frame))
    config = base.model.language_model.config
    before, config._attn_implementation_internal = config._attn_implementation_internal, "eager"
    tokens = seen.detach().requires_grad_()
    visual = torch.arange(row.visual.start, row.visual.stop)
    embedded = base.get_input_embeddings()(row.input_ids[None]).detach().index_copy(1, visual, tokens[None])
    may_see = tree_mask(row.segment_ids[None])
    output = base.model.language_model(
        inputs_embeds=embedded,
        position_ids=row.position_ids[:, None],
        attention_mask=torch.zeros(may_see.shape).masked_fill(~may_see, torch.finfo(torch.float32).min),
        use_cache=False,
        output_attentions=True,
    )
    logits = base.lm_head(output.last_hidden_state[0, -1])
    odds = logits[loaded.encoder.yes_id] - logits[loaded.encoder.no_id]
    gradient, *over_attention = torch.autograd.grad(odds, [tokens, *output.attentions])
    config._attn_implementation_internal = before
    attention = [each[0].detach() for each in output.attentions]
    weighted = [(a * g[0]).clamp(min=0).mean(dim=0) for a, g in zip(attention, over_attention, strict=True)]
    rolled = torch.eye(len(row.input_ids))
    for each in weighted:
        rolled = rolled + each @ rolled
    middle = seen.median(dim=0, keepdim=True).values
    maps = {
        "attention, last layer but one": attention[-2][:, -1, visual].mean(dim=0),
        "attention x gradient": torch.stack([each[-1, visual] for each in weighted]).sum(dim=0),
        "Chefer 2021": rolled[-1, visual],
        "gradient x (token - median)": (gradient * (seen - middle)).sum(dim=-1),
        "integrated gradients (used)": relevance(loaded, torch.from_numpy(frame), [category])[category].flatten(),
    }
    return {name: each.detach().clamp(min=0) for name, each in maps.items()}


def mask_of(record: ScanRecord, category: str) -> NDArray[np.bool_]:
    found = np.zeros((record.height, record.width), dtype=bool)
    for name, mask in zip(record.categories, record.masks or (), strict=True):
        if name == category and mask:
            flags = np.arange(len(mask["counts"])) % 2 == 1
            found |= np.repeat(flags, mask["counts"]).reshape(record.width, record.height).T
    return found


def measure(loaded: LoadedModel, image: Image.Image, record: ScanRecord) -> dict[str, list[float]] | None:
    """Return the measures of each map, or None where no threat of the scan is seen."""
    frame = loaded.processor.resize(image)
    category = next((name for name in record.categories if odds_of(loaded, frame, name) > 0), None)
    if category is None:
        return None
    rows, columns = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
    cell = loaded.processor.factor
    mask = Image.fromarray(mask_of(record, category)).resize((frame.shape[1], frame.shape[0]), Image.Resampling.NEAREST)
    covered = np.asarray(mask).reshape(rows, cell, columns, cell).mean(axis=(1, 3)).ravel()
    y, x = (np.mgrid[:rows, :columns] + 0.5) / np.array([rows, columns])[:, None, None] - 0.5
    maps = {name: each.numpy() for name, each in candidates(loaded, frame, category).items()}
    rng = np.random.default_rng(record.image_id)
    maps |= {
        "random": rng.random(rows * columns),
        "blob in the centre": np.exp(-8 * (x**2 + y**2)).ravel(),
        "the mask itself": covered + 1e-6 * rng.random(rows * columns),
    }
    blurred = np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(BLUR_PX)))
    figures: dict[str, list[float]] = {}
    for name, heat in maps.items():
        order = np.argsort(-heat, kind="stable")
        left, shown = [], []
        for share in SHARES:
            chosen = np.zeros(rows * columns, dtype=bool)
            chosen[order[: round(share * rows * columns)]] = True
            pixels = np.kron(chosen.reshape(rows, columns), np.ones((cell, cell), dtype=bool))[..., None]
            left.append(probability(odds_of(loaded, np.where(pixels, blurred, frame), category)))
            shown.append(probability(odds_of(loaded, np.where(pixels, frame, blurred), category)))
        energy = float(heat[covered > 0].sum() / max(heat.sum(), 1e-12))
        figures[name] = [energy, float(covered[order[0]] > 0), float(np.mean(left)), float(np.mean(shown))]
    return figures


def probability(odds: float) -> float:
    return float(1 / (1 + np.exp(-odds)))


def measure_part(job: tuple[Path, str, int, int, int]) -> list[dict[str, list[float]]]:
    root, model, part, parts, wanted = job
    torch.set_num_threads(1)
    loaded, split = load_model(model, device="cpu"), read_split(root, "test")
    path = root / f"measured-{loaded.model_digest[:12]}-{part}of{parts}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    done = {line["image_id"]: line["maps"] for line in map(json.loads, lines)}
    for record in split.records[part::parts]:
        if sum(maps is not None for maps in done.values()) >= wanted:
            break
        if record.image_id not in done:
            done[record.image_id] = measure(loaded, split.image(record), record)
            with path.open("a") as stream:
                stream.write(json.dumps({"image_id": record.image_id, "maps": done[record.image_id]}) + "\n")
    return [maps for maps in done.values() if maps is not None][:wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--bags", type=int, default=320, help="to simulate; some threats are not seen")
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work-dir", type=Path, default=Path("outputs/explain"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loop_ms = [calibration_loop_ms()]
    settings = SynthSettings(seed=args.seed, clean_share=0.0, masks=True)
    write_dataset(args.work_dir, {"test": args.bags}, settings, 1)
    jobs = [
        (args.work_dir, args.model, part, args.workers, -(-args.scans // args.workers)) for part in range(args.workers)
    ]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        found = [figures for part in pool.map(measure_part, jobs) for figures in part]
    loop_ms.append(calibration_loop_ms())
    table: dict[str, Any] = {}
    for name in found[0]:
        values = np.array([figures[name] for figures in found])
        spread = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        table[name] = {
            measure: {"mean": round(float(m), 4), "standard_error": round(float(e), 4)}
            for measure, m, e in zip(MEASURES, values.mean(axis=0), spread, strict=True)
        }
    made = conditions("torch", "transformers", "numpy", calibration_loop_ms=loop_ms)
    publish({"scans": len(found), "shares": SHARES, "blur_px": BLUR_PX, "maps": table, "conditions": made}, args.json)


if __name__ == "__main__":
    main()
