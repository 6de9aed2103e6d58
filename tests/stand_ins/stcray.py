"""STCray in miniature: its two archives in their true layout, with what real copies have in them.

Each scan is a JPEG of noise with a size of its own. Names follow the authors' grammar, folders their numbering.
"""

import io
import json
from collections.abc import Iterable

import numpy as np
from PIL import Image
from stand_ins.rar import Member, rar_bytes

FOLDERS = {
    "Explosive": "Class 1_Explosive", "Gun": "Class 2_Gun", "3D Gun": "Class 3_3D Gun", "Knife": "Class 4_Knife",
    "Battery": "Class 10_Battery", "Injection": "Class 9_Injection", "Multilabel Threat": "Class 21_Multilabel Threat",
    "Non Threat": "Class 22_Non Threat",
}  # fmt: skip
BOX = (8, 6, 40, 30)
"""(x0, y0, x1, y1) of the item on every scan that has one."""


def jpeg(seed: int, size_wh: tuple[int, int]) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size_wh).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def labelme(labels: Iterable[str], size_wh: tuple[int, int], *, polygon: bool) -> bytes:
    x0, y0, x1, y1 = BOX
    points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]] if polygon else [[x0, y0], [x1, y1]]
    shapes = [
        {"label": label, "points": points, "shape_type": "polygon" if polygon else "rectangle", "flags": {}}
        for label in labels
    ]
    content = {
        "version": "5.4.1", "shapes": shapes, "imageData": None, "imageWidth": size_wh[0], "imageHeight": size_wh[1],
        "imagePath": "..\\..\\Images\\elsewhere.jpg",
    }  # fmt: skip
    return json.dumps(content).encode()


def set_members(name: str, num_bags: int = 2, num_frames: int = 2) -> list[Member]:
    """The entries of STCray_<name>Set.rar: folders first, as a packer writes them, resource forks beside all."""
    root, members = f"STCray_{name}Set", []
    for number, (label, folder) in enumerate(FOLDERS.items()):
        item = {"Multilabel Threat": "Gun1_Knife2", "Non Threat": "NT"}.get(label, f"{label}{number}")
        labels = {"Multilabel Threat": ["Gun", "Knife"], "Non Threat": [], "3D Gun": ["3D printed gun"]}.get(
            label, [label]
        )
        members += [Member(f"{root}/{part}/{folder}", is_folder=True) for part in ("Images", "Json_BB")]
        for bag in range(1, num_bags + 1):
            for frame in range(1, num_frames + 1):
                stem = f"{item}_B{bag}_L{1 + bag % 4}A_C{1 + frame % 3}_Loc1_phi1_th{frame}_{frame}"
                seed = hash_of(name, label, bag, frame)
                size_wh = (64 + seed % 17, 48 + seed % 13)
                members += [
                    Member(f"{root}/Images/{folder}/{stem}.jpg", jpeg(seed, size_wh)),
                    Member(f"{root}/Images/{folder}/._{stem}.jpg", b"\0\5\x16\7resource fork"),
                    Member(f"{root}/Captions/{folder}/{stem}.txt", f"A suitcase, bag {bag}.\nClutter.".encode()),
                ]
                if label != "Non Threat" or frame > 1:
                    members.append(
                        Member(f"{root}/Json_BB/{folder}/{stem}.json", labelme(labels, size_wh, polygon=False))
                    )
                    members.append(Member(f"{root}/Json/{folder}/{stem}.json", labelme(labels, size_wh, polygon=True)))
    return [*members, Member(f"{root}/.DS_Store", b"\0\0\0\1Bud1")]


def hash_of(*values: object) -> int:
    return sum((number + 1) * byte for number, byte in enumerate(repr(values).encode()))


def archives(num_bags: int = 2, num_frames: int = 2) -> dict[str, bytes]:
    """Both archives by the names that they have on the hub."""
    return {f"STCray_{name}Set.rar": rar_bytes(set_members(name, num_bags, num_frames)) for name in ("Train", "Test")}
