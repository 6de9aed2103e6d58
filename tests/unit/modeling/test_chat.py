"""Prompts as token ids: what has to be one token is one."""

import pytest

from xray_vqa.core.geometry import Box
from xray_vqa.core.prompts import YES, prefix_text
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ModelUnavailable
from xray_vqa.modeling.chat import MAX_PROBE_TOKENS, PromptEncoder
from xray_vqa.modeling.loading import NANO_DIR
from xray_vqa.modeling.nano import train_tokenizer


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(train_tokenizer(["Is there a gun?"]))


def test_a_prefix_equals_the_tokenized_text_of_the_prompt(encoder: PromptEncoder):
    ids, image_start = encoder.prefix(3)
    assert ids == encoder.tokenizer(prefix_text(3), add_special_tokens=False)["input_ids"]
    assert ids[image_start : image_start + 3] == [encoder.image_pad_id] * 3
    assert encoder.image_pad_id not in ids[:image_start] + ids[image_start + 3 :]


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_probe_is_short_and_answered_by_one_token(encoder: PromptEncoder, category: str):
    branch = encoder.probe(category, present=True)
    assert len(branch.prompt) <= MAX_PROBE_TOKENS
    assert branch.answer == (encoder.yes_id,)
    assert encoder.tokenizer.decode(branch.prompt) == f"{category}:"
    assert encoder.tokenizer.decode([encoder.yes_id]) == YES


def test_boxes_are_told_in_reading_order_as_digits_and_marks(encoder: PromptEncoder):
    branch = encoder.boxes("Gun", [Box(100, 200, 50, 60), Box(7, 8, 9, 10)])
    text = encoder.tokenizer.decode(branch.answer)
    assert text == "007008016018<|box_start|>100200150260<|box_end|>"


def test_at_most_four_boxes_are_told(encoder: PromptEncoder):
    branch = encoder.boxes("Bullet", [Box(10 * k, 10, 5, 5) for k in range(7)])
    assert branch.answer.count(encoder.box_open_id) == 3
    assert branch.answer[-1] == encoder.box_close_id


def test_a_question_ends_with_the_mark_that_ends_answers(encoder: PromptEncoder):
    branch = encoder.question("What?", "A gun.")
    assert branch.answer[-1] == encoder.end_id
    assert encoder.decode(branch.answer) == "A gun."


def test_what_opens_an_answer_is_given_and_not_learnt(encoder: PromptEncoder):
    opened = PromptEncoder(encoder.tokenizer, "<think>\n\n</think>\n\n").question("What?", "A gun.")
    plain = encoder.question("What?", "A gun.")
    assert encoder.decode(opened.prompt) == encoder.decode(plain.prompt) + "\n<think>\n\n</think>"
    assert opened.answer == plain.answer


def test_a_tokenizer_that_splits_yes_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE(vocab={c: k for k, c in enumerate(" abcdefghijklmnopqrstuvwxyz")}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.Sequence([])
    with pytest.raises(ModelUnavailable, match="splits"):
        PromptEncoder(PreTrainedTokenizerFast(tokenizer_object=letters))


def test_the_shipped_tokenizer_knows_the_prompts():
    from transformers import AutoTokenizer

    encoder = PromptEncoder(AutoTokenizer.from_pretrained(NANO_DIR))
    assert all(len(encoder.probe(category).prompt) <= 4 for category in CATEGORIES)
    chat = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Gun?"}]}],
        tokenize=False, add_generation_prompt=True,
    )  # fmt: skip
    assert chat == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Gun?<|im_end|>\n<|im_start|>assistant\n"
    )
