"""Makes nano's weights from nothing: simulated scans, all branches of the prompt tree, and a dense auxiliary loss.

Answers alone teach a small model too little (item F1 0.19 in a seven-minute trial); when each visual token also has
to name the category that covers it, the same minutes give 0.51. The auxiliary heads are dropped afterwards.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from xray_vqa.config.train import PretrainConfig
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.loading import CARD_NAME, ModelCard, load_model, write_card
from xray_vqa.modeling.nano import build_config
from xray_vqa.modeling.patches import use_patch_products
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import IGNORE_INDEX
from xray_vqa.training.inputs.augment import MIRRORINGS, jitter
from xray_vqa.training.pretraining.model import AuxiliaryHeads, Batch, PretrainModel
from xray_vqa.training.pretraining.state import SHARD_SIZE, RunState, discard_checkpoints
from xray_vqa.training.pretraining.stream import (
    KINDS,
    LABELS,
    PROBE,
    QuestionWriter,
    ScanPool,
    StreamSettings,
)
from xray_vqa.training.ranks import Ranks

logger = logging.getLogger(__name__)

LOG_NAME = "pretrain.jsonl"


def draw_batch(pool: ScanPool, size: int, generator: torch.Generator) -> Batch:
    """Return scans of the pool at random, each mirrored at random, images and boxes alike."""
    device = pool.scans.image.device
    index = torch.randint(len(pool), (size,), generator=generator).to(device)
    chosen = torch.randint(len(MIRRORINGS), (size,), generator=generator).to(device)
    images, objects = pool.scans.image[index], pool.scans.objects[index]
    branches = pool.scans.branches[index, chosen].long()
    left_right = torch.tensor([m[0] for m in MIRRORINGS], device=device)[chosen]
    upside_down = torch.tensor([m[1] for m in MIRRORINGS], device=device)[chosen]
    images = torch.where(left_right[:, None, None, None], images.flip(2), images)
    images = torch.where(upside_down[:, None, None, None], images.flip(1), images)
    owners: list[torch.Tensor] = []
    for owner in (pool.scans.owner[index].long(), pool.scans.patch_owner[index].long()):
        owner = torch.where(left_right[:, None, None], owner.flip(2), owner)
        owners.append(torch.where(upside_down[:, None, None], owner.flip(1), owner))
    x0, y0, x1, y1 = objects[..., 1:].unbind(-1)
    x0, x1 = torch.where(left_right[:, None], 1 - x1, x0), torch.where(left_right[:, None], 1 - x0, x1)
    y0, y1 = torch.where(upside_down[:, None], 1 - y1, y0), torch.where(upside_down[:, None], 1 - y0, y1)
    objects = torch.stack([objects[..., 0], x0, y0, x1, y1], dim=-1)
    return Batch(jitter(images, generator), owners[0].flatten(1), owners[1], objects, branches)


def pretrain(
    config: PretrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    make_tools: Callable[[], tuple[PromptEncoder, Processor, QuestionWriter]],
) -> Path:
    """Train nano as configured and return the folder with its weights, tokenizer, card and log.

    Stopped at any moment, or after `stop_after_minutes`, the same call goes on from the newest checkpoint in
    that folder. Under torchrun each process draws scans of its own, and gradients are averaged.

    Args:
        config: The run.
        tokenizer: To be saved with the weights.
        make_tools: Called in this and in each producer process; must be picklable.

    Raises:
        ConfigError: The folder holds a checkpoint of another run, or a finished one.
    """
    if (config.output_dir / CARD_NAME).is_file():
        raise ConfigError(f"{config.output_dir} holds a finished run; use another output_dir, or remove it")
    config.output_dir.mkdir(parents=True, exist_ok=True)
    ranks = Ranks.join()
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    encoder, processor, _ = make_tools()
    network = _make_model(config, tokenizer).to(ranks.device)
    use_segment_attention(network)
    use_patch_products(network)
    heads = AuxiliaryHeads(network.config.text_config.hidden_size).to(ranks.device)
    model = PretrainModel(network, encoder, processor, config.size_wh, ranks.device)
    state = RunState.begin(network, heads, config)
    if state.resume(config.output_dir, config):
        logger.info("going on at step %d, after %.1f minutes of training", state.step, state.seconds / 60)
    if config.compile:
        for block in (*network.model.visual.blocks, *network.model.language_model.layers):
            block.compile()
    seed = (config.seed, ranks.rank, state.step)  # a run that goes on meets new scans
    settings = StreamSettings(
        seed,
        tuple(config.profiles),
        config.size_wh,
        config.branch_tokens,
        categories=(*CATEGORIES, *config.drawn_twice),
        clean_share=config.clean_share,
        threats_per_bag=config.threats_per_bag,
    )
    pool = ScanPool(
        settings, make_tools, size=config.pool_size, num_producers=config.num_producers, device=ranks.device
    )
    try:
        result = _train(config, model, heads, state, pool, ranks)
    finally:
        pool.close()
    ranks.leave()
    if result is not None and ranks.is_first:
        _export(config, network, tokenizer, processor)
        discard_checkpoints(config.output_dir)
    return config.output_dir


def _make_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
    if config.initial_weights:
        return load_model(config.initial_weights, device="cpu", precision="fp32").model.train()
    return Qwen2_5_VLForConditionalGeneration(
        build_config(tokenizer, vision_depth=config.vision_depth, text_depth=config.text_depth)
    ).float()


def _export(config: PretrainConfig, network: Any, tokenizer: PreTrainedTokenizerBase, processor: Processor) -> None:
    network.save_pretrained(config.output_dir, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(config.output_dir)
    processor.save(config.output_dir)
    card = ModelCard(
        prompt_version=PROMPT_VERSION,
        processor_version=processor.version,
        covered_categories=list(CATEGORIES),
        notes=[f"simulated scans alone, looks {', '.join(config.profiles)}"],
    )
    write_card(config.output_dir, card)


def _train(
    config: PretrainConfig, model: PretrainModel, heads: AuxiliaryHeads, state: RunState, pool: ScanPool, ranks: Ranks
) -> dict[str, Any] | None:
    """Train to the end and return the validation of the averaged weights, which are then in the model.

    Returns None where `stop_after_minutes` came first; the newest checkpoint then holds everything.
    """
    _wait_for(pool, config.num_validation + config.pool_minimum)
    validation = pool.hold_out(config.num_validation)
    weights = {
        "probe": config.probe_weight,
        "box": config.box_weight,
        "question": config.question_weight,
        "dense": config.dense_weight,
        "patch": config.patch_weight,
    }
    generator = torch.Generator()
    bar = tqdm(
        total=100,
        desc="pretrain",
        unit="%",
        bar_format="{desc} {n:.1f}% |{bar}| {elapsed}<{remaining} {postfix}",
        disable=not ranks.is_first,
    )
    before, started, saved_at = state.seconds, time.monotonic(), state.seconds
    progress = _progress(state, config)
    while progress < 1:
        generator.manual_seed(_seed_of_step(config.seed, ranks.rank, state.step))
        batch = draw_batch(pool, config.batch_size, generator)
        with torch.autocast(ranks.device.type, dtype=torch.bfloat16, enabled=ranks.device.type == "cuda"):
            losses = model.losses(batch, heads)
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        total.backward()
        ranks.average([p.grad for p in state.parameters.values() if p.grad is not None])
        state.update(config.learning_rate * _schedule(state.step, progress, config), config)
        state.seconds = before + ranks.share(time.monotonic() - started)
        progress = _progress(state, config)
        if state.step % 50 == 0 or progress >= 1:
            pool.check()
            if not math.isfinite(total.item()):
                raise RuntimeError(f"the loss is {total.item()} at step {state.step}; lower learning_rate")
            entry = {name: round(value.item(), 4) for name, value in losses.items()}
            entry |= {
                "step": state.step,
                "seconds": round(state.seconds, 1),
                "scans": pool.num_drawn * ranks.world,
                "left_out": pool.num_left_out,
            }
            _log(entry, config, ranks)
            bar.n = min(100.0, 100 * progress)
            bar.set_postfix_str(", ".join(f"{name} {value}" for name, value in entry.items()))
        stops = config.stop_after_minutes is not None and state.seconds - before >= 60 * config.stop_after_minutes
        if stops or state.seconds - saved_at >= 60 * config.save_minutes:
            saved_at = state.seconds
            if ranks.is_first:
                state.save(config.output_dir, config)
        if stops and progress < 1:
            logger.info("stopped at %.1f %%; the same command goes on", 100 * progress)
            return None
    bar.close()
    state.use_averages()
    result = _validate(model, *validation)
    result |= {"step": state.step, "images": state.step * config.batch_size * ranks.world}
    _log(result, config, ranks)
    logger.info("validation on %d fresh scans: %s", config.num_validation, json.dumps(result))
    return result


def _log(entry: dict[str, Any], config: PretrainConfig, ranks: Ranks) -> None:
    if ranks.is_first:
        with (config.output_dir / LOG_NAME).open("a") as log:
            log.write(json.dumps(entry) + "\n")


def _progress(state: RunState, config: PretrainConfig) -> float:
    return max(state.seconds / (60 * config.max_minutes), state.step / config.max_steps)


def _seed_of_step(seed: int, rank: int, step: int) -> int:
    """A batch is a function of seed, process and step (and of the pool), whenever the run was stopped in between."""
    return (seed << 40) + (rank << 32) + step


def _wait_for(pool: ScanPool, number: int) -> None:
    with tqdm(total=number, desc="first scans", unit="scan") as bar:
        while pool.num_drawn < number:
            time.sleep(0.2)
            pool.check()
            bar.n = min(number, pool.num_drawn)
            bar.refresh()


def _schedule(step: int, progress: float, config: PretrainConfig) -> float:
    """Linear warm-up by steps, cosine by progress, down to `end_rate`."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warm * (config.end_rate + (1 - config.end_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def _validate(model: PretrainModel, images: torch.Tensor, branches: torch.Tensor) -> dict[str, Any]:
    """Return mean AUC, AUC by category and the best micro F1 of the probes on scans that were not trained on."""
    device = images.device
    scores: list[NDArray[np.float32]] = []
    for start in range(0, len(images), 64):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            part = model.probe_scores(images[start : start + 64], branches[start : start + 64])
        scores.append(part.float().cpu().numpy())
    truth_at = (branches[:, KINDS] == PROBE) & (branches[:, LABELS] != IGNORE_INDEX)
    truth = (branches[:, LABELS][truth_at] == model.encoder.yes_id).reshape(len(images), -1).cpu().numpy()
    score = np.concatenate(scores)
    by_category = {name: _auc(truth[:, k], score[:, k]) for k, name in enumerate(CATEGORIES)}
    known = [value for value in by_category.values() if value is not None]
    return {"mean_auc": round(float(np.mean(known)), 4), "micro_f1": _best_f1(truth, score), "auc": by_category}


def _auc(truth: NDArray[np.bool_], score: NDArray[np.float32]) -> float | None:
    """Return the area under the ROC curve (ties count half), or None where a class is empty."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(score)
    return round(float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives)), 4)


def _best_f1(truth: NDArray[np.bool_], score: NDArray[np.float32]) -> float:
    thresholds = np.linspace(0.05, 0.95, 19)
    return round(
        max(float(2 * (truth & (score >= t)).sum() / max(1, truth.sum() + (score >= t).sum())) for t in thresholds), 4
    )
