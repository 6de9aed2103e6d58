"""Products in 8-bit floats stay near what they round, whatever the size of their numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fused_lora import make_model, run

from xray_vqa.modeling.fp8 import LARGEST, Fp8Linear, quantise_rows, scaled_product, use_fp8_tower
from xray_vqa.modeling.fused_lora import fuse_adapters, use_fp8_products
from xray_vqa.modeling.loading import load_model

HALF_STEP = 2.0**-4
"""Of e4m3, whose numbers have three bits behind the point."""


@given(seed=st.integers(0, 1000), magnitude=st.integers(-20, 20))
@settings(deadline=None, max_examples=50)
def test_rounding_errs_by_half_a_step_at_any_magnitude(seed, magnitude):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, 40, generator=generator) * 2.0**magnitude
    narrow, scales = quantise_rows(rows)
    assert narrow.dtype == torch.float8_e4m3fn
    assert narrow.float().abs().max() <= LARGEST
    error = (narrow.float() * scales - rows).abs()
    # Below the smallest normal number, 2^-6 of 448, steps no longer shrink with the value.
    assert bool((error <= HALF_STEP * rows.abs() + scales * 2.0**-10).all())


def test_rows_of_zeros_stay_zeros():
    narrow, scales = quantise_rows(torch.zeros(2, 16))
    assert torch.equal(narrow.float() * scales, torch.zeros(2, 16))


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_errs_by_a_few_percent(bias):
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 48, bias=bias)
    x = torch.randn(2, 9, 256)
    expected = linear(x)
    found = Fp8Linear(linear)(x)
    assert found.shape == expected.shape
    assert (found - expected).norm() / expected.norm() < 0.05
    assert not torch.equal(found, expected)


def test_no_rows_give_no_rows():
    assert Fp8Linear(torch.nn.Linear(32, 16))(torch.zeros(1, 0, 32)).shape == (1, 0, 16)


def test_a_layer_follows_autocast_as_a_plain_one_does():
    layer = Fp8Linear(torch.nn.Linear(32, 16))
    assert layer(torch.randn(2, 32)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 32)).dtype == torch.bfloat16


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_adapters_over_8_bit_bases_learn_what_they_learn_over_wide_ones(dropout):
    model = make_model(lora_dropout=dropout).float()
    x = torch.randn(64, 12)
    fuse_adapters(model)
    expected = run(model, x)
    assert use_fp8_products(model) == 2
    found = run(model, x)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() / value.norm() < 0.15, name
    model.eval()
    with torch.no_grad():
        assert (model(x) - expected["result"]).norm() / expected["result"].norm() < (0.15 if not dropout else 2)


@torch.no_grad()
def test_a_vision_tower_in_8_bits_sees_nearly_the_same(tiny_model_dir):
    loaded = load_model(str(tiny_model_dir), device="cpu")
    visual = loaded.base.model.visual
    patches, grid = loaded.processor.patches_of([torch.randint(0, 255, (112, 168, 3), dtype=torch.uint8)])
    before = visual(patches, grid_thw=grid).pooler_output
    use_fp8_tower(loaded.base)
    after = visual(patches, grid_thw=grid).pooler_output
    assert 0 < (after - before).norm() / before.norm() < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_s_unit_gives_what_the_cpu_gives():
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(100, 64), torch.randn(48, 64), torch.randn(48).bfloat16()
    (narrow, scales), (wide, wide_scales) = quantise_rows(rows), quantise_rows(weight)
    expected = scaled_product(narrow, scales, wide, wide_scales, bias, torch.bfloat16)
    moved = [tensor.cuda() for tensor in (narrow, scales, wide, wide_scales, bias)]
    found = scaled_product(*moved, torch.bfloat16)
    torch.testing.assert_close(found.cpu(), expected, atol=0.1, rtol=0.02)
