"""What a run leaves on the way: trained weights, and which data and settings they belong to."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.trainer_utils import get_last_checkpoint

from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.training.scans import TrainingData, fingerprint

logger = logging.getLogger(__name__)

CONFIG_NAME = "train_config.yaml"
RUN_NAME = "run.json"


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


def newest_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest checkpoint that was written whole, or None; one cut short by a kill is put aside, aloud."""
    found = get_last_checkpoint(str(output_dir))
    while found is not None and not (Path(found) / "trainer_state.json").is_file():
        logger.warning("%s is not whole; passing over it", found)
        Path(found).rename(Path(found).with_name(f"broken-{Path(found).name}"))
        found = get_last_checkpoint(str(output_dir))
    return Path(found) if found else None


def remember_run(config: TrainConfig, data: TrainingData, checkpoint: Path | None) -> None:
    """Write the resolved configuration, and refuse to go on with a checkpoint of other data."""
    path = config.output_dir / RUN_NAME
    parts = {"vision": config.train_vision, "merger": config.train_merger}
    method = " with ".join([config.method, *(part for part, is_trained in parts.items() if is_trained)])
    run = {"data": fingerprint(data), "seed": config.seed, "method": method, "model": config.model_name}
    if checkpoint is not None:
        if not checkpoint.is_dir():
            raise ConfigError(f"{checkpoint}: no such checkpoint folder")
        before = json.loads(path.read_text()) if path.is_file() else run
        changed = [key for key in run if before.get(key) != run[key]]
        if changed:
            raise ConfigError(
                f"{checkpoint} was trained with another {' and '.join(changed)}; use another output_dir, or remove "
                f"{config.output_dir} to start anew"
            )
        logger.info("going on from %s", checkpoint)
    path.write_text(json.dumps(run, indent=1) + "\n")
    (config.output_dir / CONFIG_NAME).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
