"""What fine-tuning is fed: only what is known, only what fits, and never a cut image."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from xray_vqa.config.train import MixFile
from xray_vqa.core.geometry import Box
from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import Annotation, PairMetadata, ScanRecord, VQAPair
from xray_vqa.dataset.layout import write_split
from xray_vqa.errors import DatasetError
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.nano import PROCESSOR, train_tokenizer
from xray_vqa.training.dense import UNKNOWN
from xray_vqa.training.inputs.augment import MIRRORINGS
from xray_vqa.training.inputs.collator import Augmentation, ScanDataset, collate
from xray_vqa.training.inputs.scans import Mix, TrainingScan, fingerprint, read_training_data

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
    left_out = cut.left_out(scan)
    assert left_out is not None
    assert (left_out.kind, left_out.pairs) == ("cut", 0)
    assert "1 probes and boxes do not fit into" in left_out.reason
    row = cut[0]["row"]
    assert row.input_ids.numel() < whole.input_ids.numel()
    assert (row.input_ids == encoder.image_pad_id).sum() == (whole.input_ids == encoder.image_pad_id).sum()


def test_a_question_that_does_not_fit_is_named_with_its_scan(tmp_path: Path, encoder: PromptEncoder):
    scan = replace(make_scan(tmp_path / "a.png"), pairs=(("What is it?", "A gun."), ("Where?", "Here. " * 40)))
    short = make_dataset(scan, encoder, max_seq_length=make_dataset(scan, encoder)[0]["row"].input_ids.numel() // 2)
    left_out = short.left_out(scan)
    assert left_out is not None
    assert (left_out.kind, left_out.path, left_out.pairs) == ("cut", str(scan.image_path), 1)
    assert "Where?" in left_out.reason


def test_an_image_that_alone_is_too_long_is_left_out_whole(tmp_path: Path, encoder: PromptEncoder):
    scan = make_scan(tmp_path / "a.png")
    left_out = make_dataset(scan, encoder, max_seq_length=64).left_out(scan)
    assert left_out is not None
    assert (left_out.kind, left_out.is_whole, left_out.pairs) == ("too long", True, 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_changes_while_it_is_trained_on_is_an_error_for_its_user(
    tmp_path: Path, encoder: PromptEncoder, num_workers: int
):
    dataset = make_dataset(make_scan(tmp_path / "a.png"), encoder)
    Image.new("RGB", (50, 60)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png: is 50x60, its annotation says 168x112"):
        next(iter(DataLoader(dataset, collate_fn=collate, num_workers=num_workers)))


def make_files(
    root: Path, split: str = "train", num_scans: int = 20, annotated: tuple[str, ...] = ("Gun",), bag: str = "bag"
) -> Path:
    records = []
    for number in range(num_scans):
        path = root / "data" / split / "images" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(path)
        records.append(
            ScanRecord(
                image_id=number, image_filename=path.name, image_path=f"{split}/images/{path.name}", width=SIZE[0],
                height=SIZE[1], categories=[], bboxes=[], group=f"{bag}-{number // 2}",
            )
        )  # fmt: skip
    write_split(root / "data", split, records)  # type: ignore[arg-type]
    write_manifest(root / "data", make_manifest("synth", annotated_categories=list(annotated)))
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
    data = read_training_data(pairs)
    assert len(data.scans) == 19
    assert [(each.kind, Path(each.path).name, each.pairs) for each in data.left_out] == [("entry", "000077.png", 1)]


def texts_of(dataset: ScanDataset, index: int) -> str:
    row = dataset[index]["row"]
    return dataset.encoder.tokenizer.decode(row.input_ids[row.segment_ids > 0].tolist())


def test_in_mixed_datasets_a_category_is_asked_only_where_its_source_labels_it(tmp_path: Path, encoder: PromptEncoder):
    first = make_files(tmp_path / "real")
    other = make_files(tmp_path / "sim", num_scans=4, annotated=("Gun", "Knife"), bag="synth")
    data = read_training_data(first, mix_files=[MixFile(file=other)])
    assert data.annotated == ("Gun", "Knife")
    dataset = ScanDataset(
        data.train, encoder, PROCESSOR, max_seq_length=512, probes=True, boxes=True, mixes=data.mixes
    )  # fmt: skip
    asked = [texts_of(dataset, index) for index in range(len(dataset))]
    assert len(asked) == 18 + 4
    assert not any("Knife:" in text for text in asked[:18])
    assert all("Gun:" in text and "Knife:" in text for text in asked[18:])


def test_mixed_scans_of_held_out_bags_are_left_out(tmp_path: Path):
    first, projected = make_files(tmp_path / "real"), make_files(tmp_path / "tip")
    data = read_training_data(first, mix_files=[MixFile(file=projected, weight=0.5)])
    assert len(data.mixes[0].scans) == 18  # of the 20, the two in the development part's bag are not there
    held_out = {scan.group for scan in data.development}
    assert held_out.isdisjoint(scan.group for scan in data.mixes[0].scans)
    assert fingerprint(data) != fingerprint(read_training_data(first))


def test_a_mix_with_a_weight_below_one_shows_other_scans_each_epoch(tmp_path: Path, encoder: PromptEncoder):
    scans = [make_scan(tmp_path / f"{number}.png") for number in range(9)]
    dataset = make_dataset(scans[0], encoder, mixes=[Mix(scans[1:], 0.25)])
    assert len(dataset) == 1 + 2
    seen = []
    for epoch in range(4):
        dataset.start_epoch(epoch)
        assert dataset.number_of(0) == 0
        seen += [dataset.number_of(index) for index in (1, 2)]
    assert sorted(seen) == list(range(1, 9))
    assert len(make_dataset(scans[0], encoder, mixes=[Mix(scans[1:], 2)])) == 1 + 16


def test_a_mirrored_item_shows_image_boxes_tokens_and_regions_alike(tmp_path: Path, encoder: PromptEncoder):
    """A dark square stands for the item; wherever a mirroring puts it, everything that is taught must follow."""
    image = Image.new("RGB", SIZE, "white")
    image.paste((0, 0, 0), (28, 0, 56, 28))
    pairs = (("Where is it?", "In the upper-left."), ("On which side?", "The left one."))
    scan = TrainingScan(
        tmp_path / "a.png", SIZE, (Annotation("Gun", Box(28, 0, 28, 28)),), ("Gun",), pairs, ("en", "en")
    )  # fmt: skip
    image.save(scan.image_path)
    dataset = make_dataset(scan, encoder, augmentation=Augmentation(mirror=True), dense=True)
    assert dataset.num_not_mirrored() == 1
    seen = set()
    for epoch in range(24):
        dataset.start_epoch(epoch)
        item, text = dataset[0], texts_of(dataset, 0)
        y, x = (int(at) for at in (item["frame"].float().mean(-1) < 128).nonzero().min(dim=0).values)
        seen.add((x, y))
        assert f"{x:03d}{y:03d}{x + 28:03d}{y + 28:03d}" in text
        assert f"{'upper' if y == 0 else 'lower'}-{'left' if x == 28 else 'right'}" in text
        assert ("side" in text) == ((x, y) == (28, 0))
        assert item["owner"].nonzero().flatten().tolist() == [y // 28 * 6 + x // 28]
        assert item["objects"][0, 1:].tolist() == pytest.approx([x / 168, y / 112, (x + 28) / 168, (y + 28) / 112])
    assert len(seen) == len(MIRRORINGS)


def test_an_item_depends_on_index_and_epoch_alone(tmp_path: Path, encoder: PromptEncoder):
    scan = make_scan(tmp_path / "a.png")
    augmentation = Augmentation(mirror=True, jitter=True, seed=3)
    one, other = (make_dataset(scan, encoder, augmentation=augmentation) for _ in range(2))
    for dataset in (one, other):
        dataset.start_epoch(5)
    assert (one[0]["recolouring"] == other[0]["recolouring"]).all()
    assert (one[0]["frame"] == other[0]["frame"]).all()
    one.start_epoch(6)
    assert (one[0]["recolouring"] != other[0]["recolouring"]).any()


def test_probes_alone_get_the_weight_of_probes(tmp_path: Path, encoder: PromptEncoder):
    scan = make_scan(tmp_path / "a.png", (Annotation("Gun", Box(10, 10, 50, 40)),))
    item = make_dataset(scan, encoder, probe_weight=5.0)[0]
    heavy = item["row"].labels[item["weights"] == 5]
    assert [label for label in heavy.tolist() if label != -100] == [encoder.yes_id, encoder.no_id]


def test_an_item_without_a_place_teaches_no_token_that_it_is_empty(tmp_path: Path, encoder: PromptEncoder):
    scan = make_scan(tmp_path / "a.png", (Annotation("Gun", None),))
    assert (make_dataset(scan, encoder, dense=True)[0]["owner"] == UNKNOWN).all()


def test_images_of_several_sizes_are_packed_together(tmp_path: Path, encoder: PromptEncoder):
    items = []
    for size in ((168, 112), (112, 112)):
        path = tmp_path / f"{size[0]}.png"
        Image.new("RGB", size).save(path)
        scan = TrainingScan(path, size, (), ("Gun",), (("What is it?", "Nothing."),), ("en",))
        items.append(make_dataset(scan, encoder, dense=True, augmentation=Augmentation(jitter=True))[0])
    batch = collate(items)
    assert next(iter(batch.values())).shape[0] == len(items)
    assert batch["weights"].shape == batch["input_ids"].shape == (1, sum(i["row"].input_ids.numel() for i in items))
    assert batch["image_grid_thw"].tolist() == [[1, 8, 12], [1, 8, 8]]
    assert batch["owner"].shape == (2, 24)
    assert (batch["owner"][1, 16:] == UNKNOWN).all()
    assert batch["recolouring"].shape == (2, 5)
