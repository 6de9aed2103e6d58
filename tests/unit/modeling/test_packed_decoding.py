"""Packed trees read the answers that masked trees read, for any images and branches."""

from pathlib import Path

import pytest
import torch
from test_decoding import make_frame

from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.decoding import BoxGrammar, TextGrammar, TreeDecoder
from xray_vqa.modeling.loading import load_model
from xray_vqa.modeling.packed_decoding import IMAGES_AT_ONCE, PackedDecoder

SIZES = [(308, 224), (168, 280), (224, 224), (700, 84)]


@pytest.fixture(scope="module")
def masked(tiny_model_dir: Path) -> TreeDecoder:
    return TreeDecoder(load_model(str(tiny_model_dir), device="cpu"))


@pytest.fixture(scope="module")
def packed(tiny_model_dir: Path) -> PackedDecoder:
    return PackedDecoder(load_model(str(tiny_model_dir), device="cpu"))


@pytest.mark.parametrize("chosen", [[0], [3], [0, 1], [2, 0, 3, 1]])
def test_scores_equal_those_of_masked_trees(masked: TreeDecoder, packed: PackedDecoder, chosen: list[int]):
    frames = [make_frame(masked.loaded, SIZES[k], k) for k in chosen]
    probes = [[masked.encoder.probe(name) for name in CATEGORIES[: 20 - 3 * k]] for k in chosen]
    _, expected = masked.open(frames, probes)
    _, found = packed.open(frames, probes)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_answers_equal_those_of_masked_trees(masked: TreeDecoder, packed: PackedDecoder):
    """Of several images and lengths, one image without a branch; then more behind the same prefixes."""
    encoder = masked.encoder
    frames = [make_frame(masked.loaded, size, seed) for seed, size in enumerate(SIZES)]
    rounds = [
        [[encoder.boxes("Gun")], [], [encoder.boxes("Knife"), encoder.boxes("Blade")], [encoder.boxes("Gun")]],
        [[], [encoder.question("What is in the bag?"), encoder.question("Why?")], [], [encoder.question("Where?")]],
    ]

    def read(decoder: TreeDecoder | PackedDecoder) -> list[list[int]]:
        state, _ = decoder.open(frames, [[encoder.probe("Gun")]] * len(frames))
        answers: list[list[int]] = []
        for branches in rounds:
            grammars = [
                [BoxGrammar(encoder) if branches is rounds[0] else TextGrammar(encoder, 9) for _ in row]
                for row in branches
            ]
            decoder.extend(state, branches, grammars)
            answers += [grammar.tokens for row in grammars for grammar in row]
        return answers

    assert read(packed) == read(masked)


def test_a_question_without_a_probe_before_it(masked: TreeDecoder, packed: PackedDecoder):
    encoder, frame = masked.encoder, make_frame(masked.loaded, (308, 224), 5)

    def read(decoder: TreeDecoder | PackedDecoder) -> list[int]:
        state, logits = decoder.open([frame], [[]])
        assert logits[0].shape[0] == 0
        grammar = TextGrammar(encoder, 40)
        decoder.extend(state, [[encoder.question("What is in the bag? " * 8)]], [[grammar]])
        return grammar.tokens

    assert read(packed) == read(masked)


def test_nothing_of_an_earlier_scan_is_left(packed: PackedDecoder):
    encoder = packed.encoder
    frames = [make_frame(packed.loaded, (308, 224), seed) for seed in (1, 2)]

    def read(frame: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        state, (logits,) = packed.open([frame], [[encoder.probe(name) for name in CATEGORIES]])
        grammar = BoxGrammar(encoder)
        packed.extend(state, [[encoder.boxes("Gun")]], [[grammar]])
        return logits, grammar.tokens

    logits, tokens = read(frames[0])
    read(frames[1])
    again, tokens_again = read(frames[0])
    assert torch.equal(logits, again)
    assert tokens == tokens_again


def test_trees_are_closed_when_others_are_opened(packed: PackedDecoder):
    frame, probe = make_frame(packed.loaded, (168, 168), 0), packed.encoder.probe("Gun")
    state, _ = packed.open([frame], [[probe]])
    packed.open([frame], [[probe]])
    with pytest.raises(ValueError, match="closed"):
        packed.extend(state, [[packed.encoder.boxes("Gun")]], [[BoxGrammar(packed.encoder)]])
    with pytest.raises(ValueError, match="at once"):
        packed.open([frame] * (IMAGES_AT_ONCE + 1), [[probe]] * (IMAGES_AT_ONCE + 1))
