"""A run's settings in transformers' words; the only place that knows them."""

import logging
import os
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments, get_scheduler

from xray_vqa.config.loading import require
from xray_vqa.config.train import TrainConfig
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.fp8 import FP8_CAPABILITY
from xray_vqa.modeling.loading import LoadedModel

logger = logging.getLogger(__name__)

PROJECT = "xray-vqa"
"""Under which trackers file a run."""


def check_arguments(config: TrainConfig, *, has_development: bool, dry_run: bool = False) -> None:
    """Find what a run would stumble over later, before a model is loaded.

    Args:
        config: The run.
        has_development: Whether there are scans to evaluate on.
        dry_run: Nothing will be trained, so that one process is enough to look at the plan of many.

    Raises:
        ConfigError: A package, a file, a second process or scans to evaluate on are missing, or the scheduler does not
            take what it is given.
    """
    for tracker in config.report_to:
        if tracker != "tensorboard":
            require(tracker, extra="track")
    if config.quantization == "4bit" or "8bit" in config.optim:
        require("bitsandbytes", extra="qlora")
    if config.quantization == "fp8" and not dry_run and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        if capability < FP8_CAPABILITY:
            raise ConfigError(
                f"quantization: fp8 needs a GPU of compute capability 8.9 or newer, and this one has "
                f"{'.'.join(map(str, capability))}; leave it out"
            )
    if config.deepspeed is not None:
        if not config.deepspeed.is_file():
            raise ConfigError(
                f"deepspeed: no file {config.deepspeed}; there are configs/deepspeed_zero2.json and zero3"
            )
        require("deepspeed", extra="deepspeed")
    if config.fsdp and not dry_run:
        if not torch.cuda.is_available():
            raise ConfigError("fsdp needs CUDA GPUs: accelerate passes over it on CPUs; leave it out")
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            raise ConfigError("fsdp spreads a model over several processes, and this is one; leave it out on one GPU")
    evaluating = {
        "early_stopping_patience": config.early_stopping_patience is not None,
        "lr_scheduler_type: reduce_lr_on_plateau": config.lr_scheduler_type == "reduce_lr_on_plateau",
    }
    for key, is_given in evaluating.items():
        if is_given and not has_development:
            raise ConfigError(f"{key} goes by evaluations, but no scans are held out; give eval_file")
    weight = torch.nn.Parameter(torch.zeros(1))
    try:
        get_scheduler(
            config.lr_scheduler_type,
            torch.optim.SGD([weight], lr=1.0),
            num_warmup_steps=1,
            num_training_steps=10,
            scheduler_specific_kwargs=dict(config.lr_scheduler_kwargs),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"lr_scheduler_kwargs do not fit {config.lr_scheduler_type}: {error}") from error


def early_stopping(config: TrainConfig) -> list[TrainerCallback]:
    """Return what stops a run early, if anything is to."""
    if config.early_stopping_patience is None:
        return []
    return [EarlyStoppingCallback(config.early_stopping_patience, config.early_stopping_threshold)]


def training_arguments(
    config: TrainConfig, loaded: LoadedModel, *, has_development: bool, checkpointing: bool
) -> TrainingArguments:
    """Return transformers' own arguments; whether layers are computed again is what the memory plan says."""
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(config.output_dir / "logs"))
    for variable in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.setdefault(variable, PROJECT)
    os.environ.setdefault("WANDB_DIR", str(config.output_dir))
    evaluation: dict[str, Any] = {"eval_strategy": "no"}
    if has_development:
        evaluation = {
            "eval_strategy": "steps",
            "eval_steps": config.eval_steps,
            "load_best_model_at_end": config.load_best_model_at_end,
            "metric_for_best_model": config.metric_for_best_model,
            "greater_is_better": config.best_is_greatest,
        }
    warmup = {"warmup_steps": config.warmup_ratio} if config.warmup_ratio else {}
    # Said only where it is wanted: newer versions of transformers warn of the name even for its default.
    again = {"gradient_checkpointing": True} if checkpointing else {}
    sharding: dict[str, Any] = {}
    if config.fsdp:
        layers = _layer_kinds(loaded.base)
        sharding = {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": layers}}
    arguments = TrainingArguments(
        output_dir=str(config.output_dir),
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.per_device_train_batch_size,
        per_device_eval_batch_size=config.per_device_eval_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        lr_scheduler_kwargs=dict(config.lr_scheduler_kwargs),
        optim=config.optim,
        adam_beta2=config.adam_beta2,
        neftune_noise_alpha=config.neftune_noise_alpha,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=loaded.precision.name == "bf16" or (config.bf16 and _has_bf16()),
        fp16=loaded.precision.name == "fp16",
        logging_steps=config.logging_steps,
        save_steps=config.save_steps,
        dataloader_num_workers=config.dataloader_num_workers if torch.cuda.is_available() else 0,
        seed=config.seed,
        data_seed=config.seed,
        deepspeed=str(config.deepspeed) if config.deepspeed else None,
        report_to=list(config.report_to),
        project=PROJECT,
        run_name=config.output_dir.name,
        restore_callback_states_from_checkpoint=config.early_stopping_patience is not None,
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=not torch.cuda.is_available(),
        # Or the host would wait for each tensor of a batch to arrive; on a CPU the Trainer warns of it.
        accelerator_config={"non_blocking": torch.cuda.is_available()},
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False,  # every trained weight takes part in every step
        **warmup,
        **again,
        **sharding,
        **evaluation,
    )
    if arguments.n_gpu > 1:
        logger.warning("%d GPUs, of which one process uses one; scripts/train.sh uses them all", arguments.n_gpu)
        arguments._n_gpu = 1  # or the Trainer would split packed sequences by DataParallel
    return arguments


def _layer_kinds(model: torch.nn.Module) -> list[str]:
    """Return the names of the classes of a model's layers; its last one may be of a class of its own."""
    wanted: Any = getattr(model, "_no_split_modules", None) or []
    kinds = {type(module) for module in model.modules()}
    return sorted(kind.__name__ for kind in kinds if any(base.__name__ in wanted for base in kind.__mro__))


def _has_bf16() -> bool:
    """Whether weights that are kept in fp32, as nano's are, may be multiplied in bf16 here."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
