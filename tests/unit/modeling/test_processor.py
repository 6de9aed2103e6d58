"""One way to see a scan, equal to transformers' own."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.core.geometry import Box
from xray_vqa.errors import ModelUnavailable
from xray_vqa.modeling.nano import PROCESSOR
from xray_vqa.modeling.processor import Processor, read_processor


def make_image(size_wh: tuple[int, int], seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("size_wh", [(504, 392), (512, 391), (390, 392), (700, 333), (64, 48), (959, 640)])
def test_patches_equal_those_of_transformers_pil_processor(size_wh: tuple[int, int]):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor, image = Processor(), make_image(size_wh)
    theirs = Qwen2VLImageProcessorPil(
        size={"shortest_edge": processor.min_pixels, "longest_edge": processor.max_pixels}
    )(images=[image], return_tensors="pt")
    patches, grid = processor.patches_of([torch.from_numpy(np.array(processor.resize(image)))])
    assert torch.equal(grid, theirs["image_grid_thw"])
    torch.testing.assert_close(patches, theirs["pixel_values"], atol=1e-6, rtol=0)


def test_images_of_two_sizes_keep_their_order():
    processor = Processor()
    frames = [torch.from_numpy(np.array(processor.resize(make_image(size)))) for size in ((112, 84), (56, 140))]
    patches, grid = processor.patches_of(frames)
    assert grid.tolist() == [[1, 6, 8], [1, 10, 4]]
    torch.testing.assert_close(patches[48:], processor.patchify(frames[1][None]))


sides = st.integers(32, 3000)


@given(st.integers(1, 13_000), st.integers(1, 13_000))
@example(1, 1)
@example(8, 8)
@example(12_000, 9_000)
@example(4_000, 60)
@example(5_000, 1)
def test_a_frame_of_any_scan_is_bounded_and_its_coordinates_fit_into_three_digits(width: int, height: int):
    processor = PROCESSOR
    rows, columns = processor.grid_hw(processor.frame_wh((width, height)))
    assert 1 <= rows * columns <= 256
    frame_width, frame_height = processor.frame_wh((width, height))
    assert max(frame_width, frame_height) <= 999
    assert frame_width % processor.factor == frame_height % processor.factor == 0
    assert frame_width * frame_height <= processor.max_pixels


@given(sides, sides, st.tuples(*[st.floats(0.0, 0.9)] * 2), st.tuples(*[st.floats(0.05, 0.5)] * 2))
def test_a_box_comes_back_from_the_frame(width: int, height: int, corner, extent):
    if max(width, height) > 20 * min(width, height):
        return
    processor = Processor()
    box = Box(corner[0] * width, corner[1] * height, extent[0] * width, extent[1] * height)
    back = processor.from_frame(processor.to_frame(box, (width, height)), (width, height))
    assert back.as_xywh() == pytest.approx(box.as_xywh())


def test_a_saved_configuration_reads_back(tmp_path):
    processor = Processor(min_pixels=6272, max_pixels=200_704)
    processor.save(tmp_path)
    assert read_processor(tmp_path / "preprocessor_config.json") == processor


def test_the_checkpoints_own_cap_of_12_megapixels_is_lowered(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14}')
    assert read_processor(path).max_pixels == Processor().max_pixels
    assert read_processor(path, max_pixels=250_880).max_pixels == 250_880


def test_a_missing_configuration_says_which_file(tmp_path):
    with pytest.raises(ModelUnavailable, match="preprocessor_config"):
        read_processor(tmp_path / "preprocessor_config.json")
