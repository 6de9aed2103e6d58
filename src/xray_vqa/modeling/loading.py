"""Loads a model by the name or folder that a user gives: nano, a checkpoint, a hub name or a LoRA adapter."""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import __version__ as transformers_version
from transformers.utils import logging as transformers_logging

from xray_vqa.config.loading import require
from xray_vqa.core.jsonl import first_error
from xray_vqa.core.manifest import sha256_file
from xray_vqa.core.prompts import PROMPT_VERSION
from xray_vqa.core.records import Strict
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import IntegrityError, ModelUnavailable
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.compressed import read_compressed
from xray_vqa.modeling.four_bit import use_four_bit_decoder
from xray_vqa.modeling.patches import use_patch_products
from xray_vqa.modeling.precision import Precision, choose_precision
from xray_vqa.modeling.processor import PROCESSOR_NAME, Processor, read_processor
from xray_vqa.modeling.prompt_tree import prefix_positions
from xray_vqa.modeling.quantized import QUANTIZED_NAME, load_quantized
from xray_vqa.modeling.registry import SPECS, ModelSpec, spec_of

logger = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()  # of weights being read; a second here, and noise beside our own bars

NANO_DIR = Path(__file__).parent / "assets" / "nano"
CARD_NAME = "xray_vqa.json"
ADAPTER_NAME = "adapter_config.json"
_SEALED = ("config.json", "tokenizer.json", "tokenizer_config.json", PROCESSOR_NAME)
"""What moves a score beside the weights themselves."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class ModelCard(Strict):
    """What we know of weights that we trained; `xray_vqa.json` beside them."""

    prompt_version: str
    processor_version: str
    covered_categories: list[str]
    """The categories that the model was trained and evaluated on."""
    base_model: str = ""
    base_digest: str = ""
    """Of the base that an adapter was trained on; with another one it is refused."""
    digests: dict[str, str] = {}
    """SHA-256 by name of the weights, tokenizer, processor and configuration beside the card; `write_card` fills it in,
    and a file that is another one is refused. Empty for cards of earlier versions."""
    notes: list[str] = []


@dataclass(slots=True)
class LoadedModel:
    """A model with everything that has to go with it."""

    model: Any
    """Of one of transformers' classes that answer with text about images, or a PEFT model around one."""
    encoder: PromptEncoder
    processor: Processor
    spec: ModelSpec
    name: str
    model_digest: str
    adapter_digest: str
    precision: Precision
    covered_categories: tuple[str, ...]
    weights_dir: Path
    """Where the weights (the adapter's, if there is one) lie; calibration and card stand beside them."""

    @property
    def base(self) -> Any:
        """The model itself, adapters inside it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> torch.device:
        return self.base.lm_head.weight.device


def load_model(
    name: str,
    *,
    adapter: str | None = None,
    device: str | None = None,
    precision: str = "auto",
    max_pixels: int | None = None,
    merge: bool = False,
    four_bit: bool = False,
) -> LoadedModel:
    """Load a model onto one device, in evaluation mode.

    Args:
        name: `nano`, a folder with weights, a folder with a LoRA adapter (its base is found from its own
            configuration) or a hub name such as `Qwen/Qwen2.5-VL-7B-Instruct`.
        adapter: A folder with a LoRA adapter for the model.
        device: `cpu`, `cuda`, `cuda:1`; by default the first GPU where there is one.
        precision: `auto`, `fp32`, `bf16` or `fp16`. nano always runs in fp32, so that its calibration holds anywhere.
        max_pixels: Overrides the processor's cap on the resized image, for training at another size than the
            weights were trained at before.
        merge: Whether an adapter is merged into the weights, which is faster and, in fp32, the same. In shorter
            formats it stays apart: rounding the sum would change answers.
        four_bit: Whether the decoder's weights are kept in 4 bit, to train an adapter above them. Digests remain those
            of the plain weights, so that the adapter loads on them.

    Raises:
        ConfigError: `four_bit` without bitsandbytes.
        ModelUnavailable: The weights are missing, of an unknown family, unsafe to load, or do not fit together.
        IntegrityError: Weights, tokenizer, processor or configuration are not the ones that the card beside them names.
    """
    if adapter is None and (Path(name) / ADAPTER_NAME).is_file():
        adapter, name = name, _base_of(Path(name))
    model_dir = resolve_model_dir(name)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    capability = torch.cuda.get_device_capability(target) if target.type == "cuda" else None
    chosen = choose_precision("fp32" if is_nano(model_dir) and precision == "auto" else precision, capability)
    logger.info("%s on %s in %s: %s", name, target, chosen.name, chosen.reason)
    card, weights_dir, adapter_digest = read_card(model_dir), model_dir, ""
    check_digests(card, model_dir)
    model: Any
    model, spec = _load_weights(model_dir, DTYPES[chosen.name])
    if spec.is_known:
        use_patch_products(model)
    if four_bit:
        require("bitsandbytes", extra="qlora")
        use_four_bit_decoder(model, spec, DTYPES[chosen.name])
    encoder = PromptEncoder(_load_tokenizer(model_dir), spec.answer_opening)
    digest = digest_of(model_dir)
    if adapter is not None:
        weights_dir = Path(adapter)
        own_card = read_card(weights_dir)
        check_digests(own_card, weights_dir)
        card = own_card or card
        adapter_digest = digest_of(weights_dir)
        if card and card.base_digest and card.base_digest != digest:
            raise ModelUnavailable(
                f"{adapter} was trained on a base with digest {card.base_digest[:12]}, but {name} has {digest[:12]}; "
                "load it on its own base"
            )
        model = _load_adapter(model, weights_dir)
        if merge and chosen.name == "fp32":
            model = model.merge_and_unload()
    # An adapter may have been trained at another image size than its base; its own file says so.
    own = weights_dir / PROCESSOR_NAME
    processor = read_processor(own if own.is_file() else model_dir / PROCESSOR_NAME, max_pixels, spec.box_frame)
    check_card(card, processor, weights_dir, other_size=max_pixels is not None)
    model.to(target).eval()
    loaded = LoadedModel(
        model=model,
        encoder=encoder,
        processor=processor,
        spec=spec,
        name=_short_name(adapter or name),
        model_digest=digest,
        adapter_digest=adapter_digest,
        precision=chosen,
        covered_categories=tuple(card.covered_categories) if card else (),
        weights_dir=weights_dir,
    )
    if spec.is_known:
        use_segment_attention(loaded.base)
    _check_family(loaded)
    return loaded


def outline_model(name: str, *, precision: str = "auto", max_pixels: int | None = None) -> LoadedModel:
    """Return a model without weights, on torch's device `meta`: all that a plan needs, out of a few small files.

    Args:
        name: See `load_model`.
        precision: See `load_model`; where there is no GPU, the format that the plan's GPUs would be given.
        max_pixels: See `load_model`.

    Raises:
        ModelUnavailable: The files are missing, broken or of an unknown family.
    """
    model_dir = resolve_model_dir(name, weights=False)
    wanted = "fp32" if is_nano(model_dir) and precision == "auto" else precision
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else (8, 0)
    chosen = choose_precision(wanted, capability)
    config, spec, model_class = _family_of(model_dir)
    with torch.device("meta"):
        model: Any = model_class(config)
    card = read_card(model_dir)
    return LoadedModel(
        model=model.to(DTYPES[chosen.name]),
        encoder=PromptEncoder(_load_tokenizer(model_dir), spec.answer_opening),
        processor=read_processor(model_dir / PROCESSOR_NAME, max_pixels, spec.box_frame),
        spec=spec,
        name=_short_name(name),
        model_digest="",
        adapter_digest="",
        precision=chosen,
        covered_categories=tuple(card.covered_categories) if card else (),
        weights_dir=model_dir,
    )


def is_nano(model_dir: Path) -> bool:
    """Return whether a folder holds a model small enough to be exact everywhere."""
    return model_dir == NANO_DIR or (model_dir / QUANTIZED_NAME).is_file() or _hidden_size(model_dir) <= 512


def _hidden_size(model_dir: Path) -> int:
    config = json.loads((model_dir / "config.json").read_text())
    return int((config.get("text_config") or config).get("hidden_size", 1 << 20))


def resolve_model_dir(name: str, *, weights: bool = True) -> Path:
    """Return the folder of a model: nano's, a local one, or the hub's snapshot, without weights where none are wanted.

    Raises:
        ModelUnavailable: There is no such model.
    """
    if name == "nano":
        return NANO_DIR
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ModelUnavailable(
                f"{name} has no config.json, so it holds no model; a folder made by `xray-vqa train` or a "
                "checkpoint is expected"
            )
        return Path(name)
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise ModelUnavailable(f"{name}: no such folder, and no hub name of the form owner/model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.txt", "*.jinja", *(["*.safetensors"] if weights else [])]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{name}: neither a local folder nor to be had from the hub ({type(error).__name__}). With no network, "
            "copy the model's folder here and give its path, or use `nano`"
        ) from error


def read_card(weights_dir: Path) -> ModelCard | None:
    """Return the card beside some weights, or None for weights that are not ours. Raises ModelUnavailable if broken."""
    path = weights_dir / CARD_NAME
    if not path.is_file():
        return None
    try:
        return ModelCard.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        found = first_error(error) if isinstance(error, ValidationError) else error
        raise ModelUnavailable(f"{path}: no card of this version: {found}") from error


def write_card(weights_dir: Path, card: ModelCard) -> None:
    """Write the card of finished weights, with the digests of everything beside it that moves a score."""
    names = sorted({path.name for pattern in (*_WEIGHTS, *_SEALED) for path in weights_dir.glob(pattern)})
    card = card.model_copy(update={"digests": {name: sha256_file(weights_dir / name) for name in names}})
    (weights_dir / CARD_NAME).write_text(json.dumps(card.model_dump(mode="json"), indent=1) + "\n")


def digest_of(weights_dir: Path) -> str:
    """Return the SHA-256 over names and contents of a folder's weights. Raises ModelUnavailable if it has none."""
    files = sorted({path for pattern in _WEIGHTS for path in weights_dir.glob(pattern)})
    if not files:
        unsafe = sorted(path.name for pattern in _UNSAFE for path in weights_dir.glob(pattern))
        found = f"only {', '.join(unsafe)}, which can run code when loaded" if unsafe else "none"
        raise ModelUnavailable(f"{weights_dir}: no .safetensors weights (found {found})")
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}:{_sha256_of(path)}\n".encode())
    return total.hexdigest()


def _sha256_of(path: Path) -> str:
    """A file's digest; of large weights it takes seconds, and loading asks for it twice."""
    status = path.stat()
    return _sha256_at(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256_at(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)


def _base_of(adapter_dir: Path) -> str:
    config = json.loads((adapter_dir / ADAPTER_NAME).read_text())
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelUnavailable(f"{adapter_dir / ADAPTER_NAME} does not name its base model; give it with --model")
    return str(base)


def _load_weights(model_dir: Path, dtype: torch.dtype) -> tuple[Any, ModelSpec]:
    """The model in a folder. transformers' decorators hide `to` from type checkers."""
    config, spec, model_class = _family_of(model_dir)
    if (model_dir / QUANTIZED_NAME).is_file():
        model: Any = model_class(config)
        model.to(dtype)
        try:
            missing, unexpected = model.load_state_dict(load_quantized(model_dir, dtype), strict=False)
        except (OSError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelUnavailable(f"{model_dir / QUANTIZED_NAME}: weights cannot be loaded: {error}") from error
        if unexpected or set(missing) - {"lm_head.weight"}:
            raise ModelUnavailable(f"{model_dir}: weights do not fit: missing {missing}, unexpected {unexpected}")
        model.tie_weights()
        return model, spec
    source: dict[str, Any] = {"pretrained_model_name_or_path": model_dir, "use_safetensors": True}
    try:
        if quantization := getattr(config, "quantization_config", None):
            del config.quantization_config  # or transformers would ask for a package and keep the short form
            state = read_compressed(model_dir, quantization, dtype)
            source = {"pretrained_model_name_or_path": None, "config": config, "state_dict": state}
        model, report = model_class.from_pretrained(**source, dtype=dtype, output_loading_info=True)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelUnavailable(f"{model_dir}: weights cannot be loaded: {error}") from error
    if report["missing_keys"]:  # which transformers fills with random numbers
        raise ModelUnavailable(f"{model_dir}: weights do not fit: missing {_some(report['missing_keys'])}")
    return model, spec


def _family_of(model_dir: Path) -> tuple[Any, ModelSpec, Any]:
    """The configuration in a folder, its family, and the family's class."""
    config = _load_config(model_dir)
    spec = spec_of(config.model_type)
    if not spec.is_known:
        _check_cutting(spec, model_dir)
    return config, spec, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]


def _load_config(model_dir: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(model_dir)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{model_dir / 'config.json'}: no configuration that this transformers ({transformers_version}) can read: "
            f"{error}"
        ) from error


def _load_tokenizer(model_dir: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(model_dir)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{model_dir}: tokenizer cannot be loaded: {error}") from error


def _load_adapter(model: PreTrainedModel, adapter_dir: Path) -> Any:
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel

    # PEFT 0.21 still asks for a property by the name that transformers 5.23 has given up; nothing for a user to mend.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    try:
        # What `from_pretrained` does, which does not return what did not fit.
        config: Any = PeftConfig.from_pretrained(str(adapter_dir))
        config.inference_mode = True
        kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
        loaded: Any = kind(model, config)
        found = loaded.load_adapter(str(adapter_dir), "default")
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ModelUnavailable(f"{adapter_dir}: adapter cannot be loaded on this base: {error}") from error
    if found.missing_keys or found.unexpected_keys:
        raise ModelUnavailable(
            f"{adapter_dir}: the adapter fits this base in part: {_some(found.missing_keys)} missing, "
            f"{_some(found.unexpected_keys)} without a place. It was trained on another model or saved by a version "
            "with other names; load it on its own base"
        )
    matrices = [weight for name, weight in loaded.named_parameters() if "lora_B" in name]
    if not matrices or not any(bool(weight.detach().any()) for weight in matrices):
        raise ModelUnavailable(f"{adapter_dir}: the adapter changes nothing (no weights found, or all zero)")
    return loaded


def _some(names: Iterable[str]) -> str:
    """The first of some weights' names, and how many there are."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")
    return f"{len(ordered)} weights ({shown})" if ordered else "none"


def check_digests(card: ModelCard | None, weights_dir: Path) -> None:
    """Raise IntegrityError, naming the file, where one is not the one that the card beside it names."""
    for name, expected in (card.digests if card else {}).items():
        path = weights_dir / name
        if not path.is_file():
            raise IntegrityError(f"{path} is missing; {CARD_NAME} beside it names it. Copy the whole folder again")
        if (found := _sha256_of(path)) != expected:
            raise IntegrityError(
                f"{path} has the digest {found[:12]}, but {CARD_NAME} beside it names {expected[:12]}: it was damaged "
                "or belongs to another version of the model. Copy the whole folder again"
            )


def check_card(card: ModelCard | None, processor: Processor, weights_dir: Path, *, other_size: bool) -> None:
    """Raise ModelUnavailable where weights were trained with another prompt or processor; say it where nobody knows."""
    if card is None:
        logger.warning("%s has no %s: trained elsewhere, so it covers no category yet", weights_dir, CARD_NAME)
        return
    for what, found, current in (
        ("prompt version", card.prompt_version, PROMPT_VERSION),
        ("processor", card.processor_version, processor.version),
    ):
        if found != current and not (what == "processor" and other_size):
            raise ModelUnavailable(f"{weights_dir} was trained with {what} {found}, this is {current}; train it again")
    unknown = set(card.covered_categories) - set(CATEGORIES)
    if unknown:
        raise ModelUnavailable(f"{weights_dir / CARD_NAME} covers unknown categories {sorted(unknown)}")


def _check_cutting(spec: ModelSpec, model_dir: Path) -> None:
    """Raise ModelUnavailable where a model of an unknown family gets its images in another way than Qwen's do."""
    try:
        found = json.loads((model_dir / PROCESSOR_NAME).read_text()).get("image_processor_type")
    except (OSError, ValueError):
        found = None
    if not str(found).startswith("Qwen2VLImageProcessor"):
        raise ModelUnavailable(
            f"{model_dir}: its family {spec.model_type!r} is not known, and its images are not cut the way Qwen's are "
            f"(image_processor_type {found} in {PROCESSOR_NAME}); known: {', '.join(sorted(SPECS))}"
        )


def _check_family(loaded: LoadedModel) -> None:
    """Say aloud what is off and what the licence forbids, and refuse a model that would be fed what it cannot read.

    Raises:
        ModelUnavailable: The model's image tokens, patches or positions are not made the way that ours are.
    """
    config, spec, processor = loaded.base.config, loaded.spec, loaded.processor
    if loaded.encoder.image_pad_id != config.image_token_id:
        raise ModelUnavailable(
            f"{loaded.name}: an image's place is token {loaded.encoder.image_pad_id} in the tokenizer, but "
            f"{config.image_token_id} in config.json; copy both from one checkpoint"
        )
    vision = config.vision_config
    wanted = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
    found = (processor.patch_size, processor.merge_size, processor.temporal_patch_size)
    if wanted != found:
        raise ModelUnavailable(
            f"{loaded.name}: patch, merge and temporal size are {found} in {PROCESSOR_NAME}, but {wanted} in "
            "config.json; copy both from one checkpoint"
        )
    if not spec.is_known and not _counts_like_qwen(loaded):
        raise ModelUnavailable(
            f"{loaded.name}: its family {spec.model_type!r} is not known, and it counts the places of an image's "
            f"tokens in another way than Qwen's do; known: {', '.join(sorted(SPECS))}"
        )
    if note := spec.licence_note(config.get_text_config().hidden_size):
        logger.warning("licence of %s: %s", spec.title, note)
    for limit in spec.limits:
        logger.warning("off for %s: %s", spec.title, limit)


def _counts_like_qwen(loaded: LoadedModel) -> bool:
    """Whether a model gives the tokens of an image the positions that we give them."""
    count = getattr(loaded.base.model, "get_rope_index", None)
    if count is None:
        return False
    prefix, start = loaded.encoder.prefix(6)
    ids, size = torch.tensor([prefix]), loaded.processor.merge_size
    kinds = (ids == loaded.encoder.image_pad_id).int()
    theirs = count(ids, mm_token_type_ids=kinds, image_grid_thw=torch.tensor([[1, 2 * size, 3 * size]]))[0]
    return torch.equal(theirs[:, 0], prefix_positions(len(prefix), start, (2, 3)))


def _short_name(name: str) -> str:
    return name if "/" not in name or not Path(name).exists() else Path(name).name
