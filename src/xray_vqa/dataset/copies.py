"""Scans that show the same bag again, found by what they look like: shifted a little, resized, compressed, mirrored.

A scan becomes 64 bits (pHash: the signs of its 63 slowest cosines around their median, of a 32x32 grey thumbnail), and
two scans are near copies where at most `MAX_DISTANCE` bits differ and the thumbnails agree. docs/decisions/0010 has how
kind of hash and distance were chosen on real scans, and how often they are wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xray_vqa.core.images import THUMBNAIL_SIDE

MAX_DISTANCE = 6
"""Bits. Of 1,350 real scans every pair up to here shows one bag; at 8 two of 20 do not, at 10 eleven of 25."""
MIN_CORRELATION = 0.75
"""Of the thumbnails' grey values."""
MIN_CONTRAST = 4.0
"""Standard deviation of grey values beneath which a picture is blank: its hash would be noise."""
MAX_PAIRS = 2_000_000
"""More are not collected: a dataset of nothing but copies needs no list of all of them."""
TURNS = ("", "mirrored", "upside down", "turned by 180 degrees")
"""How a scan may stand to its copy; the second column of hashes is of the first turn, and so on."""

_SIDE = 8
_BANDS, _BAND_BITS = 4, 16
_SLICE = 1 << 20
_COMPARED = 1 << 12

Hashes = NDArray[np.uint64]
Thumbnails = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class NearCopies:
    """Pairs of scans by their place in the list that was searched, `first[k] < second[k]`."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance: NDArray[np.int64]
    """Bits, 0 to `MAX_DISTANCE`."""
    turn: NDArray[np.int64]
    """Index into `TURNS`."""
    is_complete: bool = True
    """False where there were more than `MAX_PAIRS`."""


def perceptual_hashes(thumbnails: Thumbnails) -> Hashes:
    """Return (n, 4) hashes of (n, 32, 32) thumbnails: as they are, mirrored, upside down, and both.

    Mirroring a picture turns the sign of its odd cosines, so that the other three cost no further transform.
    """
    waves = np.arange(_SIDE)[:, None]
    basis = np.cos(np.pi * waves * (2 * np.arange(THUMBNAIL_SIDE) + 1) / (2 * THUMBNAIL_SIDE))
    spectrum = basis @ thumbnails.astype(np.float64) @ basis.T
    odd = np.where(np.arange(_SIDE) % 2, -1.0, 1.0)
    columns = []
    for turned in (spectrum, spectrum * odd, spectrum * odd[:, None], spectrum * odd * odd[:, None]):
        values = turned.reshape(-1, _SIDE * _SIDE)
        bits = values > np.median(values[:, 1:], axis=1, keepdims=True)  # the first one is the mean brightness
        columns.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.stack(columns, axis=1)


def find_near_copies(hashes: Hashes, thumbnails: Thumbnails, *, max_distance: int = MAX_DISTANCE) -> NearCopies:
    """Return the pairs of scans that look alike, in any of the four turns; blank ones look like nothing.

    Scans with one hash are compared with the first of them alone, so a thousand copies give a thousand pairs, not half
    a million; each of them stands for the others.
    """
    flat = thumbnails.reshape(len(thumbnails), THUMBNAIL_SIDE * THUMBNAIL_SIDE)
    shown = np.flatnonzero(_contrast(flat) >= MIN_CONTRAST)
    _, leaders, member_of = np.unique(hashes[shown, 0], return_index=True, return_inverse=True)
    leader_of = shown[leaders][member_of]
    followers = shown[leader_of != shown]
    found = [_agreeing(flat, leader_of[leader_of != shown], followers, 0)]
    num_pairs = len(found[0][0])
    heads = shown[leaders]
    for turn in range(len(TURNS)):
        for first, second in pairs_within(hashes[heads, turn], hashes[heads, 0], max_distance):
            found.append(_agreeing(flat, heads[first], heads[second], turn))
            num_pairs += len(found[-1][0])
            if num_pairs > MAX_PAIRS:
                break
    first, second, turns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    first, second = np.minimum(first, second), np.maximum(first, second)
    # One pair may have been met in several bands and turns; the plainest turn is told.
    order = np.lexsort((turns, second, first))
    first, second, turns = first[order], second[order], turns[order]
    is_new = np.ones(len(first), bool)
    is_new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    first, second, turns = first[is_new], second[is_new], turns[is_new]
    distance = np.bitwise_count(hashes[first, turns] ^ hashes[second, 0]).astype(np.int64)
    return NearCopies(first, second, distance, turns, num_pairs <= MAX_PAIRS)


def pairs_within(
    queries: Hashes, hashes: Hashes, max_distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give all pairs i < j with at most so many bits between `queries[i]` and `hashes[j]`, some of them repeatedly.

    64 bits are four bands of 16. Two hashes that differ in at most 7 bits differ in at most one within some band, so it
    is enough to look each band up as it is and with each of its bits turned. Every band has bits of all frequencies,
    since those of the slowest ones alone are much the same for all bags.

    Raises:
        ValueError: The distance is above 7, where this would overlook pairs.
    """
    if max_distance >= 2 * _BANDS:
        raise ValueError(f"distance {max_distance}: at most {2 * _BANDS - 1} bits can be searched for")
    query_keys, keys = _band_keys(queries), _band_keys(hashes)
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        bounds = np.searchsorted(keys[order, band], np.arange((1 << _BAND_BITS) + 1))
        for turned_bit in (0, *(1 << bit for bit in range(_BAND_BITS))):
            wanted = query_keys[:, band] ^ turned_bit
            yield from _matches(queries, hashes, order, bounds[wanted], bounds[wanted + 1], max_distance)


def _band_keys(hashes: Hashes) -> NDArray[np.int64]:
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), 8), axis=1)
    weights = 1 << np.arange(_BAND_BITS)
    return np.einsum("nkb,k->nb", bits.reshape(-1, _BAND_BITS, _BANDS).astype(np.int64), weights)


def _matches(
    queries: Hashes,
    hashes: Hashes,
    order: NDArray[np.int64],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    max_distance: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Compare each query with the hashes `order[start:stop]`, about a million pairs at a time."""
    counts = stop - start
    parts = np.cumsum(counts) // _SLICE
    for rows in np.split(np.arange(len(counts)), np.flatnonzero(np.diff(parts)) + 1):
        num = counts[rows]
        first = np.repeat(rows, num)
        within = np.arange(len(first)) - np.repeat(np.cumsum(num) - num, num)
        second = order[np.repeat(start[rows], num) + within]
        near = (first < second) & (np.bitwise_count(queries[first] ^ hashes[second]) <= max_distance)
        if near.any():
            yield first[near], second[near]


def _contrast(flat: Thumbnails) -> NDArray[np.float64]:
    contrast = np.zeros(len(flat))
    for start in range(0, len(flat), _COMPARED):  # all at once would need eight bytes for every pixel of the dataset
        contrast[start : start + _COMPARED] = flat[start : start + _COMPARED].std(axis=1)
    return contrast


def _agreeing(
    flat: Thumbnails, first: NDArray[np.int64], second: NDArray[np.int64], turn: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return those pairs whose thumbnails agree in shape of grey values, and their turn."""
    keep = np.zeros(len(first), bool)
    for start in range(0, len(first), _COMPARED):
        part = slice(start, start + _COMPARED)
        keep[part] = correlation(_turned(flat[first[part]], turn), flat[second[part]]) >= MIN_CORRELATION
    return first[keep], second[keep], np.full(int(keep.sum()), turn)


def _turned(flat: Thumbnails, turn: int) -> Thumbnails:
    pictures = flat.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    pictures = pictures[:, ::-1] if turn & 2 else pictures
    return (pictures[:, :, ::-1] if turn & 1 else pictures).reshape(flat.shape)


def correlation(one: Thumbnails, other: Thumbnails) -> NDArray[np.float32]:
    """Return Pearson's correlation of each row of (n, pixels) with the same row of another."""
    a, b = (values.astype(np.float32) - values.mean(axis=1, keepdims=True, dtype=np.float32) for values in (one, other))
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return (a * b).sum(axis=1) / np.maximum(scale, 1e-6)
