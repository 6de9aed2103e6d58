"""Fused adapters compute what PEFT's compute, forward and backward."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from xray_vqa.modeling.fused_lora import FusedLoraLinear, fuse_adapters


def make_model(*, bias: bool = True, **settings):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(12, 20, bias=bias), torch.nn.GELU(), torch.nn.Linear(20, 8, bias=bias))
    model = get_peft_model(layers, LoraConfig(r=4, lora_alpha=6, target_modules=["0", "2"], **settings)).double()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return model.train()


def run(model, x):
    """Return what comes out, and the gradients of the input and of the adapters, with dropout's numbers alike."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    result = model(x)
    result.square().sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad()
    return {"result": result.detach(), "x": x.grad, **gradients}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("rslora", [False, True])
def test_results_and_gradients_are_those_of_peft(bias, dropout, rslora):
    model = make_model(bias=bias, lora_dropout=dropout, use_rslora=rslora)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected = run(model, x)
    assert fuse_adapters(model) == 2
    found = run(model, x)
    assert len(found) == 2 + 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_what_is_not_plain_goes_peft_s_way():
    x = torch.randn(3, 12, dtype=torch.float64)
    model = make_model(use_dora=True)
    expected = run(model, x)
    fuse_adapters(model)
    torch.testing.assert_close(run(model, x), expected)
    model = make_model()
    fuse_adapters(model)
    with model.disable_adapter():
        bare = model(x)
    torch.testing.assert_close(bare, model.unload()(x))


def test_a_merged_model_gives_what_the_fused_one_gave():
    model, x = make_model(), torch.randn(3, 12, dtype=torch.float64)
    fuse_adapters(model)
    expected = model(x).detach()
    torch.testing.assert_close(model.merge_and_unload()(x), expected)


def test_under_autocast_products_are_narrow_and_gradients_wide():
    model = make_model().float()
    fuse_adapters(model)
    x = torch.randn(3, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        result = model(x)
    result.float().sum().backward()
    assert result.dtype == torch.bfloat16
    layer = model.base_model.model[0]
    assert isinstance(layer, FusedLoraLinear)
    assert layer.lora_A["default"].weight.grad.dtype == x.grad.dtype == torch.float32


def test_no_rows_give_no_rows_and_gradients_of_zero():
    """As where a process has an image from which nothing is learnt, at the end of an epoch."""
    model = make_model()
    fuse_adapters(model)
    x = torch.zeros(1, 0, 12, dtype=torch.float64, requires_grad=True)
    result = model(x)
    result.sum().backward()
    assert result.shape == (1, 0, 8)
    gradients = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert len(gradients) == 4
    assert not any(bool(gradient.any()) for gradient in gradients)
