"""The categories of prohibited items, spelled as STCray spells them, and the other names that sources give them.

Source of the spelling and of the aliases from papers: the option texts of the STING-BEE question files and the
class lists of the public X-ray sets (OPIXray, HiXray, PIDray, SIXray, CLCXray, EDS, DvXray).
"""

import re
from functools import lru_cache

CATEGORIES = (
    "Explosive", "Gun", "3D Gun", "Knife", "Cutter", "Blade", "Shaving Razor", "Lighter", "Injection", "Battery",
    "Nail Cutter", "Other Sharp Item", "Powerbank", "Scissors", "Hammer", "Pliers", "Wrench", "Screwdriver",
    "Handcuffs", "Bullet",
)  # fmt: skip
"""The 20 object classes of STCray in the order of its folders."""

UNLISTED = "UNLISTED"
"""What an unknown label becomes: counted and reported, never taught and never scored."""

CLEAN_LABELS = frozenset({"non threat", "non-threat", "normal", "clean", "negative", "background"})
"""Image-level labels that say that a bag holds no prohibited item; they are no category."""

_ALIASES: dict[str, tuple[str, ...]] = {
    "Explosive": ("explosives", "ied", "bomb", "improvised explosive device"),
    "Gun": ("handgun", "pistol", "firearm", "revolver"),
    "3D Gun": ("3d printed gun", "3d-printed gun", "3d-gun", "3dgun", "printed gun"),
    "Knife": ("knives", "dagger", "folding knife", "straight knife", "swissarmyknife", "swiss army knife",
              "multi-tool knife", "multitool knife"),
    "Cutter": ("box cutter", "utility knife", "paper cutter"),
    "Blade": ("razor blade", "saw blade", "blades"),
    "Shaving Razor": ("razor", "safety razor"),
    "Lighter": ("lighters", "nonmetallic lighter", "cigarette lighter"),
    "Injection": ("syringe", "syringes", "hypodermic"),
    "Battery": ("batteries", "cell"),
    "Nail Cutter": ("nail clipper", "nail clippers", "nailcutter"),
    "Other Sharp Item": ("other sharp items", "sharp item", "dart", "shuriken"),
    "Powerbank": ("power bank", "portable charger", "portable charger 1", "portable charger 2"),
    "Scissors": ("scissor", "shears"),
    "Hammer": ("hammers",),
    "Pliers": ("plier",),
    "Wrench": ("spanner", "wrenches"),
    "Screwdriver": ("screw driver", "screwdrivers"),
    "Handcuffs": ("handcuff", "hand cuffs"),
    "Bullet": ("bullets", "ammunition", "cartridge", "cartridges"),
}  # fmt: skip

_SEPARATORS = re.compile(r"[\s_\-]+")


def _key(label: str) -> str:
    return _SEPARATORS.sub(" ", label.strip().lower())


_CANONICAL = {_key(category): category for category in CATEGORIES} | {
    _key(alias): category for category, aliases in _ALIASES.items() for alias in aliases
}


@lru_cache(maxsize=4096)
def canonical_category(label: str) -> str:
    """Return the category that a source's label means, or `UNLISTED`. Case, `_` and `-` do not matter."""
    return _CANONICAL.get(_key(label), UNLISTED)


@lru_cache(maxsize=4096)
def is_clean_label(label: str) -> bool:
    """Return whether an image-level label says that nothing prohibited is in the bag."""
    return _key(label) in {_key(clean) for clean in CLEAN_LABELS}


def names_of(category: str) -> tuple[str, ...]:
    """Return the names that a text may use for a category, in lower case, its own name first."""
    return (category.lower(), *_ALIASES.get(category, ()))
