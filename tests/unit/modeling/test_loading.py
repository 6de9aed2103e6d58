"""Loading refuses what does not fit, and says what to do."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stand_ins.families import WIDTH, write_family

from xray_vqa.errors import IntegrityError, ModelUnavailable
from xray_vqa.modeling.loading import CARD_NAME, NANO_DIR, digest_of, load_model, read_card, write_card
from xray_vqa.modeling.precision import choose_precision
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.quantized import load_quantized, save_quantized
from xray_vqa.modeling.registry import QWEN2_5_VL, SPECS


def copy_of(model_dir: Path, target: Path) -> Path:
    shutil.copytree(model_dir, target)
    return target


def reseal(model_dir: Path) -> None:
    card = read_card(model_dir)
    assert card is not None
    write_card(model_dir, card)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_two_tokens(path: Path) -> None:
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[500:502]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(tokenizer))


def shift_colours(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.int8.safetensors", flip_a_bit),
        ("tokenizer.json", swap_two_tokens),
        ("tokenizer.json", Path.unlink),
        ("preprocessor_config.json", shift_colours),
        ("config.json", flip_a_bit),
    ],
)
def test_nano_with_a_file_of_another_version_is_refused_by_its_name(tmp_path: Path, name: str, change):
    model_dir = copy_of(NANO_DIR, tmp_path / "nano")
    change(model_dir / name)
    with pytest.raises(IntegrityError, match=re.escape(str(model_dir / name))):
        load_model(str(model_dir), device="cpu")


def test_weights_that_are_cut_off_are_refused_by_their_name_without_a_card_too(tmp_path: Path):
    model_dir = copy_of(NANO_DIR, tmp_path / "nano")
    (model_dir / CARD_NAME).unlink()
    weights = model_dir / "model.int8.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(ModelUnavailable, match="int8"):
        load_model(str(model_dir), device="cpu")


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_broken_card_is_named(tmp_path: Path, text: str):
    (tmp_path / CARD_NAME).write_text(text)
    with pytest.raises(ModelUnavailable, match=CARD_NAME):
        read_card(tmp_path)


def test_the_shipped_nano_is_whole():
    card = read_card(NANO_DIR)
    assert card is not None
    assert {"model.int8.safetensors", "tokenizer.json", "preprocessor_config.json", "config.json"} <= set(card.digests)
    load_model("nano", device="cpu")


def test_a_model_of_another_prompt_version_is_refused(tiny_model_dir: Path, tmp_path: Path):
    model_dir = copy_of(tiny_model_dir, tmp_path / "old")
    card = read_card(model_dir)
    assert card is not None
    write_card(model_dir, card.model_copy(update={"prompt_version": "0"}))
    with pytest.raises(ModelUnavailable, match="prompt version 0"):
        load_model(str(model_dir))


def test_a_model_of_another_processor_is_refused(tiny_model_dir: Path, tmp_path: Path):
    model_dir = copy_of(tiny_model_dir, tmp_path / "other")
    Processor(max_pixels=100_000).save(model_dir)
    reseal(model_dir)
    with pytest.raises(ModelUnavailable, match="processor"):
        load_model(str(model_dir))


def test_an_adapter_that_was_trained_at_another_image_size_is_loaded_at_that_size(tiny_model_dir: Path, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    adapter_dir = tmp_path / "adapter"
    training = load_model(str(tiny_model_dir), device="cpu", max_pixels=100_000)
    lora = LoraConfig(r=2, target_modules=training.spec.lora_targets(), task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(training.model, lora).save_pretrained(adapter_dir)
    training.processor.save(adapter_dir)
    card = read_card(tiny_model_dir)
    assert card is not None
    write_card(adapter_dir, card.model_copy(update={"processor_version": training.processor.version}))
    loaded = load_model(str(tiny_model_dir), adapter=str(adapter_dir), device="cpu")
    assert loaded.processor == training.processor
    assert loaded.processor.max_pixels == 100_000


def test_weights_that_can_run_code_are_not_loaded(tiny_model_dir: Path, tmp_path: Path):
    model_dir = copy_of(tiny_model_dir, tmp_path / "pickled")
    (model_dir / CARD_NAME).unlink()
    for path in model_dir.glob("*.safetensors"):
        path.rename(model_dir / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable):
        load_model(str(model_dir))
    with pytest.raises(ModelUnavailable, match="can run code"):
        digest_of(model_dir)


def test_an_unknown_family_names_the_known_ones(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 64}))
    with pytest.raises(ModelUnavailable, match="qwen2_5_vl"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", {"image_processor_type": "SiglipImageProcessor"}, "cut the way"),
        ("preprocessor_config.json", {"patch_size": 16}, "patch"),
        ("config.json", {"image_token_id": 5}, "image's place"),
    ],
)
def test_an_unknown_family_that_gets_its_images_otherwise_is_refused(tmp_path: Path, file, change, message):
    model_dir = write_family("qwen2_vl", tmp_path)
    path = model_dir / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelUnavailable, match=message):
        load_model(str(model_dir), device="cpu")


def test_an_unknown_family_that_counts_places_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

    def flat(self, ids, **_):
        return torch.arange(ids.shape[1]).expand(3, 1, -1), None

    monkeypatch.setattr(Qwen2VLModel, "get_rope_index", flat)
    with pytest.raises(ModelUnavailable, match="counts the places"):
        load_model(str(write_family("qwen2_vl", tmp_path)), device="cpu")


def test_an_unknown_family_says_everything_that_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    loaded = load_model(str(write_family("qwen2_vl", tmp_path)), device="cpu")
    told = [record.getMessage() for record in caplog.records if "off for qwen2_vl" in record.getMessage()]
    words = ("packed training", "one pass", "compiling", "vision attention", "conformance", "thousandths")
    assert len(told) == len(words) == len(loaded.spec.limits)
    for word, line in zip(words, told, strict=True):
        assert word in line


def test_a_size_that_is_not_free_for_any_use_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    assert "no commercial use" in (QWEN2_5_VL.licence_note(2048) or "")  # the 3B
    assert QWEN2_5_VL.licence_note(3584) is None  # the 7B
    monkeypatch.setitem(SPECS, "qwen2_5_vl", replace(QWEN2_5_VL, licences=((WIDTH, "not for sale"),)))
    load_model(str(write_family("qwen2_5_vl", tmp_path)), device="cpu")
    assert "not for sale" in caplog.text


def test_a_folder_without_a_model_and_a_wrong_path_are_told_apart(tmp_path: Path):
    with pytest.raises(ModelUnavailable, match="holds no model"):
        load_model(str(tmp_path))
    with pytest.raises(ModelUnavailable, match="no such folder"):
        load_model("./nowhere")


def test_an_adapter_that_changes_nothing_is_refused(tiny_model_dir: Path, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    loaded = load_model(str(tiny_model_dir), device="cpu")
    lora = LoraConfig(r=2, target_modules=loaded.spec.lora_targets(), task_type="CAUSAL_LM")
    get_peft_model(loaded.model, lora).save_pretrained(tmp_path / "adapter")  # lora_B starts as zeros
    with pytest.raises(ModelUnavailable, match="changes nothing"):
        load_model(str(tiny_model_dir), adapter=str(tmp_path / "adapter"), device="cpu")


def test_an_adapter_s_weights_are_read_once(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from peft import LoraConfig, get_peft_model
    from peft.utils import load_peft_weights

    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    trained = get_peft_model(load_model(str(tiny_model_dir), device="cpu").model, lora)
    trained.save_pretrained(tmp_path / "adapter")
    read: list[str] = []

    def load_noted(folder: str, *rest: Any, **more: Any) -> dict[str, torch.Tensor]:
        read.append(folder)
        return load_peft_weights(folder, *rest, **more)

    monkeypatch.setattr("peft.peft_model.load_peft_weights", load_noted)
    found = load_model(str(tiny_model_dir), adapter=str(tmp_path / "adapter"), device="cpu").model
    assert read == [str(tmp_path / "adapter")]
    assert not any(weight.requires_grad for weight in found.parameters())
    expected, got = trained.state_dict(), found.state_dict()
    assert all(torch.equal(got[name], weight) for name, weight in expected.items() if "lora_" in name)


def test_int8_rows_come_back_within_half_a_step(tmp_path: Path):
    torch.manual_seed(0)
    state = {"a.weight": torch.randn(8, 16), "a.bias": torch.randn(8), "conv.weight": torch.randn(4, 3, 2, 2, 2)}
    error = save_quantized(state, tmp_path)
    back = load_quantized(tmp_path, torch.float32)
    assert set(back) == set(state)
    assert error < 0.02
    step = state["a.weight"].abs().amax(dim=1, keepdim=True) / 127
    assert bool(((back["a.weight"] - state["a.weight"]).abs() <= step / 2 + 1e-6).all())


@torch.no_grad()
def test_a_quantized_folder_loads_as_the_same_model(tiny_model_dir: Path, tmp_path: Path):
    """Weights, tied head and the rotary frequencies that no file holds: all of it has to arrive."""
    whole = load_model(str(tiny_model_dir), device="cpu")
    packed_dir = copy_of(tiny_model_dir, tmp_path / "packed")
    for path in packed_dir.glob("*.safetensors"):
        path.unlink()
    state = {name: weight for name, weight in whole.base.state_dict().items() if name != "lm_head.weight"}
    save_quantized(state, packed_dir)
    reseal(packed_dir)
    packed = load_model(str(packed_dir), device="cpu")
    ids = torch.arange(20, 40)[None]
    frame = torch.arange(112 * 84 * 3).reshape(84, 112, 3).remainder(251).to(torch.uint8)
    patches, grid = whole.processor.patches_of([frame])
    theirs, ours = (
        (m.base.model.visual(patches, grid_thw=grid).pooler_output, m.base(input_ids=ids).logits)
        for m in (whole, packed)
    )
    for expected, found in zip(theirs, ours, strict=True):
        assert float((expected - found).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize(
    ("wanted", "capability", "name"),
    [
        ("auto", None, "fp32"), ("bf16", None, "fp32"), ("auto", (7, 0), "fp16"), ("bf16", (7, 0), "fp16"),
        ("auto", (9, 0), "bf16"), ("fp32", (9, 0), "fp32"), ("fp16", (8, 0), "fp16"),
    ],
)  # fmt: skip
def test_precision_is_chosen_for_the_machine(wanted: str, capability: tuple[int, int] | None, name: str):
    chosen = choose_precision(wanted, capability)
    assert chosen.name == name
    assert chosen.reason
