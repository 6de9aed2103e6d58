"""A run's settings in transformers' words; the only place that knows them."""

import logging
import os
from typing import Any

import torch
from transformers import TrainingArguments

from xray_vqa.config.train import TrainConfig
from xray_vqa.modeling.loading import LoadedModel

logger = logging.getLogger(__name__)


def training_arguments(
    config: TrainConfig, loaded: LoadedModel, *, has_development: bool, checkpointing: bool
) -> TrainingArguments:
    """Return transformers' own arguments; whether layers are computed again is what the memory plan says."""
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(config.output_dir / "logs"))
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
    arguments = TrainingArguments(
        output_dir=str(config.output_dir),
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.per_device_train_batch_size,
        per_device_eval_batch_size=config.per_device_eval_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
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
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=not torch.cuda.is_available(),
        accelerator_config={"non_blocking": True},  # or the host would wait for each tensor of a batch to arrive
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False,  # every trained weight takes part in every step
        **warmup,
        **again,
        **evaluation,
    )
    if arguments.n_gpu > 1:
        logger.warning("%d GPUs, of which one process uses one; scripts/train.sh uses them all", arguments.n_gpu)
        arguments._n_gpu = 1  # or the Trainer would split packed sequences by DataParallel
    return arguments


def _has_bf16() -> bool:
    """Whether weights that are kept in fp32, as nano's are, may be multiplied in bf16 here."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
