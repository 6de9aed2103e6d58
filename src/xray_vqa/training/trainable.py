"""Which weights of a model a run trains."""

import logging
import warnings
from typing import Any

import torch

from xray_vqa.config.train import LoraSettings, TrainConfig
from xray_vqa.core.jsonl import read_json
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.aligned import use_aligned_mlps
from xray_vqa.modeling.fp8 import use_fp8_tower
from xray_vqa.modeling.fused_lora import fuse_adapters, use_fp8_products
from xray_vqa.modeling.loading import DTYPES, LoadedModel
from xray_vqa.modeling.registry import ModelSpec

logger = logging.getLogger(__name__)


def make_trainable(config: TrainConfig, loaded: LoadedModel) -> Any:
    """Return the model with an adapter, or with every weight of the decoder trainable; the rest as configured.

    Raises:
        ConfigError: A name among the adapter's modules fits none of the model's.
    """
    spec = loaded.spec
    if config.method == "full":
        for name, parameter in loaded.model.named_parameters():
            is_trained = config.train_vision or (config.train_merger and f"{spec.merger}." in name)
            parameter.requires_grad = is_trained or f"{spec.vision_tower}." not in name
        _widen(loaded)
        _spare_frozen_tower(loaded)
        return loaded.model
    from peft import LoraConfig, get_peft_model

    if loaded.device.type == "cuda" and not config.lora.vision:
        use_aligned_mlps(loaded.base)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)  # see loading
    lora = config.lora
    _check_names(loaded.base, spec, lora)
    model = get_peft_model(
        loaded.model,
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=spec.lora_targets(lora.target_modules, vision=lora.vision),
            exclude_modules=lora.exclude_modules or None,
            use_rslora=lora.rslora,
            use_dora=lora.dora,
            init_lora_weights=True if lora.init == "default" else lora.init,
            modules_to_save=[spec.merger.rpartition(".")[2]] if config.train_merger else None,
            task_type="CAUSAL_LM",
        ),
    )
    model.peft_config["default"].base_model_name_or_path = config.model_name
    _widen(loaded)
    _spare_frozen_tower(loaded)
    if not is_gathered_by_module(config):
        fuse_adapters(model)
    if config.quantization == "fp8":
        use_fp8_products(model)
        use_fp8_tower(loaded.base)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info("adapter of rank %d: %.1f million trainable parameters", lora.r, trainable / 1e6)
    return model


def _widen(loaded: LoadedModel) -> None:
    """Keep trained weights in fp32: in 16 bit, an update at a usual learning rate is rounded away."""
    for parameter in loaded.base.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    merger = loaded.base.get_submodule(loaded.spec.merger)
    wide = [parameter.dtype for parameter in merger.parameters() if parameter.requires_grad]
    if wide:  # it takes what a shorter tower gives it outside of autocast too
        merger.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(wide[0]),))


def _spare_frozen_tower(loaded: LoadedModel) -> None:
    """Keep a frozen vision tower out of the backward pass.

    With checkpointing, transformers has the patch embedding ask for gradients, and the whole tower would be computed
    again for nobody.
    """
    spec = loaded.spec
    tower = loaded.base.get_submodule(spec.vision_tower)
    merger = {id(weight) for weight in loaded.base.get_submodule(spec.merger).parameters()}
    if not any(weight.requires_grad and id(weight) not in merger for weight in tower.parameters()):
        for block in tower.get_submodule("blocks").children():
            block.forward = torch.no_grad()(block.forward)


def narrow(loaded: LoadedModel) -> None:
    """Bring a fully trained model back to the format that it runs in, before it is written."""
    loaded.model.to(DTYPES[loaded.precision.name])


def is_gathered_by_module(config: TrainConfig) -> bool:
    """Whether a module's weights are whole only while that module itself is called."""
    return config.fsdp or config.deepspeed is not None


def zero_stage(config: TrainConfig) -> int:
    """Return how far DeepSpeed divides a run: 1 the optimizer, 2 gradients too, 3 weights too; 0 without it."""
    if config.deepspeed is None:
        return 0
    return int(read_json(config.deepspeed).get("zero_optimization", {}).get("stage", 0))


def own_rates(config: TrainConfig, spec: ModelSpec) -> dict[str, float]:
    """Return the learning rates of modules that have their own, by module path; the first path that fits counts."""
    rates: dict[str, float] = {}
    if config.merger_learning_rate is not None:
        rates[spec.merger] = config.merger_learning_rate
    if config.vision_learning_rate is not None:
        if config.merger_learning_rate is None and not config.train_vision:
            rates[spec.merger] = config.learning_rate
        rates[spec.vision_tower] = config.vision_learning_rate
    return rates


def _check_names(base: torch.nn.Module, spec: ModelSpec, lora: LoraSettings) -> None:
    """Refuse a name that PEFT would pass over in silence because others fit."""
    decoder = base.get_submodule(spec.language_model)
    for key, module, wanted in (
        ("target_modules", decoder, lora.target_modules),
        ("exclude_modules", base, lora.exclude_modules),
    ):
        for end in wanted or ():
            if not any(f".{name}".endswith(f".{end}") for name, _ in module.named_modules()):
                raise ConfigError(f"lora.{key}: no module of this model is called {end!r}")
