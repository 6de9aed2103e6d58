"""On a GPU, compiled and recorded: the same answers as the plain way, scan after scan."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_decoding import make_frame

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.decoding import BoxGrammar, Decoder
from xray_vqa.modeling.few_rows import FEW_ROWS, product_of_few_rows
from xray_vqa.modeling.fp8 import quantise_rows, scaled_product
from xray_vqa.modeling.loading import LoadedModel, load_model
from xray_vqa.modeling.packed_decoding import PackedDecoder
from xray_vqa.modeling.resampling import resize_bicubic
from xray_vqa.modeling.serving import serving_decoder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def load(model_dir: Path) -> LoadedModel:
    return load_model(str(model_dir), device="cuda", precision="bf16")


@pytest.fixture(scope="module")
def plain(tiny_model_dir: Path) -> Decoder:
    from xray_vqa.modeling.branch_rows import decoder_of

    return decoder_of(load(tiny_model_dir))


@pytest.fixture(scope="module")
def serving(tiny_model_dir: Path) -> PackedDecoder:
    decoder = serving_decoder(load(tiny_model_dir))
    assert isinstance(decoder, PackedDecoder)
    return decoder


def answers(decoder: Decoder, frames: list[torch.Tensor]) -> tuple[torch.Tensor, list[list[str]]]:
    """Log-odds of all probes, and the places of two categories of the first and one of each other image."""
    encoder = decoder.encoder
    state, logits = decoder.open(frames, [[encoder.probe(name) for name in CATEGORIES]] * len(frames))
    odds = torch.stack(logits)[..., encoder.yes_id] - torch.stack(logits)[..., encoder.no_id]
    names = [CATEGORIES[: 2 if at == 0 else 1] for at in range(len(frames))]
    grammars = [[BoxGrammar(encoder) for _ in row] for row in names]
    decoder.extend(state, [[encoder.boxes(name) for name in row] for row in names], grammars)
    return odds.cpu(), [grammar.digits for row in grammars for grammar in row]


@pytest.mark.parametrize("sizes", [[(308, 224)], [(756, 756)], [(224, 308), (560, 420), (84, 700)]])
def test_answers_equal_the_plain_ones_and_stay_so(plain: Decoder, serving: PackedDecoder, sizes: list[tuple[int, int]]):
    for seed in range(3):
        frames = [make_frame(plain.loaded, size, seed + at) for at, size in enumerate(sizes)]
        expected, _ = answers(plain, frames)
        found, places = answers(serving, frames)
        assert float((found - expected).abs().max()) < 0.1
        again, same_places = answers(serving, frames)
        assert torch.equal(found, again)
        assert places == same_places


def test_a_scan_of_a_recorded_size_is_not_answered_by_another(serving: PackedDecoder):
    """Two sizes of one number of tokens, and two scans of one size, in turn."""
    sizes = [(308, 224), (224, 308), (308, 224)]
    frames = [make_frame(serving.loaded, size, seed) for seed, size in enumerate(sizes)]
    alone = [answers(serving, [frame])[0] for frame in frames]
    for at in (2, 0, 1, 0, 2):
        assert torch.equal(answers(serving, [frames[at]])[0], alone[at])
    assert not torch.equal(alone[0], alone[2])


def test_resizing_gives_pillows_pixels():
    generator = np.random.default_rng(0)
    for width, height in ((768, 768), (1024, 640), (333, 1001)):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = np.asarray(Image.fromarray(pixels).resize((756, 504), Image.Resampling.BICUBIC))
        found = resize_bicubic(torch.from_numpy(pixels).cuda(), (756, 504))
        assert np.array_equal(found.cpu().numpy(), expected)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="needs 8-bit floats"
)
@pytest.mark.parametrize("shape", [(3584, 18944), (18944, 3584), (512, 3584), (100, 96)])
@pytest.mark.parametrize("count", [1, 5, FEW_ROWS])
def test_products_of_few_rows_equal_those_of_many(shape: tuple[int, int], count: int):
    generator = torch.Generator("cuda").manual_seed(0)
    matrix, factors = quantise_rows(torch.randn(shape, device="cuda", generator=generator))
    rows, scales = quantise_rows(torch.randn(count, shape[1], device="cuda", generator=generator))
    found = product_of_few_rows(rows, matrix).sum(dim=0) * scales * factors.T
    expected = (rows.float() * scales) @ (matrix.float() * factors).T
    assert float((found - expected).abs().max()) < 2e-3 * float(expected.abs().max())
    if shape[0] % 16 == 0:
        product = scaled_product(rows, scales, matrix, factors, None, torch.float32)
        assert float((found - product).abs().max()) < 2e-2 * float(expected.abs().max())
