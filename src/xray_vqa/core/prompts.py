"""Every text that a model reads, under one version that stands in all artifacts.

One image has one prefix (`SYSTEM` and the image) and any number of branches behind it. The branches are short on
purpose: twenty probes are scored for each bag. A changed word here is a new `PROMPT_VERSION`, and models that were
trained or calibrated under another one are refused.
"""

PROMPT_VERSION = "2"

SYSTEM = (
    "You are an X-ray screening assistant. You see one dual-energy scan of a bag; orange is organic, green is mixed, "
    "blue is metal. After the image comes a category with a colon: answer yes if such an item is in the bag, else no. "
    "A category with a box mark: give the place of each such item. Otherwise answer the question in a few words."
)

YES = " yes"
NO = " no"
"""The two answers of a probe; each is one token in every supported tokenizer, which `modeling.chat` checks."""

PROBE_MARK = ":"
BOX_OPEN = "<|box_start|>"
BOX_CLOSE = "<|box_end|>"

MAX_BOXES = 4
"""A category is placed at most this often in one scan."""
DIGITS_PER_NUMBER = 3
NUMBERS_PER_BOX = 4
BOX_FRAME_LIMIT = 10**DIGITS_PER_NUMBER - 1
"""No coordinate of the model's frame may be larger: three digits hold it."""


def probe_text(category: str) -> str:
    """Return the branch that asks whether a category is in the bag; the next token is the answer."""
    return f"{category}{PROBE_MARK}"


def box_text(category: str) -> str:
    """Return the branch that asks for places; digits follow, then `BOX_OPEN` (one more) or `BOX_CLOSE` (done)."""
    return f"{category}{BOX_OPEN}"


def question_text(question: str) -> str:
    """Return the branch of a free question, in the chat form that Qwen2.5-VL was trained in."""
    return f"{question}<|im_end|>\n<|im_start|>assistant\n"


END_OF_ANSWER = "<|im_end|>"
IMAGE_PAD = "<|image_pad|>"


def prefix_text(num_image_tokens: int) -> str:
    """Return the text before all branches, with the image's placeholders in it."""
    image = f"<|vision_start|>{IMAGE_PAD * num_image_tokens}<|vision_end|>"
    return f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{image}"
