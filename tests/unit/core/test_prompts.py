"""Every text that a model reads. A changed word is a new version, and this file is where that is noticed."""

import hashlib

from xray_vqa.core import prompts
from xray_vqa.core.taxonomy import CATEGORIES

DIGEST_OF_VERSION = {"2": "cff3a01e58c5af5f"}
"""Of all texts under a version. Where this fails, give the texts a new PROMPT_VERSION and add its digest."""


def all_texts() -> str:
    parts = [prompts.prefix_text(2), prompts.question_text("?"), prompts.YES, prompts.NO, prompts.END_OF_ANSWER]
    parts += [prompts.probe_text(category) + prompts.box_text(category) for category in CATEGORIES]
    parts += [prompts.BOX_OPEN, prompts.BOX_CLOSE, str(prompts.MAX_BOXES), str(prompts.DIGITS_PER_NUMBER)]
    return "\n".join(parts)


def test_a_changed_text_needs_a_new_version():
    digest = hashlib.sha256(all_texts().encode()).hexdigest()[:16]
    assert DIGEST_OF_VERSION.get(prompts.PROMPT_VERSION) == digest


def test_the_prefix_holds_a_placeholder_for_each_image_token_and_ends_with_the_image():
    prefix = prompts.prefix_text(7)
    assert prefix.count(prompts.IMAGE_PAD) == 7
    assert prefix.endswith(f"{prompts.IMAGE_PAD}<|vision_end|>")
    assert prompts.SYSTEM in prefix


def test_the_detecting_prefix_knows_nothing_of_declarations():
    assert "declar" not in prompts.prefix_text(1).lower()


def test_probes_and_boxes_of_a_category_begin_alike_and_end_differently():
    for category in CATEGORIES:
        assert prompts.probe_text(category) == f"{category}:"
        assert prompts.box_text(category) == f"{category}<|box_start|>"


def test_no_branch_begins_with_another_ones_whole_text():
    texts = [prompts.probe_text(category) for category in CATEGORIES]
    assert not [(a, b) for a in texts for b in texts if a != b and b.startswith(a)]


def test_a_free_question_hands_over_to_the_assistant():
    text = prompts.question_text("What is in the bag?")
    assert text.startswith("What is in the bag?<|im_end|>")
    assert text.endswith("<|im_start|>assistant\n")


def test_three_digits_hold_every_coordinate():
    assert prompts.BOX_FRAME_LIMIT == 999
    assert len(str(prompts.BOX_FRAME_LIMIT)) == prompts.DIGITS_PER_NUMBER
