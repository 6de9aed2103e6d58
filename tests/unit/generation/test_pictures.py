"""The scan as it is sent: in the model's frame, and otherwise untouched."""

import base64
import hashlib
import io
from pathlib import Path

import pytest
from bags import make_record
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from xray_vqa.core.geometry import Box
from xray_vqa.core.records import ScanRecord
from xray_vqa.errors import ProviderError
from xray_vqa.generation.providers.pictures import Frame, Picture, open_picture

FRAME = Frame(max_side=1568, patch=28, max_patches=1568)
SIZES = st.tuples(st.integers(32, 6000), st.integers(32, 6000)).filter(lambda wh: max(wh) <= 20 * min(wh))
FRAMES = st.sampled_from([FRAME, Frame(max_side=2048, patch=32, max_patches=1536)])


def open_saved(tmp_path: Path, image: Image.Image, name: str = "a.jpg", **options: object) -> tuple[Picture, bytes]:
    path = tmp_path / name
    image.save(path, **options)
    return open_picture(path, record_of(image.size), FRAME), path.read_bytes()


def record_of(size_wh: tuple[int, int]) -> ScanRecord:
    return make_record(1).model_copy(update={"width": size_wh[0], "height": size_wh[1]})


def pixels_of(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture.data)))


def colours(size_wh: tuple[int, int], mode: str = "RGB") -> Image.Image:
    return Image.radial_gradient("L").resize(size_wh).convert(mode)


@given(SIZES, FRAMES)
def test_a_fitted_size_fits_and_keeps_its_shape(size_wh: tuple[int, int], frame: Frame):
    width, height = frame.fit(size_wh)
    assert max(width, height) <= frame.max_side
    assert frame.num_patches((width, height)) <= frame.max_patches
    assert width <= size_wh[0]
    assert height <= size_wh[1]
    # Whole pixels are all that the shape may give way by.
    assert abs(width * size_wh[1] - height * size_wh[0]) <= max(size_wh)
    assert frame.fit((width, height)) == (width, height)


@given(SIZES, FRAMES)
def test_what_fits_is_left_as_it_is_and_what_does_not_fills_the_frame(size_wh: tuple[int, int], frame: Frame):
    fitted = frame.fit(size_wh)
    if max(size_wh) <= frame.max_side and frame.num_patches(size_wh) <= frame.max_patches:
        assert fitted == size_wh
    else:
        nearly_full = frame.num_patches(fitted) > 0.9 * frame.max_patches
        assert nearly_full or max(fitted) >= frame.max_side - 1


@given(SIZES, st.tuples(*[st.floats(0.0, 1.0)] * 4), FRAMES)
def test_a_scaled_box_covers_the_same_part_of_the_scan(size_wh, corners, frame: Frame):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    if x1 - x0 < 0.01 or y1 - y0 < 0.01:
        return
    box = Box.from_xyxy(x0 * size_wh[0], y0 * size_wh[1], x1 * size_wh[0], y1 * size_wh[1])
    fitted = frame.fit(size_wh)
    scaled = box.scaled(fitted[0] / size_wh[0], fitted[1] / size_wh[1])
    assert scaled.as_xyxy() == pytest.approx((x0 * fitted[0], y0 * fitted[1], x1 * fitted[0], y1 * fitted[1]))
    assert scaled.clipped(fitted) is not None


@pytest.mark.parametrize(("name", "media_type"), [("a.jpg", "image/jpeg"), ("a.png", "image/png")])
def test_a_scan_that_fits_is_sent_byte_for_byte(tmp_path: Path, name: str, media_type: str):
    picture, data = open_saved(tmp_path, colours((640, 480)), name)
    assert base64.b64decode(picture.data) == data
    assert (picture.media_type, picture.size_wh) == (media_type, (640, 480))
    assert picture.uri.startswith(f"data:{media_type};base64,")


def test_a_large_scan_is_made_smaller(tmp_path: Path):
    picture, _ = open_saved(tmp_path, colours((3136, 1568)))
    assert picture.size_wh == pixels_of(picture).size
    assert max(picture.size_wh) <= 1568


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_what_others_would_show_differently_is_sent_as_we_see_it(tmp_path: Path, mode: str):
    image = Image.new("I;16", (64, 64), 60000) if mode == "I;16" else Image.new("RGBA", (64, 64), (9, 9, 9, 0))
    picture, _ = open_saved(tmp_path, image, "a.png")
    sent = pixels_of(picture)
    assert sent.mode == "RGB"
    # 60000 of 65535 is 233 of 255; what is transparent is air, which is white.
    assert sent.getpixel((9, 9)) == ((233, 233, 233) if mode == "I;16" else (255, 255, 255))


def test_a_tag_that_turns_the_picture_is_left_behind(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture, _ = open_saved(tmp_path, colours((200, 100)), exif=exif)
    assert pixels_of(picture).size == (200, 100)
    assert "exif" not in pixels_of(picture).info


def test_a_bitmap_is_sent_as_something_that_services_read(tmp_path: Path):
    picture, _ = open_saved(tmp_path, colours((200, 100)), "a.bmp")
    assert (picture.media_type, pixels_of(picture).format) == ("image/jpeg", "JPEG")


def test_a_heavy_file_is_sent_lighter(tmp_path: Path):
    path, size_wh = tmp_path / "a.png", (1248, 1248)  # 4.7 MB as stored, and 1,521 patches
    colours(size_wh).save(path, compress_level=0)
    picture = open_picture(path, record_of(size_wh), Frame(max_side=2048, patch=32, max_patches=1536))
    assert path.stat().st_size > 4_600_000
    assert len(base64.b64decode(picture.data)) < 1_000_000
    assert picture.size_wh == size_wh


def test_a_cut_off_file_is_not_sent(tmp_path: Path):
    path = tmp_path / "a.jpg"
    colours((400, 300)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ProviderError, match=r"a\.jpg: the image is cut off"):
        open_picture(path, record_of((400, 300)), FRAME)


def test_bytes_that_the_dataset_knows_are_not_decoded_again(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.jpg"
    colours((400, 300)).save(path)
    monkeypatch.delattr("xray_vqa.generation.providers.pictures.check_image")
    record = record_of((400, 300)).model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    assert open_picture(path, record, FRAME).size_wh == (400, 300)


def test_a_missing_file_and_another_size_are_named(tmp_path: Path):
    with pytest.raises(ProviderError, match="cannot be read: No such file"):
        open_picture(tmp_path / "none.jpg", record_of((400, 300)), FRAME)
    colours((400, 300)).save(tmp_path / "a.png")
    with pytest.raises(ProviderError, match="is 400x300, its annotations were drawn on 300x400"):
        open_picture(tmp_path / "a.png", record_of((300, 400)), FRAME)
