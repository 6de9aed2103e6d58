"""How far near copies and unrelated scans are apart, by kind of perceptual hash, on real scans.

    python benchmarks/near_copies.py [REAL_DIR] [--json FILE]

Every pair of the scans beneath REAL_DIR (default XRAY_VQA_REAL_DIR) is compared. Pairs whose thumbnails correlate above
0.97 stand for true copies. Pairs of a scan and another one mirrored, upside down or both stand for unrelated scans that
share size, scanner and background: no source here has turned scans, so whatever is found there is false.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from measuring import conditions, publish
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.core.images import check_image
from xray_vqa.dataset.copies import MAX_DISTANCE, MIN_CORRELATION, TURNS, perceptual_hashes
from xray_vqa.dataset.importers.source import IMAGE_SUFFIXES
from xray_vqa.errors import ImageUnreadable

DEFAULT_JSON = Path(__file__).parent / "results/near_copies.json"
DISTANCES = range(0, 21, 2)


def difference_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """dHash, for comparison: is each of 8x8 fields brighter than its left neighbour?"""
    small = [np.asarray(Image.fromarray(each).resize((9, 8), Image.Resampling.BOX)) for each in thumbnails]
    fields = np.stack(small).astype(int)
    return np.packbits((fields[:, :, 1:] > fields[:, :, :-1]).reshape(-1, 64), axis=1).view(np.uint64)[:, 0]


def normalised(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real_dir", type=Path, nargs="?", default=os.environ.get("XRAY_VQA_REAL_DIR"))
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON)
    args = parser.parse_args()
    if args.real_dir is None:
        parser.error("give REAL_DIR or set XRAY_VQA_REAL_DIR")
    found = []
    for path in sorted(args.real_dir.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            try:
                found.append(check_image(path.read_bytes()).thumbnail())
            except ImageUnreadable:
                continue
    thumbnails = np.stack(found)
    upper = np.triu_indices(len(thumbnails), 1)
    hashes, plain = perceptual_hashes(thumbnails), normalised(thumbnails)
    likeness = (plain @ plain.T)[upper]

    def within(one: NDArray[np.uint64], other: NDArray[np.uint64], which: NDArray[np.bool_]) -> dict[str, int]:
        distance = np.bitwise_count(one[:, None] ^ other[None])[upper][which]
        return {str(limit): int((distance <= limit).sum()) for limit in DISTANCES}

    every, alike = np.ones(len(likeness), bool), likeness > 0.97
    dhashes = difference_hashes(thumbnails)
    unrelated = {}
    for turn in range(1, len(TURNS)):
        turned = thumbnails[:, ::-1] if turn & 2 else thumbnails
        turned = normalised(turned[:, :, ::-1] if turn & 1 else turned)
        agreeing = (turned @ plain.T)[upper] >= MIN_CORRELATION
        unrelated[TURNS[turn]] = {
            "pairs_within": within(hashes[:, turn], hashes[:, 0], every),
            "of_them_correlated": within(hashes[:, turn], hashes[:, 0], agreeing),
        }
    figures = {
        **conditions("numpy", "pillow", scans=len(thumbnails), pairs=len(likeness)),
        "limits": {"distance": MAX_DISTANCE, "correlation": MIN_CORRELATION},
        "pairs_alike": int(alike.sum()),
        "phash_pairs_within": within(hashes[:, 0], hashes[:, 0], every),
        "phash_pairs_within_correlated": within(hashes[:, 0], hashes[:, 0], likeness >= MIN_CORRELATION),
        "phash_alike_within": within(hashes[:, 0], hashes[:, 0], alike),
        "dhash_pairs_within": within(dhashes, dhashes, every),
        "dhash_alike_within": within(dhashes, dhashes, alike),
        "phash_unrelated": unrelated,
    }
    publish(figures, args.json)


if __name__ == "__main__":
    main()
