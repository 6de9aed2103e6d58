"""What real X-ray data sets do, from end to end. Traps that a single format has are tested with that format.

An XML that names another file than the disk, a `<name>` inside `<owner>` and decimals in boxes: test_voc.py. Boxes four
times too large: test_via.py. EXIF rotation: test_frames.py.
"""

import io

import numpy as np
import pytest
from PIL import Image

from xray_vqa.core.images import read_image
from xray_vqa.core.manifest import sha256_bytes
from xray_vqa.core.taxonomy import canonical_category
from xray_vqa.dataset.importers import FORMATS, SourceFolder
from xray_vqa.dataset.importing import ImportOptions, import_source
from xray_vqa.dataset.layout import read_split

BOX = [4, 4, 20, 10]


def bring_in(folder, root, **options):
    return import_source(FORMATS["coco"].read(SourceFolder(folder)), root, ImportOptions(**options))


def encode(image: Image.Image, format_name: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name)
    return stream.getvalue()


def test_byte_equal_images_under_two_names_share_a_group_and_are_listed(coco, tmp_path):
    scans = [{"name": name, "seed": 1, "split": "train", "boxes": [("Gun", BOX)]} for name in ("P1.png", "P2.png")]
    report = bring_in(coco(scans), tmp_path / "out")
    one, other = read_split(tmp_path / "out", "train").records
    assert one.group == other.group != ""
    assert "P2.png is byte for byte the image images/P1.png" in str(report.copies[0])


def test_the_same_image_with_other_labels_is_listed_as_a_conflict(coco, tmp_path):
    scans = [{"name": f"{label}.png", "seed": 1, "boxes": [(label, BOX)]} for label in ("Gun", "Knife")]
    report = bring_in(coco(scans), tmp_path / "out")
    assert "their labels differ" in str(report.copies[0])


def test_views_of_one_bag_that_disagree_are_named(coco, tmp_path):
    scans = [{"name": "1a.png", "group": "1"}, {"name": "1b.png", "group": "1", "boxes": [("Knife", BOX)]}]
    report = bring_in(coco(scans), tmp_path / "out")
    said = "1 scans without an item share a group with scans that have one, first images/1a.png beside images/1b.png"
    assert any(said in str(notice) for notice in report.notices)
    assert report.counts["clean_beside_item"] == 1


def test_a_png_that_is_a_jpeg_gets_the_suffix_of_its_bytes_and_keeps_them(coco, tmp_path):
    data = encode(Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)), "JPEG")
    bring_in(coco([{"name": "a.png", "split": "train", "data": data}]), tmp_path / "out")
    (record,) = read_split(tmp_path / "out", "train").records
    assert (record.image_filename, record.original_name, record.sha256) == (
        "000000.jpg", "images/a.png", sha256_bytes(data),
    )  # fmt: skip
    assert (tmp_path / "out/train/images/000000.jpg").read_bytes() == data


@pytest.mark.parametrize("kind", ["L", "I;16", "P", "RGBA"])
def test_one_channel_sixteen_bit_and_transparent_scans_keep_their_bytes_and_become_rgb(coco, tmp_path, kind):
    ramp = np.tile(np.linspace(0, 255, 64), (48, 1))
    image = (
        Image.fromarray((ramp * 257).astype(np.uint16)) if kind == "I;16" else Image.fromarray(ramp.astype(np.uint8))
    )
    data = encode(image if kind == "I;16" else image.convert(kind), "PNG")
    report = bring_in(coco([{"name": "a.png", "split": "train", "data": data}]), tmp_path / "out")
    assert (tmp_path / "out/train/images/000000.png").read_bytes() == data
    shown = np.asarray(read_image(tmp_path / "out/train/images/000000.png"))
    assert (shown.shape, report.faults) == ((48, 64, 3), [])
    assert np.abs(shown[0, :, 0].astype(float) - ramp[0]).max() < 2


def test_a_folder_that_is_called_positive_makes_no_item(tmp_path, png):
    (tmp_path / "source/test_positiv").mkdir(parents=True)
    (tmp_path / "source/test_positiv/P0000.png").write_bytes(png(1))
    source = FORMATS["images"].read(SourceFolder(tmp_path / "source"))
    import_source(source, tmp_path / "out", ImportOptions(annotated=("Gun",)))
    (record,) = read_split(tmp_path / "out", "test").records
    assert record.categories == []


@pytest.mark.parametrize(
    ("spellings", "category"),
    [
        (("HandCuffs", "handcuff", "Hand_Cuffs", "HANDCUFFS "), "Handcuffs"),
        (("3D Gun", "3D printed gun", "3d-printed-gun", "3D_Gun"), "3D Gun"),
        (("Injection", "Syringe", "syringes"), "Injection"),
        (("Other Sharp Item", "Other Sharp Items", "Dart"), "Other Sharp Item"),
        (("Scissor", "scissors"), "Scissors"),
        (("Multi-tool_Knife", "Folding_Knife", "SwissArmyKnife", "Straight Knife"), "Knife"),
        (("Utility_Knife",), "Cutter"),
        (("Razor_blade", "Saw_blade"), "Blade"),
        (("Portable_Charger_1", "Powerbank", "power bank"), "Powerbank"),
        (("Nonmetallic_Lighter",), "Lighter"),
        (("Baton", "Sprayer", "Laptop", "Pressure_vessel", "Bat", ""), "UNLISTED"),
    ],
)
def test_sources_spell_one_category_in_many_ways(spellings, category):
    assert {canonical_category(spelling) for spelling in spellings} == {category}
