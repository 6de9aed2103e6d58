"""Pairs from templates: free, offline, and the floor that every other provider is measured against.

Each phrasing brings its own form of answer, so that the form can be learned from the question and an exact match is
within a model's reach. Which phrasing a slot gets is a function of the seed, the scan and the slot.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xray_vqa.core.draws import Draws
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES, canonical_category
from xray_vqa.generation.facts import NONE
from xray_vqa.generation.plan import Slot, identity_of
from xray_vqa.generation.providers.provider import Limits, Reply, Request, WordedPair
from xray_vqa.generation.topics import LETTERED, LETTERS, MISMATCH, NOT_VERIFIED
from xray_vqa.generation.wording import fill

TEMPLATE_VERSION = "2"

_NAMES = {
    "Explosive": ("an explosive device", "explosive devices"),
    "3D Gun": ("a 3D-printed gun", "3D-printed guns"),
    "Knife": ("a knife", "knives"),
    "Injection": ("a syringe", "syringes"),
    "Battery": ("a battery", "batteries"),
    "Other Sharp Item": ("an uncategorised sharp item", "uncategorised sharp items"),
    "Powerbank": ("a power bank", "power banks"),
    "Scissors": ("a pair of scissors", "pairs of scissors"),
    "Pliers": ("a pair of pliers", "pairs of pliers"),
    "Wrench": ("a wrench", "wrenches"),
    "Handcuffs": ("a pair of handcuffs", "pairs of handcuffs"),
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _one(category: str) -> str:
    """`a gun`."""
    return _NAMES[category][0] if category in _NAMES else f"a {category.lower()}"


def _many(category: str) -> str:
    """`guns`."""
    return _NAMES[category][1] if category in _NAMES else f"{category.lower()}s"


def _bare(category: str) -> str:
    """`gun`."""
    return _one(category).split(" ", 1)[1]


def _joined(words: Sequence[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


@dataclass(frozen=True, slots=True)
class Phrasing:
    """A question and the form of its answer. Both get the slot's words by name."""

    question: str
    answer: str
    """Where the answer affirms: yes, a place, items, a number."""
    denial: str = ""
    """Where it denies: no, none, a false premise."""
    several: str = ""
    """Where it affirms more than one; without it, as `answer`."""


_UNKNOWN = (
    "That cannot be determined.",
    "It cannot be determined from a scan.",
    "This cannot be determined from the X-ray.",
    "Cannot be determined.",
)

PHRASINGS: dict[str, tuple[Phrasing, ...]] = {
    "presence": (
        Phrasing("Is there {a} in this bag?", "Yes, there is {a}.", "No, there is no {bare}."),
        Phrasing("Does the scan show {a}?", "Yes, it shows {a}.", "No, it does not show {a}."),
        Phrasing("Can {a} be seen in this X-ray?", "Yes, {a} can be seen.", "No, {a} cannot be seen."),
        Phrasing("Does this bag contain {a}, yes or no?", "Yes.", "No."),
        Phrasing("Look for {many}. Is at least one in the bag?", "Yes, at least one.", "No, not one."),
        Phrasing("Is {a} packed in here?", "Yes, {a} is packed in here.", "No, {a} is not packed in here."),
    ),
    "listing": (
        Phrasing("Which prohibited items are in this bag?", "{Listed}.", "None."),
        Phrasing("List all prohibited items in the scan.", "{Listed}.", "None."),
        Phrasing(
            "What prohibited items does this X-ray show?", "It shows {a_listed}.", "It shows no prohibited items."
        ),
        Phrasing("Name every threat that you can see in the bag.", "{Listed}.", "There are no threats."),
        Phrasing(
            "What would a screener have to report about this bag?",
            "A screener would have to report {a_listed}.",
            "There is nothing to report.",
        ),
    ),
    "listing among options": (
        Phrasing("Which of these are in the bag: {options}?", "{Listed}.", "None of them."),
        Phrasing("The choices are {options}. Which of them does the scan show?", "{Listed}.", "None of them."),
        Phrasing(
            "Check the scan for {a_options}. What do you find?", "There is {a_listed}.", "There are none of these."
        ),
    ),
    "location": (
        Phrasing("Where in the scan can {a} be seen?", "In the {places}."),
        Phrasing("Which part of the image shows {a}?", "The {places}."),
        Phrasing("Point out where {a} lies.", "{Places}."),
        Phrasing("Where should the officer look to find {a}?", "In the {places} of the bag."),
    ),
    "absent": (
        Phrasing(
            "I was told that there is {a} in this bag. Where is it?",
            "It is in the {places}.",
            "There is no {bare} in this bag.",
            "In the {places}.",
        ),
        Phrasing(
            "The traveller says that {a} is packed in here. Which part of the scan shows it?",
            "The {places} part.",
            "No part shows {a}.",
            "In the {places}.",
        ),
        Phrasing("Where is the {bare} that was reported?", "In the {places}.", "There is no {bare}."),
        Phrasing(
            "A colleague marked {a} here. Where does it lie?", "In the {places}.", "There is no {bare} in this scan."
        ),
    ),
    "identification by region": (
        Phrasing("What is the prohibited item in the {region} of the scan?", "{A_item}."),
        Phrasing("Identify the item in the {region}.", "It is {a_item}."),
        Phrasing("A threat lies in the {region} region. What kind is it?", "{A_item}."),
        Phrasing("What should be taken out of the {region} of the bag?", "{A_item} should be taken out."),
    ),
    "identification among options": (
        Phrasing("One of these is in the bag: {options}. Which one?", "{A_item}."),
        Phrasing("Which one is packed in here, {a_options_or}?", "It is {a_item}."),
        Phrasing("What does the scan show: {a_options_or}?", "It shows {a_item}."),
    ),
    "count": (
        Phrasing("How many {many} are in this bag?", "{Number}.", "None."),
        Phrasing("Count the {many} in the scan.", "There is one.", "There are none.", "There are {number}."),
        Phrasing("What is the number of {many} in this X-ray?", "{digits}.", "0."),
    ),
    "risk": (
        Phrasing("What is the risk level of this bag?", "{Level}, because of {a_causes}.", "{Level}."),
        Phrasing(
            "How risky is this bag: low, medium, high or critical?",
            "{Level}: it holds {a_causes}.",
            "{Level}: it holds no prohibited item.",
        ),
        Phrasing("Rate the risk of this scan.", "{Level}.", "{Level}."),
        Phrasing(
            "Which risk level does the scan call for?",
            "It calls for {level}, as {a_causes} can be seen.",
            "It calls for {level}, as nothing prohibited can be seen.",
        ),
    ),
    "general": (
        Phrasing("Is there any prohibited item in this bag?", "Yes, there is.", "No, none of the kinds screened for."),
        Phrasing("Does the scan show anything prohibited, yes or no?", "Yes.", "No."),
        Phrasing(
            "Of the kinds of item that are screened for, is there at least one?", "Yes, at least one.", "No, not one."
        ),
        Phrasing(
            "Can a threat be seen in this X-ray?",
            "Yes, a threat can be seen.",
            "No, none of the threats that are screened for.",
        ),
        Phrasing("Would you report this bag?", "Yes, it holds a prohibited item.", "No, there is nothing to report."),
        Phrasing(
            "Look for all kinds of prohibited items. Do you find any?", "Yes, I find some.", "No, I find none of them."
        ),
        Phrasing("Is anything forbidden packed in here?", "Yes, something is.", "No, nothing that is screened for."),
    ),
    "identification among letters": (
        Phrasing("Which of these is in the bag? {lettered}.", "({letter}) {a_item}."),
        Phrasing("What does the scan show? {lettered}.", "It shows ({letter}) {a_item}."),
        Phrasing("Choose the item that is packed in here: {lettered}.", "({letter}) {a_item}."),
        Phrasing("One of these lies in the bag. Which one, {lettered}?", "The answer is ({letter}), {a_item}."),
        Phrasing("Identify the prohibited item: {lettered}.", "It is ({letter}), {a_item}."),
        Phrasing("Name the letter of what you see in the X-ray. {lettered}.", "({letter}): {a_item}."),
    ),
    "concealment clutter": (
        Phrasing("How tightly is this bag packed: sparse, moderate, dense or heavy?", "{Word}."),
        Phrasing("How much clutter is in the scan?", "The clutter is {word}."),
        Phrasing("Rate the clutter of this X-ray.", "{Word}."),
        Phrasing("Is the packing sparse, moderate, dense or heavy?", "The packing is {word}."),
        Phrasing("How crowded is the bag?", "{Word}."),
        Phrasing("Judge the fullness of this bag.", "Its filling is {word}."),
    ),
    "concealment container": (
        Phrasing("What kind of bag is this?", "A {word}."),
        Phrasing("Which type of bag does the scan show?", "It shows a {word}."),
        Phrasing("Name the container that was scanned.", "A {word}."),
        Phrasing("What sort of bag went through the scanner?", "It was a {word}."),
        Phrasing("Which piece of luggage is this?", "This is a {word}."),
        Phrasing("What kind of luggage do you see?", "A {word}."),
    ),
    "concealment overlap": (
        Phrasing("How far is the {bare} covered by other things: hardly, partly or mostly?", "{Word}."),
        Phrasing("To what extent is the {bare} hidden?", "It is {word} hidden."),
        Phrasing("Is the {bare} hardly, partly or mostly overlaid?", "It is {word} overlaid."),
        Phrasing("How much of the {bare} is obscured?", "It is {word} obscured."),
        Phrasing("How well is the {bare} covered?", "{Word}."),
        Phrasing("Say how far the {bare} is overlaid by its surroundings.", "{Word}."),
    ),
    "concealment concealer": (
        Phrasing("Which of these covers most of the {bare}: {things}?", "The {word}."),
        Phrasing("What hides the {bare} most, {things}?", "It is the {word}."),
        Phrasing("Of {things}, which overlays the {bare} most?", "The {word}."),
        Phrasing("Which one obscures the {bare} more than the others do: {things}?", "The {word} does."),
        Phrasing("What lies over the {bare} and covers it most: {things}?", "The {word} covers it most."),
        Phrasing("The choices are {things}. Which one hides most of the {bare}?", "The {word}."),
    ),
    "concealment orientation": (
        Phrasing("How is the {bare} oriented in the scan?", "It is {word}."),
        Phrasing("Is the {bare} more horizontal or more vertical?", "More {word}."),
        Phrasing("Which way does the {bare} lie, horizontal or vertical?", "{Word}."),
        Phrasing("What is the orientation of the {bare}?", "{Word}."),
        Phrasing("Does the {bare} stretch in the horizontal or in the vertical?", "In the {word}."),
        Phrasing("Describe the orientation of the {bare} in this X-ray.", "Its longer side is {word}."),
    ),
    "declaration whole": (
        Phrasing(
            "The passenger declared: {declared}. Does the scan agree?",
            "Match: nothing prohibited and undeclared can be seen.",
            "Mismatch: {a_undeclared} can be seen.",
        ),
        Phrasing("Declared were {declared}. Do scan and declaration match?", "It is a match.", "It is a mismatch."),
        Phrasing("Does this bag fit the declaration: {declared}?", "Match.", "Mismatch, because of {a_undeclared}."),
        Phrasing("The form lists {declared}. Is the scan consistent with it?", "Match.", "Mismatch."),
        Phrasing(
            "Is the X-ray in line with what the traveller declared, {declared}?",
            "The verdict is match.",
            "The verdict is mismatch.",
        ),
        Phrasing(
            "According to the traveller the bag holds {declared}. Does what you see agree with that?",
            "Match.",
            "Mismatch: the scan shows {a_undeclared}.",
        ),
    ),
    "declaration item": (
        Phrasing("The passenger declared: {declared}. Can you confirm the {asked}?", "Match.", "Not verified."),
        Phrasing(
            "Declared were {declared}. Does the scan bear out the {asked}?",
            "Match: the {asked} can be seen.",
            "The {asked} is not verified.",
        ),
        Phrasing("Verify the {asked} among the declared goods: {declared}.", "It is a match.", "It is not verified."),
        Phrasing("The form lists {declared}. Is the {asked} confirmed by the scan?", "Match.", "Not verified."),
        Phrasing(
            "Of the declared goods, {declared}, can the {asked} be verified?", "It is a match.", "It is not verified."
        ),
        Phrasing("Can you vouch for the {asked}? Declared were {declared}.", "Match.", "Not verified by the scan."),
    ),
    "unanswerable weight": (
        Phrasing("What is the weight of {this}?", _UNKNOWN[0]),
        Phrasing("How heavy is {this}?", _UNKNOWN[1]),
    ),
    "unanswerable owner": (
        Phrasing("To whom does {this} belong?", _UNKNOWN[0]),
        Phrasing("Who is the owner of {this}?", _UNKNOWN[2]),
    ),
    "unanswerable age": (
        Phrasing("How old is {this}?", _UNKNOWN[0]),
        Phrasing("What is the age of {this}?", _UNKNOWN[1]),
    ),
    "unanswerable price": (
        Phrasing("What is {this} worth?", _UNKNOWN[0]),
        Phrasing("What did {this} cost?", _UNKNOWN[3]),
    ),
    "unanswerable colour": (
        Phrasing("What colour is {this} in daylight?", _UNKNOWN[0]),
        Phrasing("Name the true colour of {this}.", _UNKNOWN[2]),
    ),
    "unanswerable origin": (
        Phrasing("In which country was {this} made?", _UNKNOWN[0]),
        Phrasing("Where was {this} bought?", _UNKNOWN[3]),
    ),
    "unanswerable brand": (
        Phrasing("Which brand is {this}?", _UNKNOWN[0]),
        Phrasing("Who is the manufacturer of {this}?", _UNKNOWN[1]),
    ),
    "unanswerable destination": (
        Phrasing("What is the destination of {this}?", _UNKNOWN[0]),
        Phrasing("Which flight is {this} booked on?", _UNKNOWN[2]),
    ),
    "unanswerable time": (
        Phrasing("When was {this} packed?", _UNKNOWN[0]),
        Phrasing("How long ago was {this} packed?", _UNKNOWN[3]),
    ),
    "unanswerable opaque": (
        Phrasing("What lies behind whatever is opaque to the rays in {this}?", _UNKNOWN[0]),
        Phrasing("If part of {this} stops all rays, what is inside that part?", _UNKNOWN[1]),
    ),
    "unanswerable charge": (
        Phrasing("How far is {this} charged?", _UNKNOWN[0]),
        Phrasing("Is {this} run down?", _UNKNOWN[2]),
    ),
}
# A category that the source does not label is asked for in the very words of those that it does.
PHRASINGS["unanswerable"] = tuple(
    Phrasing(phrasing.question, _UNKNOWN[number % len(_UNKNOWN)])
    for number, phrasing in enumerate(PHRASINGS["presence"])
)


_DENIALS = frozenset({"no", NONE, "0", "low", MISMATCH, NOT_VERIFIED})
"""The short answers that take a phrasing's `denial`."""


def word_slots(record: ScanRecord, slots: Sequence[Slot], seed: int = 0, language: str = "en") -> list[WordedPair]:
    """Return question and answer for each slot of a scan."""
    if language != "en":
        return [_word_in(language, record, index, slot, seed) for index, slot in enumerate(slots)]
    return [_word(record, index, slot, seed) for index, slot in enumerate(slots)]


def _word(record: ScanRecord, index: int, slot: Slot, seed: int) -> WordedPair:
    phrasing = Draws(seed, identity_of(record), "words", *slot.subject).pick(PHRASINGS[_kind(slot)])
    words = _FILLERS[slot.question_type](record, slot)
    if slot.short_answer in _DENIALS:
        answer = phrasing.denial
    elif phrasing.several and (
        "," in slot.short_answer or (slot.question_type == "count" and slot.short_answer != "1")
    ):
        answer = phrasing.several
    else:
        answer = phrasing.answer
    return WordedPair(slot=index, question=phrasing.question.format(**words), answer=answer.format(**words))


def _word_in(language: str, record: ScanRecord, index: int, slot: Slot, seed: int) -> WordedPair:
    draws = Draws(seed, identity_of(record), "words", *slot.subject)
    question, answer = fill(language, _kind(slot), draws, record, slot)
    return WordedPair(slot=index, question=question, answer=answer)


def _kind(slot: Slot) -> str:
    """Return which table of phrasings a slot is worded from."""
    if slot.question_type == "listing" and slot.options:
        return "listing among options"
    if slot.question_type in ("concealment", "declaration", "unanswerable"):
        return f"{slot.question_type} {slot.topic}".strip()
    if slot.question_type == "identification" and slot.topic == LETTERED:
        return "identification among letters"
    if slot.question_type == "identification":
        return "identification among options" if slot.options else "identification by region"
    return slot.question_type


def _target_words(slot: Slot) -> dict[str, str]:
    if not slot.target:
        return {"many": "prohibited items"}
    return {"a": _one(slot.target), "bare": _bare(slot.target), "many": _many(slot.target)}


def _places_words(record: ScanRecord, slot: Slot) -> dict[str, str]:
    regions = slot.short_answer.split(", ")
    places = {"places": _joined(regions, "and the"), "Places": _sentence(_joined(regions, "and"))}
    return {**_target_words(slot), **places}


def _options_words(slot: Slot) -> dict[str, str]:
    return {
        "options": _joined([_bare(category) for category in slot.options], "or"),
        "a_options": _joined([_one(category) for category in slot.options], "and"),
        "a_options_or": _joined([_one(category) for category in slot.options], "or"),
    }


def _items_words(record: ScanRecord, slot: Slot) -> dict[str, str]:
    items = [] if slot.short_answer == NONE else [canonical_category(name) for name in slot.short_answer.split(", ")]
    words = _options_words(slot) if slot.options else {"region": slot.region}
    if items:
        ones = _joined([_one(category) for category in items], "and")
        words |= {"Listed": _sentence(_joined([_bare(category) for category in items], "and"))}
        words |= {"a_listed": ones, "a_item": ones, "A_item": _sentence(ones)}
    if slot.topic == LETTERED:
        choices = zip(LETTERS, slot.options, strict=False)
        words["lettered"] = ", ".join(f"({letter}) {_one(category)}" for letter, category in choices)
        words["letter"] = LETTERS[slot.options.index(items[0])]
    return words


def _attribute_words(record: ScanRecord, slot: Slot) -> dict[str, str]:
    words = {"word": slot.short_answer, "Word": _sentence(slot.short_answer)}
    return {**_target_words(slot), **words, "things": _joined(slot.goods, "or") if slot.goods else ""}


def _declared_words(record: ScanRecord, slot: Slot) -> dict[str, str]:
    declared = [_bare(category) for category in (*slot.options, slot.target) if category]
    there = {record.categories[index] for index in slot.evidence}
    return {
        "declared": _joined(sorted([*slot.goods, *declared]), "and"),
        "asked": declared[0] if declared else slot.goods[0],
        "a_undeclared": _joined([_one(category) for category in CATEGORIES if category in there] or [NONE], "and"),
    }


def _unknown_words(record: ScanRecord, slot: Slot) -> dict[str, str]:
    return {**_target_words(slot), "this": f"the {_bare(slot.target)}" if slot.target else "this bag"}


def _number_words(record: ScanRecord, slot: Slot) -> dict[str, str]:
    number = int(slot.short_answer)
    word = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return {**_target_words(slot), "number": word, "Number": _sentence(word), "digits": str(number)}


def _risk_words(record: ScanRecord, slot: Slot) -> dict[str, str]:
    there = {record.categories[index] for index in slot.evidence}
    causes = _joined([_one(category) for category in CATEGORIES if category in there] or [NONE], "and")
    return {"level": slot.short_answer, "Level": _sentence(slot.short_answer), "a_causes": causes}


_FILLERS: dict[str, Callable[[ScanRecord, Slot], dict[str, str]]] = {
    "presence": lambda record, slot: _target_words(slot),
    "location": _places_words,
    "absent": _places_words,
    "listing": _items_words,
    "identification": _items_words,
    "count": _number_words,
    "risk": _risk_words,
    "general": lambda record, slot: {},
    "concealment": _attribute_words,
    "declaration": _declared_words,
    "unanswerable": _unknown_words,
}


class TemplateProvider:
    """Words slots from `PHRASINGS`."""

    name = "template"
    generated_by = "template"
    model = f"template-{TEMPLATE_VERSION}"
    prompt_version = f"template-{TEMPLATE_VERSION}"
    paid = False
    concurrency = 1
    listens = False
    limits = Limits()

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def parameters(self) -> dict[str, str | int | float]:
        return {"seed": self._seed}

    def estimate_usd(self, requests: Sequence[Request]) -> float:
        return 0.0

    def most_usd(self, request: Request) -> float:
        return 0.0

    async def generate(self, request: Request) -> Reply:
        pairs = word_slots(request.record, request.slots, self._seed, request.language)
        return Reply(text=json.dumps({"pairs": [pair.model_dump() for pair in pairs]}), model=self.model)

    async def close(self) -> None:
        pass
