"""What a training run can be told: fine-tuning (the guide's keys) and the pre-training of nano."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from xray_vqa.core.records import Strict

Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]
Scheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
Optimizer = Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"]

LOSS_METRIC = "eval_loss"
GENERATION_METRICS = (
    "eval_item_f1", "eval_exact_match", "eval_lenient_match", "eval_auc", "eval_category_auc",
    "eval_recall_at_fpr5", "eval_recall_at_fpr10",
)  # fmt: skip
"""What `eval_generate_images` measures, all of it the better the greater; `xray-vqa evaluate` measures the same."""


class LoraSettings(Strict):
    """A low-rank adapter through PEFT."""

    r: int = Field(default=64, ge=1)
    """Inner width. Higher learns more and costs memory."""
    alpha: int = Field(default=128, ge=1)
    """Scale of the update; alpha / r multiplies it, with `rslora` alpha / sqrt(r)."""
    rslora: bool = False
    """Scale by alpha / sqrt(r), which keeps wide adapters from learning less; alpha is then chosen near sqrt(r) * 2."""
    dora: bool = False
    """Learn the length of each row of a weight apart from its direction. Slower: such layers run PEFT's own way, not
    fused. vLLM does not load them; merge first."""
    init: Literal["default", "gaussian", "orthogonal"] = "default"
    """How the adapter begins, in PEFT's words. Those of its ways that change the base's weights (PiSSA, OLoRA, CorDA,
    LoftQ) are left out: what they train fits no plain base, and vLLM would answer wrongly with it."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: list[str] | None = None
    """Last parts of the decoder's module names that get an adapter. Unset: those that docs/MODELS.md lists for the
    model's family."""
    exclude_modules: list[str] = []
    """Modules that get none all the same, by the end of their name: `down_proj`, `layers.0.self_attn.q_proj`."""
    vision: bool = False
    """Adapt the vision tower too. vLLM ignores such adapters unless they are merged."""


class MixFile(Strict):
    """Another dataset that is learnt from beside the first, such as simulated scans or projected threats."""

    file: Path
    """Pairs of its training split. The categories that its own source annotates hold for its scans."""
    weight: float = Field(default=1.0, gt=0)
    """How many times each scan is seen in an epoch; below 1 every epoch takes up where the last one stopped."""


class TrainConfig(Strict):
    """One fine-tuning run. `configs/train_stcray.yaml` holds the guide's."""

    recipe: Literal["finetune"] = "finetune"
    model_name: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """`nano`, a folder with weights, or a hub name."""
    train_file: Path = Path("data/stcray_vqa_train.jsonl")
    """Pairs to train on; their images' annotations give the probes and the boxes."""
    eval_file: Path | None = None
    """Pairs for the evaluation loss. Unset: the development part of the training images, never the test split."""
    mix_files: list[MixFile] = []
    """More pairs to train on. Nothing of them is held out, and their scans of bags that are held out are left out."""
    output_dir: Path = Path("outputs/qwen25vl_stcray_lora")
    method: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    quantization: Literal["none", "fp8", "4bit"] = "none"
    """Of the frozen weights below an adapter, which loads on the plain base. `fp8`: products of decoder and tower in
    8-bit floats, for speed, from compute capability 8.9. `4bit`: the decoder's weights in NF4, twice quantised, for
    memory (QLoRA); needs the extra `qlora`."""
    train_vision: bool = False
    """With `method: full`: train the vision tower and its merger too, as a new kind of picture calls for. For LoRA:
    `lora.vision`."""
    train_merger: bool = False
    """Train the merger, which turns patches into visual tokens, with every weight. With LoRA its weights go into the
    adapter's file as PEFT's `modules_to_save`, which vLLM refuses; merge first."""
    vision_learning_rate: float | None = Field(default=None, gt=0)
    """Of the vision tower. Unset: `learning_rate`."""
    merger_learning_rate: float | None = Field(default=None, gt=0)
    """Of the merger. Unset: that of the vision tower where both are trained, else `learning_rate`."""
    image_max_pixels: int | None = Field(default=None, ge=3136)
    """Cap on the resized image. Unset: the model's own."""
    image_resolution: int | None = Field(default=None, ge=56)
    """Another way to say it: the side of a square with that many pixels."""
    max_seq_length: int = Field(default=2048, ge=64)
    """Longest tree in tokens. A longer one loses branches from its end, counted and reported; never a cut image."""
    num_train_epochs: float = Field(default=3, gt=0)
    max_steps: int = Field(default=-1, ge=-1)
    per_device_train_batch_size: int = Field(default=2, ge=1)
    """Images a batch and device, each with all its branches. With `gradient_accumulation_steps` it says how many an
    update is made of; on a GPU, how many of these go through at once is up to memory."""
    per_device_eval_batch_size: int = Field(default=2, ge=1)
    gradient_accumulation_steps: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    lr_scheduler_type: Scheduler = "cosine"
    lr_scheduler_kwargs: dict[str, Any] = {}
    """More for the scheduler, as `{min_lr_rate: 0.1}` for `cosine_with_min_lr`."""
    optim: Optimizer = "adamw_torch_fused"
    """The 8-bit ones need the extra `qlora`."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    """Of matrices; norms, biases and DoRA's lengths are not drawn to zero."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    bf16: bool = True
    """Where the GPU has it; older GPUs get fp16 and CPUs fp32, said aloud."""
    gradient_checkpointing: bool | None = None
    """Compute layers again on the way back instead of keeping what they made: far less memory, a third slower. Unset:
    only where the longest image does not fit without."""
    compile: bool | None = None
    """Compile the layers of the model: two minutes at the start, a third off each update. Unset: for long runs on a
    GPU without DeepSpeed."""
    probes: bool = True
    """Score the annotated categories in each image: dense supervision that costs next to nothing."""
    probe_weight: float = Field(default=1.0, gt=0)
    """What a probe's one answer token counts beside a token of a box or a text, of which an image has far more."""
    boxes: bool = True
    """Place the annotated items."""
    dense_weight: float = Field(default=0.0, ge=0)
    """Of the auxiliary loss in which each visual token names the annotated category whose box covers it, as in nano's
    pre-training. It helps a small model whose vision tower is trained."""
    mirror: bool = False
    """Show scans mirrored left-right, upside-down or both as often as they are, boxes and regions with them. Pairs that
    speak of places in other words are left out of mirrored scans, counted and reported."""
    jitter: bool = False
    """Change gamma and colour at random, as in nano's pre-training."""
    logging_steps: int = Field(default=20, ge=1)
    eval_steps: int = Field(default=500, ge=1)
    eval_generate_images: int = Field(default=64, ge=0)
    """Development images that the model reads and answers as it would in service, at each evaluation, the same ones
    each time. 0: only the loss is measured."""
    save_steps: int = Field(default=500, ge=1)
    save_total_limit: int | None = Field(default=3, ge=1)
    load_best_model_at_end: bool = True
    metric_for_best_model: str = LOSS_METRIC
    """`eval_loss`, or with `eval_generate_images` one of `eval_item_f1`, `eval_exact_match`, `eval_lenient_match`,
    `eval_category_auc`, and of threat bags against clean ones `eval_auc`, `eval_recall_at_fpr5`,
    `eval_recall_at_fpr10`."""
    greater_is_better: bool | None = None
    """Unset: as the metric has it, and nothing else is accepted."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations without a better `metric_for_best_model`."""
    early_stopping_threshold: float = Field(default=0.0, ge=0)
    """By how much the metric has to be better to count."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Average the trained weights over updates, as with 0.999, and evaluate and write the averages. Takes four more
    bytes a trained weight; the first updates decay faster, so that the start is soon forgotten."""
    neftune_noise_alpha: float | None = Field(default=None, gt=0)
    """Noise on the embeddings of text while training, as with 5 (NEFTune). Visual tokens get none."""
    dataloader_num_workers: int = Field(default=4, ge=0)
    image_cache: Path | None = None
    """Folder for images decoded and resized once, shared by runs and processes: 0.6 MB each at 448 pixels square."""
    max_left_out: float = Field(default=0.01, ge=0, le=1)
    """Share of the scans that a run may do without because they are faulty; more of them stop it before it starts."""
    calibrate: bool = True
    """At the end, fit probabilities and thresholds on the scans that were held out and write them beside the weights,
    as `xray-vqa evaluate --calibrate` does with more choices."""
    seed: int = 42
    deepspeed: Path | None = None
    """A DeepSpeed configuration; needs the extra `deepspeed`."""
    fsdp: bool = False
    """Shard weights, gradients and optimizer over all GPUs with FSDP2, layer by layer. For models that are too large
    for one GPU; an adapter on a 7B is faster without."""
    report_to: list[Tracker] = ["tensorboard"]
    """All but the first need the extra `track`. Each keeps its own environment variables, as WANDB_MODE=offline."""

    @model_validator(mode="after")
    def _check_steps(self) -> "TrainConfig":
        if self.load_best_model_at_end and self.save_steps % self.eval_steps:
            raise ValueError(
                f"load_best_model_at_end needs save_steps ({self.save_steps}) to be a multiple of eval_steps "
                f"({self.eval_steps}); set both alike"
            )
        if self.image_resolution and self.image_max_pixels:
            raise ValueError("image_resolution and image_max_pixels say the same thing; give one of them")
        return self

    @field_validator("metric_for_best_model")
    @classmethod
    def _check_metric(cls, name: str) -> str:
        name = name if name.startswith("eval_") else f"eval_{name}"
        known = (LOSS_METRIC, *GENERATION_METRICS)
        if name not in known:
            raise ValueError(f"there is no metric {name!r}; known: {', '.join(known)}")
        return name

    @model_validator(mode="after")
    def _check_best(self) -> "TrainConfig":
        if self.metric_for_best_model != LOSS_METRIC and not self.eval_generate_images:
            raise ValueError(
                f"metric_for_best_model {self.metric_for_best_model} is measured on generated answers, and "
                "eval_generate_images is 0; set it to 64 or so"
            )
        if self.greater_is_better not in (None, self.best_is_greatest):
            raise ValueError(
                f"{self.metric_for_best_model} is better the {'greater' if self.best_is_greatest else 'smaller'}, but "
                f"greater_is_better is {self.greater_is_better}; set it to {self.best_is_greatest} or leave it out"
            )
        return self

    @property
    def best_is_greatest(self) -> bool:
        """Whether the best model is the one with the greatest `metric_for_best_model`."""
        return self.metric_for_best_model != LOSS_METRIC

    @model_validator(mode="after")
    def _check_modes(self) -> "TrainConfig":
        for is_wrong, reason in self._contradictions():
            if is_wrong:
                raise ValueError(reason)
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        """What could contradict what, whether it does, and what to do about it."""
        is_lora, lora = self.method == "lora", self.lora
        is_quantized, is_sharded = self.quantization != "none", self.fsdp or self.deepspeed is not None
        return [
            (
                self.train_vision and is_lora,
                "train_vision is for method: full; set lora.vision to adapt the vision tower",
            ),
            (
                self.vision_learning_rate is not None and not (self.train_vision or (is_lora and lora.vision)),
                "vision_learning_rate is given, but the vision tower is not trained; set train_vision too",
            ),
            (
                self.merger_learning_rate is not None and not (self.train_vision or self.train_merger),
                "merger_learning_rate is given, but the merger is not trained; set train_merger too",
            ),
            (
                is_quantized and not is_lora,
                "quantization rounds the base's weights, where nothing can train them; set method: lora",
            ),
            (
                is_quantized and is_sharded,
                "rounded weights cannot be sharded; leave fsdp and deepspeed out, several GPUs work without them",
            ),
            (
                self.quantization == "fp8" and (lora.dora or lora.vision),
                "quantization: fp8 is for plain adapters above a frozen tower; leave lora.dora and lora.vision out",
            ),
            (
                is_lora and lora.init == "orthogonal" and (lora.r % 2 == 1 or lora.vision),
                "lora.init: orthogonal needs an even lora.r, and no lora.vision, whose patch embedding it cannot start",
            ),
            (
                self.fsdp and self.deepspeed is not None,
                "fsdp and deepspeed shard the same weights; give one of them",
            ),
            (
                self.fsdp and bool(self.compile),
                "compile is not for sharded layers; leave it out of a run with fsdp",
            ),
            (
                self.ema_decay is not None and is_sharded,
                "ema_decay averages whole weights, which fsdp and deepspeed cut into pieces; give one of them",
            ),
            (
                self.early_stopping_threshold > 0 and self.early_stopping_patience is None,
                "early_stopping_threshold alone stops nothing; give early_stopping_patience too",
            ),
        ]

    @property
    def max_pixels(self) -> int | None:
        """The cap on the resized image, whichever key says it."""
        return self.image_resolution**2 if self.image_resolution else self.image_max_pixels


class PretrainConfig(Strict):
    """The pre-training of nano from nothing on simulated scans."""

    recipe: Literal["pretrain"]
    output_dir: Path = Path("outputs/nano")
    initial_weights: str | None = None
    """`nano` or a folder to go on from; without it the weights are random."""
    tokenizer_dir: Path | None = None
    """The tokenizer to use; without it the shipped nano's."""
    profiles: list[str]
    """Scanner looks to draw from. The look that the demo fine-tunes on is left out."""
    clean_share: float = Field(default=0.2, ge=0, le=1)
    """Share of bags without a threat."""
    threats_per_bag: tuple[float, ...] = (0.72, 0.2, 0.08)
    """Of the other bags, the shares with one threat, two, three, ..."""
    drawn_twice: list[str] = []
    """Categories that are drawn twice as often as the others."""
    size_wh: tuple[int, int] = (504, 392)
    vision_depth: int = Field(default=10, ge=2)
    text_depth: int = Field(default=5, ge=1)
    max_minutes: float = Field(default=8, gt=0)
    """The schedule ends with this time or with `max_steps`, whichever comes first. Over all runs of the command."""
    stop_after_minutes: float | None = Field(default=None, gt=0)
    """Where a machine is lent for less: save a checkpoint and stop then; the same command goes on."""
    save_minutes: float = Field(default=2, gt=0)
    """Training time between two checkpoints."""
    max_steps: int = Field(default=100_000, ge=1)
    batch_size: int = Field(default=128, ge=1)
    """Images a step and GPU."""
    learning_rate: float = Field(default=1e-3, gt=0)
    end_rate: float = Field(default=0.02, ge=0, le=1)
    """Share of the learning rate that is left at the end; half or so for a run that another one goes on from."""
    warmup_steps: int = Field(default=300, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, gt=0, lt=1)
    num_producers: int = Field(default=15, ge=1)
    """Processes that simulate scans, for each GPU."""
    pool_size: int = Field(default=60_000, ge=64)
    """Scans kept on each training device and drawn from; new ones take the place of the oldest."""
    pool_minimum: int = Field(default=2_000, ge=1)
    """Training begins when this many are there."""
    questions_per_scan: int = Field(default=2, ge=0)
    branch_tokens: int = Field(default=192, ge=64)
    """Room for all branches of an image; a branch that does not fit is left out and counted."""
    probe_weight: float = 1.0
    box_weight: float = 1.0
    question_weight: float = 0.5
    dense_weight: float = 1.0
    """Of the auxiliary loss in which each visual token names the category and box that cover it."""
    patch_weight: float = 0.5
    """Of the same at each patch, before four of them are merged into a visual token."""
    num_validation: int = Field(default=1_000, ge=1)
    compile: bool = False
    seed: int = 0
