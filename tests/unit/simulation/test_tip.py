"""Threats projected into pictures: against the simulator's own pictures with and without them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xray_vqa.core import workers
from xray_vqa.core.geometry import Box
from xray_vqa.core.manifest import make_manifest, read_manifest, sha256_bytes, write_manifest
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.dataset.layout import read_split, write_split
from xray_vqa.dataset.verify import verify_dataset
from xray_vqa.errors import ConfigError, DatasetError
from xray_vqa.simulation.detector import log_readings
from xray_vqa.simulation.packing import sample_scene
from xray_vqa.simulation.palette_inverse import equivalent_thickness, fit_palette, typical_look
from xray_vqa.simulation.placement import MAX_BOX_OVERLAP, Placer, find_bags
from xray_vqa.simulation.profile import PROFILE_NAMES, load_profile
from xray_vqa.simulation.raster import LineIntegrals
from xray_vqa.simulation.sensor import MAX_SHARPEN_P, sharpened, unsharpened
from xray_vqa.simulation.shadow import Shadow
from xray_vqa.simulation.shapes import build_item
from xray_vqa.simulation.simulate import simulate
from xray_vqa.simulation.tip import ScanRefused, margin_pixels, open_host, project
from xray_vqa.simulation.tip_dataset import PARTIAL_NAME, REPORT_NAME, project_dataset
from xray_vqa.simulation.tip_scan import TipSettings
from xray_vqa.simulation.view import open_view

PROFILES = [load_profile(name) for name in PROFILE_NAMES]
SIZE = (320, 240)


def picture(seed: int, profile: str = "sixray-white-like", size_wh: tuple[int, int] = SIZE) -> np.ndarray:
    spec = sample_scene(seed, size_wh=size_wh, threats=(), bag="suitcase", clutter_level=2)
    return simulate(spec, profile).image


def plate(top: int, left: int, polyethylene_cm: float, copper_cm: float, side: int = 20) -> Shadow:
    whole = np.ones((side, side), np.float32)
    return Shadow(top, left, whole * np.float32(polyethylene_cm), whole * np.float32(copper_cm))


@pytest.fixture(scope="module")
def host():
    return open_host(picture(3), PROFILES)


# --- Reading a picture back ------------------------------------------------------------------------------------------


def test_readings_give_back_the_thicknesses_that_made_them():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.1, 20, (1, 500)), rng.uniform(0, 0.8, (1, 500))
    p = log_readings(a, b)
    again = log_readings(*equivalent_thickness(p))
    assert np.abs(again - p)[:, p[1] < 5].max() < 0.01


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_the_unsharp_mask_comes_off(profile):
    """Steps of up to 4 in the log signal, whose rims reach the mask's limit."""
    look = typical_look(load_profile(profile))
    signal = np.random.default_rng(2).uniform(0.5, 4.5, (12, 16)).repeat(9, 0).repeat(9, 1).astype(np.float32)
    shown = sharpened(signal, look)
    assert np.abs(shown - signal).max() == pytest.approx(look.sharpen_gain * MAX_SHARPEN_P, rel=0.01)
    assert np.abs(unsharpened(shown, look) - signal).mean() < 0.02 < 0.1 < np.abs(shown - signal).mean()


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_the_palette_of_a_simulated_picture_explains_it(profile):
    assert fit_palette(picture(5, profile), PROFILES).round_trip_error < 3


def test_the_air_of_a_darker_picture_is_found():
    darker = (picture(5) * 0.76).astype(np.uint8)
    fit = fit_palette(darker, PROFILES)
    assert fit.air == pytest.approx((193, 193, 193), abs=2)
    assert fit.round_trip_error < 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image[..., [0, 2, 1]], "palette round trip"),
        (lambda image: 255 - image, "no air"),
        (lambda image: np.repeat(image.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1), "greyscale"),
        (lambda image: np.full_like(image, 255), "nothing but air"),
    ],
)
def test_a_picture_that_no_palette_explains_is_refused_with_its_reason(change, said):
    with pytest.raises(ScanRefused, match=said):
        open_host(change(picture(3)), PROFILES)


# --- Projection ------------------------------------------------------------------------------------------------------


def test_nothing_inserted_changes_nothing(host):
    result = project(host, [plate(90, 120, 0.0, 0.0)], noise_seed=1)
    assert np.array_equal(result.image, host.image)
    assert np.array_equal(result.p, host.p)


def test_the_order_of_threats_does_not_matter(host):
    threats = [plate(90, 120, 4.0, 0.0), plate(100, 130, 0.0, 0.1)]
    assert np.array_equal(project(host, threats, 1).image, project(host, threats[::-1], 1).image)


def test_no_byte_changes_beyond_the_margin_of_the_threat(host):
    result = project(host, [plate(90, 120, 1.0, 0.2)], noise_seed=1)
    changed = (result.image != host.image).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    margin = margin_pixels(host.fit.look)
    assert changed[90:110, 120:140].mean() > 0.95
    assert (rows[0], columns[0]) >= (90 - margin, 120 - margin)
    assert rows[-1] < 110 + margin
    assert columns[-1] < 140 + margin
    assert not changed[~result.touched].any()


def test_more_metal_is_darker_and_bluer(host):
    thin, thick = (project(host, [plate(90, 120, 0.0, cm)], 1).image[95:105, 125:135] for cm in (0.05, 0.3))
    before = host.image[95:105, 125:135]
    assert before.mean() > thin.mean() > thick.mean()
    assert (thin[..., 2].mean() - thin[..., 0].mean()) > (before[..., 2].mean() - before[..., 0].mean())


def test_with_raw_readings_the_logs_of_a_thin_plate_add(host):
    raw = log_readings(np.full(SIZE[::-1], 5.0), np.zeros(SIZE[::-1]))
    quiet = open_host(host.image, PROFILES, raw)
    added = project(quiet, [plate(90, 120, 0.5, 0.0)], noise_seed=1).p - raw
    expected = log_readings(5.5, 0.0) - log_readings(5.0, 0.0)
    assert added[:, 93:107, 123:137].mean((1, 2)) == pytest.approx(expected.ravel(), rel=0.1)


def test_readings_of_another_size_are_refused(host):
    with pytest.raises(ScanRefused, match="shape"):
        open_host(host.image, PROFILES, np.zeros((2, 10, 10), np.float32))


def test_inserting_is_nearer_to_the_simulators_own_picture_than_multiplying_or_pasting():
    """Scenes with and without a threat; the picture without it, threat projected, against the picture with it."""
    errors = []
    for seed in range(1, 76):  # of 25 the ratio below differs by a tenth from one draw of scenes to another
        profile = PROFILES[seed % len(PROFILES)]
        spec = sample_scene(seed, threats=(CATEGORIES[seed % len(CATEGORIES)],))
        with_it = simulate(spec, profile)
        if not with_it.annotations:
            continue
        empty = spec.model_copy(update={"threats": ()})
        without = simulate(empty, profile).image
        bare = spec.bag.model_copy(update={"density": 1e-6})
        alone = simulate(spec.model_copy(update={"bag": bare, "clutter": ()}), profile).image
        item, mask = spec.threats[0], with_it.masks[0]
        lines = LineIntegrals(spec.size_wh)
        view = open_view(spec.size_wh, spec.pixel_cm)
        shape = build_item(item.shape, item.variant)
        lines.draw(shape, item.rotation(), np.array(item.position_cm), item.scale, item.density, view)
        projected = project(open_host(without, [profile]), [Shadow(0, 0, lines.polyethylene, lines.copper)], 0).image
        multiplied = without * (alone / np.array(profile.palette.orange[-1]))
        truth = with_it.image[mask].astype(float)
        again = simulate(spec.model_copy(update={"noise_seed": spec.noise_seed + 1}), profile).image
        errors.append([np.abs(made[mask] - truth).mean() for made in (projected, multiplied, alone, again)])
    by_projection, by_product, by_pasting, by_second_exposure = np.mean(errors, axis=0)
    assert len(errors) >= 45
    assert by_projection < 10
    assert by_projection < 1.15 * by_second_exposure  # hardly farther than another scan of the same bag
    assert by_projection < 0.8 * by_product < by_pasting


# --- Placement -------------------------------------------------------------------------------------------------------


def test_threats_lie_inside_the_bag_beside_what_is_labelled(host):
    bags = find_bags(host)
    assert 0.2 < bags.inside.mean() < 0.95
    rng = np.random.default_rng(0)
    placer = Placer(host, bags, [])
    placed = [found for found in (placer.place(name, rng) for name in ("Gun", "Knife", "Lighter")) if found]
    assert len(placed) >= 2
    for number, one in enumerate(placed):
        rows, columns = (np.flatnonzero(one.shadow.mask.any(axis)) for axis in (1, 0))
        expected = (one.shadow.left, one.shadow.top, columns[-1] + 1, rows[-1] + 1)
        assert one.box.as_xywh() == expected
        assert bags.inside[one.shadow.window][one.shadow.mask].mean() > 0.98
        for other in placed[:number]:
            assert one.box.overlap(other.box) <= MAX_BOX_OVERLAP * min(one.box.area, other.box.area)


def test_nothing_is_placed_where_a_labelled_item_fills_the_bag(host):
    bags = find_bags(host)
    width, height = SIZE
    fenced = [Box(x, y, 8, 8) for x in range(0, width, 8) for y in range(0, height, 8)]
    assert Placer(host, bags, fenced).place("Knife", np.random.default_rng(0)) is None


# --- Datasets --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host_dir(tmp_path_factory) -> Path:
    """Six train scans, one of them colour-inverted, one a JPEG with a labelled knife, and a test scan."""
    root = tmp_path_factory.mktemp("host")
    records = {"train": [], "test": []}
    for split, count in (("train", 6), ("test", 1)):
        (root / split / "images").mkdir(parents=True)
        for number in range(count):
            image = picture(20 + number + (50 if split == "test" else 0))
            image = 255 - image if (split, number) == ("train", 2) else image
            name = f"{number:06d}.{'jpg' if number == 1 else 'png'}"
            path = root / split / "images" / name
            Image.fromarray(image).save(path)
            has_knife = (split, number) == ("train", 1)
            records[split].append(
                ScanRecord(
                    image_id=number, image_filename=name, image_path=f"{split}/images/{name}", width=SIZE[0],
                    height=SIZE[1], sha256=sha256_bytes(path.read_bytes()), caption="A suitcase.",
                    categories=["Knife"] if has_knife else [], bboxes=[(100.0, 100.0, 30.0, 12.0)] if has_knife else [],
                    group=f"{split}-bag-{number // 2}", source="coco/mine", licence="ours",
                    original_name=f"scan{number}",
                )
            )  # fmt: skip
        write_split(root, split, records[split])
    write_manifest(root, make_manifest("import", annotated_categories=["Gun", "Knife"]))
    return root


ALL = TipSettings(share=1.0, seed=4)


@pytest.fixture(scope="module")
def projected(host_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("tip") / "out"
    return root, project_dataset(host_dir, root, ALL)


def files_under(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def without_fits(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the report, whose figures the hand-made journal line of the test lacks."""
    return {name: data for name, data in files.items() if name != REPORT_NAME}


def test_a_projected_dataset_verifies_and_keeps_what_the_host_knew(projected, host_dir):
    root, report = projected
    assert verify_dataset(root).faults == []
    assert read_manifest(root).annotated_categories == ["Gun", "Knife"]
    before = {record.image_id: record for record in read_split(host_dir, "train").records}
    made = [record for record in read_split(root, "train").records if record.is_simulated]
    assert len(made) == report["counts"]["projected"] >= 4
    for record in made:
        host = before[record.image_id]
        old = len(host.categories)
        assert (record.group, record.licence, record.original_name) == (host.group, "ours", host.original_name)
        assert record.source == "tip/coco/mine@2"
        assert (record.categories[:old], record.bboxes[:old]) == (host.categories, host.bboxes)
        assert set(record.categories[old:]) <= {"Gun", "Knife"}
        assert record.caption == ""
        assert len(record.masks or []) == len(record.categories) > old


def test_boxes_bound_the_masks_and_other_pixels_are_the_hosts(projected, host_dir):
    root, _ = projected
    margin = max(margin_pixels(fit_palette(picture(20), PROFILES).look), 8)
    for record in read_split(root, "train").records:
        if not record.is_simulated:
            continue
        old = next(r for r in read_split(host_dir, "train").records if r.image_id == record.image_id)
        image, before = (
            np.asarray(Image.open(base / r.image_path).convert("RGB")) for base, r in ((root, record), (host_dir, old))
        )
        far = np.ones(image.shape[:2], bool)
        for box, mask in zip(record.bboxes, record.masks or [], strict=True):
            if mask is None:
                continue
            ends = np.cumsum(mask["counts"])
            flat = np.zeros(ends[-1], bool)
            for start, end in zip(ends[0:-1:2], ends[1::2], strict=False):
                flat[start:end] = True
            rows, columns = np.nonzero(flat.reshape(mask["size"], order="F"))
            assert box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            x, y, w, h = (int(value) for value in box)
            far[max(y - margin, 0) : y + h + margin, max(x - margin, 0) : x + w + margin] = False
        assert np.array_equal(image[far], before[far])
        assert not np.array_equal(image, before)


def test_a_refused_scan_is_named_and_goes_over_unchanged(projected, host_dir):
    root, report = projected
    assert [entry["image"] for entry in report["refused"]] == ["train/images/000002.png"]
    assert "no air" in report["refused"][0]["reason"]
    assert (root / "train/images/000002.png").read_bytes() == (host_dir / "train/images/000002.png").read_bytes()
    test = read_split(root, "test").records[0]
    assert (root / test.image_path).read_bytes() == (host_dir / "test/images/000000.png").read_bytes()


def test_two_workers_write_the_same_files_as_one(projected, host_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "MIN_JOBS", 2)
    report = project_dataset(host_dir, tmp_path / "out", ALL, workers=2)
    assert report == projected[1]
    assert files_under(tmp_path / "out") == files_under(projected[0])


def test_the_same_command_goes_on_where_it_was_killed(projected, host_dir, tmp_path):
    root, _ = projected
    whole = files_under(root)
    project_dataset(host_dir, tmp_path / "out", ALL)
    assert files_under(tmp_path / "out") == whole
    journal = tmp_path / "out/train" / PARTIAL_NAME
    records = json.loads((tmp_path / "out/train/annotations.json").read_text())
    lines = [
        json.dumps({"host_path": before.image_path, "result": "projected", "record": made})
        for before, made in zip(read_split(host_dir, "train").records, records, strict=True)
        if made["source"].startswith("tip/")
    ]
    (tmp_path / "out/train/annotations.json").unlink()
    (tmp_path / "out" / REPORT_NAME).unlink()
    for name in ("000003.png", "000004.png"):
        (tmp_path / "out/train/images" / name).unlink()
    journal.write_text(f"{lines[0]}\n{lines[-1][:60]}")  # killed in the middle of a line
    project_dataset(host_dir, tmp_path / "out", ALL)
    assert without_fits(files_under(tmp_path / "out")) == without_fits(whole)
    assert not journal.exists()


def test_other_settings_need_another_folder(projected, host_dir):
    with pytest.raises(DatasetError, match="seed"):
        project_dataset(host_dir, projected[0], ALL.model_copy(update={"seed": 5}))


def test_what_the_host_does_not_label_is_inserted_only_if_somebody_vouches(host_dir, tmp_path):
    explosives = TipSettings(count=1, categories=("Explosive",), only_projected=True)
    with pytest.raises(ConfigError, match=r"does not label Explosive.*--host-is-clean"):
        project_dataset(host_dir, tmp_path / "out", explosives)
    assert not (tmp_path / "out").exists()
    vouched = explosives.model_copy(update={"host_is_clean": True})
    project_dataset(host_dir, tmp_path / "out", vouched)
    assert read_manifest(tmp_path / "out").annotated_categories == ["Explosive", "Gun", "Knife"]
    (record,) = read_split(tmp_path / "out", "train").records
    assert "Explosive" in record.categories


def test_a_plain_folder_with_raw_readings_becomes_a_dataset(tmp_path):
    folder = tmp_path / "scans/belt 1"
    folder.mkdir(parents=True)
    image = picture(31)
    Image.fromarray(image).save(folder / "one.png")
    raw = open_host(image, PROFILES).p
    np.savez(folder / "one.npz", p=raw)
    (folder / "two.png").write_bytes(b"no image")
    settings = TipSettings(count=1, categories=("Gun",), host_is_clean=True)
    report = project_dataset(tmp_path / "scans", tmp_path / "out", settings)
    assert (report["counts"]["projected"], report["counts"]["faults"]) == (1, 1)
    (record,) = read_split(tmp_path / "out", "train").records
    assert (record.source, record.original_name) == ("tip/folder/scans@2", "belt 1/one.png")
    with np.load((tmp_path / "out" / record.image_path).with_suffix(".npz")) as arrays:
        assert (arrays["p"] - raw).max() > 0.2
    assert verify_dataset(tmp_path / "out").faults == []


def test_readings_that_are_none_refuse_the_scan(tmp_path):
    (tmp_path / "scans").mkdir()
    Image.fromarray(picture(31)).save(tmp_path / "scans/one.png")
    (tmp_path / "scans/one.npz").write_bytes(b"no readings")
    settings = TipSettings(count=1, categories=("Gun",), host_is_clean=True)
    report = project_dataset(tmp_path / "scans", tmp_path / "out", settings)
    assert "one.npz holds no array `p`" in report["refused"][0]["reason"]


def test_a_jpeg_stays_a_jpeg_where_that_is_wanted(host_dir, tmp_path):
    only_one = tmp_path / "scans"
    only_one.mkdir()
    shutil.copy(host_dir / "train/images/000001.jpg", only_one)
    settings = TipSettings(count=1, categories=("Gun",), host_is_clean=True, format="jpg")
    project_dataset(only_one, tmp_path / "out", settings)
    (record,) = read_split(tmp_path / "out", "train").records
    stored, host = (Image.open(path) for path in (tmp_path / "out" / record.image_path, only_one / "000001.jpg"))
    assert (stored.format, stored.quantization) == ("JPEG", host.quantization)
