"""What a question is about beside categories and places: its topic.

The plan gives a question its topic, a provider words it, and the validator reads the topic out of the words again. So
each topic has words of its own in every lexicon (`core/lexicon.py`), which the language model is told
(`providers/prompt.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from xray_vqa.core.lexicon import CLUTTER, CONTAINERS, ORIENTATION, OVERLAP


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that questions of a type ask about."""

    asks: str
    """What it asks, for the writer of the words."""
    answers: tuple[str, ...] = ()
    """All answers that there are, where they are few."""


MATCH, MISMATCH, NOT_VERIFIED = "match", "mismatch", "not verified"
UNKNOWABLE = "cannot be determined"

LETTERS = "ABCD"
LETTERED = "letters"
"""The topic of an identification whose choices are lettered."""

TOPICS: Mapping[str, Mapping[str, Topic]] = {
    "concealment": {
        "clutter": Topic("how tightly the bag is packed", CLUTTER),
        "container": Topic("what kind of bag it is", CONTAINERS),
        "overlap": Topic("how far other things lie over the target", OVERLAP),
        "concealer": Topic("which of `goods` lies over the target most; name each of them"),
        "orientation": Topic(
            "whether the target stretches further from left to right or from top to bottom", ORIENTATION
        ),
    },
    "declaration": {
        "whole": Topic(
            "whether scan and declaration agree: a traveller declared `goods` and `options`, name each of them",
            (MATCH, MISMATCH),
        ),
        "item": Topic(
            "whether one declared thing can be verified: the target, or one of `goods` where there is no target",
            (MATCH, NOT_VERIFIED),
        ),
    },
    "unanswerable": {
        "weight": Topic("the weight"),
        "owner": Topic("whose it is"),
        "age": Topic("how old it is"),
        "price": Topic("what it is worth"),
        "colour": Topic("its colour in daylight"),
        "origin": Topic("where it was made or bought"),
        "brand": Topic("who makes it"),
        "destination": Topic("where the bag is going"),
        "time": Topic("when the bag was packed"),
        "opaque": Topic("what lies behind whatever stops all rays"),
        "charge": Topic("how far it is charged"),
    },
}

BAG_UNKNOWNS = ("weight", "owner", "age", "price", "colour", "origin", "destination", "time", "opaque")
ITEM_UNKNOWNS = ("weight", "owner", "age", "price", "colour", "origin", "brand")
CHARGED = frozenset({"Battery", "Powerbank"})
"""The categories of which one can also ask how far they are charged."""

COMMON_GOODS = (
    "bottled water", "books", "camera", "charger", "clothes", "cosmetics", "documents", "food", "glasses", "hairdryer",
    "headphones", "jewellery", "keys", "laptop", "mobile phone", "perfume", "shoes", "stationery", "tablet computer",
    "toiletries", "towel", "toys", "umbrella", "wallet", "watch",
)  # fmt: skip
"""What travellers declare, where a record does not say what its traveller declared."""

COMMON_COVERS = (
    "book", "camera", "charger", "folded clothes", "food box", "headphones", "jacket", "laptop", "shoe", "tablet",
    "towel", "umbrella", "water bottle",
)  # fmt: skip
"""What commonly lies over things in bags."""
