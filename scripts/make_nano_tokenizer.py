"""Make nano's tokenizer from the texts of the domain: prompts, category names, and template pairs about random scenes.

    python scripts/make_nano_tokenizer.py

Run once; weights belong to the tokenizer that they were trained with, so a new one means a new pre-training.
"""

import random
from pathlib import Path

from xray_vqa.cli.train import TemplateQuestions
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.modeling.loading import NANO_DIR
from xray_vqa.modeling.nano import PROCESSOR, train_tokenizer

NUM_SCENES = 20_000


def random_record(number: int) -> ScanRecord:
    """Return a record of a scene with none to three items anywhere."""
    rng = random.Random(number)
    categories: list[str] = rng.choices(CATEGORIES, k=rng.choice((0, 1, 1, 2, 3)))
    boxes: list[tuple[float, float, float, float] | None] = [
        (rng.uniform(0, 400), rng.uniform(0, 300), rng.uniform(20, 100), rng.uniform(20, 80)) for _ in categories
    ]
    return ScanRecord(
        image_id=number, image_filename="", image_path="", width=504, height=392, categories=categories, bboxes=boxes,
        sha256=str(number),
    )  # fmt: skip


def main(target: Path = NANO_DIR) -> None:
    questions = TemplateQuestions(per_scan=3, seed=0)
    texts = [f"{question}\n{answer}" for k in range(NUM_SCENES) for question, answer in questions(random_record(k))]
    target.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts).save_pretrained(target)
    PROCESSOR.save(target)
    print(f"{target}: from {len(texts)} pairs")


if __name__ == "__main__":
    main()
