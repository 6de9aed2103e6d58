"""What is written loads elsewhere, answers as what it was made from, and is refused where it does not fit."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from xray_vqa.core.manifest import read_manifest
from xray_vqa.errors import ConfigError, GateFailed, Incomplete, ModelUnavailable
from xray_vqa.modeling.compressed import _pack, _round_fp8, _round_int4, _unpack
from xray_vqa.modeling.export import embed_base, merge_adapter
from xray_vqa.modeling.loading import NANO_DIR, load_model, read_card, write_card
from xray_vqa.modeling.parity import Bounds, Said, Trial, compare

IDS = torch.arange(20, 60)[None]
RNG = np.random.default_rng(0)
TRIAL = Trial(
    [Image.fromarray(RNG.integers(0, 255, (112, 168, 3), dtype=np.uint8)) for _ in range(2)],
    [("What is in the bag?",)] * 2,
    "2 images of noise",
)


def write_adapter(base: str, adapter_dir: Path, *, std: float = 0.05) -> Path:
    """Write an adapter of the decoder as training does, its weights random."""
    from peft import LoraConfig, get_peft_model

    loaded = load_model(base, device="cpu")
    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=loaded.spec.lora_targets(), task_type="CAUSAL_LM")
    model = get_peft_model(loaded.model, lora)
    model.peft_config["default"].base_model_name_or_path = base
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    model.save_pretrained(adapter_dir, save_embedding_layers=False)
    card = read_card(Path(base)) if Path(base).is_dir() else None
    if card is not None:
        loaded.processor.save(adapter_dir)
        write_card(adapter_dir, card.model_copy(update={"base_model": base, "base_digest": loaded.model_digest}))
    return adapter_dir


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(str(tiny_model_dir), tmp_path_factory.mktemp("export") / "adapter")


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@torch.no_grad()
def states_of(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).last_hidden_state


def test_a_merged_model_loads_by_transformers_alone_and_answers_as_the_adapter(adapter_dir, tiny_model_dir, tmp_path):
    from transformers import AutoModel, AutoModelForImageTextToText

    parity = merge_adapter(adapter_dir, tmp_path / "merged", precision="fp32", trial=TRIAL)
    ours = load_model(str(adapter_dir), device="cpu")
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    base = AutoModelForImageTextToText.from_pretrained(tiny_model_dir)
    torch.testing.assert_close(logits_of(theirs), logits_of(ours.model), atol=1e-4, rtol=0)
    assert float((logits_of(theirs) - logits_of(base)).abs().max()) > 0.1
    bare = AutoModel.from_pretrained(tmp_path / "merged")  # the guide's line
    torch.testing.assert_close(states_of(bare), states_of(ours.base.model), atol=1e-4, rtol=0)
    assert parity is not None
    assert parity.equal_texts == parity.equal_decisions == 1
    assert read_manifest(tmp_path / "merged").checks["parity"] == parity.record()


@pytest.mark.parametrize("form", ["safetensors", "fp8", "int4"])
def test_every_form_is_read_back_and_is_unlike_the_base(adapter_dir, tiny_model_dir, tmp_path, form):
    parity = merge_adapter(adapter_dir, tmp_path / "merged", form=form, trial=TRIAL)
    assert parity is not None
    assert 0 < parity.mean_difference < parity.mean_from_base / 2
    again = load_model(str(tmp_path / "merged"), device="cpu")
    assert float((logits_of(again.model) - logits_of(load_model(str(tiny_model_dir)).model)).abs().max()) > 0.1
    mode = (tmp_path / "merged" / "model.safetensors").stat().st_mode
    assert mode & 0o044 == 0o044  # another user can serve it


@pytest.mark.parametrize("form", ["fp8", "int4"])
def test_transformers_reads_the_same_weights_out_of_the_short_forms(adapter_dir, tmp_path, form):
    pytest.importorskip("compressed_tensors", reason="needs the extra `compressed`")
    from transformers import AutoModelForImageTextToText

    merge_adapter(adapter_dir, tmp_path / "merged", form=form, trial=None)
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    logits_of(theirs)  # they are widened by the first use
    ours = load_model(str(tmp_path / "merged"), device="cpu").base.state_dict()
    found = dict(theirs.named_parameters())
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        weight = f"model.language_model.layers.0.{name}.weight"
        assert torch.equal(found[weight], ours[weight])


@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.integers(-8, 7), min_size=8 * n, max_size=8 * n)))
def test_packed_codes_come_back(codes: list[int]):
    tensor = torch.tensor([codes, codes[::-1]], dtype=torch.int32)
    assert torch.equal(_unpack(_pack(tensor)), tensor)


def test_the_first_code_stands_in_the_lowest_bits():
    assert _pack(torch.tensor([[-7, -8, -8, -8, -8, -8, -8, 7]], dtype=torch.int32)).tolist() == [[0xF0000001 - 2**32]]


@given(st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_rounded_weights_are_near_and_zero_rows_stay_zero(seed: int, size: float):
    weight = torch.randn(4, 64, generator=torch.manual_seed(seed)) * size
    weight[0] = 0
    codes, scale = _round_fp8(weight)
    back = codes.float() * scale
    assert bool(((back - weight).abs() <= weight.abs() * 2**-4 + weight.abs().amax() * 2**-10).all())
    codes, scale = _round_int4(weight, 32)
    back = codes.float() * scale.float().repeat_interleave(32, dim=1)
    reach = weight.unflatten(1, (-1, 32)).abs().amax(dim=2).repeat_interleave(32, dim=1)
    assert bool(((back - weight).abs() <= 0.3 * reach).all())
    assert float((back - weight).norm() / weight.norm()) < 0.15
    assert not back[0].any()


def test_a_change_that_rounding_swallows_is_not_written(tiny_model_dir, tmp_path):
    adapter_dir = write_adapter(str(tiny_model_dir), tmp_path / "adapter", std=1e-6)
    with pytest.raises(GateFailed, match="what was learnt is lost"):
        merge_adapter(adapter_dir, tmp_path / "merged", trial=TRIAL)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def said(log_odds: list[float], *texts: str) -> Said:
    return Said(torch.tensor([log_odds]), list(texts))


BOUNDS = Bounds(0.1, 0.5, 0.75, 0.5)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        (said([2.1, -1.9, 1.0, -1.0], "a gun", "none"), None),
        (said([0.1, 0.1, 0.1, 0.1], "a gun", "none"), "learnt is lost"),
        (said([2.0, -2.0, 1.0, -0.4], "a gun", "none"), "max difference"),
        (said([float("nan"), -2.0, 1.0, -1.0], "a gun", "none"), "learnt is lost"),
        (said([2.0, -2.0, 1.0, -1.0], "a knife", "two"), "0.0% equal texts, less than 50%"),
    ],
)
def test_what_is_wrong_with_written_weights_is_said(written: Said, fault: str | None):
    adapter, base = said([2.0, -2.0, 1.0, -1.0], "a gun", "none"), said([0.0, 0.0, 0.0, 0.0], "", "")
    faults = compare(written, adapter, base, "").faults(BOUNDS)
    assert faults == [] if fault is None else any(fault in each for each in faults)


def test_half_of_the_decisions_turned_round_is_said():
    adapter, base = said([0.1, -0.1, 0.1, -0.1]), said([5.0, 5.0, 5.0, 5.0])
    (fault,) = compare(said([0.1, -0.1, 0.0, 0.01]), adapter, base, "").faults(BOUNDS)
    assert fault == "50.0% equal decisions, less than 75%"


def test_a_full_disk_leaves_nothing_and_says_what_to_do(adapter_dir, tmp_path, small_disk: Callable[..., Path]):
    disk = small_disk("2m")
    with pytest.raises(Incomplete, match="make room and start the same command again"):
        merge_adapter(adapter_dir, disk / "merged", trial=None)
    assert list(disk.iterdir()) == []


def test_an_output_folder_that_holds_something_is_left_alone(adapter_dir, tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        merge_adapter(adapter_dir, tmp_path / "merged", trial=None)


def test_plain_peft_gives_the_same_logits_and_names_are_those_that_vllm_maps(adapter_dir, tiny_model_dir):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    base = AutoModelForImageTextToText.from_pretrained(tiny_model_dir)
    theirs = PeftModel.from_pretrained(base, str(adapter_dir))
    ours = load_model(str(adapter_dir), device="cpu")
    torch.testing.assert_close(logits_of(theirs), logits_of(ours.model), atol=1e-5, rtol=0)
    # vLLM 0.33 takes `base_model.model.` off and turns `model.language_model.` into its own `language_model.model.`.
    vllm = re.compile(r"base_model\.model\.model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+\.lora_[AB]\.weight")
    assert all(vllm.fullmatch(name) for name in load_file(adapter_dir / "adapter_model.safetensors"))


def test_automodel_loads_the_adapter_on_a_base_that_it_finds_by_name(adapter_dir):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(adapter_dir)
    ours = load_model(str(adapter_dir), device="cpu").base.model
    torch.testing.assert_close(states_of(model), states_of(ours), atol=1e-4, rtol=0)
    with torch.no_grad():
        model.disable_adapters()
        assert float((states_of(model) - states_of(ours)).abs().max()) > 0.1


def test_automodel_loads_an_adapter_of_nano_whose_name_it_does_not_know(tmp_path):
    from transformers import AutoModel

    adapter_dir = write_adapter("nano", tmp_path / "adapter")
    embed_base(NANO_DIR, adapter_dir)
    model = AutoModel.from_pretrained(adapter_dir)
    ours = load_model(str(adapter_dir), device="cpu")
    torch.testing.assert_close(states_of(model), states_of(ours.base.model), atol=1e-4, rtol=0)
    assert float((states_of(model) - states_of(load_model("nano", device="cpu").base.model)).abs().max()) > 0.1


def test_a_base_that_others_find_by_its_name_is_not_copied(tiny_model_dir, tmp_path):
    embed_base(tiny_model_dir, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["renamed", "left out", "cut short"])
def test_an_adapter_that_fits_in_part_is_refused(adapter_dir, tmp_path, wrong):
    broken = Path(shutil.copytree(adapter_dir, tmp_path / "broken"))
    (broken / "xray_vqa.json").unlink()  # it would say so first
    path = broken / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "q_proj.lora_B" in name)
    weight = weights.pop(name)
    if wrong == "renamed":
        weights[name.replace("language_model", "decoder")] = weight
    save_file(weights, path)
    if wrong == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        ModelUnavailable, match="cannot be loaded" if wrong == "cut short" else r"q_proj\.lora_B"
    ) as error:
        load_model(str(broken), device="cpu")
    assert ("decoder" in str(error.value)) == (wrong == "renamed")


def test_a_checkpoint_that_lacks_a_weight_is_refused(tiny_model_dir, tmp_path):
    broken = Path(shutil.copytree(tiny_model_dir, tmp_path / "broken"))
    (broken / "xray_vqa.json").unlink()
    weights = load_file(broken / "model.safetensors")
    weights.pop(next(name for name in weights if "q_proj.weight" in name))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"missing 1 weights .*q_proj"):
        load_model(str(broken), device="cpu")


def test_a_checkpoint_in_another_short_form_is_refused(tiny_model_dir, tmp_path):
    other = Path(shutil.copytree(tiny_model_dir, tmp_path / "other"))
    (other / "xray_vqa.json").unlink()
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ModelUnavailable, match="quantized as awq"):
        load_model(str(other), device="cpu")
