"""Fine-tuning, from top to bottom: data, model, adapter, transformers' Trainer, export."""

import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed

from xray_vqa.config.train import TrainConfig
from xray_vqa.core.jsonl import disk_errors, make_readable
from xray_vqa.core.manifest import make_manifest, read_manifest, sha256_file, write_manifest
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.compiling import compile_layers
from xray_vqa.modeling.export import embed_base
from xray_vqa.modeling.loading import LoadedModel, ModelCard, load_model, outline_model, write_card
from xray_vqa.training.arguments import check_arguments, early_stopping, training_arguments
from xray_vqa.training.averaging import WeightAverages
from xray_vqa.training.callbacks import LogFile, ProgressLine
from xray_vqa.training.checkpoints import (
    images_per_update,
    newest_checkpoint,
    put_aside_broken,
    remember_run,
    updates_of,
)
from xray_vqa.training.inputs.collator import Augmentation, ScanDataset, collate, collate_rows
from xray_vqa.training.inputs.image_cache import ImageCache
from xray_vqa.training.inputs.sampling import DealtBatches
from xray_vqa.training.inputs.scans import TrainingData, TrainingScan, fingerprint, read_training_data
from xray_vqa.training.planning.machines import machine_here
from xray_vqa.training.planning.parts import Budget
from xray_vqa.training.planning.plan import is_worth_compiling, plan_memory_of, plan_run, predict, usable
from xray_vqa.training.ranks import Ranks
from xray_vqa.training.stopping import StopWithCheckpoint
from xray_vqa.training.trainable import make_trainable, narrow, own_rates
from xray_vqa.training.tree_trainer import TreeModel, TreeTrainer
from xray_vqa.training.watching.before_training import preview, trained_tensors, write_before_training
from xray_vqa.training.watching.gates import GradientGate, PlausibleLoss
from xray_vqa.training.watching.generation_eval import FindExaminer, GenerationEvaluation, choose_examiner
from xray_vqa.training.watching.run_card import FinishedRun, write_run_card

logger = logging.getLogger(__name__)


def finetune(
    config: TrainConfig,
    checkpoint: Path | None = None,
    *,
    dry_run: bool = False,
    find_examiner: FindExaminer | None = None,
) -> Path | None:
    """Fine-tune as configured and return the output folder; None after a dry run.

    Under torchrun each process does so together with the others, and the first one writes.

    Args:
        config: The run.
        checkpoint: A checkpoint to go on from; by default the newest whole one in the output folder.
        dry_run: Say what would be done, with predicted hours and GiB, and stop; weights are not loaded.
        find_examiner: Finds who examines the model at each evaluation; without one the loss alone is measured.

    Raises:
        ConfigError: The configuration does not fit the machine, or the checkpoint is of another run.
        DatasetError: The pairs or scans are missing or broken.
        ModelUnavailable: The base model cannot be loaded.
        Incomplete: SIGTERM came, or the disk is full. The same call goes on from the newest checkpoint.
        KeyboardInterrupt: SIGINT came; likewise.
        GateFailed: A gate was not passed: labels, gradients, losses or weights are not what they must be.
    """
    if not dry_run:
        _check_machine(config)
    ranks = Ranks.join()
    data = read_training_data(config.train_file, config.eval_file, config.mix_files)
    check_arguments(config, has_development=bool(data.development), dry_run=dry_run)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    told = _tell(config, ranks)
    loaded = _load(config, dry_run=dry_run)
    cache = ImageCache(config.image_cache, loaded.processor) if config.image_cache and not dry_run else None
    data = usable(config, data, _dataset(config, loaded, data.scans), cache, ranks)
    examiner = choose_examiner(config, {scan.image_path for scan in data.development}, find_examiner)
    augmentation = Augmentation(mirror=config.mirror, jitter=config.jitter, seed=config.seed)
    train = _dataset(
        config, loaded, data.train, cache=cache, mixes=data.mixes, augmentation=augmentation,
        dense=config.dense_weight > 0,
    )  # fmt: skip
    development = _dataset(config, loaded, data.development, cache=cache)
    if ranks.is_first and not dry_run:
        put_aside_broken(config.output_dir)
    checkpoint = ranks.share(checkpoint or newest_checkpoint(config.output_dir))
    num_ranks = max(ranks.world, torch.cuda.device_count()) if dry_run else ranks.world
    batches = DealtBatches(
        train,
        images_per_update=images_per_update(config, checkpoint, num_ranks),
        images_per_micro_batch=config.per_device_train_batch_size,
        seed=config.seed,
        rank=ranks.rank,
        num_ranks=num_ranks,
    )
    plan = plan_run(config, data, train, batches.images_per_update, num_ranks)
    if not dry_run:  # which shows it on stdout
        logger.info("%s", plan.describe())
    shown = preview(train, plan)
    if dry_run:
        loaded.model = make_trainable(config, loaded)
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
        for line in (*predict(config, loaded, plan), *shown.splitlines()):
            print(f"# {line}".rstrip())
        return None
    remember_run(config, data, checkpoint, batches.images_per_update, ranks)
    set_seed(config.seed)  # the adapter starts from random weights, before the Trainer seeds anything
    loaded.model = make_trainable(config, loaded)
    machine = machine_here()
    checkpointing, budget = bool(config.gradient_checkpointing), None
    if loaded.spec.trains_packed:  # what rows take is not known to the planner
        memory = plan_memory_of(config, loaded, plan, machine)
        logger.info("%s: %s", machine.name, memory.describe())
        checkpointing = memory.checkpointing
        budget = Budget(memory) if machine.is_gpu else None
    if is_worth_compiling(config, loaded, plan, machine):
        logger.info("compiling the layers; the first update takes two minutes more")
        compile_layers(loaded.base)
    gradients = GradientGate()
    first_loss = PlausibleLoss(len(loaded.encoder.tokenizer), max(1.0, config.probe_weight) + config.dense_weight)
    tree = TreeModel(loaded, dense_weight=config.dense_weight)
    accumulating = config.model_copy(update={"gradient_accumulation_steps": batches.accumulation})
    trainer = TreeTrainer(
        model=tree,
        args=training_arguments(
            accumulating, loaded, has_development=bool(data.development), checkpointing=checkpointing
        ),
        data_collator=collate if loaded.spec.trains_packed else collate_rows,
        train_dataset=train,
        eval_dataset=development if data.development else None,
        callbacks=[*told, StopWithCheckpoint(ranks), gradients, first_loss, *early_stopping(config)],
        budget=budget,
        longest=lambda: [train[index] for index in plan.longest],
    )
    trainer.batches, trainer.num_checkpoints = batches, config.save_total_limit
    trainer.own_rates = own_rates(config, loaded.spec)
    trainer.generation = GenerationEvaluation(examiner, loaded) if examiner is not None else None
    if config.ema_decay is not None:
        trainer.averages = WeightAverages(tree, config.ema_decay)
        trainer.add_callback(trainer.averages)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is for data
    if ranks.is_first:
        weights = sum(weight.numel() for weight in loaded.model.parameters())
        with disk_errors(config.output_dir):
            write_before_training(config.output_dir, shown, trained_tensors(loaded.model), weights)
    first_update = updates_of(checkpoint)  # now, for the run may delete it
    done = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if budget is not None:
        logger.info("memory: %s", budget.describe())
    with disk_errors(config.output_dir):
        if config.method == "full" and not trainer.is_sharded:
            narrow(loaded)
        trainer.write_trained(config.output_dir)
        if ranks.is_first:
            export(config, loaded, data, trainer)
            run = FinishedRun(
                config=config,
                plan=plan,
                manifest=read_manifest(config.output_dir),
                state=trainer.state,
                first_update=first_update,
                seconds=done.metrics["train_runtime"],
                base_digest=loaded.model_digest,
                data_digest=fingerprint(data),
                gates=[gradients.result, first_loss.result, trainer.loss_watch.result],
            )
            write_run_card(run, config.output_dir)
    ranks.leave()
    return config.output_dir


def _check_machine(config: TrainConfig) -> None:
    if config.model_name != "nano" and not Path(config.model_name).exists() and not torch.cuda.is_available():
        raise ConfigError(
            f"{config.model_name} needs a CUDA GPU (the weights of a 7B alone take 16.6 GB in bf16), and this machine "
            "has none; with model_name=nano (configs/train_demo.yaml) all runs on a CPU, and --dry-run shows the plan"
        )


def _tell(config: TrainConfig, ranks: Ranks) -> list[TrainerCallback]:
    """Let the first process tell how the run goes, and the others warn at most."""
    if ranks.is_first:
        return [LogFile(config.output_dir / "train.log"), ProgressLine()]
    logging.getLogger("xray_vqa").setLevel(logging.WARNING)
    return []


def _load(config: TrainConfig, *, dry_run: bool) -> LoadedModel:
    precision = "auto" if config.bf16 else "fp32"
    if dry_run:
        return outline_model(config.model_name, precision=precision, max_pixels=config.max_pixels)
    four_bit = config.quantization == "4bit"
    return load_model(config.model_name, precision=precision, max_pixels=config.max_pixels, four_bit=four_bit)


def _dataset(config: TrainConfig, loaded: LoadedModel, scans: list[TrainingScan], **more: Any) -> ScanDataset:
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


def _files_of(config: TrainConfig) -> list[Path]:
    return [*filter(None, (config.train_file, config.eval_file)), *(mix.file for mix in config.mix_files)]


def export(config: TrainConfig, loaded: LoadedModel, data: TrainingData, trainer: Trainer) -> None:
    """Write tokenizer, processor, card and manifest beside the trained weights."""
    output_dir = config.output_dir
    loaded.encoder.tokenizer.save_pretrained(output_dir)
    loaded.processor.save(output_dir)
    if config.method == "lora":
        embed_base(loaded.weights_dir, output_dir)
        if config.lora.vision:
            logger.warning(
                "vLLM and AutoModel leave out the vision tower's adapter; for them: xray-vqa merge %s --output-dir DIR",
                output_dir,
            )
    make_readable(output_dir)
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
            inputs={str(path): sha256_file(path) for path in _files_of(config)},
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
