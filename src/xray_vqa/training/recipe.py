"""Fine-tuning, from top to bottom: data, model, adapter, transformers' Trainer, export."""

import json
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from xray_vqa.config.loading import require
from xray_vqa.config.train import TrainConfig
from xray_vqa.core.manifest import make_manifest, sha256_file, write_manifest
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.aligned import use_aligned_mlps
from xray_vqa.modeling.compiling import compile_layers
from xray_vqa.modeling.fused_lora import fuse_adapters
from xray_vqa.modeling.loading import LoadedModel, ModelCard, load_model, write_card
from xray_vqa.modeling.packed_tree import TreeLayout, use_packed_attention
from xray_vqa.modeling.prompt_tree import as_attention_mask
from xray_vqa.training.augment import recolour
from xray_vqa.training.callbacks import EpochStart, LogFile, ProgressLine
from xray_vqa.training.collator import Augmentation, ScanDataset, collate
from xray_vqa.training.dense import DenseHeads
from xray_vqa.training.scans import TrainingData, TrainingScan, fingerprint, read_training_data

logger = logging.getLogger(__name__)

CONFIG_NAME = "train_config.yaml"
RUN_NAME = "run.json"
UPDATES_WORTH_COMPILING = 500
"""At which the two minutes that it takes come back on an H200, a third of each update's time saved."""
HEADS_NAME = "dense_heads.pt"
"""In checkpoints alone: they are no part of what a run leaves."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run will do, known before it starts."""

    num_images: int
    num_pairs: int
    num_development: int
    num_left_out: int
    num_not_mirrored: int
    images_per_update: int
    num_updates: int

    def describe(self) -> str:
        pairs_per_update = self.num_pairs / max(1, self.num_images) * self.images_per_update
        text = (
            f"{self.num_images} images with {self.num_pairs} pairs, {self.num_development} held out; "
            f"{self.images_per_update} images (about {pairs_per_update:.0f} pairs) an update, "
            f"{self.num_updates} updates"
        )
        if self.num_left_out:
            text += f"; {self.num_left_out} branches do not fit into max_seq_length"
        if self.num_not_mirrored:
            text += f"; {self.num_not_mirrored} pairs speak of places, so mirrored scans go without them"
        return text


class TreeModel(torch.nn.Module):
    """The model as the Trainer calls it: patches are cut and the mask is made on its device."""

    def __init__(self, loaded: LoadedModel, *, dense_weight: float = 0.0) -> None:
        super().__init__()
        self.model = loaded.model
        self._loaded = loaded
        self._dense_weight = dense_weight
        self.heads: DenseHeads | None = None
        self._visual = torch.empty(0)
        use_packed_attention(loaded.base)
        if dense_weight:
            self.heads = DenseHeads(loaded.base.lm_head.in_features)
            loaded.base.model.visual.register_forward_hook(self._keep_visual)

    def _keep_visual(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        self._visual = output.pooler_output

    @property
    def config(self) -> Any:
        return self.model.config

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        self.model.gradient_checkpointing_enable(**arguments)

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        supervised: torch.Tensor,
        position_ids: torch.Tensor,
        trees: TreeLayout,
        image_grid_thw: torch.Tensor,
        frames: list[torch.Tensor],
        weights: torch.Tensor,
        recolouring: torch.Tensor | None = None,
        owner: torch.Tensor | None = None,
        objects: torch.Tensor | None = None,
        named: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the loss on the answer tokens.

        Args:
            input_ids: (1, length) int64.
            labels: (1, length) int64, at the positions that predict them.
            supervised: (n,) int64, where a label stands; the rest never meets the wide output layer.
            position_ids: (3, 1, length) int64.
            trees: Where in the sequence the trees stand.
            image_grid_thw: (images, 3) int64, as transformers wants it.
            frames: One (height, width, 3) uint8 tensor an image.
            weights: (1, length) float32, what each prediction counts.
            recolouring: (images, RECOLOURING), in which colours each image is shown.
            owner: (images, visual tokens), with `objects` and `named` what `DenseHeads` are asked.
            objects: See `DenseHeads.loss`.
            named: See `DenseHeads.loss`.
            num_items_in_batch: Supervised tokens of the whole accumulation window; the loss is divided by it.
        """
        base = self._loaded.base
        dtype = next(base.model.visual.parameters()).dtype
        frames = [frame.to(input_ids.device) for frame in frames]
        if recolouring is not None:
            frames = [recolour(f[None], r[None])[0] for f, r in zip(frames, recolouring, strict=True)]
        processor = self._loaded.processor
        patches = processor.patches_of(frames, dtype)[0]
        logits = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=as_attention_mask(None),
            trees=trees,
            longest_image=max(frame.shape[0] * frame.shape[1] for frame in frames) // processor.patch_size**2,
            num_images=len(frames),
            pixel_values=patches,
            image_grid_thw=image_grid_thw,
            use_cache=False,
            logits_to_keep=supervised,
        ).logits
        each = F.cross_entropy(logits[0].float(), labels[0, supervised], reduction="none")
        count = num_items_in_batch if num_items_in_batch is not None else len(supervised)
        loss = (each * weights[0, supervised]).sum() / count
        if self.heads is not None and owner is not None and objects is not None:
            sizes = (image_grid_thw.prod(dim=1) // processor.merge_size**2).tolist()
            visual = pad_sequence(list(self._visual.split(sizes)), batch_first=True)
            # Counted by the answers, so that batches of one accumulation window add up to their mean.
            share = len(supervised) / count
            loss = loss + self._dense_weight * share * self.heads.loss(visual, owner, objects, named)
        return {"loss": loss}


class TreeTrainer(Trainer):
    """transformers' Trainer; only saving knows that the module is wrapped."""

    vision_learning_rate: float | None = None

    def create_optimizer(self, *arguments: Any, **named: Any) -> Any:
        """Return the optimizer, the vision tower in groups of its own where it has its own rate."""
        optimizer: Any = super().create_optimizer(*arguments, **named)
        if self.vision_learning_rate is not None:
            tree: Any = self.model
            vision = {id(weight) for name, weight in tree.named_parameters() if "visual" in name}
            for group in list(optimizer.param_groups):
                apart = [weight for weight in group["params"] if id(weight) in vision]
                if apart:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in vision]
                    optimizer.add_param_group({**group, "params": apart, "lr": self.vision_learning_rate})
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        target = Path(output_dir or str(self.args.output_dir))
        target.mkdir(parents=True, exist_ok=True)
        tree: Any = self.accelerator.unwrap_model(self.model)
        save_trained(tree.model, target)
        if tree.heads is not None:
            torch.save(tree.heads.state_dict(), target / HEADS_NAME)
        torch.save(self.args, target / "training_args.bin")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        tree: Any = self.accelerator.unwrap_model(self.model)
        load_trained(tree.model, Path(resume_from_checkpoint))
        if tree.heads is not None:
            path = Path(resume_from_checkpoint) / HEADS_NAME
            tree.heads.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is not None:
            logger.info("going back to the best checkpoint %s (%s)", best, self.state.best_metric)
            load_trained(self.accelerator.unwrap_model(self.model).model, Path(best))


def save_trained(model: Any, target: Path) -> None:
    """Write the trained weights: the adapter's, or all of them."""
    if hasattr(model, "peft_config"):
        # Left to itself, PEFT asks the hub whether the base's vocabulary was changed; ours never is.
        model.save_pretrained(target, save_embedding_layers=False)
    else:
        model.save_pretrained(target)


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
    model.load_state_dict(type(model).from_pretrained(checkpoint, dtype=model.dtype, use_safetensors=True).state_dict())


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
    config.output_dir.mkdir(parents=True, exist_ok=True)
    log_file = LogFile(config.output_dir / "train.log")
    loaded = load_model(config.model_name, precision="auto" if config.bf16 else "fp32", max_pixels=config.max_pixels)

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
    plan = _plan(config, data, train)
    logger.info("%s", plan.describe())
    if dry_run:
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
        print(f"# {plan.describe()}")
        return None
    checkpoint = checkpoint or _newest_checkpoint(config.output_dir)
    _remember_run(config, data, checkpoint)
    set_seed(config.seed)  # the adapter starts from random weights, before the Trainer seeds anything
    loaded.model = _make_trainable(config, loaded)
    if _is_worth_compiling(config, plan):
        logger.info("compiling the layers; the first update takes two minutes more")
        compile_layers(loaded.base)
    if config.images_in_memory:
        train.keep_frames()
        development.keep_frames()
    arguments = _training_arguments(config, loaded, has_development=bool(data.development))
    trainer = TreeTrainer(
        model=TreeModel(loaded, dense_weight=config.dense_weight),
        args=arguments,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=development if data.development else None,
        callbacks=[log_file, ProgressLine(), EpochStart(train.start_epoch)],
    )
    trainer.vision_learning_rate = config.vision_learning_rate
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is for data
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.is_world_process_zero():
        export(config, loaded, data, trainer)
    return config.output_dir


def _check_machine(config: TrainConfig) -> None:
    if config.model_name != "nano" and not Path(config.model_name).exists() and not torch.cuda.is_available():
        raise ConfigError(
            f"{config.model_name} needs a CUDA GPU (its weights alone take 16.6 GB in bf16) and this machine has none; "
            "with model_name=nano (configs/train_demo.yaml) everything runs on a CPU"
        )
    if config.deepspeed is not None:
        require("deepspeed", extra="deepspeed")


def _plan(config: TrainConfig, data: TrainingData, train: ScanDataset) -> RunPlan:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    per_update = config.per_device_train_batch_size * config.gradient_accumulation_steps * ranks
    updates_per_epoch = max(1, -(-len(train) // per_update))
    updates = config.max_steps if config.max_steps > 0 else int(updates_per_epoch * config.num_train_epochs)
    return RunPlan(
        num_images=len(train),
        num_pairs=sum(len(train.scans[train.number_of(index)].pairs) for index in range(len(train))),
        num_development=len(data.development),
        num_left_out=train.num_left_out(),
        num_not_mirrored=train.num_not_mirrored(),
        images_per_update=per_update,
        num_updates=updates,
    )


def _newest_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest checkpoint that was written whole, or None; one cut short by a kill is put aside, aloud."""
    found = get_last_checkpoint(str(output_dir))
    while found is not None and not (Path(found) / "trainer_state.json").is_file():
        logger.warning("%s is not whole; passing over it", found)
        Path(found).rename(Path(found).with_name(f"broken-{Path(found).name}"))
        found = get_last_checkpoint(str(output_dir))
    return Path(found) if found else None


def _remember_run(config: TrainConfig, data: TrainingData, checkpoint: Path | None) -> None:
    """Write the resolved configuration, and refuse to go on with a checkpoint of other data."""
    path = config.output_dir / RUN_NAME
    method = "full with vision" if config.train_vision else config.method
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


def _make_trainable(config: TrainConfig, loaded: LoadedModel) -> Any:
    """Return the model with an adapter, or with every weight of the decoder (and of the vision tower) trainable."""
    if config.method == "full":
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad = config.train_vision or "visual" not in name
        return loaded.model
    from peft import LoraConfig, get_peft_model

    if loaded.device.type == "cuda" and not config.lora.vision:
        use_aligned_mlps(loaded.base)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)  # see loading
    lora = config.lora
    targets = loaded.spec.lora_targets(lora.target_modules, vision=lora.vision)
    model = get_peft_model(
        loaded.model,
        LoraConfig(
            r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
        ),
    )
    model.peft_config["default"].base_model_name_or_path = config.model_name
    if config.deepspeed is None:  # which gathers the weights of a module only when that module itself is called
        fuse_adapters(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info("adapter of rank %d: %.1f million trainable parameters", lora.r, trainable / 1e6)
    return model


def _training_arguments(config: TrainConfig, loaded: LoadedModel, *, has_development: bool) -> TrainingArguments:
    """Return transformers' own arguments; the only place that knows their names."""
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(config.output_dir / "logs"))
    evaluation: dict[str, Any] = {"eval_strategy": "no"}
    if has_development:
        evaluation = {
            "eval_strategy": "steps",
            "eval_steps": config.eval_steps,
            "load_best_model_at_end": config.load_best_model_at_end,
            "metric_for_best_model": config.metric_for_best_model,
            "greater_is_better": config.greater_is_better,
        }
    warmup = {"warmup_steps": config.warmup_ratio} if config.warmup_ratio else {}
    # Said only where it is wanted: newer versions of transformers warn of the name even for its default.
    checkpointing = {"gradient_checkpointing": True} if config.gradient_checkpointing else {}
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
        save_total_limit=config.save_total_limit,
        dataloader_num_workers=config.dataloader_num_workers if torch.cuda.is_available() else 0,
        seed=config.seed,
        data_seed=config.seed,
        deepspeed=str(config.deepspeed) if config.deepspeed else None,
        report_to=list(config.report_to),
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        **warmup,
        **checkpointing,
        **evaluation,
    )
    if arguments.n_gpu > 1:
        logger.warning("%d GPUs, of which one process uses one; scripts/train.sh uses them all", arguments.n_gpu)
        arguments._n_gpu = 1  # or the Trainer would split packed sequences by DataParallel
    return arguments


def _is_worth_compiling(config: TrainConfig, plan: RunPlan) -> bool:
    if config.compile is not None:
        return config.compile
    return torch.cuda.is_available() and config.deepspeed is None and plan.num_updates >= UPDATES_WORTH_COMPILING


def _has_bf16() -> bool:
    """Whether weights that are kept in fp32, as nano's are, may be multiplied in bf16 here."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def export(config: TrainConfig, loaded: LoadedModel, data: TrainingData, trainer: Trainer) -> None:
    """Write the adapter (or the model), tokenizer, processor, card and manifest into the output folder."""
    output_dir = config.output_dir
    save_trained(loaded.model, output_dir)
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
