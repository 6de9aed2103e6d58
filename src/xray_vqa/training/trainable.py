"""Which weights of a model a run trains."""

import logging
import warnings
from typing import Any

from xray_vqa.config.train import TrainConfig
from xray_vqa.modeling.aligned import use_aligned_mlps
from xray_vqa.modeling.fused_lora import fuse_adapters
from xray_vqa.modeling.loading import LoadedModel

logger = logging.getLogger(__name__)


def make_trainable(config: TrainConfig, loaded: LoadedModel) -> Any:
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
