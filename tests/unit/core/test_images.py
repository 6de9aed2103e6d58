import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.core.images import (
    ImageLimits,
    KnownLooks,
    check_image,
    decode_image,
    image_header,
    input_faults,
    read_image,
)
from xray_vqa.errors import ImageUnreadable


def encode(image: Image.Image, format_name: str = "PNG", **settings) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **settings)
    return stream.getvalue()


def noise(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def code_of(data: bytes, **limits) -> str:
    with pytest.raises(ImageUnreadable) as caught:
        decode_image(data, ImageLimits(**limits))
    return caught.value.code


def huge_png(width: int, height: int) -> bytes:
    """A valid PNG of one bit a pixel, all black: a few KB that unpack to many MB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((width + 7) // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("format_name", "suffix"), [("PNG", "PNG"), ("BMP", "BMP"), ("JPEG", "JPEG")])
def test_known_formats_become_rgb(format_name, suffix):
    data = encode(noise(), format_name)
    image = decode_image(data)
    assert (image.mode, image.size, image_header(data)) == ("RGB", (96, 64), (suffix, (96, 64)))


def test_lossless_pixels_stay_as_they_are():
    assert np.array_equal(np.asarray(decode_image(encode(noise()))), np.asarray(noise()))


def test_16_bit_greyscale_is_scaled_and_not_clipped():
    levels = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16)[None, :], 64, axis=0)
    pixels = np.asarray(decode_image(encode(Image.fromarray(levels))))
    assert (pixels[0, 0].tolist(), pixels[0, -1].tolist()) == ([0, 0, 0], [255, 255, 255])
    assert abs(int(pixels[0, 32, 0]) - 129) <= 1  # 32/63 of the way up
    assert len(np.unique(pixels)) == 64


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white_the_colour_of_air(mode):
    image = Image.new(mode, (64, 64), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    image.paste((10, 20, 30, 255) if mode == "RGBA" else (10, 255), (0, 0, 32, 64))
    pixels = np.asarray(decode_image(encode(image)))
    assert pixels[0, 63].tolist() == [255, 255, 255]
    assert pixels[0, 0].tolist() == ([10, 20, 30] if mode == "RGBA" else [10, 10, 10])


def test_a_transparent_palette_colour_is_air_too():
    image = Image.new("P", (64, 64), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(0, (0, 0, 32, 64))
    pixels = np.asarray(decode_image(encode(image, transparency=0)))
    assert (pixels[0, 0].tolist(), pixels[0, 63].tolist()) == ([255, 255, 255], [200, 0, 0])


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = noise().convert(mode)
    assert decode_image(encode(image, "JPEG" if mode == "CMYK" else "PNG")).mode == "RGB"


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_truncated_jpeg_is_broken_and_not_half_grey(share):
    data = encode(noise(), "JPEG")
    assert code_of(data[: int(len(data) * share)]) == "broken_image"


def test_a_truncated_png_is_broken():
    assert code_of(encode(noise())[:-500]) == "broken_image"


def test_a_20000x20000_png_of_a_few_kb_is_refused_before_it_is_unpacked():
    data = huge_png(20_000, 20_000)
    assert len(data) < 100_000
    assert code_of(data) == "too_many_pixels"


def test_an_image_just_above_our_own_limit_is_refused():
    assert code_of(encode(noise()), max_pixels=96 * 64 - 1) == "too_many_pixels"
    assert decode_image(encode(noise()), ImageLimits(max_pixels=96 * 64)).size == (96, 64)


@pytest.mark.parametrize("data", [b"not an image", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", b"\0" * 1000, b"\xff\xd8\xff"])
def test_what_is_no_image_is_said_to_be_none(data):
    assert code_of(data) == "not_an_image"


@pytest.mark.parametrize("format_name", ["GIF", "TIFF", "WEBP", "ICO"])
def test_formats_that_no_scanner_exports_are_not_even_tried(format_name):
    assert code_of(encode(noise(64, 64), format_name)) == "not_an_image"


def test_nothing_is_empty():
    assert code_of(b"") == "empty"


def test_too_many_bytes_are_refused_unread():
    assert code_of(b"x" * 101, max_bytes=100) == "too_many_bytes"


def test_thumbnails_and_stripes_are_refused():
    assert code_of(encode(noise(31, 64))) == "too_small"
    assert code_of(encode(noise(32 * 21, 32))) == "too_narrow"
    assert decode_image(encode(noise(32 * 20, 32))).size == (640, 32)


def test_messages_do_not_repeat_the_decoders_text():
    with pytest.raises(ImageUnreadable) as caught:
        decode_image(b"not an image")
    assert "0x" not in str(caught.value)
    assert "BytesIO" not in str(caught.value)


def test_a_file_is_named_in_the_error(tmp_path):
    path = tmp_path / "scan.jpg"
    with pytest.raises(ImageUnreadable, match=r"scan\.jpg: cannot be read") as caught:
        read_image(path)
    assert caught.value.code == "missing"
    path.write_bytes(b"text")
    with pytest.raises(ImageUnreadable, match=r"scan\.jpg: the bytes are no image") as caught:
        read_image(path)
    assert caught.value.code == "not_an_image"


def test_an_empty_belt_is_a_fault_of_the_input_and_a_bag_is_not():
    assert input_faults(Image.new("RGB", (200, 200), (255, 255, 255)), KnownLooks()) == ("blank",)
    bag = Image.new("RGB", (200, 200), (255, 255, 255))
    bag.paste((200, 120, 40), (60, 60, 140, 140))
    assert input_faults(bag, KnownLooks()) == ()


def bag_picture() -> Image.Image:
    """An orange bag with something blue and something green in it, on white."""
    image = Image.new("RGB", (320, 240), "white")
    image.paste((236, 160, 70), (30, 30, 290, 210))
    image.paste((40, 70, 170), (90, 90, 230, 130))
    image.paste((80, 150, 90), (100, 150, 160, 190))
    return image


def framed() -> Image.Image:
    """Bright within and dim around, as many a photograph is."""
    image = Image.new("RGB", (320, 240), (190, 120, 50))
    image.paste("white", (60, 60, 260, 180))
    return image


def swapped(image: Image.Image) -> Image.Image:
    return Image.merge("RGB", image.split()[::-1])


@pytest.mark.parametrize(
    ("picture", "faults"),
    [
        (bag_picture(), ()),
        (Image.new("RGB", (320, 240), "black"), ("blank",)),
        (bag_picture().point(lambda value: value // 3), ("too_dark", "no_air_around")),
        (bag_picture().point(lambda value: 255 - value), ("too_dark", "no_air_around", "unknown_colours")),
        (bag_picture().convert("L").convert("RGB"), ("no_colour",)),
        (swapped(bag_picture()), ("unknown_colours",)),
        (framed(), ("no_air_around",)),
    ],
)
def test_a_picture_that_is_no_scan_of_a_known_look_says_why(picture, faults):
    found = input_faults(picture, KnownLooks())
    assert found == faults


def test_orange_with_violet_in_it_is_no_known_look():
    violet = bag_picture()
    violet.paste((150, 40, 200), (90, 90, 230, 130))
    assert input_faults(violet, KnownLooks()) == ("unknown_colours",)


def test_a_site_with_grey_scans_can_say_so():
    grey = bag_picture().convert("L").convert("RGB")
    assert input_faults(grey, KnownLooks(min_colour=0)) == ()


def test_colours_are_not_judged_by_a_few_pixels():
    speck = Image.new("RGB", (320, 240), "white")
    speck.paste((236, 160, 70), (30, 30, 290, 210))
    speck.paste((200, 210, 255), (100, 100, 116, 116))
    assert input_faults(speck, KnownLooks()) == ()


@pytest.mark.parametrize("options", [
    {"format": "JPEG", "quality": 90}, {"format": "JPEG", "progressive": True}, {"format": "JPEG", "subsampling": 0},
    {"format": "PNG"}, {"format": "BMP"},
])  # fmt: skip
@given(cut=st.floats(0, 1), garbage=st.binary(max_size=40), mode=st.sampled_from(["RGB", "L", "CMYK"]))
@settings(max_examples=60)
def test_checking_refuses_exactly_what_decoding_refuses(options, cut, garbage, mode):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode if options["format"] == "JPEG" or mode != "CMYK" else "RGB")
    stream = io.BytesIO()
    image.save(stream, **options)
    data = bytearray(stream.getvalue())
    place = int(cut * len(data))
    data[place : place + len(garbage)] = garbage
    for damaged in (bytes(data), bytes(data[:place])):
        assert verdict(check_image, damaged) == verdict(decode_image, damaged)


def verdict(function, data: bytes) -> str:
    try:
        function(data)
    except ImageUnreadable as error:
        return error.code
    return "whole"
