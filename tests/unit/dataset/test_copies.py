import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.images import THUMBNAIL_SIDE
from xray_vqa.dataset import copies
from xray_vqa.dataset.copies import MAX_DISTANCE, TURNS, find_near_copies, pairs_within, perceptual_hashes

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30)


def found_pairs(queries, hashes, distance):
    parts = list(pairs_within(queries, hashes, distance))
    return {pair for first, second in parts for pair in zip(first.tolist(), second.tolist(), strict=True)}


def brute_force(queries, hashes, distance):
    return {
        (i, j)
        for i in range(len(queries))
        for j in range(i + 1, len(hashes))
        if (int(queries[i]) ^ int(hashes[j])).bit_count() <= distance
    }


@given(HASHES, st.lists(st.lists(st.integers(0, 63), max_size=9), max_size=30), st.integers(0, 7))
def test_the_search_finds_exactly_the_pairs_that_comparing_all_finds(seeds, flips, distance):
    near = [seeds[k % len(seeds)] ^ sum(1 << bit for bit in set(bits)) for k, bits in enumerate(flips)]
    hashes = np.array(seeds + near, np.uint64)
    assert found_pairs(hashes, hashes, distance) == brute_force(hashes, hashes, distance)
    queries = hashes[::-1].copy()
    assert found_pairs(queries, hashes, distance) == brute_force(queries, hashes, distance)


def test_the_search_is_exact_over_buckets_that_are_looked_at_in_parts(monkeypatch):
    monkeypatch.setattr(copies, "_SLICE", 50)
    hashes = np.random.default_rng(0).integers(0, 2**12, 300, dtype=np.uint64)  # three bands are alike for all
    assert found_pairs(hashes, hashes, 3) == brute_force(hashes, hashes, 3)


def test_a_distance_that_would_overlook_pairs_is_refused():
    hashes = np.zeros(2, np.uint64)
    with pytest.raises(ValueError, match="at most 7"):
        found_pairs(hashes, hashes, 8)


def smooth(num: int, seed: int = 0) -> np.ndarray:
    """Thumbnails with large shapes, no two alike."""
    rng = np.random.default_rng(seed)
    waves = np.cos(np.pi * np.arange(12)[:, None] * (2 * np.arange(THUMBNAIL_SIDE) + 1) / (2 * THUMBNAIL_SIDE))
    pictures = waves.T @ rng.normal(size=(num, 12, 12)) @ waves
    low = pictures.min(axis=(1, 2), keepdims=True)
    return (255 * (pictures - low) / (pictures.max(axis=(1, 2), keepdims=True) - low)).astype(np.uint8)


def test_the_hash_of_a_mirrored_picture_is_in_the_column_of_that_turn():
    pictures = smooth(50)
    hashes = perceptual_hashes(pictures)
    turned = (pictures, pictures[:, :, ::-1], pictures[:, ::-1], pictures[:, ::-1, ::-1])
    for column, pixels in enumerate(turned):
        assert np.bitwise_count(hashes[:, column] ^ perceptual_hashes(pixels)[:, 0]).max() <= 2  # rounding


@pytest.mark.parametrize("turn", range(len(TURNS)))
def test_a_copy_is_found_in_every_turn(turn):
    pictures = smooth(60)
    copy = pictures[7][:, ::-1] if turn & 1 else pictures[7]
    copy = copy[::-1] if turn & 2 else copy
    noisy = np.clip(copy + np.random.default_rng(1).normal(0, 2, copy.shape), 0, 255).astype(np.uint8)
    thumbnails = np.concatenate([pictures, noisy[None]])
    found = find_near_copies(perceptual_hashes(thumbnails), thumbnails)
    assert (found.first.tolist(), found.second.tolist(), found.turn.tolist()) == ([7], [60], [turn])
    assert found.distance[0] <= MAX_DISTANCE


def test_bags_that_differ_are_not_taken_for_copies():
    thumbnails = smooth(400, seed=2)
    assert len(find_near_copies(perceptual_hashes(thumbnails), thumbnails).first) == 0


def test_a_thousand_copies_give_a_thousand_pairs():
    thumbnails = np.repeat(smooth(1), 1001, axis=0)
    found = find_near_copies(perceptual_hashes(thumbnails), thumbnails)
    assert set(found.first.tolist()) == {0}
    assert sorted(found.second.tolist()) == list(range(1, 1001))


def test_blank_pictures_look_like_nothing():
    thumbnails = np.full((5, THUMBNAIL_SIDE, THUMBNAIL_SIDE), 255, np.uint8)
    assert len(find_near_copies(perceptual_hashes(thumbnails), thumbnails).first) == 0


def test_no_scans_give_no_pairs():
    none = np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    assert len(find_near_copies(perceptual_hashes(none), none).first) == 0
