"""The grammar of STCray's file and folder names.

The meaning of the letters is read off the authors' protocol figure: B bag, L clutter level, C concealment, Loc place in
the bag, phi and th the angles, and last the number of the repeat.
"""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file name of STCray says."""

    threat_item: str
    bag: int | None = None
    clutter_level: int | None = None
    clutter_part: str = ""
    concealment: int | None = None
    location: int | None = None
    phi: int | None = None
    theta: int | None = None
    frame: int | None = None

    def factors(self) -> dict[str, Any]:
        """Return what is known, as a record's `factors`."""
        pairs = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return {name: value for name, value in pairs if value not in (None, "")}


_PARTS = {
    "bag": re.compile(r"B(\d+)", re.IGNORECASE),
    "clutter_level": re.compile(r"L(\d+)([A-Za-z]?)", re.IGNORECASE),
    "concealment": re.compile(r"C(\d+)", re.IGNORECASE),
    "location": re.compile(r"Loc(\d+)", re.IGNORECASE),
    "phi": re.compile(r"phi(\d+)", re.IGNORECASE),
    "theta": re.compile(r"th(?:eta)?(\d+)", re.IGNORECASE),
    "frame": re.compile(r"(\d+)"),
}


def parse_file_name(stem: str) -> FileName | None:
    """Return what `Battery5_B2_L4A_C1_Loc1_phi1_th1_3` says, or None where a name does not follow the grammar.

    What stands before the bag is the threat item; parts may be missing behind it, but none may be unknown.
    """
    parts = stem.split("_")
    at = next((i for i, part in enumerate(parts) if i > 0 and _PARTS["bag"].fullmatch(part)), None)
    if at is None:
        return None
    values: dict[str, Any] = {}
    for part in parts[at:]:
        for name, pattern in _PARTS.items():
            if match := pattern.fullmatch(part):
                if name in values:
                    return None
                values[name] = int(match.group(1))
                if name == "clutter_level" and match.group(2):
                    values["clutter_part"] = match.group(2).upper()
                break
        else:
            return None
    return FileName(threat_item="_".join(parts[:at]), **values)


def class_label(folder: str) -> str:
    """Return the label in a class folder's name: `Class 10_Battery` and `Class 010 - Battery` give `Battery`."""
    return re.sub(r"^class\s*\d+[\s_\-]+", "", folder.strip(), flags=re.IGNORECASE).strip()


_BAG = re.compile(r"(.+?)_B(\d+)(?:_|$)", re.IGNORECASE)


def bag_of(stem: str, label: str) -> str:
    """Return what the frames of one item in one bag share: item and bag, or for other names all but the frame.

    Looser than the grammar, so that a name with something unknown behind its bag still stays with its bag.

    >>> bag_of("Gun1_B2_L3_C4_7", "Gun"), bag_of("Gun1_B2_L3_C4_7_flipped", "Gun"), bag_of("scan_12", "Gun")
    ('Gun1_B2', 'Gun1_B2', 'Gun/scan')
    """
    match = _BAG.match(stem)
    if match:
        return f"{match.group(1)}_B{int(match.group(2))}"
    return f"{label}/" + re.sub(r"_\d+$", "", stem)
