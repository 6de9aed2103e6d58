"""Answers read out of a tree equal those of step-by-step generation, and stay within their grammar."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xray_vqa.core.prompts import MAX_BOXES
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.decoding import BoxGrammar, TextGrammar, TreeDecoder
from xray_vqa.modeling.loading import LoadedModel, load_model


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Path) -> LoadedModel:
    return load_model(str(tiny_model_dir), device="cpu")


def make_frame(loaded: LoadedModel, size_wh: tuple[int, int], seed: int) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    return torch.from_numpy(np.array(loaded.processor.resize(Image.fromarray(pixels))))


@torch.no_grad()
def greedy(loaded: LoadedModel, frame: torch.Tensor, prompt: list[int], steps: int) -> list[int]:
    """What plain greedy decoding of a separate sequence gives, without a cache."""
    grid = loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
    prefix, start = loaded.encoder.prefix(grid[0] * grid[1])
    patches, grid_thw = loaded.processor.patches_of([frame])
    ids = [*prefix, *prompt]
    for _ in range(steps):
        tensor = torch.tensor([ids])
        types = torch.zeros_like(tensor)
        types[0, start : start + grid[0] * grid[1]] = 1
        positions, _ = loaded.base.model.get_rope_index(tensor, mm_token_type_ids=types, image_grid_thw=grid_thw)
        logits = loaded.base(
            input_ids=tensor, position_ids=positions, pixel_values=patches, image_grid_thw=grid_thw
        ).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prefix) + len(prompt) :]


def test_text_of_several_branches_and_images_equals_separate_greedy_decoding(loaded: LoadedModel):
    decoder, encoder = TreeDecoder(loaded), loaded.encoder
    frames = [make_frame(loaded, (308, 224), 1), make_frame(loaded, (168, 280), 2)]
    questions = [["What is in the bag?", "Where?"], ["Is there a gun?"]]
    state, _ = decoder.open(frames, [[encoder.probe(c) for c in CATEGORIES[:3]]] * 2)
    grammars = [[TextGrammar(encoder, 7) for _ in row] for row in questions]
    decoder.extend(state, [[encoder.question(q) for q in row] for row in questions], grammars)
    for frame, row, row_grammars in zip(frames, questions, grammars, strict=True):
        for question, grammar in zip(row, row_grammars, strict=True):
            expected = greedy(loaded, frame, list(encoder.question(question).prompt), 7)
            upto = expected.index(encoder.end_id) if encoder.end_id in expected else len(expected)
            assert grammar.tokens == expected[:upto]


def test_images_read_together_give_what_each_gives_alone(loaded: LoadedModel):
    """Of several sizes, with one or two branches, and one with none, as a clean bag among others."""
    decoder, encoder = TreeDecoder(loaded), loaded.encoder
    frames = [make_frame(loaded, size, seed) for seed, size in enumerate([(308, 224), (168, 280), (224, 224)])]
    names = [["Gun"], [], ["Knife", "Blade"]]

    def read(chosen: list[int]) -> list[list[list[int]]]:
        state, _ = decoder.open([frames[k] for k in chosen], [[encoder.probe("Gun")]] * len(chosen))
        grammars = [[BoxGrammar(encoder) for _ in names[k]] for k in chosen]
        decoder.extend(state, [[encoder.boxes(name) for name in names[k]] for k in chosen], grammars)
        return [[grammar.tokens for grammar in row] for row in grammars]

    assert read([0, 1, 2]) == [read([k])[0] for k in range(3)]


def test_a_box_branch_says_nothing_but_boxes_even_with_random_weights(loaded: LoadedModel):
    decoder, encoder = TreeDecoder(loaded), loaded.encoder
    state, _ = decoder.open([make_frame(loaded, (224, 224), 3)], [[encoder.probe("Gun")]])
    grammar = BoxGrammar(encoder)
    decoder.extend(state, [[encoder.boxes("Gun")]], [[grammar]])
    assert 1 <= len(grammar.digits) <= MAX_BOXES
    assert all(len(digits) == 12 and digits.isdigit() for digits in grammar.digits)


def test_the_grammar_of_boxes_takes_back_what_the_encoder_tells(loaded: LoadedModel):
    from xray_vqa.core.geometry import Box

    branch = loaded.encoder.boxes("Gun", [Box(1, 2, 3, 4), Box(5, 6, 7, 8)])
    grammar = BoxGrammar(loaded.encoder)
    for token in branch.answer:
        assert not grammar.done
        assert token in grammar.allowed
        grammar.push(token)
    assert grammar.done
    assert grammar.digits == ["001002004006", "005006012014"]
