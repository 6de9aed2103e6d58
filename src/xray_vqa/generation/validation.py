"""Is a pair true? Every answer is derived from the annotations once more, from the question as it was worded.

The plan is not consulted: what a question asks about is read out of its text, so that a provider's slip of the pen, a
hand-edited line and an annotation that changed since are all found here.
"""

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from xray_vqa.core.answers import parse_categories, parse_yes_no
from xray_vqa.core.geometry import REGIONS
from xray_vqa.core.inspection import RiskLevel
from xray_vqa.core.jsonl import first_error
from xray_vqa.core.lexicon import Reader
from xray_vqa.core.policy import Policy
from xray_vqa.core.records import Fault, ScanRecord, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES, canonical_category
from xray_vqa.errors import AnswerUnreadable, DatasetError
from xray_vqa.generation import facts as truth
from xray_vqa.generation import foreign
from xray_vqa.generation.attributes import attribute
from xray_vqa.generation.facts import NONE, Facts, Truth, read_facts
from xray_vqa.generation.foreign import check_form, reader_of
from xray_vqa.generation.reading import categories_in, says, topic_faults
from xray_vqa.generation.topics import LETTERED, MATCH, TOPICS

DERIVED_TYPES = (
    "presence", "listing", "count", "location", "identification", "risk", "absent",
    "general", "concealment", "declaration", "unanswerable",
)  # fmt: skip
"""The types whose answers follow from annotations and policy. Of others only form, evidence and items are checked."""

_LEAK = re.compile(
    r"\b(annotat(?:ion|ions|ed)|bounding box(?:es)?|bbox(?:es)?|ground truth|caption(?:s|ed)?|metadata|dataset|"
    r"label(?:s|led|ed)?|image_path|\d{6}\.(?:jpg|png|bmp))\b",
    re.IGNORECASE,
)
"""Words of somebody who has read the annotations; a question comes from one who sees the scan and nothing else."""

_REGION = re.compile(rf"(?<![\w-])({'|'.join(sorted(REGIONS, key=len, reverse=True))})(?![\w-])")
_LEVEL = re.compile(rf"\b({'|'.join(level.value for level in RiskLevel)})\b")
_DENIAL = re.compile(r"\b(no|not|none|nothing|cannot)\b")
_NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = re.compile(rf"\b(\d+|none|{'|'.join(_NUMBER_WORDS)})\b")


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """A line of a pairs file with all that is wrong with it."""

    pair: VQAPair | None
    """None where the line is no pair."""
    faults: tuple[Fault, ...]


def check_file(
    path: Path, records: Iterable[ScanRecord], annotated: Sequence[str], policy: Policy, root: Path
) -> Iterator[CheckedLine]:
    """Give the lines of a file: first those that are no pairs, then the pairs, image by image wherever they stand.

    The file is read twice, and no more of it is held than the pairs of one image.

    Raises:
        DatasetError: The file is not there.
    """
    known = {record.image_path: record for record in records}
    places: dict[str, array[int]] = {}
    """By image, for each of its lines the number, from 1, and the first byte."""
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file; write it with `xray-vqa generate`") from error
    with stream:
        end = 0
        for number, text in enumerate(stream, start=1):
            start, end = end, end + len(text)
            if not text.strip():
                continue
            try:
                image_path = VQAPair.model_validate_json(text).image_path
            except ValidationError as error:
                fault = Fault(path, f"no question-answer pair: {first_error(error)}", number)
                yield CheckedLine(None, (fault,))
                continue
            places.setdefault(image_path, array("Q")).extend((number, start))
        for image_path, place in places.items():
            pairs: list[VQAPair] = []
            for start in place[1::2]:
                stream.seek(start)
                pairs.append(VQAPair.model_validate_json(stream.readline()))
            faults: list[list[str]] = [[] for _ in pairs]
            if record := known.get(image_path):
                if not (root / image_path).is_file():
                    faults[0].append(f"the image {root / image_path} is missing")
                for index, message in check_image(pairs, read_facts(record, annotated), policy):
                    faults[index].append(message)
            else:
                faults = [[f"{image_path} is not in the split's annotations"] for _ in pairs]
            for number, pair, messages in zip(place[::2], pairs, faults, strict=True):
                yield CheckedLine(pair, tuple(Fault(path, message, number) for message in messages))


def check_image(pairs: Sequence[VQAPair], facts: Facts, policy: Policy) -> list[tuple[int, str]]:
    """Return what is wrong with the pairs of one image: index and message."""
    faults = [(index, message) for index, pair in enumerate(pairs) for message in check_pair(pair, facts, policy)]
    return sorted([*faults, *_duplicates(pairs), *_contradictions(pairs)])


def check_pair(pair: VQAPair, facts: Facts, policy: Policy) -> list[str]:
    """Return what is wrong with a pair by itself."""
    about = pair.metadata
    reader = reader_of(about.language)
    if reader is None:
        return [f"a pair in {about.language!r} cannot be checked"]
    faults = [f"the {name} says {leak.group()!r}" for name, leak in _leaks(pair)]
    if about.language != "en":
        faults += check_form(pair, reader)
    if sorted(about.categories) != sorted(facts.present) or about.num_categories != len(facts.present):
        faults.append(f"metadata names the categories {about.categories}, the annotations {list(facts.present)}")
    stray = [index for index in about.evidence if not 0 <= index < len(facts.record.categories)]
    if stray:
        faults.append(f"evidence {stray} is not among the {len(facts.record.categories)} annotated items")
    if about.target and about.target not in CATEGORIES:
        return [*faults, f"target {about.target!r} is no category"]
    if about.question_type in DERIVED_TYPES:
        faults.extend(_against_truth(pair, facts, policy, reader))
    elif about.language == "en":
        strange = sorted(parse_categories(pair.answer) - set(facts.present))
        if strange:
            faults.append(f"the answer names {', '.join(strange)}, which the annotations do not have")
    else:
        faults.append(f"a {about.question_type} pair cannot be checked in {reader.lexicon.name}")
    return faults


def _leaks(pair: VQAPair) -> list[tuple[str, re.Match[str]]]:
    texts = (("question", pair.question), ("answer", pair.answer))
    return [(name, leak) for name, text in texts if (leak := _LEAK.search(text))]


def _against_truth(pair: VQAPair, facts: Facts, policy: Policy, reader: Reader) -> list[str]:
    about = pair.metadata
    if about.question_type in ("presence", "location", "absent") and not about.target:
        return [f"a {about.question_type} question needs a target"]
    if about.topic not in {"", LETTERED, *TOPICS.get(about.question_type, ())}:
        return [f"topic {about.topic!r} is none of a {about.question_type} question"]
    if strange := topic_faults(pair, facts, reader):
        return strange
    named = _named(pair)
    if about.target and named != {about.target}:
        return [f"the question asks about {', '.join(sorted(named)) or 'no category'}, its target is {about.target}"]
    expected = _expected(pair, facts, policy, named, reader)
    if expected is None:
        return [f"the annotations do not tell the answer to {pair.question!r}"]
    short_answer, evidence = expected
    faults: list[str] = []
    if about.question_type == "location" and short_answer == NONE:
        faults.append(f"it asks for the place of a {about.target}, which is not there")
    if about.short_answer != short_answer:
        faults.append(f"short_answer is {about.short_answer!r}, the annotations say {short_answer!r}")
    if sorted(about.evidence) != sorted(evidence):
        faults.append(f"evidence is {about.evidence}, the annotations say {list(evidence)}")
    if not _agrees(pair, short_answer, facts, reader):
        faults.append(f"the answer {pair.answer!r} does not say {short_answer!r}")
    return faults


def _expected(pair: VQAPair, facts: Facts, policy: Policy, named: frozenset[str], reader: Reader) -> Truth | None:
    """Return the true short answer and its evidence; None where the annotations do not tell."""
    about = pair.metadata
    match about.question_type:
        case "presence":
            return truth.presence(facts, about.target)
        case "count":
            return truth.count(facts, about.target) if about.target or not named else None
        case "location" | "absent":
            return truth.location(facts, about.target)
        case "listing":
            return truth.listing(facts, named)
        case "identification":
            return truth.identification(facts, named, _asked_region(pair, reader))
        case "general":
            return None if named else truth.general(facts)
        case "concealment":
            return attribute(facts, about.topic, about.target) if about.target or not named else None
        case "declaration" if about.topic == "whole":
            return truth.declaration(facts, policy, named)
        case "declaration":
            return truth.declared_item(facts, policy, about.target) if about.target or not named else None
        case "unanswerable":
            return truth.unanswerable(facts, about.target, about.topic) if about.target or not named else None
        case _:
            return truth.risk(facts, policy)


def _named(pair: VQAPair) -> frozenset[str]:
    """Return the categories that a question names."""
    return categories_in(pair.question, pair.metadata.language)


def _asked_region(pair: VQAPair, reader: Reader) -> str:
    if pair.metadata.language == "en":
        return next(iter(_REGION.findall(pair.question.lower())), "")
    regions = reader.regions(pair.question)
    return next(iter(regions)) if len(regions) == 1 else ""


def _agrees(pair: VQAPair, short_answer: str, facts: Facts, reader: Reader) -> bool:
    if pair.metadata.language == "en":
        return _says(pair, short_answer, facts)
    return foreign.says(pair.answer, pair.metadata, short_answer, facts.present, reader)


def _says(pair: VQAPair, short_answer: str, facts: Facts) -> bool:
    """Return whether an English answer says what it should, and names no item that is not there."""
    answer, target, question_type = pair.answer, pair.metadata.target, pair.metadata.question_type
    lowered, named = answer.lower(), parse_categories(answer)
    match question_type:
        case "presence":
            try:
                said = parse_yes_no(answer)
            except AnswerUnreadable:
                return False
            return said is (short_answer == "yes") and named <= ({target} if said else set())
        case "count":
            numbers = {_as_number(word) for word in _NUMBER.findall(lowered)}
            return numbers == {int(short_answer)}
        case "location" | "absent":
            if short_answer == NONE:
                return bool(_DENIAL.search(lowered)) and not named and not _REGION.search(lowered)
            return set(_REGION.findall(lowered)) == set(short_answer.split(", ")) and named <= {target}
        case "listing" | "identification":
            if short_answer == NONE:
                return bool(_DENIAL.search(lowered)) and not named
            return named == {canonical_category(name) for name in short_answer.split(", ")}
        case "risk":
            return set(_LEVEL.findall(lowered)) == {short_answer} and named <= set(facts.present)
        case _:
            return says(answer, question_type, pair.metadata.topic, short_answer, target, facts)


def _as_number(word: str) -> int:
    if word.isdigit():
        return int(word)
    return 0 if word == NONE else _NUMBER_WORDS.index(word)


def _duplicates(pairs: Sequence[VQAPair]) -> list[tuple[int, str]]:
    seen: dict[str, int] = {}
    faults: list[tuple[int, str]] = []
    for index, pair in enumerate(pairs):
        question = " ".join(re.findall(r"\w+", pair.question.lower()))
        if question in seen:
            faults.append((index, f"asks the same as another pair of this image: {pair.question!r}"))
        seen.setdefault(question, index)
    return faults


def _contradictions(pairs: Sequence[VQAPair]) -> list[tuple[int, str]]:
    said: dict[tuple[str, str], int | bool] = {}
    faults: list[tuple[int, str]] = []
    for index, pair in enumerate(pairs):
        for subject, value in claims_of(pair).items():
            if said.setdefault(subject, value) != value:
                faults.append((index, f"contradicts another pair of this image about {subject[1] or 'the whole bag'}"))
                break
    return faults


def claims_of(pair: VQAPair) -> Mapping[tuple[str, str], int | bool]:
    """Return what a pair says is so: `("there", category)` to whether, `("count", category)` to how many.

    `("there", "")` is whether anything prohibited is in the bag at all.
    """
    claims = dict(_claims_of(pair))
    there = [claims[subject] for subject in claims if subject[0] == "there" and subject[1]]
    if any(there):
        claims["there", ""] = True
    elif len(there) == len(CATEGORIES):
        claims["there", ""] = False
    if claims.get(("there", "")) is False:
        claims |= {("there", category): False for category in CATEGORIES}
    return claims


def _claims_of(pair: VQAPair) -> Mapping[tuple[str, str], int | bool]:
    about = pair.metadata
    short_answer, target = about.short_answer, about.target
    match about.question_type:
        case "presence":
            return {("there", target): short_answer == "yes"}
        case "count" if short_answer.isdigit():
            number = int(short_answer)
            return {("count", target): number, ("there", target): number > 0}
        case "location" | "absent":
            return {("there", target): short_answer != NONE}
        case "listing" | "identification":
            options = _named(pair)
            there = {canonical_category(name) for name in short_answer.split(", ")}
            if about.question_type == "identification" and not options:
                return dict.fromkeys((("there", category) for category in there), True)
            return {("there", category): category in there for category in options or CATEGORIES}
        case "general":
            return {("there", ""): short_answer == "yes"}
        case "declaration" if about.topic == "whole" and short_answer == MATCH:
            declared = _named(pair)
            return {("there", category): False for category in CATEGORIES if category not in declared}
        case "declaration" if target:
            return {("there", target): short_answer == MATCH}
        case "concealment" | "unanswerable" if target and about.topic:
            return {("there", target): True}
        case _:
            return {}


_KINDS = (
    ("leak", re.compile(r"^the (question|answer) says '")),
    ("invalid", re.compile(r"^no question-answer pair|needs a target$|is no category$")),
    ("missing", re.compile(r"is not in the split's annotations$|^the image .* is missing$")),
    ("repeat", re.compile(r"^asks the same as another pair of this image")),
    ("contradiction", re.compile(r"^contradicts another pair of this image")),
    ("unsupported", re.compile(r"^the answer names .* which the annotations do not have$")),
)
"""Kinds of faults by their words, for counting; what a later check says is a disagreement until it stands here."""


def kind_of(message: str) -> str:
    """Return the kind of a fault: one of the table's, or `disagreement` with the annotations or the policy."""
    return next((kind for kind, words in _KINDS if words.search(message)), "disagreement")
