"""Writes models in forms that load anywhere: an adapter merged in, and a base that an adapter's folder brings along."""

import gc
import logging
from pathlib import Path
from typing import Any, Literal

from xray_vqa.core.jsonl import replacing_folder
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.dataset.storing import require_space
from xray_vqa.errors import ConfigError, GateFailed
from xray_vqa.modeling.compressed import Compression, compress
from xray_vqa.modeling.loading import (
    ADAPTER_NAME,
    DTYPES,
    LoadedModel,
    load_model,
    read_card,
    write_card,
)
from xray_vqa.modeling.parity import Bounds, Parity, Said, Trial, ask, compare
from xray_vqa.modeling.quantized import QUANTIZED_NAME

logger = logging.getLogger(__name__)

Form = Literal["safetensors", Compression]

_BOUNDS = {
    "fp32": Bounds(1e-4, 1e-3, 1.0, 1.0),
    "fp16": Bounds(0.02, 0.2, 0.99, 0.9),
    "bf16": Bounds(0.15, 1.0, 0.97, 0.7),
    "fp8": Bounds(0.2, 1.5, 0.97, 0.6),
    "int4": Bounds(0.5, 4.0, 0.93, 0.4),
}
"""By the coarsest format that was written or calculated in, finest first. They leave room over what nano's weights were
off (docs/decisions/0015-exports.md): a larger model's logits are larger, and so is what bf16 rounds off them."""


def merge_adapter(
    adapter_dir: Path, output_dir: Path, *, precision: str = "bf16", form: Form = "safetensors", trial: Trial | None
) -> Parity | None:
    """Merge an adapter into its base in fp32 on the CPU and write the sum, if it answers as the adapter does.

    What is written is loaded back from disk and asked the same as the adapter, which stays apart from its base as a
    server in a short precision keeps it. Until it has passed, the output folder does not exist.

    Args:
        adapter_dir: The adapter.
        output_dir: Where the merged model shall be; a folder that is there has to be empty.
        precision: Of the written weights; with `fp8` and `int4` of those that are not rounded further.
        form: A plain checkpoint, or one with the decoder's linear layers rounded (`modeling.compressed`).
        trial: What both are asked. None writes the model unchecked.

    Returns:
        How alike both answer; None if they were not asked.

    Raises:
        ConfigError: The folder holds no adapter, or the output folder is not empty.
        ModelUnavailable: Adapter and base do not fit together.
        GateFailed: What was written does not answer as the adapter does, or answers as the base does.
        Incomplete: The disk is full.
    """
    if not (adapter_dir / ADAPTER_NAME).is_file():
        raise ConfigError(f"{adapter_dir} has no {ADAPTER_NAME}, so there is nothing to merge")
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ConfigError(f"{output_dir} is not an empty folder; give another --output-dir")
    before = _ask_adapter(adapter_dir, trial) if trial is not None else None
    gc.collect()  # models hold cycles, and two do not fit everywhere
    merged = load_model(str(adapter_dir), device="cpu", precision="fp32", merge=True)
    with replacing_folder(output_dir) as partial:
        _write(merged, partial, precision, form)
        card = read_card(adapter_dir)
        if card is not None:
            write_card(partial, card.model_copy(update={"base_model": "", "base_digest": ""}))
        inputs = {"base": merged.model_digest, "adapter": merged.adapter_digest}
        del merged
        gc.collect()
        parity = None
        if trial is not None and before is not None:
            written = load_model(str(partial))
            parity = compare(ask(written, trial), *before, trial.source)
            formats = {precision, written.precision.name, form}
            _require_parity(parity, [bounds for name, bounds in _BOUNDS.items() if name in formats][-1], output_dir)
        write_manifest(
            partial,
            make_manifest(
                "merge",
                config={"precision": precision, "format": form},
                inputs=inputs,
                checks={"parity": parity.record()} if parity else {},
                notes=[] if parity else ["not compared with the adapter"],
            ),
        )
    return parity


def _ask_adapter(adapter_dir: Path, trial: Trial) -> tuple[Said, Said]:
    """What the adapter says, and what its base says without it."""
    loaded = load_model(str(adapter_dir))
    said = ask(loaded, trial)
    with loaded.model.disable_adapter():
        return said, ask(loaded, trial)


def _require_parity(parity: Parity, bounds: Bounds, output_dir: Path) -> None:
    logger.info(
        "asked %d scans (%s): log-odds differ by %.2g on average and %.2g at most, %.1f %% of %d decisions and %.0f %% "
        "of %d texts are equal; fine-tuning moved the log-odds by %.2g",
        parity.num_scans, parity.source, parity.mean_difference, parity.max_difference, 100 * parity.equal_decisions,
        parity.num_probes, 100 * parity.equal_texts, parity.num_texts, parity.mean_change,
    )  # fmt: skip
    if faults := parity.faults(bounds):
        raise GateFailed(
            f"{output_dir} is not written, since the merged model does not answer like the adapter: "
            f"{'; '.join(faults)}. Write it with --precision fp32 and plain weights, or serve the adapter as it is"
        )


def embed_base(base_dir: Path, adapter_dir: Path) -> None:
    """Put a base that only this package can read, as nano is, beside its adapter, in a form that others read too.

    transformers takes a folder with adapter and `config.json` for a whole model with an adapter in it, and any other
    for an adapter whose base it fetches by the name in `adapter_config.json`. So there is a `config.json` only with
    weights: `AutoModel.from_pretrained(adapter_dir)` works with both.
    """
    if (base_dir / QUANTIZED_NAME).is_file():
        loaded = load_model(str(base_dir), device="cpu", precision="fp32")
        _name_common_attention(loaded)
        loaded.base.save_pretrained(adapter_dir)


def _name_common_attention(loaded: LoadedModel) -> None:
    """The vision tower runs our own attention; what is written has to load anywhere."""
    loaded.base.get_submodule(loaded.spec.vision_tower).config._attn_implementation_internal = "sdpa"


def _write(loaded: LoadedModel, target: Path, precision: str, form: Form) -> None:
    """Write weights, tokenizer and processor. Changes the model."""
    model: Any = loaded.base
    dtype = DTYPES[precision]
    _name_common_attention(loaded)
    if form == "safetensors":
        state = model.to(dtype).state_dict()
    else:
        state, model.config.quantization_config = compress(model, loaded.spec, form, dtype)
        model.to(dtype)  # config.json tells the format of the rest
    size = sum({weight.data_ptr(): weight.nbytes for weight in state.values()}.values())
    require_space(target, size, "the merged model")
    model.save_pretrained(target, state_dict=state)
    loaded.encoder.tokenizer.save_pretrained(target)
    loaded.processor.save(target)
