"""Frames on disk: the same pixels as decoded, found by content, and never half of them."""

import multiprocessing
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.core.manifest import sha256_file
from xray_vqa.errors import ConfigError, Incomplete
from xray_vqa.modeling.processor import Processor
from xray_vqa.training.inputs import image_cache
from xray_vqa.training.inputs.image_cache import ImageCache, check_scans, read_frame
from xray_vqa.training.inputs.scans import TrainingScan

PROCESSOR = Processor(max_pixels=112 * 112)


def make_scan(path: Path, seed: int, size_wh: tuple[int, int] = (120, 90)) -> TrainingScan:
    pixels = np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return TrainingScan(path, size_wh, (), (), (("?", "."),), ("en",), sha256=sha256_file(path))


@pytest.fixture
def scans(tmp_path: Path) -> list[TrainingScan]:
    return [make_scan(tmp_path / f"{number}.png", number) for number in range(5)]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def assert_frames_are_right(cache: ImageCache, scans: Sequence[TrainingScan]) -> None:
    for scan in scans:
        np.testing.assert_array_equal(cache.frame(scan), read_frame(scan, PROCESSOR))


def test_a_second_start_needs_the_folder_alone(tmp_path, scans):
    assert ImageCache(tmp_path / "frames", PROCESSOR).add(scans) == {}
    expected = [read_frame(scan, PROCESSOR) for scan in scans]
    for scan in scans:
        scan.image_path.unlink()
    again = ImageCache(tmp_path / "frames", PROCESSOR)
    assert again.add(scans) == {}
    for scan, pixels in zip(scans, expected, strict=True):
        np.testing.assert_array_equal(again.frame(scan), pixels)


def test_what_is_new_is_added_and_what_is_there_is_left_alone(tmp_path, scans, monkeypatch):
    monkeypatch.setattr(image_cache, "SHARD_BYTES", 70_000)  # two frames of 112 x 84 pixels
    ImageCache(tmp_path / "frames", PROCESSOR).add(scans[:3])
    before = {shard: shard.stat().st_mtime_ns for shard in shards(tmp_path / "frames")}
    assert len(before) == 2
    cache = ImageCache(tmp_path / "frames", PROCESSOR)
    cache.add(scans)
    assert len(shards(tmp_path / "frames")) == 3
    assert all(shard.stat().st_mtime_ns == written for shard, written in before.items())
    assert_frames_are_right(cache, scans)


def test_another_processor_has_frames_of_its_own(tmp_path, scans):
    ImageCache(tmp_path / "frames", PROCESSOR).add(scans)
    larger = Processor(max_pixels=56 * 56)
    cache = ImageCache(tmp_path / "frames", larger)
    cache.add(scans)
    np.testing.assert_array_equal(cache.frame(scans[0]), read_frame(scans[0], larger))
    for shard in (shard for shard in shards(tmp_path / "frames") if shard.parent != cache.folder):
        shutil.copy(shard, cache.folder)
    with pytest.raises(ConfigError, match=PROCESSOR.version):
        ImageCache(tmp_path / "frames", larger).add(scans)


def test_a_file_that_was_cut_off_is_written_again(tmp_path, scans, caplog):
    ImageCache(tmp_path / "frames", PROCESSOR).add(scans)
    (shard,) = shards(tmp_path / "frames")
    shard.write_bytes(shard.read_bytes()[:-50])
    cache = ImageCache(tmp_path / "frames", PROCESSOR)
    assert cache.add(scans) == {}
    assert f"{shard} is damaged" in caplog.text
    assert_frames_are_right(cache, scans)


def test_a_changed_byte_is_noticed_and_mended_by_the_next_start(tmp_path, scans, caplog):
    cache = ImageCache(tmp_path / "frames", PROCESSOR)
    cache.add(scans)
    (shard,) = shards(tmp_path / "frames")
    with shard.open("r+b") as stream:
        stream.seek(-20, os.SEEK_END)
        stream.write(b"\0" * 20)
    assert_frames_are_right(cache, scans)
    assert f"{shard} is damaged" in caplog.text
    assert not shard.exists()
    caplog.clear()
    cache = ImageCache(tmp_path / "frames", PROCESSOR)
    cache.add(scans)
    assert_frames_are_right(cache, scans)
    assert "damaged" not in caplog.text


def test_an_image_whose_annotation_names_no_bytes_is_known_by_those_it_has(tmp_path, scans):
    unnamed = [replace(scan, sha256="") for scan in scans]
    ImageCache(tmp_path / "frames", PROCESSOR).add(unnamed)
    make_scan(scans[0].image_path, seed=99)
    cache = ImageCache(tmp_path / "frames", PROCESSOR)
    assert cache.add(unnamed) == {}
    assert_frames_are_right(cache, unnamed)


def test_a_disk_without_room_is_named_before_anything_is_decoded(tmp_path, scans, small_disk):
    disk = small_disk("64k")
    with pytest.raises(Incomplete, match=r"5 scans take .* GB .* image_cache=null"):
        ImageCache(disk, PROCESSOR).add(scans)
    assert shards(disk) == []


def test_a_disk_that_fills_up_keeps_whole_files_and_the_same_call_goes_on(tmp_path, scans, small_disk, monkeypatch):
    monkeypatch.setattr(image_cache, "SHARD_BYTES", 40_000)
    room = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: room)  # somebody else writes there meanwhile
    disk = small_disk("100k")
    with pytest.raises(Incomplete, match="No space left"):
        ImageCache(disk, PROCESSOR).add(scans)
    kept = shards(disk)
    assert 1 <= len(kept) < 5
    assert not list(disk.glob("*/.frames-*"))
    small_disk("1m", disk)
    cache = ImageCache(disk, PROCESSOR)
    assert cache.add(scans) == {}
    assert_frames_are_right(cache, scans)
    assert set(kept) < set(shards(disk))


def test_what_a_killed_process_left_is_cleared_away(tmp_path, scans):
    cache = ImageCache(tmp_path / "frames", PROCESSOR)
    cache.folder.mkdir(parents=True)
    left = cache.folder / ".frames-12.safetensors.x7"
    left.write_bytes(b"half")
    cache.add(scans)
    assert not left.exists()
    assert_frames_are_right(cache, scans)


def fill(folder: Path, scans: list[TrainingScan], barrier) -> None:
    barrier.wait()
    cache = ImageCache(folder, PROCESSOR)
    assert cache.add(scans) == {}
    assert_frames_are_right(cache, scans)


def test_processes_that_start_at_once_write_each_scan_once(tmp_path, scans):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    started = [context.Process(target=fill, args=(tmp_path / "frames", scans, barrier)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert len(shards(tmp_path / "frames")) == 1


FAULTS = ("none", "missing", "cut off", "other bytes", "other size", "no digest", "copy of the first")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=6), st.integers(20_000, 200_000))
def test_with_a_cache_and_without_the_same_scans_are_faulty(tmp_path, kinds, shard_bytes):
    """Also where a faulty scan has the bytes of a whole one."""
    folder = tmp_path / "property"
    shutil.rmtree(folder, ignore_errors=True)
    found: list[TrainingScan] = []
    for number, kind in enumerate(kinds):
        scan = make_scan(folder / f"{number}.png", 0 if kind == "copy of the first" else number)
        data = scan.image_path.read_bytes()
        if kind == "missing":
            scan.image_path.unlink()
        elif kind == "cut off":
            scan.image_path.write_bytes(data[: len(data) // 2])
            scan = replace(scan, sha256=sha256_file(scan.image_path))
        elif kind == "other bytes":
            make_scan(scan.image_path, 1000)
        elif kind == "other size":
            scan = replace(scan, size_wh=(90, 120))
        elif kind == "no digest":
            scan = replace(scan, sha256="")
        found.append(scan)
    before = image_cache.SHARD_BYTES
    image_cache.SHARD_BYTES = shard_bytes
    try:
        cache = ImageCache(folder / "frames", PROCESSOR)
        faults = cache.add(found)
    finally:
        image_cache.SHARD_BYTES = before
    plain = check_scans(found)
    # A scan whose file is missing or changed can be had from a copy's frame; a fault of its annotation stays.
    assert {path: fault.kind for path, fault in faults.items()} == {
        scan.image_path: fault.kind
        for scan in found
        if (fault := plain.get(scan.image_path)) and not (fault.kind in ("missing", "bytes") and has_copy(scan, found))
    }
    assert_frames_are_right(cache, [scan for scan in found if scan.image_path not in {*faults, *plain}])


def has_copy(scan: TrainingScan, scans: Sequence[TrainingScan]) -> bool:
    """Whether another scan's file holds the bytes that a scan's annotation names."""
    return any(other.image_path.is_file() and sha256_file(other.image_path) == scan.sha256 for other in scans)
