"""Pairs whose texts all differ, as a language model writes them, made from pairs of templates that stay true.

To each question and answer is added who asked or said it: names that no lexicon knows, so that the meaning is kept.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from xray_vqa.core.jsonl import replacing
from xray_vqa.core.records import VQAPair

LATIN = [consonant + vowel for consonant in "bdklmprtvz" for vowel in "aeiou"]
SYLLABLES = {
    "ar": ["با", "تو", "جي", "كا", "مو", "ني", "را", "سو", "زي", "فا"],
    "ru": ["ба", "во", "ги", "ду", "жа", "зо", "ки", "лу", "ма", "ри"],
    "zh": list("甄邹郭彭魏蒋沈韩姚邵汪毛"),
}  # fmt: skip
SAID_BY = {
    "ar": " هذا ما قال {}", "en": " That is from {}", "es": " Es lo que dice {}", "fr": " C'est ce que dit {}",
    "ru": " Это говорит {}", "zh": "这是{}说的",
}  # fmt: skip
NUM_NAMES = 6


def vary(pairs_path: Path, output: Path, seed: int = 0) -> int:
    """Write the pairs of a file with texts that are met once each, and return how many."""
    chance = random.Random(seed)
    count = 0
    with pairs_path.open("rb") as lines, replacing(output) as stream:
        for line in lines:
            pair = VQAPair.model_validate_json(line)
            texts = {name: text + _said(pair.metadata.language, chance) for name, text in _texts(pair)}
            stream.write(pair.model_copy(update=texts).model_dump_json().encode() + b"\n")
            count += 1
    return count


def _texts(pair: VQAPair) -> Sequence[tuple[str, str]]:
    return (("question", pair.question), ("answer", pair.answer))


def _said(language: str, chance: random.Random) -> str:
    syllables = SYLLABLES.get(language, LATIN)
    names = ["".join(chance.choices(syllables, k=3)) for _ in range(NUM_NAMES)]
    return SAID_BY[language].format(("" if language == "zh" else " ").join(names)) + "."
