"""How often the input check refuses true scans, and how often it stops what is none.

    python benchmarks/input_check.py [--scans DIR ...] [--pictures DIR ...] [--json benchmarks/results/input_check.json]

Simulated scans of every shipped scanner look are made for it. Each DIR of --scans holds real ones, each of --pictures
photographs and drawings. Every scan is shown as it is, and as what a wrong export, a broken scanner or another scanner
could make of it: inverted, darkened, grey, with colour channels exchanged, turned in hue.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from measuring import conditions, publish
from PIL import Image, ImageOps

from xray_vqa.core.images import KnownLooks, input_faults, read_image
from xray_vqa.errors import ImageUnreadable

NUM_SIMULATED = 400
LOOKS = KnownLooks()


def turned_in_hue(image: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(angle + 64) % 256 for angle in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def exchanged(order: tuple[int, int, int]) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.merge("RGB", [image.getchannel(channel) for channel in order])


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "inverted": ImageOps.invert,
    "half as bright": lambda image: image.point([value // 2 for value in range(256)] * 3),
    "black": lambda image: Image.new("RGB", image.size, "black"),
    "white": lambda image: Image.new("RGB", image.size, "white"),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "red and blue exchanged": exchanged((2, 1, 0)),
    "channels rotated": exchanged((1, 2, 0)),
    "hue turned by 90 degrees": turned_in_hue,
}


def images_in(folder: Path) -> list[Image.Image]:
    found: list[Image.Image] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp"):
            try:
                found.append(read_image(path))
            except ImageUnreadable:  # the service refuses it before the check
                continue
    return found


def refusals(images: list[Image.Image]) -> dict[str, object]:
    faults = [input_faults(image, LOOKS) for image in images]
    refused = sum(map(bool, faults))
    return {
        "images": len(images),
        "refused": refused,
        "share": round(refused / len(images), 4) if images else None,
        "faults": dict(Counter(fault for of_one in faults for fault in of_one)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, nargs="*", default=[], metavar="DIR", help="folders of real scans")
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], metavar="DIR", help="folders of other pictures")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = ["data", "synth", "--output-dir", folder, "--train", str(NUM_SIMULATED), "--test", "1", "--seed", "77"]
        subprocess.run([sys.executable, "-m", "xray_vqa", *words], check=True, stdout=subprocess.DEVNULL)
        sets = {"simulated": images_in(Path(folder) / "train")}
    sets |= {f"real: {directory.name}": images_in(directory) for directory in args.scans}
    pictures = [image for directory in args.pictures for image in images_in(directory)]
    started = time.perf_counter()
    for image in sets["simulated"]:
        input_faults(image, LOOKS)
    mean_ms = (time.perf_counter() - started) * 1000 / len(sets["simulated"])
    width, height = (statistics.median(image.size[side] for image in sets["simulated"]) for side in (0, 1))
    publish(
        {
            "conditions": conditions("pillow", "numpy"),
            "looks": LOOKS.model_dump(),
            "mean_ms": round(mean_ms, 2),
            "size_wh": [width, height],
            "scans": {
                name: {way: refusals([change(image) for image in images]) for way, change in WAYS.items()}
                for name, images in sets.items()
            },
            "other_pictures": refusals(pictures),
        },
        args.json,
    )


if __name__ == "__main__":
    main()
