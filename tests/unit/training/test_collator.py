"""What fine-tuning is fed: only what is known, only what fits, and never a cut image."""

from pathlib import Path

import pytest
from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import Annotation, PairMetadata, ScanRecord, VQAPair
from xray_vqa.dataset.layout import write_split
from xray_vqa.errors import DatasetError
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.nano import PROCESSOR, train_tokenizer
from xray_vqa.training.collator import ScanDataset
from xray_vqa.training.scans import TrainingScan, read_training_data

SIZE = (168, 112)


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(train_tokenizer(["Is there a gun?"]))


def make_scan(path: Path, annotations: tuple[Annotation, ...] = (), annotated=("Gun", "Knife")) -> TrainingScan:
    Image.new("RGB", SIZE, "white").save(path)
    return TrainingScan(path, SIZE, annotations, annotated, (("What is it?", "A gun."),), ("en",))


def make_dataset(scan: TrainingScan, encoder: PromptEncoder, **changes) -> ScanDataset:
    settings = {"max_seq_length": 512, "probes": True, "boxes": True} | changes
    return ScanDataset([scan], encoder, PROCESSOR, **settings)


def test_nothing_is_asked_about_categories_that_the_source_does_not_label(tmp_path: Path, encoder: PromptEncoder):
    scan = make_scan(tmp_path / "a.png", (Annotation("Gun", Box(10, 10, 50, 40)),))
    texts = [encoder.tokenizer.decode(b.prompt + b.answer) for b in make_dataset(scan, encoder).branches(scan)]
    assert texts[1:3] == ["Gun: yes", "Knife: no"]
    assert texts[3].startswith("Gun<|box_start|>010010060050")
    assert len(texts) == 4


def test_a_tree_that_is_too_long_loses_whole_branches_and_says_how_many(tmp_path: Path, encoder: PromptEncoder):
    scan = make_scan(tmp_path / "a.png")
    whole = make_dataset(scan, encoder)[0]["row"]
    cut = make_dataset(scan, encoder, max_seq_length=whole.input_ids.numel() - 1)
    assert cut.num_left_out() == 1
    row = cut[0]["row"]
    assert row.input_ids.numel() < whole.input_ids.numel()
    assert (row.input_ids == encoder.image_pad_id).sum() == (whole.input_ids == encoder.image_pad_id).sum()


def test_an_image_that_alone_is_too_long_is_an_error(tmp_path: Path, encoder: PromptEncoder):
    dataset = make_dataset(make_scan(tmp_path / "a.png"), encoder, max_seq_length=64)
    with pytest.raises(DatasetError, match="max_seq_length"):
        dataset[0]


def test_an_image_of_another_size_than_its_annotation_is_an_error(tmp_path: Path, encoder: PromptEncoder):
    dataset = make_dataset(make_scan(tmp_path / "a.png"), encoder)
    Image.new("RGB", (50, 60)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="annotation says"):
        dataset[0]


def make_files(root: Path, split: str = "train", num_scans: int = 20) -> Path:
    records = []
    for number in range(num_scans):
        path = root / "data" / split / "images" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(path)
        records.append(
            ScanRecord(
                image_id=number, image_filename=path.name, image_path=f"{split}/images/{path.name}", width=SIZE[0],
                height=SIZE[1], categories=[], bboxes=[], group=f"bag-{number // 2}",
            )
        )  # fmt: skip
    write_split(root / "data", split, records)  # type: ignore[arg-type]
    write_manifest(root / "data", make_manifest("synth", annotated_categories=["Gun"]))
    pairs = root / "pairs.jsonl"
    metadata = PairMetadata(image_id=0, question_type="presence", generated_by="template")
    write_jsonl(
        pairs,
        [
            VQAPair(image_path=r.image_path, question="Gun?", answer="No.", metadata=metadata).model_dump()
            for r in records
        ],
    )
    write_manifest(pairs, make_manifest("generate", dataset_root="data", split=split))
    return pairs


def test_a_tenth_by_group_is_held_out(tmp_path: Path):
    data = read_training_data(make_files(tmp_path))
    assert (len(data.train), len(data.development)) == (18, 2)
    train_bags = {int(s.image_path.stem) // 2 for s in data.train}
    assert train_bags.isdisjoint(int(s.image_path.stem) // 2 for s in data.development)


def test_pairs_of_the_test_split_are_not_trained_on(tmp_path: Path):
    with pytest.raises(DatasetError, match="test split"):
        read_training_data(make_files(tmp_path, split="test"))


def test_a_broken_line_is_named_by_number(tmp_path: Path):
    pairs = make_files(tmp_path)
    lines = pairs.read_text().splitlines()
    lines[4] = '{"image_path": "x"'
    pairs.write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=r"pairs\.jsonl:5"):
        read_training_data(pairs)


def test_an_image_without_annotation_is_named(tmp_path: Path):
    pairs = make_files(tmp_path)
    pairs.write_text(pairs.read_text().replace("000007.png", "000077.png"))
    with pytest.raises(DatasetError, match="000077"):
        read_training_data(pairs)
