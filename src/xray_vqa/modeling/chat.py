"""Turns the prompts of `core.prompts` into token ids of one tokenizer, and checks that they are what they claim."""

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from xray_vqa.core import prompts
from xray_vqa.core.answers import format_box_digits
from xray_vqa.core.geometry import Box
from xray_vqa.errors import ModelUnavailable
from xray_vqa.modeling.prompt_tree import Branch

MAX_PROBE_TOKENS = 6


class PromptEncoder:
    """Token ids of prefixes and branches.

    Args:
        tokenizer: The model's.
        answer_opening: What stands before every answer to a free question; see `ModelSpec`.

    Raises:
        ModelUnavailable: The tokenizer splits what has to be one token: yes, no, a digit or one of Qwen's marks.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answer_opening: str = "") -> None:
        self.tokenizer = tokenizer
        self._answer_opening = answer_opening
        self.yes_id = self._single(prompts.YES)
        self.no_id = self._single(prompts.NO)
        self.digit_ids = tuple(self._single(str(digit)) for digit in range(10))
        self.box_open_id = self._single(prompts.BOX_OPEN)
        self.box_close_id = self._single(prompts.BOX_CLOSE)
        self.end_id = self._single(prompts.END_OF_ANSWER)
        self.image_pad_id = self._single(prompts.IMAGE_PAD)
        pad_id = tokenizer.pad_token_id
        self.pad_id = pad_id if isinstance(pad_id, int) else self.end_id
        self._encode = lru_cache(maxsize=4096)(self._encode_uncached)
        before, after = self._encode(prompts.prefix_text(0)), self._encode(prompts.prefix_text(1))
        self._image_start = next(at for at, token in enumerate(after) if token == self.image_pad_id)
        self._prefix_head = before[: self._image_start]
        self._prefix_tail = before[self._image_start :]

    def _single(self, text: str) -> int:
        ids = self._encode_uncached(text)
        if len(ids) != 1:
            raise ModelUnavailable(
                f"this tokenizer splits {text!r} into {len(ids)} tokens; the prompts need it to be one, "
                "so the model cannot be used"
            )
        return ids[0]

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prefix(self, num_image_tokens: int) -> tuple[list[int], int]:
        """Return the ids before all branches, and where in them the image starts."""
        image = [self.image_pad_id] * num_image_tokens
        return [*self._prefix_head, *image, *self._prefix_tail], self._image_start

    def probe(self, category: str, present: bool | None = None) -> Branch:
        """Return a category's probe, with its answer where it is known."""
        answer = () if present is None else (self.yes_id if present else self.no_id,)
        ids = self._encode(prompts.probe_text(category))
        if len(ids) > MAX_PROBE_TOKENS:
            raise ModelUnavailable(
                f"the probe of {category!r} takes {len(ids)} tokens, more than {MAX_PROBE_TOKENS}; shorten its name"
            )
        return Branch(ids, answer)

    def boxes(self, category: str, boxes: Sequence[Box] | None = None) -> Branch:
        """Return a category's box branch, with the places (in the model's frame) where they are known.

        Boxes are told in reading order, at most `MAX_BOXES` of them, so that one set has one answer.
        """
        prompt = self._encode(prompts.box_text(category))
        if boxes is None:
            return Branch(prompt)
        ordered = sorted(boxes, key=lambda box: (box.y, box.x))[: prompts.MAX_BOXES]
        answer: list[int] = []
        for box in ordered:
            answer.extend(self.digit_ids[int(digit)] for digit in format_box_digits(box))
            answer.append(self.box_open_id)
        answer[-1:] = [self.box_close_id]
        return Branch(prompt, tuple(answer))

    def question(self, question: str, answer: str | None = None) -> Branch:
        """Return the branch of a free question, with its answer where it is known."""
        prompt = self._encode(prompts.question_text(question) + self._answer_opening)
        if answer is None:
            return Branch(prompt)
        return Branch(prompt, (*self._encode(answer), self.end_id))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
