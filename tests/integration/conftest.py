"""What the tests of training share: a dozen scans with pairs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import PairMetadata, ScanRecord, VQAPair
from xray_vqa.dataset.layout import write_split

SIZE = (168, 112)


@pytest.fixture
def pairs_path(tmp_path: Path) -> Path:
    """Twelve scans with a box or none, and a question about each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    records = []
    for number in range(12):
        path = root / "train" / "images" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
        present = number % 2 == 0
        records.append(
            ScanRecord(
                image_id=number, image_filename=path.name, image_path=f"train/images/{path.name}", width=SIZE[0],
                height=SIZE[1], categories=["Gun"] if present else [], bboxes=[(10, 20, 60, 50)] if present else [],
                group=f"bag-{number}",
            )
        )  # fmt: skip
    write_split(root, "train", records)
    write_manifest(root, make_manifest("synth", annotated_categories=["Gun", "Knife"]))
    pairs = tmp_path / "pairs.jsonl"
    metadata = PairMetadata(image_id=0, question_type="presence", generated_by="template")
    write_jsonl(
        pairs,
        [
            VQAPair(
                image_path=r.image_path, question="Is there a gun?", answer="Yes." if r.categories else "No.",
                metadata=metadata,
            ).model_dump()
            for r in records
        ],
    )  # fmt: skip
    write_manifest(pairs, make_manifest("generate", dataset_root="data", split="train"))
    return pairs
