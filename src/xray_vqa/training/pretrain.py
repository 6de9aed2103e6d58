"""Makes nano's weights from nothing: simulated scans, all branches of the prompt tree, and a dense auxiliary loss.

Answers alone teach a small model too little (item F1 0.19 in a seven-minute trial); when each visual token also has
to name the category that covers it, the same minutes give 0.51. The auxiliary heads are dropped afterwards.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from xray_vqa.config.train import PretrainConfig
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.loading import ModelCard, load_model, write_card
from xray_vqa.modeling.nano import build_config
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.prompt_tree import (
    IGNORE_INDEX,
    PREFIX_SEGMENT,
    as_attention_mask,
    prefix_positions,
    tree_mask,
)
from xray_vqa.training.augment import MIRRORINGS, jitter
from xray_vqa.training.dense import DenseHeads
from xray_vqa.training.stream import (
    BOXES,
    KINDS,
    LABELS,
    OFFSETS,
    PROBE,
    QUESTION,
    SEGMENTS,
    TOKENS,
    QuestionWriter,
    ScanPool,
    StreamSettings,
)

logger = logging.getLogger(__name__)

SHARD_SIZE = "15MB"
"""Weights are saved in pieces that a limited transfer can carry."""


@dataclass(slots=True)
class Batch:
    """A batch on the device; see `stream.ScanArrays` for the parts."""

    images: torch.Tensor
    owner: torch.Tensor
    objects: torch.Tensor
    branches: torch.Tensor
    """(batch, 5, branch_tokens) int64"""


def draw_batch(pool: ScanPool, size: int, generator: torch.Generator) -> Batch:
    """Return scans of the pool at random, each mirrored at random, images and boxes alike."""
    device = pool.scans.image.device
    index = torch.randint(len(pool), (size,), generator=generator).to(device)
    chosen = torch.randint(len(MIRRORINGS), (size,), generator=generator).to(device)
    images, owner, objects = pool.scans.image[index], pool.scans.owner[index].long(), pool.scans.objects[index]
    branches = pool.scans.branches[index, chosen].long()
    left_right = torch.tensor([m[0] for m in MIRRORINGS], device=device)[chosen]
    upside_down = torch.tensor([m[1] for m in MIRRORINGS], device=device)[chosen]
    images = torch.where(left_right[:, None, None, None], images.flip(2), images)
    images = torch.where(upside_down[:, None, None, None], images.flip(1), images)
    owner = torch.where(left_right[:, None, None], owner.flip(2), owner)
    owner = torch.where(upside_down[:, None, None], owner.flip(1), owner)
    x0, y0, x1, y1 = objects[..., 1:].unbind(-1)
    x0, x1 = torch.where(left_right[:, None], 1 - x1, x0), torch.where(left_right[:, None], 1 - x0, x1)
    y0, y1 = torch.where(upside_down[:, None], 1 - y1, y0), torch.where(upside_down[:, None], 1 - y0, y1)
    objects = torch.stack([objects[..., 0], x0, y0, x1, y1], dim=-1)
    return Batch(jitter(images, generator), owner.flatten(1), objects, branches)


class TreeTrainer:
    """Runs the model on batches of one image size: everything that depends on the size alone is made once."""

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        encoder: PromptEncoder,
        processor: Processor,
        config: PretrainConfig,
        device: torch.device,
    ) -> None:
        self.model, self.encoder, self.processor, self.config = model, encoder, processor, config
        self.grid_hw = processor.grid_hw(config.size_wh)
        num_image_tokens = self.grid_hw[0] * self.grid_hw[1]
        prefix, self.image_start = encoder.prefix(num_image_tokens)
        self.image_end = self.image_start + num_image_tokens
        self.prefix_ids = torch.tensor(prefix, device=device)
        self.prefix_positions = prefix_positions(len(prefix), self.image_start, self.grid_hw).to(device)
        self.branch_start = int(self.prefix_positions.max()) + 1
        self._vision_arguments: dict[int, dict[str, Any]] = {}

    def hidden_states(self, images: torch.Tensor, branches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the decoder's last states at the branch tokens, and the visual tokens.

        Args:
            images: (batch, height, width, 3) uint8.
            branches: (batch, 5, branch_tokens) int64.

        Returns:
            (batch, branch_tokens, width) and (batch, image tokens, width).
        """
        size, length = images.shape[0], self.prefix_ids.numel()
        patches = self.processor.patchify(images)
        visual = self.model.model.visual(patches, **self._vision_kwargs(size, images.device)).pooler_output
        visual = visual.reshape(size, self.image_end - self.image_start, -1)
        ids = torch.cat([self.prefix_ids.expand(size, -1), branches[:, TOKENS]], dim=1)
        embeds = self.model.get_input_embeddings()(ids)
        embeds = torch.cat([embeds[:, : self.image_start], visual.to(embeds.dtype), embeds[:, self.image_end :]], dim=1)
        segments = F.pad(branches[:, SEGMENTS], (length, 0), value=PREFIX_SEGMENT)
        positions = torch.cat(
            [
                self.prefix_positions[:, None].expand(-1, size, -1),
                (self.branch_start + branches[:, OFFSETS]).expand(3, -1, -1),
            ],
            dim=2,
        )
        states = self.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=as_attention_mask(tree_mask(segments)),
            use_cache=False,
        ).last_hidden_state
        return states[:, length:], visual

    def _vision_kwargs(self, size: int, device: torch.device) -> dict[str, Any]:
        """Window order and segment bounds of `size` equal images, which transformers works out in Python each call."""
        if size not in self._vision_arguments:
            from transformers.vision_utils import (
                get_vision_cu_seqlens,
                get_vision_position_ids,
                get_vision_window_index,
            )

            rows, columns = self.grid_hw[0] * self.processor.merge_size, self.grid_hw[1] * self.processor.merge_size
            grid = torch.tensor([[1, rows, columns]] * size, device=device)
            visual: Any = self.model.model.visual
            index, window_bounds = get_vision_window_index(
                grid,
                spatial_merge_size=visual.spatial_merge_size,
                window_size=visual.window_size,
                patch_size=visual.patch_size,
            )
            bounds = get_vision_cu_seqlens(grid)
            self._vision_arguments[size] = {
                "grid_thw": grid,
                "position_ids": get_vision_position_ids(grid, visual.spatial_merge_size),
                "cu_seqlens": bounds,
                "max_seqlen": int((bounds[1:] - bounds[:-1]).max()),
                "window_index": index,
                "cu_window_seqlens": window_bounds,
                "max_window_seqlen": int((window_bounds[1:] - window_bounds[:-1]).max()),
            }
        return dict(self._vision_arguments[size])

    def losses(self, batch: Batch, heads: DenseHeads) -> dict[str, torch.Tensor]:
        """Return the mean loss of each kind of branch and of the dense heads."""
        states, visual = self.hidden_states(batch.images, batch.branches)
        labels, kinds = batch.branches[:, LABELS], batch.branches[:, KINDS]
        keep = labels != IGNORE_INDEX
        logits = self.model.lm_head(states[keep])
        each = F.cross_entropy(logits.float(), labels[keep], reduction="none")
        kinds = kinds[keep]
        losses = {
            name: (each * (kinds == kind)).sum() / (kinds == kind).sum().clamp(min=1)
            for name, kind in (("probe", PROBE), ("box", BOXES), ("question", QUESTION))
        }
        losses["dense"] = heads.loss(visual, batch.owner, batch.objects)
        return losses

    def probe_scores(self, images: torch.Tensor, branches: torch.Tensor) -> torch.Tensor:
        """Return the probability of yes at each of the 20 probes, (batch, 20) float32."""
        states, _ = self.hidden_states(images, branches)
        at_probe = (branches[:, LABELS] == self.encoder.yes_id) | (branches[:, LABELS] == self.encoder.no_id)
        at_probe &= branches[:, KINDS] == PROBE
        logits = self.model.lm_head(states[at_probe])[:, [self.encoder.yes_id, self.encoder.no_id]].float()
        return logits.softmax(dim=-1)[:, 0].reshape(images.shape[0], len(CATEGORIES))


def pretrain(
    config: PretrainConfig,
    tokenizer: PreTrainedTokenizerBase,
    make_tools: Callable[[], tuple[PromptEncoder, Processor, QuestionWriter]],
) -> Path:
    """Train nano as configured and return the folder with its weights, tokenizer, card and log.

    Args:
        config: The run.
        tokenizer: To be saved with the weights.
        make_tools: Called in this and in each producer process; must be picklable.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    encoder, processor, _ = make_tools()
    model = _make_model(config, tokenizer)
    model.to(device)
    use_segment_attention(model)
    heads = DenseHeads(model.config.text_config.hidden_size).to(device)
    trainer = TreeTrainer(model, encoder, processor, config, device)
    if config.compile:
        for block in (*model.model.visual.blocks, *model.model.language_model.layers):
            block.compile()
    settings = StreamSettings(config.seed, tuple(config.profiles), config.size_wh, config.branch_tokens)
    pool = ScanPool(settings, make_tools, size=config.pool_size, num_producers=config.num_producers, device=device)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    try:
        _run(config, trainer, heads, pool)
    finally:
        pool.close()
    model.save_pretrained(config.output_dir, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(config.output_dir)
    processor.save(config.output_dir)
    card = ModelCard(
        prompt_version=PROMPT_VERSION,
        processor_version=processor.version,
        covered_categories=list(CATEGORIES),
        notes=[f"simulated scans alone, looks {', '.join(config.profiles)}"],
    )
    write_card(config.output_dir, card)
    return config.output_dir


def _make_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
    if config.initial_weights:
        return load_model(config.initial_weights, device="cpu", precision="fp32").model.train()
    return Qwen2_5_VLForConditionalGeneration(
        build_config(tokenizer, vision_depth=config.vision_depth, text_depth=config.text_depth)
    ).float()


def _run(config: PretrainConfig, trainer: TreeTrainer, heads: DenseHeads, pool: ScanPool) -> None:
    """The training loop. Leaves the averaged weights (EMA) in the model."""
    model = trainer.model
    device = trainer.prefix_ids.device
    _wait_for(pool, config.num_validation + config.pool_minimum)
    validation = pool.hold_out(config.num_validation)
    parameters = [*model.named_parameters(), *heads.named_parameters()]
    decayed = [p for _, p in parameters if p.ndim >= 2]
    plain = [p for _, p in parameters if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        fused=device.type == "cuda",
    )
    ema = [parameter.detach().clone() for parameter in model.parameters()]
    generator = torch.Generator().manual_seed(config.seed)
    weights = {
        "probe": config.probe_weight,
        "box": config.box_weight,
        "question": config.question_weight,
        "dense": config.dense_weight,
    }
    log = (config.output_dir / "pretrain.jsonl").open("a")
    started, step, progress = time.monotonic(), 0, 0.0
    bar = tqdm(
        total=100, desc="pretrain", unit="%", bar_format="{desc} {n:.1f}% |{bar}| {elapsed}<{remaining} {postfix}"
    )
    while progress < 1:
        rate = config.learning_rate * _schedule(step, progress, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = draw_batch(pool, config.batch_size, generator)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            losses = trainer.losses(batch, heads)
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in parameters], config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(ema, list(model.parameters()), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        step += 1
        elapsed = time.monotonic() - started
        progress = max(elapsed / (60 * config.max_minutes), step / config.max_steps)
        if step % 50 == 0 or progress >= 1:
            pool.check()
            entry = {name: round(value.item(), 4) for name, value in losses.items()}
            if not math.isfinite(total.item()):
                raise RuntimeError(f"the loss is {total.item()} at step {step}; lower learning_rate")
            entry |= {
                "step": step,
                "seconds": round(elapsed, 1),
                "scans": pool.num_drawn,
                "left_out": pool.num_left_out,
            }
            log.write(json.dumps(entry) + "\n")
            log.flush()
            bar.n = min(100.0, 100 * progress)
            bar.set_postfix_str(", ".join(f"{name} {value}" for name, value in entry.items()))
    bar.close()
    with torch.no_grad():
        for parameter, average in zip(model.parameters(), ema, strict=True):
            parameter.copy_(average)
    result = _validate(trainer, *validation) | {"step": step, "images": step * config.batch_size}
    log.write(json.dumps(result) + "\n")
    log.close()
    logger.info("validation on %d fresh scans: %s", config.num_validation, json.dumps(result))


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
def _validate(trainer: TreeTrainer, images: torch.Tensor, branches: torch.Tensor) -> dict[str, Any]:
    """Return mean AUC, AUC by category and the best micro F1 of the probes on scans that were not trained on."""
    device = images.device
    scores: list[NDArray[np.float32]] = []
    for start in range(0, len(images), 64):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            part = trainer.probe_scores(images[start : start + 64], branches[start : start + 64])
        scores.append(part.float().cpu().numpy())
    truth_at = (branches[:, KINDS] == PROBE) & (branches[:, LABELS] != IGNORE_INDEX)
    truth = (branches[:, LABELS][truth_at] == trainer.encoder.yes_id).reshape(len(images), -1).cpu().numpy()
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
