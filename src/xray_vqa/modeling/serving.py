"""Makes a loaded model ready to answer: the decoder that suits its device, and 8-bit products where they do no harm."""

import logging

import numpy as np
import torch

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError, ModelUnavailable
from xray_vqa.modeling.aligned import use_aligned_mlps
from xray_vqa.modeling.branch_rows import decoder_of
from xray_vqa.modeling.decoding import Decoder
from xray_vqa.modeling.fp8 import FP8_CAPABILITY, use_fp8_decoder, use_fp8_tower
from xray_vqa.modeling.loading import LoadedModel
from xray_vqa.modeling.packed_decoding import PackedDecoder

logger = logging.getLogger(__name__)

KERNEL_CAPABILITY = (8, 0)
"""Of the first GPUs that have the kernel of packed trees."""
MAX_SHIFT, MEAN_SHIFT = 0.15, 0.02
"""How far 8 bits may move a probability, at most and on average; see docs/ENGINES.md."""
_TRIALS = 4


def serving_decoder(loaded: LoadedModel, *, fp8: bool = False) -> Decoder:
    """Return what answers questions with a model, which is changed for it and cannot be trained or saved any more.

    Args:
        loaded: In evaluation mode.
        fp8: Whether frozen products are made in 8-bit floats, if that moves the probabilities of some test pictures no
            further than `MAX_SHIFT`.

    Raises:
        ConfigError: 8 bits on a device without such units, in a long format, or with an adapter that is not merged.
        ModelUnavailable: 8 bits move the probabilities too far.
    """
    capability = torch.cuda.get_device_capability(loaded.device) if loaded.device.type == "cuda" else (0, 0)
    if fp8:
        _check_fp8(loaded, capability)
    if capability < KERNEL_CAPABILITY or loaded.precision.name == "fp32" or not loaded.spec.serves_tree:
        return decoder_of(loaded)
    use_aligned_mlps(loaded.base)
    if fp8:
        before = _probabilities(decoder_of(loaded))
        use_fp8_decoder(loaded.base)
        use_fp8_tower(loaded.base)
        _check_shift(before, _probabilities(decoder_of(loaded)))
    return PackedDecoder(loaded)


def _check_fp8(loaded: LoadedModel, capability: tuple[int, int]) -> None:
    if capability < FP8_CAPABILITY:
        raise ConfigError(
            f"precision fp8 needs a GPU of compute capability {FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]} or higher; this "
            f"is {loaded.device} with {capability[0]}.{capability[1]}. Use auto"
        )
    if loaded.precision.name != "bf16":
        raise ConfigError(f"precision fp8 is for models that run in bf16; this one runs in {loaded.precision.name}")
    if loaded.model is not loaded.base:
        raise ConfigError("precision fp8 needs the adapter merged into its base: `xray-vqa merge` writes such a model")


def _check_shift(before: torch.Tensor, after: torch.Tensor) -> None:
    shift = (after - before).abs()
    largest, mean = float(shift.max()), float(shift.mean())
    logger.info("8-bit products move probabilities by %.3f at most, %.4f on average", largest, mean)
    if not (largest <= MAX_SHIFT and mean <= MEAN_SHIFT):  # a number that is none is refused too
        raise ModelUnavailable(
            f"in 8 bits this model's probabilities differ by up to {largest:.3f} ({mean:.4f} on average) on test "
            f"pictures, more than {MAX_SHIFT} ({MEAN_SHIFT}); run it with precision auto"
        )


def _probabilities(decoder: Decoder) -> torch.Tensor:
    """Return what a model says of some noisy pictures of flat shapes, (pictures, categories) float32."""
    encoder, processor = decoder.encoder, decoder.loaded.processor
    generator = np.random.default_rng(0)
    frames: list[torch.Tensor] = []
    for _ in range(_TRIALS):
        side = processor.factor * 16
        picture = np.full((side, side, 3), 250, np.uint8)
        for _ in range(12):
            x, y, width, height = generator.integers(8, side // 2, 4)
            picture[y : y + height, x : x + width] = generator.integers(0, 256, 3)
        noise = generator.normal(0, 8, picture.shape)
        frames.append(torch.from_numpy((picture + noise).clip(0, 255).astype(np.uint8)))
    probes = [encoder.probe(category) for category in CATEGORIES]
    with torch.compiler.set_stance("force_eager"):
        _, logits = decoder.open(frames, [probes] * len(frames))
    pairs = torch.stack(logits)[..., [encoder.yes_id, encoder.no_id]]
    return pairs.softmax(dim=-1)[..., 0]
