"""What a run leaves on the way: trained weights, and which data and settings they belong to.

A checkpoint counts from the moment that a file in it lists all the others. That file comes last, after every rank has
written, and older checkpoints go after it, so there is always a whole one behind a half-written one.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from xray_vqa.config.train import TrainConfig
from xray_vqa.core.jsonl import disk_errors, replacing, write_json
from xray_vqa.errors import ConfigError
from xray_vqa.training.inputs.scans import TrainingData, fingerprint
from xray_vqa.training.ranks import Ranks
from xray_vqa.training.trainable import zero_stage

logger = logging.getLogger(__name__)

CONFIG_NAME = "train_config.yaml"
RUN_NAME = "run.json"
WHOLE_NAME = "whole.json"
"""In a checkpoint: the size in bytes of each of its files."""


def save_trained(model: Any, target: Path, weights: dict[str, Any] | None = None) -> None:
    """Write the trained weights: the adapter's, or all of them.

    Args:
        model: Whose trained weights.
        target: A folder.
        weights: By name, where the model itself holds parts of them alone.
    """
    if hasattr(model, "peft_config"):
        # Left to itself, PEFT asks the hub whether the base's vocabulary was changed; ours never is.
        model.save_pretrained(target, state_dict=weights, save_embedding_layers=False)
    else:
        if weights is not None:  # of which transformers cannot tell any more that two are one
            weights = {name: weight for name, weight in weights.items() if name not in model.all_tied_weights_keys}
        model.save_pretrained(target, state_dict=weights)


def whole_weights(state: Mapping[str, Any] | None, prefix: str) -> dict[str, Any]:
    """Return the gathered weights of one part of what the Trainer trains, by the part's own names."""
    return {name.removeprefix(prefix): weight for name, weight in (state or {}).items() if name.startswith(prefix)}


def copy_trained(checkpoint: Path, target: Path) -> None:
    """Copy what `save_trained` wrote from a checkpoint to another folder."""
    for pattern in ("adapter_*", "model*.safetensors*", "config.json", "generation_config.json"):
        for path in checkpoint.glob(pattern):
            shutil.copy(path, target)


def load_trained(model: Any, checkpoint: Path) -> None:
    """Put the trained weights of a checkpoint into a model: the adapter's, or all of them."""
    from safetensors.torch import load_file

    if (checkpoint / "adapter_model.safetensors").is_file():
        from peft import set_peft_model_state_dict

        result = set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"))
        if result.unexpected_keys:
            raise ConfigError(
                f"{checkpoint} holds weights that this adapter does not have: {result.unexpected_keys[:3]}"
            )
        return
    if not any(checkpoint.glob("*.safetensors")):
        raise ConfigError(f"{checkpoint} holds no weights; give a folder checkpoint-N of this run")
    # Saved weights have older names than those in memory; from_pretrained alone knows both.
    saved = type(model).from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
    model.load_state_dict(saved.state_dict())


def mark_whole(checkpoint: Path) -> None:
    """Say that everything of a checkpoint is written."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    (checkpoint / WHOLE_NAME).write_text(json.dumps(sizes, indent=1) + "\n")


def unmark(checkpoint: Path) -> None:
    """Let a checkpoint count no more, before it is written anew."""
    (checkpoint / WHOLE_NAME).unlink(missing_ok=True)


def newest_checkpoint(output_dir: Path) -> Path | None:
    """Return the whole checkpoint with the most updates, or None."""
    return max(_whole_checkpoints(output_dir), key=_step_of, default=None)


def put_aside_broken(output_dir: Path) -> None:
    """Rename checkpoints that a kill or an interrupted copy cut short, aloud."""
    for checkpoint in set(_checkpoints(output_dir)) - set(_whole_checkpoints(output_dir)):
        aside = checkpoint.with_name(f"broken-{checkpoint.name}")
        logger.warning("%s is not whole; putting it aside as %s", checkpoint, aside.name)
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)


def drop_oldest(output_dir: Path, limit: int | None, *, keep: set[str]) -> None:
    """Remove whole checkpoints, those written first, until there are `limit`; those named in `keep` stay."""
    if limit is None:
        return
    whole = _whole_checkpoints(output_dir)
    others = [checkpoint for checkpoint in whole if checkpoint.name not in keep]
    others.sort(key=lambda checkpoint: ((checkpoint / WHOLE_NAME).stat().st_mtime_ns, _step_of(checkpoint)))
    for checkpoint in others[: max(0, len(whole) - limit)]:
        unmark(checkpoint)
        shutil.rmtree(checkpoint)


def _checkpoints(output_dir: Path) -> list[Path]:
    return [path for path in output_dir.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]


def _whole_checkpoints(output_dir: Path) -> list[Path]:
    return [checkpoint for checkpoint in _checkpoints(output_dir) if _is_whole(checkpoint)]


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / WHOLE_NAME).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def updates_of(checkpoint: Path | None) -> int:
    """Return after how many updates a checkpoint was made; 0 without one."""
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).global_step if checkpoint else 0


def images_per_update(config: TrainConfig, checkpoint: Path | None, num_ranks: int) -> int:
    """Return the global batch: as the run was first started, on however many ranks it goes on.

    Raises:
        ConfigError: There are more ranks than images in an update.
    """
    configured = config.per_device_train_batch_size * config.gradient_accumulation_steps * num_ranks
    kept = configured if checkpoint is None else _read_run(config.output_dir).get("images_per_update", configured)
    if kept < num_ranks:
        raise ConfigError(
            f"the run in {config.output_dir} was started with {kept} images an update, too few for {num_ranks} "
            f"processes; go on with {kept} GPUs or fewer (CUDA_VISIBLE_DEVICES), or use another output_dir"
        )
    if kept != configured:
        logger.info(
            "the run was started with %d images an update and keeps them; this configuration would take %d",
            kept,
            configured,
        )
    return kept


def remember_run(
    config: TrainConfig, data: TrainingData, checkpoint: Path | None, num_images: int, ranks: Ranks
) -> None:
    """Write the resolved configuration, and refuse to go on with a checkpoint of other data.

    Args:
        config: The run.
        data: What it trains on.
        checkpoint: What it goes on from.
        num_images: See `images_per_update`.
        ranks: The first of which writes.

    Raises:
        ConfigError: The checkpoint is of another run, or this host does not see it.
        Incomplete: The disk is full.
    """
    run = _identity(config, data)
    if checkpoint is not None:
        if not _is_whole(checkpoint):
            raise ConfigError(
                f"{checkpoint} is not a whole checkpoint as this host sees it; choose another one, and put output_dir "
                "where all hosts of the run see it"
            )
        before = _read_run(config.output_dir) or run
        changed = [key for key in run if before.get(key, run[key]) != run[key]]
        if changed:
            raise ConfigError(
                f"{checkpoint} was trained with another {' and '.join(changed)}; use another output_dir, or remove "
                f"{config.output_dir} to start anew"
            )
        logger.info("going on from %s", checkpoint)
    ranks.meet()  # before the first one writes what the others still read
    if not ranks.is_first:
        return
    with disk_errors(config.output_dir):
        if checkpoint is None or not _read_run(config.output_dir):
            write_json(config.output_dir / RUN_NAME, run | {"images_per_update": num_images})
        with replacing(config.output_dir / CONFIG_NAME) as stream:
            stream.write(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode())


def _identity(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    """Return what has to stay as it was for a checkpoint to be taken up; all else may change between two starts.

    With another adapter, other groups of weights or another optimizer the saved state does not fit, or fits and means
    something else: alpha scales the same matrices.
    """
    parts = {"vision": config.train_vision, "merger": config.train_merger}
    run: dict[str, Any] = {
        "data": fingerprint(data),
        "seed": config.seed,
        "method": " with ".join([config.method, *(part for part, is_trained in parts.items() if is_trained)]),
        "model": config.model_name,
        "optim": config.optim.removesuffix("_fused"),  # the same state, by other kernels
        "deepspeed or fsdp": "fsdp" if config.fsdp else f"ZeRO {stage}" if (stage := zero_stage(config)) else "none",
        "dense_weight": "given" if config.dense_weight else "none",  # whether there are heads
        "vision_learning_rate": config.vision_learning_rate is not None,  # whether the optimizer has such a group
        "merger_learning_rate": config.merger_learning_rate is not None,
    }
    if config.method == "lora":
        settings = config.lora.model_dump(exclude={"init", "dropout"})
        run |= {f"lora.{name}": value for name, value in settings.items()}
    return run


def _read_run(output_dir: Path) -> dict[str, Any]:
    """Return what is recorded of the run in a folder; empty where nothing is."""
    path = output_dir / RUN_NAME
    return json.loads(path.read_text()) if path.is_file() else {}
