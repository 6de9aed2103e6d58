"""nano: a Qwen2.5-VL small enough for a laptop, with a small tokenizer of its own.

The classes are transformers' own; only the numbers are small. It exists so that the whole product runs anywhere
through the code that carries the 7B, and it is not fit for screening.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2_5_VLConfig

from xray_vqa.core import prompts
from xray_vqa.core.geometry import REGIONS
from xray_vqa.core.taxonomy import CATEGORIES, names_of
from xray_vqa.modeling.processor import Processor

VOCABULARY_SIZE = 1024

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Qwen2.5-VL's own, in its order."""

# Qwen2's pre-tokenizer: contractions, words with their leading space, single digits, punctuation, white space.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# The form of Qwen2.5-VL's template for text and one image; the training prefix is rendered by core.prompts.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

PROCESSOR = Processor(min_pixels=56 * 56, max_pixels=256 * 28 * 28)


def build_config(
    tokenizer: PreTrainedTokenizerBase, *, vision_depth: int = 10, text_depth: int = 5
) -> Qwen2_5_VLConfig:
    """Return nano's configuration for a tokenizer. 13.6 million parameters with the default depths."""
    ids = {token: tokenizer.get_vocab()[token] for token in SPECIAL_TOKENS}
    text = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": text_depth,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": vision_depth,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_heads": 4,
        "out_hidden_size": 256,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [vision_depth // 2 - 1, vision_depth - 1],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with Qwen's special tokens, learned from texts of the domain.

    Any text can be encoded (bytes are the alphabet); texts like those it learned from take few tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=specials,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_domain_texts(), *texts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_CHAT_TEMPLATE,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def _domain_texts() -> list[str]:
    """What every prompt consists of, often enough that its words become single tokens."""
    probes = [text for category in CATEGORIES for text in (prompts.probe_text(category), f" {category.lower()}")]
    names = [f" {name}, {name} {name}s" for category in CATEGORIES for name in names_of(category)]
    regions = [f" {region}" for region in REGIONS]
    return [prompts.prefix_text(0), prompts.YES, prompts.NO, *probes, *names, *regions] * 20
