"""Fine-tuning, from top to bottom: data, model, adapter, transformers' Trainer, export."""

import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PrinterCallback, Trainer, set_seed

from xray_vqa.config.train import TrainConfig
from xray_vqa.core.manifest import make_manifest, sha256_file, write_manifest
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.compiling import compile_layers
from xray_vqa.modeling.loading import LoadedModel, ModelCard, load_model, write_card
from xray_vqa.training.arguments import check_arguments, early_stopping, training_arguments
from xray_vqa.training.averaging import WeightAverages
from xray_vqa.training.callbacks import EpochStart, LogFile, ProgressLine
from xray_vqa.training.checkpoints import newest_checkpoint, remember_run
from xray_vqa.training.collator import Augmentation, ScanDataset, collate
from xray_vqa.training.planning import RunPlan, plan_run
from xray_vqa.training.scans import TrainingData, TrainingScan, read_training_data
from xray_vqa.training.trainable import is_gathered_by_module, make_trainable, narrow, own_rates
from xray_vqa.training.tree_trainer import TreeModel, TreeTrainer

logger = logging.getLogger(__name__)

UPDATES_WORTH_COMPILING = 500
"""At which the two minutes that it takes come back on an H200, a third of each update's time saved."""


def finetune(config: TrainConfig, checkpoint: Path | None = None, *, dry_run: bool = False) -> Path | None:
    """Fine-tune as configured and return the output folder; None after a dry run.

    Args:
        config: The run.
        checkpoint: A checkpoint to go on from; by default the newest whole one in the output folder.
        dry_run: Say what would be done, load nothing heavy onto a GPU, and stop.

    Raises:
        ConfigError: The configuration does not fit the machine, or the checkpoint is of another run.
        DatasetError: The pairs or scans are missing or broken.
        ModelUnavailable: The base model cannot be loaded.
    """
    _check_machine(config)
    data = read_training_data(config.train_file, config.eval_file, config.mix_files)
    check_arguments(config, has_development=bool(data.development), dry_run=dry_run)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    log_file = LogFile(config.output_dir / "train.log")
    loaded = load_model(
        config.model_name,
        precision="auto" if config.bf16 else "fp32",
        max_pixels=config.max_pixels,
        four_bit=config.quantization == "4bit",
    )

    def dataset(scans: list[TrainingScan], **more: Any) -> ScanDataset:
        return ScanDataset(
            scans,
            loaded.encoder,
            loaded.processor,
            max_seq_length=config.max_seq_length,
            probes=config.probes,
            boxes=config.boxes,
            probe_weight=config.probe_weight,
            **more,
        )

    augmentation = Augmentation(mirror=config.mirror, jitter=config.jitter, seed=config.seed)
    train = dataset(data.train, mixes=data.mixes, augmentation=augmentation, dense=config.dense_weight > 0)
    development = dataset(data.development)
    plan = plan_run(config, data, train)
    logger.info("%s", plan.describe())
    if dry_run:
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
        print(f"# {plan.describe()}")
        return None
    checkpoint = checkpoint or newest_checkpoint(config.output_dir)
    remember_run(config, data, checkpoint)
    set_seed(config.seed)  # the adapter starts from random weights, before the Trainer seeds anything
    loaded.model = make_trainable(config, loaded)
    if _is_worth_compiling(config, plan):
        logger.info("compiling the layers; the first update takes two minutes more")
        compile_layers(loaded.base)
    if config.images_in_memory:
        train.keep_frames()
        development.keep_frames()
    tree = TreeModel(loaded, dense_weight=config.dense_weight)
    arguments = training_arguments(config, loaded, has_development=bool(data.development))
    trainer = TreeTrainer(
        model=tree,
        args=arguments,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=development if data.development else None,
        callbacks=[log_file, ProgressLine(), EpochStart(train.start_epoch), *early_stopping(config)],
    )
    trainer.own_rates = own_rates(config, loaded.spec)
    if config.ema_decay is not None:
        trainer.averages = WeightAverages(tree, config.ema_decay)
        trainer.add_callback(trainer.averages)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is for data
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if config.method == "full" and not trainer.is_sharded:
        narrow(loaded)
    trainer.write_trained(config.output_dir)
    if trainer.is_world_process_zero():
        export(config, loaded, data, trainer)
    return config.output_dir


def _check_machine(config: TrainConfig) -> None:
    if config.model_name != "nano" and not Path(config.model_name).exists() and not torch.cuda.is_available():
        raise ConfigError(
            f"{config.model_name} needs a CUDA GPU (its weights alone take 16.6 GB in bf16) and this machine has none; "
            "with model_name=nano (configs/train_demo.yaml) everything runs on a CPU"
        )


def _is_worth_compiling(config: TrainConfig, plan: RunPlan) -> bool:
    if config.compile is not None:
        return config.compile
    is_whole = not is_gathered_by_module(config)
    return torch.cuda.is_available() and is_whole and plan.num_updates >= UPDATES_WORTH_COMPILING


def export(config: TrainConfig, loaded: LoadedModel, data: TrainingData, trainer: Trainer) -> None:
    """Write tokenizer, processor, card and manifest beside the trained weights."""
    output_dir = config.output_dir
    loaded.encoder.tokenizer.save_pretrained(output_dir)
    loaded.processor.save(output_dir)
    if config.method == "lora":
        loaded.base.config.save_pretrained(output_dir)
    # Training every weight on some categories alone unlearns the others; an adapter's base still stands for them.
    covered = set(data.annotated) | (set(loaded.covered_categories) if config.method == "lora" else set[str]())
    write_card(
        output_dir,
        ModelCard(
            prompt_version=PROMPT_VERSION,
            processor_version=loaded.processor.version,
            covered_categories=[category for category in CATEGORIES if category in covered],
            base_model=config.model_name if config.method == "lora" else "",
            base_digest=loaded.model_digest if config.method == "lora" else "",
        ),
    )
    write_manifest(
        output_dir,
        make_manifest(
            "train",
            config=config.model_dump(mode="json"),
            inputs={
                str(path): sha256_file(path) for path in (config.train_file, *(mix.file for mix in config.mix_files))
            },
            counts={
                "images": len(data.train),
                "mixed_in": sum(len(mix.scans) for mix in data.mixes),
                "development": len(data.development),
                "updates": trainer.state.global_step,
            },
            seed=config.seed,
        ),
    )
    logger.info("wrote %s", output_dir)
