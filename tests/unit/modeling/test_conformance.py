"""What a family of models has to do to be called supported, tried on tiny random ones of each.

The reference is the model as transformers loads and calls it: one sequence, its own mask, positions and attention.
Families that nobody knows run the same tests: the safe mode is slow, not wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stand_ins.families import CONFIGS, write_family
from transformers import AutoModelForImageTextToText

from xray_vqa.core.answers import format_box_digits, parse_box_digits
from xray_vqa.core.geometry import Box
from xray_vqa.core.prompts import BOX_FRAME_LIMIT
from xray_vqa.modeling.branch_rows import decoder_of
from xray_vqa.modeling.decoding import BoxGrammar, TextGrammar
from xray_vqa.modeling.loading import LoadedModel, load_model
from xray_vqa.modeling.processor import PROCESSOR_NAME
from xray_vqa.modeling.prompt_tree import Branch, build_row
from xray_vqa.modeling.registry import SPECS
from xray_vqa.training.inputs.collator import collate, collate_rows
from xray_vqa.training.tree_trainer import TreeModel

FAMILIES = [*SPECS, *(name for name in CONFIGS if name not in SPECS)]
SIZES = [(308, 224), (130, 190)]


@dataclass
class Family:
    """A model of ours and the same one as transformers has it."""

    model_dir: Path
    loaded: LoadedModel
    reference: Any

    def frame(self, size_wh: tuple[int, int], seed: int) -> torch.Tensor:
        pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
        return torch.from_numpy(np.array(self.loaded.processor.resize(Image.fromarray(pixels))))

    def branches(self) -> list[Branch]:
        """Of four lengths, two of them alike."""
        encoder = self.loaded.encoder
        return [
            encoder.probe("Gun", present=True),
            encoder.probe("Knife", present=False),
            encoder.probe("Other Sharp Item", present=False),
            encoder.boxes("Knife", [Box(10, 20, 30, 40), Box(100, 5, 60, 70)]),
            encoder.question("What is in the bag?", "A gun in the upper-left."),
        ]

    def alone(self, frame: torch.Tensor, tokens: tuple[int, ...]) -> torch.Tensor:
        """The logits of a branch in a sequence of its own, (tokens, vocabulary)."""
        rows, columns = self.loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
        prefix, _ = self.loaded.encoder.prefix(rows * columns)
        ids = torch.tensor([[*prefix, *tokens]])
        patches, grid = self.loaded.processor.patches_of([frame])
        kinds = (ids == self.loaded.encoder.image_pad_id).int()
        return self.reference(
            input_ids=ids, mm_token_type_ids=kinds, pixel_values=patches, image_grid_thw=grid, use_cache=False
        ).logits[0, len(prefix) :]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    model_dir = write_family(request.param, tmp_path_factory.mktemp(request.param))
    reference = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32).eval()
    return Family(model_dir, load_model(str(model_dir), device="cpu"), reference)


def test_every_supported_family_is_tried_here_and_told_in_the_documents():
    assert set(SPECS) <= set(CONFIGS)
    document = (Path(__file__).parents[3] / "docs" / "MODELS.md").read_text()
    frames = {"pixels": "pixels of the resized image", "thousandths": "thousandths of width and height"}
    for spec in SPECS.values():
        served = "prompt tree" if spec.serves_tree else "copies of the prefix's state"
        trained = "packed trees" if spec.trains_packed else "padded rows"
        row = f"| {spec.title} | `{spec.model_type}` | {frames[spec.box_frame]} | {trained} | {served} |"
        assert row in document
        names = ", ".join(f"`{name}`" for name in spec.projections)
        assert f"| {spec.title} | {names} |" in document
        for _, note in spec.licences:
            assert note in " ".join(document.split())


def test_patches_equal_those_of_the_familys_own_processor(family: Family):
    # The one that AutoImageProcessor takes for each of them; by that name it asks for torchvision in 5.17.
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    theirs = Qwen2VLImageProcessorPil.from_pretrained(family.model_dir)
    processor = family.loaded.processor
    theirs.size = {"shortest_edge": processor.min_pixels, "longest_edge": processor.max_pixels}
    for seed, size in enumerate([(504, 392), (390, 393), (900, 333), (64, 48)]):
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
        expected = theirs(images=[image], return_tensors="pt")
        patches, grid = processor.patches_of([torch.from_numpy(np.array(processor.resize(image)))])
        assert torch.equal(grid, expected["image_grid_thw"])
        torch.testing.assert_close(patches, expected["pixel_values"], atol=1e-6, rtol=0)


@torch.no_grad()
def test_branches_get_the_logits_of_separate_sequences(family: Family):
    frames = [family.frame(size, seed) for seed, size in enumerate(SIZES)]
    branches = [[Branch(branch.prompt) for branch in family.branches()[skipped:]] for skipped in (0, 2)]
    _, logits = decoder_of(family.loaded).open(frames, branches)
    for frame, row, found in zip(frames, branches, logits, strict=True):
        expected = torch.stack([family.alone(frame, branch.prompt)[-1] for branch in row])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(found.argmax(-1), expected.argmax(-1))
    assert not torch.allclose(logits[0][-1], logits[1][-1], atol=1e-2)  # what is seen is not the same


@torch.no_grad()
def test_answers_equal_greedy_decoding_of_separate_sequences(family: Family):
    decoder, encoder = decoder_of(family.loaded), family.loaded.encoder
    frames = [family.frame(size, seed) for seed, size in enumerate(SIZES)]
    questions = [["What is in the bag?", "Where?", "What is in the box?"], ["Is there a gun?"]]
    state, _ = decoder.open(frames, [[encoder.probe("Gun")]] * 2)
    texts = [[TextGrammar(encoder, 6) for _ in row] for row in questions]
    decoder.extend(state, [[encoder.question(q) for q in row] for row in questions], texts)
    boxes = [[BoxGrammar(encoder)], []]
    decoder.extend(state, [[encoder.boxes("Gun")], []], boxes)
    for frame, row, grammars in zip(frames, questions, texts, strict=True):
        for question, grammar in zip(row, grammars, strict=True):
            ids = encoder.question(question).prompt
            told: list[int] = []
            while len(told) < 6 and (not told or told[-1] != encoder.end_id):
                told.append(int(family.alone(frame, (*ids, *told))[-1].argmax()))
            assert grammar.tokens == [token for token in told if token != encoder.end_id]
    ids = encoder.boxes("Gun").prompt
    for at, token in enumerate(boxes[0][0].tokens[:14]):
        logits = family.alone(frames[0], (*ids, *boxes[0][0].tokens[:at]))[-1]
        ends = (encoder.box_open_id, encoder.box_close_id)
        allowed = encoder.digit_ids if at % 13 < 12 else ends
        assert token == max(allowed, key=lambda one: float(logits[one]))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_has_the_loss_and_gradients_of_separate_sequences(family: Family, checkpointing: bool):
    loaded = load_model(str(family.model_dir), device="cpu")  # training changes how a model attends
    frames = [family.frame(size, seed) for seed, size in enumerate(SIZES)]
    items, total, count = [], torch.zeros(()), 0
    for frame, branches in zip(frames, [family.branches(), family.branches()[1:3]], strict=True):
        grid_hw = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
        row = build_row(*loaded.encoder.prefix(grid_hw[0] * grid_hw[1]), grid_hw, branches)
        items.append(
            {
                "frame": frame,
                "grid_thw": loaded.processor.patches_of([frame])[1][0],
                "row": row,
                "weights": torch.ones(row.labels.shape),
            }
        )
        for branch in branches:
            logits = family.alone(frame, (*branch.prompt, *branch.answer)[:-1])[-len(branch.answer) :]
            total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(branch.answer), reduction="sum")
            count += len(branch.answer)
    expected = total / count
    family.reference.zero_grad()
    expected.backward()
    batch = (collate if loaded.spec.trains_packed else collate_rows)(items)
    model = TreeModel(loaded).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    loss = model(**batch)["loss"]
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    gradients = {name: weight.grad for name, weight in loaded.base.named_parameters()}
    for name, weight in family.reference.named_parameters():
        if weight.grad is None:  # experts that nobody was sent to
            assert gradients[name] is None or not gradients[name].any()
            continue
        error = (gradients[name] - weight.grad).norm()
        assert error <= 1e-3 * weight.grad.norm() + 1e-6, name


@torch.no_grad()
def test_a_model_in_training_answers_as_before(family: Family):
    loaded = load_model(str(family.model_dir), device="cpu")
    TreeModel(loaded)
    frame, branches = family.frame(SIZES[0], 0), [Branch(branch.prompt) for branch in family.branches()]
    (found,), (expected,) = (decoder_of(model).open([frame], [branches])[1] for model in (loaded, family.loaded))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_an_adapter_sits_on_exactly_the_layers_that_the_family_names(family: Family):
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    loaded = load_model(str(family.model_dir), device="cpu")
    linear = {
        name
        for name, module in loaded.base.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv3d)
        and not name.endswith(("in_proj_a", "in_proj_b", "shared_expert_gate", "lm_head"))
    }
    decoder = {name for name in linear if name.startswith("model.language_model.layers.")}
    tower = {name for name in linear if name.startswith(("model.visual.blocks.", "model.visual.patch_embed."))}
    for vision in (False, True):
        if vision and not loaded.spec.is_known:
            continue
        targets = loaded.spec.lora_targets(vision=vision)
        model = get_peft_model(loaded.base, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
        adapted = {name for name, module in loaded.base.named_modules() if isinstance(module, LoraLayer)}
        assert adapted == (decoder | tower if vision else decoder)
        model.unload()


@torch.no_grad()
def test_a_saved_adapter_comes_back(family: Family, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    loaded = load_model(str(family.model_dir), device="cpu")
    lora = LoraConfig(r=2, target_modules=loaded.spec.lora_targets(), task_type="CAUSAL_LM", init_lora_weights=False)
    loaded.model = get_peft_model(loaded.base, lora)
    loaded.model.eval().save_pretrained(tmp_path)
    frame, branches = family.frame(SIZES[0], 0), [Branch(branch.prompt) for branch in family.branches()]
    expected = decoder_of(loaded).open([frame], [branches])[1][0]
    for merge in (False, True):
        again = load_model(str(family.model_dir), adapter=str(tmp_path), device="cpu", merge=merge)
        found = decoder_of(again).open([frame], [branches])[1][0]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(expected, decoder_of(family.loaded).open([frame], [branches])[1][0], atol=1e-2)


side = st.integers(40, 3000)
share = st.floats(0, 1)


@settings(max_examples=50)
@given(side, side, share, share, st.floats(0.02, 1), st.floats(0.02, 1))
def test_a_box_comes_back_from_its_digits_within_one_unit_of_the_frame(
    family: Family, width: int, height: int, left: float, top: float, wide: float, high: float
):
    if max(width, height) > 20 * min(width, height):
        return
    processor, size = family.loaded.processor, (width, height)
    box = Box(left * (1 - wide) * width, top * (1 - high) * height, wide * width, high * height)
    frame = processor.box_frame_wh(size)
    told = format_box_digits(processor.to_frame(box, size))
    assert len(told) == 12
    back = processor.from_frame(parse_box_digits(told, frame), size)
    unit = (width / frame[0], height / frame[1])
    for axis, (before, after) in enumerate(zip(box.as_xyxy(), back.as_xyxy(), strict=True)):
        assert abs(before - after) <= 1.001 * unit[axis % 2]


def test_the_middle_of_a_scan_is_told_in_the_units_of_the_family(family: Family):
    processor = family.loaded.processor
    told = format_box_digits(processor.to_frame(Box(250, 100, 250, 100), (500, 200)))
    width, height = processor.frame_wh((500, 200))
    if family.loaded.spec.box_frame == "pixels":
        assert max(width, height) <= BOX_FRAME_LIMIT
        assert told == f"{width // 2:03d}{height // 2:03d}{width:03d}{height:03d}"
    else:
        assert told == "500500999999"


def test_a_folder_that_is_written_keeps_the_familys_processor(family: Family, tmp_path: Path):
    from xray_vqa.modeling.processor import read_processor

    processor = family.loaded.processor
    processor.save(tmp_path)
    assert read_processor(tmp_path / PROCESSOR_NAME, box_frame=family.loaded.spec.box_frame) == processor
