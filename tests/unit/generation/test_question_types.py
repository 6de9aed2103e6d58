"""The types beside categories and places: the bag as a whole, its packing, its declaration, and what no scan tells."""

from dataclasses import replace

import pytest
from bags import POLICY, make_record, surroundings
from hypothesis import given, settings
from hypothesis import strategies as st
from test_templates import pairs_of

from xray_vqa.core.lexicon import LANGUAGES, load_reader
from xray_vqa.core.records import PairMetadata, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.generation import facts as truth
from xray_vqa.generation.attributes import attribute
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.plan import PlannedImage, plan_images
from xray_vqa.generation.providers.template import word_slots
from xray_vqa.generation.topics import TOPICS
from xray_vqa.generation.validation import check_image

SIXRAY = ("Gun", "Knife", "Wrench", "Pliers", "Scissors")
BAG = make_record(categories=["Gun", "Scissors"], bboxes=[(10, 10, 60, 20), (120, 120, 30, 28)]).model_copy(
    update={
        "occlusion": [0.1, 0.9],
        "factors": {"bag": "backpack", "clutter_level": 3, "threats": [{"concealer": "towel"}, {"concealer": None}]},
        "co_items": ["towel", "glue gun"],
    }
)
FACTS = read_facts(BAG, CATEGORIES)


def pair(question_type, question, answer, short_answer, evidence=(), target="", topic="") -> VQAPair:
    about = PairMetadata(
        image_id=0,
        question_type=question_type,
        categories=["Gun", "Scissors"],
        num_categories=2,
        generated_by="llm",
        evidence=list(evidence),
        short_answer=short_answer,
        target=target,
        topic=topic,
    )
    return VQAPair(image_path=BAG.image_path, question=question, answer=answer, metadata=about)


def faults_of(*pairs, facts=FACTS):
    return [message for _, message in check_image(pairs, facts, POLICY)]


CHOICES = "(A) a knife, (B) a gun, (C) a wrench"
TRUE_PAIRS = [
    pair("general", "Is anything prohibited in here?", "Yes, a gun.", "yes", [0, 1]),
    pair("concealment", "How much clutter is there?", "The clutter is dense.", "dense", [], topic="clutter"),
    pair("concealment", "What kind of bag is it?", "A backpack.", "backpack", [], topic="container"),
    pair("concealment", "How far is the gun covered?", "Hardly.", "hardly", [0], "Gun", "overlap"),
    pair("concealment", "What covers the gun most, book or towel?", "The towel.", "towel", [0], "Gun", "concealer"),
    pair("concealment", "How is the gun oriented?", "Horizontal.", "horizontal", [0], "Gun", "orientation"),
    pair("declaration", "Declared: books, scissors. Does it match?", "Mismatch: a gun.", "mismatch", [0], "", "whole"),
    pair("declaration", "Can the scissors be verified?", "Match.", "match", [1], "Scissors", "item"),
    pair("declaration", "Can the books be verified?", "Not verified.", "not verified", [], "", "item"),
    pair("unanswerable", "How old is the gun?", "Cannot be determined.", "cannot be determined", [], "Gun", "age"),
    pair("identification", f"Which one: {CHOICES}?", "(B) a gun.", "gun", [0], "", "letters"),
]  # fmt: skip


def test_true_pairs_pass():
    for one in TRUE_PAIRS:
        assert faults_of(one) == [], one.question
    assert faults_of(*TRUE_PAIRS) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (pair("general", "Is anything prohibited in here?", "No, nothing.", "no", []), "annotations say 'yes'"),
        (pair("general", "Is this bag clean of threats?", "Yes.", "yes", [0, 1]), "does not ask"),
        (pair("general", "Is it a bag?", "Yes.", "yes", [0, 1]), "does not ask"),
        (pair("concealment", "How heavy is it?", "Dense.", "dense", [], topic="clutter"), "its topic is 'clutter'"),
        (pair("concealment", "How much clutter?", "Dense or heavy.", "dense", [], topic="clutter"), "not say 'dense'"),
        (pair("concealment", "How much clutter?", "Dense.", "dense", [], topic="mood"), "is none of a concealment"),
        (pair("concealment", "What covers the gun?", "The towel.", "towel", [0], "Gun", "concealer"), "offers"),
        (pair("concealment", "How are the scissors oriented?", "Vertical.", "vertical", [1], "Scissors", "orientation"),
         "do not tell"),
        (pair("declaration", "Declared: a gun. Does it match?", "Match.", "match", [0], "", "whole"), "say 'mismatch'"),
        (pair("declaration", "Can the books be verified?", "Match.", "match", [], "", "item"), "say 'not verified'"),
        (pair("declaration", "Can the scissors be verified?", "Match, and a knife.", "match", [1], "Scissors", "item"),
         "does not say"),
        (pair("unanswerable", "Is there a knife?", "It cannot be determined.", "cannot be determined", [], "Knife"),
         "do not tell"),
        (pair("unanswerable", "How old is the bag?", "Two years.", "cannot be determined", [], "", "age"), "not say"),
        (pair("identification", f"Which one: {CHOICES}?", "(A) a gun.", "gun", [0], "", "letters"), "chooses A"),
        (pair("identification", f"Which one: {CHOICES}?", "(B) a knife.", "gun", [0], "", "letters"), "not say 'gun'"),
        (pair("identification", f"Which one: {CHOICES}?", "A gun.", "gun", [0], "", "letters"), "chooses no letter"),
        (pair("identification", "Which: (A) a gun, (A) a knife?", "(A) a gun.", "gun", [0], "", "letters"), "letters"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_named(wrong, said):
    assert any(said in message for message in faults_of(wrong)), faults_of(wrong)


def test_a_clean_bag_contradicts_an_item_in_it():
    clean = pair("general", "Is anything prohibited in here?", "No.", "no")
    there = pair("presence", "Is there a gun?", "Yes.", "yes", [0], "Gun")
    assert any("contradicts another pair" in message for message in faults_of(there, clean))


def test_no_bag_is_called_clean_where_the_source_labels_a_part():
    assert truth.general(read_facts(make_record(), CATEGORIES)) == ("no", ())
    assert truth.general(read_facts(make_record(), SIXRAY)) is None
    assert truth.general(read_facts(make_record(categories=["Gun"]), SIXRAY)) == ("yes", (0,))


def test_a_category_that_the_source_does_not_label_cannot_be_determined():
    asked = pair("unanswerable", "Is there an explosive?", "That cannot be determined.", "cannot be determined",
                 [], "Explosive")  # fmt: skip
    assert faults_of(asked, facts=read_facts(BAG, SIXRAY)) == []
    assert faults_of(asked)


def test_a_declaration_matches_when_it_names_all_that_is_there_and_all_may_be_carried():
    scissors = read_facts(make_record(categories=["Scissors"]), CATEGORIES)
    assert truth.declaration(scissors, POLICY, ["Scissors"]) == ("match", (0,))
    assert truth.declaration(scissors, POLICY, []) == ("mismatch", (0,))
    assert truth.declaration(read_facts(make_record(), CATEGORIES), POLICY, ["Gun"]) == ("mismatch", ())
    assert truth.declaration(read_facts(make_record(), SIXRAY), POLICY, []) is None


def test_a_record_that_says_nothing_of_its_bag_is_asked_nothing_of_it():
    facts = read_facts(make_record(categories=["Gun"]), CATEGORIES)
    assert {
        topic for topic in TOPICS["concealment"] for target in ("", "Gun") if attribute(facts, topic, target)
    } == set()


@pytest.mark.parametrize("factors", [{"clutter_level": 9, "bag": 2, "threats": [1]}, {"threats": "x"}, {"bag": "van"}])
def test_strange_factors_are_as_good_as_none(factors):
    facts = read_facts(make_record(categories=["Gun"]).model_copy(update={"factors": factors}), CATEGORIES)
    assert all(attribute(facts, topic, target) is None for topic in TOPICS["concealment"] for target in ("", "Gun"))


bags = st.builds(
    lambda number, categories, sizes: make_record(
        number, categories, [(20.0 * k, 30.0 * k, *sizes[k]) for k in range(len(categories))]
    ).model_copy(update=surroundings(number, len(categories))),
    st.integers(0, 500),
    st.lists(st.sampled_from(CATEGORIES), max_size=3),
    st.lists(st.sampled_from([(60.0, 20.0), (20.0, 60.0), (40.0, 40.0)]), min_size=3, max_size=3),
)
FLIPS = {
    "yes": "no", "no": "yes", "match": "mismatch", "mismatch": "match", "not verified": "match", "sparse": "heavy",
    "moderate": "dense", "dense": "sparse", "heavy": "moderate", "hardly": "mostly", "partly": "hardly",
    "mostly": "partly", "horizontal": "vertical", "vertical": "horizontal", "backpack": "tray", "tray": "hard suitcase",
    "hard suitcase": "suitcase",
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, deadline=None)
@given(
    record=bags,
    annotated=st.sets(st.sampled_from(CATEGORIES)) | st.just(set(CATEGORIES)),
    seed=st.integers(0, 5),
)
def test_what_is_planned_and_worded_holds_and_its_contrary_does_not(language, record, annotated, seed):
    (image,) = plan_images([record], tuple(annotated), POLICY, samples_per_image=12, seed=seed, languages=(language,))
    facts = read_facts(record, tuple(annotated))
    pairs = list(pairs_of(image, seed))
    assert check_image(pairs, facts, POLICY) == []
    for slot, one in zip(image.slots, pairs, strict=True):
        asked = load_reader(language).topics(one.question, slot.question_type)
        assert asked <= {"prohibited" if slot.question_type == "general" else slot.topic}
        flipped = FLIPS.get(slot.short_answer)
        if flipped is None:
            continue
        stated = one.model_copy(update={"metadata": one.metadata.model_copy(update={"short_answer": flipped})})
        assert check_image([stated], facts, POLICY)
        (words,) = word_slots(record, [replace(slot, short_answer=flipped)], seed, language)
        assert check_image([one.model_copy(update={"answer": words.answer})], facts, POLICY), (one, words.answer)


def test_the_planned_image_of_a_silent_record_has_no_slots():
    assert plan_images([make_record()], (), POLICY) == [PlannedImage(make_record(), ())]
