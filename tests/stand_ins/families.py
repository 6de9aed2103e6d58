"""Tiny random models of every family, as folders that look like a checkpoint from a hub."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

from xray_vqa.modeling.nano import SPECIAL_TOKENS, train_tokenizer

WIDTH = 64
_QWEN3_VISION = {
    "depth": 3, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": WIDTH, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
}  # fmt: skip
_TEXT = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0}
_DELTA_NET = {
    "head_dim": 32, "num_hidden_layers": 4, "full_attention_interval": 2, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "rope_parameters": {**_MROPE, "mrope_section": [4, 2, 2], "partial_rotary_factor": 0.5},
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text_config": {
            **_TEXT, "intermediate_size": 96, "num_hidden_layers": 3, "use_sliding_window": False,
            "rope_parameters": {**_MROPE, "mrope_section": [2, 3, 3]},
        },
        "vision_config": {
            "depth": 3, "hidden_size": 64, "intermediate_size": 84, "num_heads": 2, "out_hidden_size": WIDTH,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
            "fullatt_block_indexes": [2],
        },
    },
    "qwen3_vl": {
        "text_config": {
            **_TEXT, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 32,
            "rope_parameters": {**_MROPE, "mrope_section": [6, 5, 5]},
        },
        "vision_config": {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]},
    },
    "qwen3_5": {"text_config": {**_TEXT, "intermediate_size": 96, **_DELTA_NET}, "vision_config": _QWEN3_VISION},
    "qwen2_vl": {
        "text_config": {
            **_TEXT, "intermediate_size": 96, "num_hidden_layers": 3, "use_sliding_window": False,
            "rope_parameters": {**_MROPE, "mrope_section": [2, 3, 3]},
        },
        "vision_config": {
            "depth": 2, "embed_dim": 64, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
    },
    "qwen3_vl_moe": {
        "text_config": {
            **_TEXT, **_EXPERTS, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 32,
            "rope_parameters": {**_MROPE, "mrope_section": [6, 5, 5]},
        },
        "vision_config": {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]},
    },
    "qwen3_5_moe": {
        "text_config": {**_TEXT, **_EXPERTS, **_DELTA_NET, "shared_expert_intermediate_size": 32},
        "vision_config": _QWEN3_VISION,
    },
}  # fmt: skip
"""By model type, with what each family is known for: windows, DeepStack, Gated DeltaNet, experts."""


def write_family(model_type: str, model_dir: Path) -> Path:
    """Write a random model of a family with its tokenizer and processor into a folder, and return it."""
    tokenizer = train_tokenizer(["What is in the bag? There is a gun in the upper-left region."] * 3)
    ids = {token: tokenizer.get_vocab()[token] for token in SPECIAL_TOKENS}
    values = CONFIGS[model_type]
    ends = {"bos_token_id": 0, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    config = AutoConfig.for_model(
        model_type,
        # Wide enough a start that a token which should not be seen would be noticed.
        text_config={**values["text_config"], **ends, "vocab_size": len(tokenizer), "initializer_range": 0.1},
        vision_config={**values["vision_config"], "initializer_range": 0.1},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)](config)
    model.save_pretrained(model_dir)
    tokenizer.save_pretrained(model_dir)
    patch_size = values["vision_config"]["patch_size"]
    processor = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor" if patch_size == 16 else "Qwen2_5_VLProcessor",
        "size": {"shortest_edge": 4 * patch_size**2, "longest_edge": 16384 * 4 * patch_size**2},
        "patch_size": patch_size,
        "merge_size": 2,
        "temporal_patch_size": 2,
    }
    if patch_size == 16:
        processor |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (model_dir / "preprocessor_config.json").write_text(json.dumps(processor))
    return model_dir
