"""What a question is about beside categories and places: its topic, and the words by which its text is known.

The plan gives a question its topic, a provider words it, and the validator reads the topic out of the words again. So
each topic has words of its own, which the language model is told (`providers/prompt.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that questions of a type ask about."""

    asks: str
    """What it asks, for the writer of the words."""
    words: tuple[str, ...]
    """A question has one of these, and none of another topic of its type; a `*` stands for any ending."""
    answers: tuple[str, ...] = ()
    """All answers that there are, where they are few."""

    @property
    def pattern(self) -> re.Pattern[str]:
        alternatives = "|".join(re.escape(word).replace(r"\*", r"\w*") for word in self.words)
        return re.compile(rf"\b(?:{alternatives})\b", re.IGNORECASE)


MATCH, MISMATCH, NOT_VERIFIED = "match", "mismatch", "not verified"
UNKNOWABLE = "cannot be determined"

CONTAINERS = ("backpack", "suitcase", "hard suitcase", "briefcase", "handbag", "tray", "shopping bag", "carton")
CLUTTER = ("sparse", "moderate", "dense", "heavy")
"""By clutter level, from 1."""
OVERLAP = ("hardly", "partly", "mostly")
ORIENTATION = ("horizontal", "vertical")

LETTERS = "ABCD"
LETTERED = "letters"
"""The topic of an identification whose choices are lettered."""

TOPICS: Mapping[str, Mapping[str, Topic]] = {
    "concealment": {
        "clutter": Topic(
            "how tightly the bag is packed", ("packed", "packing", "clutter*", "crowd*", "fullness"), CLUTTER
        ),
        "container": Topic(
            "what kind of bag it is",
            ("kind of bag", "type of bag", "sort of bag", "kind of luggage", "piece of luggage", "container"),
            CONTAINERS,
        ),
        "overlap": Topic(
            "how far other things lie over the target", ("covered", "hidden", "overlaid", "obscured"), OVERLAP
        ),
        "concealer": Topic(
            "which of `goods` lies over the target most; name each of them", ("covers", "hides", "overlays", "obscures")
        ),
        "orientation": Topic(
            "whether the target stretches further from left to right or from top to bottom",
            ("horizontal", "vertical", "orient*", "which way"),
            ORIENTATION,
        ),
    },
    "declaration": {
        "whole": Topic(
            "whether scan and declaration agree: a traveller declared `goods` and `options`, name each of them",
            ("agree*", "match*", "fit*", "consistent", "in line with"),
            (MATCH, MISMATCH),
        ),
        "item": Topic(
            "whether one declared thing can be verified: the target, or one of `goods` where there is no target",
            ("verif*", "confirm*", "bear out", "borne out", "vouch*"),
            (MATCH, NOT_VERIFIED),
        ),
    },
    "unanswerable": {
        "weight": Topic("the weight", ("weigh*", "how heavy", "kilograms", "grams")),
        "owner": Topic("whose it is", ("whose", "who owns", "owner*", "belong*")),
        "age": Topic("how old it is", ("how old", "age", "years", "new or used")),
        "price": Topic("what it is worth", ("worth", "price", "cost*", "value")),
        "colour": Topic("its colour in daylight", ("colour", "color", "coloured")),
        "origin": Topic("where it was made or bought", ("bought", "made in", "country", "came from")),
        "brand": Topic("who makes it", ("brand", "maker", "manufacturer", "company")),
        "destination": Topic("where the bag is going", ("destination", "travelling to", "headed", "flight")),
        "time": Topic("when the bag was packed", ("when", "what time", "what day", "how long ago")),
        "opaque": Topic("what lies behind whatever stops all rays", ("opaque", "stops the rays", "stops all rays")),
        "charge": Topic("how far it is charged", ("charged", "charge", "run down")),
    },
}

BAG_UNKNOWNS = ("weight", "owner", "age", "price", "colour", "origin", "destination", "time", "opaque")
ITEM_UNKNOWNS = ("weight", "owner", "age", "price", "colour", "origin", "brand")
CHARGED = frozenset({"Battery", "Powerbank"})
"""The categories of which one can also ask how far they are charged."""

_PATTERNS = {kind: {name: topic.pattern for name, topic in topics.items()} for kind, topics in TOPICS.items()}


def topics_in(question: str, question_type: str) -> set[str]:
    """Return the topics of a type whose words stand in an English question."""
    return {name for name, pattern in _PATTERNS.get(question_type, {}).items() if pattern.search(question)}


GOODS = (
    "bottled water", "books", "camera", "charger", "clothes", "cosmetics", "documents", "food", "glasses", "hairdryer",
    "headphones", "jewellery", "keys", "laptop", "mobile phone", "perfume", "shoes", "stationery", "tablet computer",
    "toiletries", "towel", "toys", "umbrella", "wallet", "watch",
)  # fmt: skip
"""What travellers declare, where a record does not say what its traveller declared."""

COVERS = (
    "book", "camera", "charger", "folded clothes", "food box", "headphones", "jacket", "laptop", "shoe", "tablet",
    "towel", "umbrella", "water bottle",
)  # fmt: skip
"""What commonly lies over things in bags."""
