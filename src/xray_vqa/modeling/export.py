"""Writes a model with its adapter merged in, so that any server loads it as an ordinary checkpoint."""

from pathlib import Path
from typing import Any

import torch

from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.errors import ConfigError
from xray_vqa.modeling.loading import ADAPTER_NAME, DTYPES, load_model, read_card, write_card


def merge_adapter(adapter_dir: Path, output_dir: Path, precision: str) -> Path:
    """Merge an adapter into its base in fp32 on the CPU, write it in `precision`, and return the output folder.

    Raises:
        ConfigError: The folder holds no adapter, or the output folder is not empty.
        ModelUnavailable: Adapter and base do not fit together.
    """
    if not (adapter_dir / ADAPTER_NAME).is_file():
        raise ConfigError(f"{adapter_dir} has no {ADAPTER_NAME}, so there is nothing to merge")
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ConfigError(f"{output_dir} is not empty; give another --output-dir")
    loaded = load_model(str(adapter_dir), device="cpu", precision="fp32", merge=True)
    model: Any = loaded.base
    model.to(DTYPES[precision])
    # The vision tower runs our own attention; what is written has to load anywhere.
    model.model.visual.config._attn_implementation_internal = "sdpa"
    with torch.no_grad():
        model.save_pretrained(output_dir)
    loaded.encoder.tokenizer.save_pretrained(output_dir)
    loaded.processor.save(output_dir)
    card = read_card(adapter_dir)
    if card is not None:
        write_card(output_dir, card.model_copy(update={"base_model": "", "base_digest": ""}))
    write_manifest(
        output_dir,
        make_manifest("merge", inputs={"base": loaded.model_digest, "adapter": loaded.adapter_digest}),
    )
    return output_dir
