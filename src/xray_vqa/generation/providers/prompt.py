"""What a language model is told: one text for all images, then the scan, its facts and its slots as JSON.

The first text is the same byte for byte, so that a service reads it from its cache. It holds the model to what
`generation/validation.py` checks afterwards. The model chooses words; every answer stands in the slots. The file's
name and path are never told: they carry the category.
"""

import json
from typing import Any

from xray_vqa.core.geometry import REGIONS, Box
from xray_vqa.core.inspection import RiskLevel
from xray_vqa.core.lexicon import load_lexicon
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, names_of
from xray_vqa.generation.facts import Facts, read_facts
from xray_vqa.generation.plan import Slot
from xray_vqa.generation.providers.provider import Request
from xray_vqa.generation.topics import TOPICS
from xray_vqa.generation.wording import goods_word

PROMPT_VERSION = "llm-2"
"""Raised with every change of SYSTEM_PROMPT, REPLY_SCHEMA or the form of `write_prompt`."""

_NAMES = "\n".join(f"- {category}: {', '.join(names_of(category))}" for category in CATEGORIES)

_TOPICS = "\n".join(
    f"- {kind}, {name}: {topic.asks} ({', '.join(load_lexicon('en').topics[kind][name])})"
    + (f"; answers: {', '.join(topic.answers)}" if topic.answers else "")
    for kind, topics in TOPICS.items()
    for name, topic in topics.items()
)

SYSTEM_PROMPT = f"""\
You word questions and answers about X-ray scans of baggage. They train and test a narrow screening model that helps \
officers at airports and customs to find prohibited items. Nothing else is made of them: write about seeing, naming, \
placing and counting items and about what an officer does next, and never about making, using or hiding one.

You get a scan and a JSON object with its facts and a list of slots. Scans are pseudo-coloured: organic material is \
usually orange, mixed and light inorganic material green, metal blue; what lets hardly any ray through is dark.

# Facts
Each fact is one prohibited item: `id`, `class`, `box` ([x0, y0, x1, y1] in pixels of the scan as you see it, or null) \
and `region` (which ninth of the scan, three by three). The facts are true, complete for the classes under \
`searched`, and silent about everything else: never say that something else is there or is not there. Where \
`shown` is false you do not see the scan and word from the facts alone. Where the scan clearly contradicts \
the facts, still word the slots as they stand and set `disagree` to true; else it is false.

# Slots
For each slot write one question and its answer. The slot decides what is true: `type`, `target` (the class asked \
about), `options` (the choices to offer, in this order), `region` (the place asked about), \
`topic`, `goods` (harmless things to name) and `answer` (what the \
answer has to say). You choose the words. Copy `slot` and put the slot's `evidence` ids into `evidence`.
- presence: is the target in the bag? The answer begins with Yes or No.
- listing: which prohibited items are there? With `options`, which of these. `none`: say that there are none.
- location: where is the target? The answer names exactly the regions in `answer`.
- absent: somebody takes it for granted that the target is there and asks where. `none`: say that there is no such \
item. Else the answer names exactly the regions in `answer`.
- identification: what is the item in `region`, or which one of `options` is there? The answer names that class.
- count: how many of the target, or, without one, how many prohibited items? The answer says this number and no other.
- risk: what risk level does the scan call for? The answer says this level and may name the classes that cause it.

- general: is anything prohibited in the bag? The answer begins with Yes or No. Ask for what is prohibited, never \
whether the bag is clean or clear, and let a No speak only of the kinds that are screened for.
- identification with topic "letters": offer the `options` in this order as "(A) a gun, (B) a knife, ..."; the answer \
says letter and name, as in "(B) a knife".
- concealment, declaration, unanswerable: the `topic` says what is asked (see Topics). The answer to concealment has \
the slot's answer in its very word; to declaration the word match or mismatch or the words not verified; to \
unanswerable the words "cannot be determined". An unanswerable without a topic is worded like presence.

# Topics
The question has one of the words in brackets (`*`: any ending) and none of another topic of its type.
{_TOPICS}

# Rules that every pair is checked against
1. Questions are affirmative. No negation in a question ("no", "not", "without", "never", "cannot").
2. A question with a `target` names this class and no other. One with `options` names each option and no other class, \
and no region. One with a `region` names the region and no class. All others name no class at all.
3. Name classes by the names in the list below (plurals are fine), and use no name of another class, not even as part \
of a phrase: "the blade of the knife", "cell phone" and "cartridge" each name a class.
4. An answer names only classes that its slot's `answer` or `target` holds. A denial names an absent class only right \
after the negation ("there is no knife"), and says nothing of other items. Where the answer is `none`, it needs a word \
like "no", "none" or "nothing" and no region.
5. Regions are spelled exactly so, with the hyphen: {", ".join(REGIONS)}. An answer about a place has no other of \
these words; a plain "center" is the region in the middle.
6. Numbers: digits or words from one to ten. An answer to a count has one number and no other number word, so not \
"one of them". Zero is "none", "no" or 0.
7. Risk levels are {", ".join(level.value for level in RiskLevel)}; an answer about the risk has only its own, in no \
other sense of the word either.
8. Write as one who sees the scan and nothing else. Never use the words annotation, annotated, label, labelled, \
bounding box, ground truth, caption, metadata, dataset, fact, slot, id, provided or a file name.
9. A question must not give its answer away, and no two questions of one scan say the same. Vary the wording, the \
length and the form: questions, requests, a traveller's or a colleague's claim; short answers and whole sentences.
10. Plain English, one question and one or two short sentences of answer, no lists, no markup.

# Names of the classes
{_NAMES}

# Reply
JSON alone: {{"pairs": [{{"slot": 0, "question": "...", "answer": "...", "evidence": [0]}}], "disagree": false}}, one \
pair for each slot, in the order of the slots. A `complaint` says what was wrong with your reply before this one."""

REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "pairs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "slot": {"type": "integer"},
                    "question": {"type": "string"},
                    "answer": {"type": "string"},
                    "evidence": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["slot", "question", "answer", "evidence"],
                "additionalProperties": False,
            },
        },
        "disagree": {"type": "boolean"},
    },
    "required": ["pairs", "disagree"],
    "additionalProperties": False,
}
"""`WordedPairs` as both vendors' strict modes take it: every field required, nothing else allowed, and no bounds,
which neither enforces."""


def write_prompt(request: Request, size_wh: tuple[int, int]) -> str:
    """Return what is told of one scan, as one JSON object, with boxes in an image of this size."""
    facts = read_facts(request.record, request.annotated)
    content: dict[str, Any] = {
        "scan": {"shown": request.with_image, "width": size_wh[0], "height": size_wh[1]},
        "searched": "all classes" if facts.complete else sorted({*facts.present, *facts.deniable}),
        "facts": _facts(facts, size_wh),
        "slots": [_slot(number, slot) for number, slot in enumerate(request.slots)],
    }
    if request.language != "en":
        content["language"] = _language(request, facts)
    if request.complaint:
        content["complaint"] = request.complaint
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


LANGUAGE_RULES = (
    "Write every question and answer in {name}, in its own script, plain and grammatical. The slots stay English; say "
    "what they say in {name}, with the words of the glossary, inflected where grammar asks for it. All rules hold for "
    "{name} as for English: begin an answer to a presence or general slot with the word for yes or no, give counts in "
    "digits, write no negation into a question or into an answer that affirms, and no names of other classes. Letters "
    "of choices stay (A) to (D). Where a slot's type and topic stand under `topics`, its question has one of these "
    "instead of the English words; a general question has one of `prohibited` and none of `clean`."
)
"""Told beside the slots and not in SYSTEM_PROMPT, which stays one prefix for all languages. A change of it raises
`WORDING_VERSION`."""


def _language(request: Request, facts: Facts) -> dict[str, Any]:
    """Return what is told of another language than English, with the words that these slots need."""
    lexicon = load_lexicon(request.language)
    options = {category for slot in request.slots for category in (*slot.options, slot.target) if category}
    terms = {category: lexicon.categories[category].one for category in CATEGORIES if category in options}
    terms |= {category: lexicon.categories[category].one for category in facts.present}
    terms |= {region: lexicon.regions[region].name for region in REGIONS}
    if any(slot.question_type == "risk" for slot in request.slots):
        terms |= {level: term.name for level, term in lexicon.risk_levels.items()}
    words = (("yes", lexicon.yes), ("no", lexicon.no), ("none", lexicon.none))
    terms |= {name: term.name for name, term in words} | {"prohibited item": lexicon.prohibited_item.one}
    topics: dict[str, list[str]] = {}
    for slot in request.slots:
        terms |= {thing: word for thing in slot.goods if (word := goods_word(lexicon, thing, slot.topic))}
        match slot.question_type:
            case "concealment":
                terms[slot.short_answer] = lexicon.attributes[slot.topic][slot.short_answer].name
            case "declaration":
                terms |= {verdict: term.name for verdict, term in lexicon.declaration.items()}
            case "unanswerable":
                terms[slot.short_answer] = lexicon.undetermined.name
            case "general":
                topics |= lexicon.topics["general"]
            case _:
                pass
        if slot.topic in TOPICS.get(slot.question_type, ()):
            topics[f"{slot.question_type}, {slot.topic}"] = lexicon.topics[slot.question_type][slot.topic]
    told = {"name": lexicon.name, "rules": LANGUAGE_RULES.format(name=lexicon.name), "glossary": terms}
    return told | ({"topics": topics} if topics else {})


def _facts(facts: Facts, size_wh: tuple[int, int]) -> list[dict[str, Any]]:
    record = facts.record
    factor_x, factor_y = size_wh[0] / record.width, size_wh[1] / record.height
    told: list[dict[str, Any]] = []
    for index, (category, values, region) in enumerate(
        zip(record.categories, record.bboxes, facts.regions, strict=True)
    ):
        box = Box.from_xywh(values).clipped(record.size_wh) if values and region else None
        corners = [round(value) for value in box.scaled(factor_x, factor_y).as_xyxy()] if box else None
        name = "an item of no class" if category == UNLISTED else category
        told.append({"id": index, "class": name, "box": corners, "region": region})
    return told


def _slot(number: int, slot: Slot) -> dict[str, Any]:
    """Return what is told of a slot; how an absent target was found is the plan's own business."""
    told = {"slot": number, **slot.as_json()}
    return {key: value for key, value in told.items() if value != "" and value != []} | {
        "evidence": list(slot.evidence)
    }
