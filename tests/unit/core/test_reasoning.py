from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.config.loading import load_policy
from xray_vqa.core.inspection import MISSING, Evidence, Finding, Score
from xray_vqa.core.lexicon import LANGUAGES, load_lexicon
from xray_vqa.core.policy import decide
from xray_vqa.core.reasoning import load_sentences, write_reasoning
from xray_vqa.core.taxonomy import CATEGORIES

POLICY = load_policy()
SCORED = dict.fromkeys(CATEGORIES, Score.of(0.01))
KNIFE = Finding("Knife", 0.93, region="center-left")
SCISSORS = Finding("Scissors", 0.81, region="upper-right")


def reasoning(**fields) -> str:
    seen = Evidence(**{"scores": SCORED, "covered_categories": frozenset(CATEGORIES), "calibrated": True, **fields})
    return write_reasoning(POLICY, seen, decide(POLICY, seen))


def test_the_guides_example_reads_as_printed_there():
    assert reasoning(findings=(KNIFE, SCISSORS), declared_items=("clothing", "electronics")) == (
        "Two prohibited sharp items detected: knife (center-left), scissors (upper-right). "
        "Items declared (clothing, electronics) do not match detected items."
    )


def test_one_item_is_singular_and_of_its_own_kind():
    assert (
        reasoning(findings=(Finding("Gun", 0.9, region="center"),)) == "One prohibited firearm detected: gun (center)."
    )


def test_items_of_different_kinds_are_called_items():
    found = (KNIFE, Finding("Powerbank", 0.9, region="lower-left"))
    assert reasoning(findings=found) == "Two prohibited items detected: knife (center-left), powerbank (lower-left)."


def test_a_finding_without_a_place_says_so():
    assert reasoning(findings=(Finding("Bullet", 0.7),)) == (
        "One prohibited ammunition item detected: bullet (place not determined)."
    )


def test_more_than_ten_items_are_counted_in_digits():
    assert reasoning(findings=(KNIFE,) * 11).startswith("11 prohibited sharp items detected: knife (center-left), ")


def test_a_cleared_bag_says_so():
    assert reasoning() == "No prohibited item detected. All conditions for clearing the bag hold."


def test_a_bag_that_could_not_be_assessed_never_reads_like_an_empty_one():
    said = reasoning(scores=dict.fromkeys(CATEGORIES, MISSING), engine_faults=("timeout",))
    assert said.startswith("The scan was not fully assessed: the model did not answer in time. Inspect by hand.")
    assert "No prohibited item" not in said


def test_a_clean_scan_that_cannot_be_cleared_says_why():
    assert reasoning(calibrated=False) == (
        "No prohibited item detected. "
        "The model has no calibration on real scans that fits it, so its scores cannot clear a bag."
    )
    assert "not trained on every required category" in reasoning(covered_categories=frozenset({"Gun"}))
    assert "does not look like a scan" in reasoning(input_faults=("blank",))


def test_declared_items_that_are_found_and_allowed_are_said_to_match():
    said = reasoning(findings=(Finding("Powerbank", 0.9, region="center"),), declared_items=("power bank",))
    assert said == "One prohibited battery detected: powerbank (center). All detected items were declared (power bank)."


def test_a_declared_item_that_may_not_be_carried_is_named():
    assert reasoning(declared_items=("knife", "shirts")) == (
        "No prohibited item detected. Declared items that may not be carried: knife. "
        "Items declared (shirts) were not verified by the model."
    )


def test_declared_goods_without_findings_are_not_called_verified():
    assert "Items declared (shirts) were not verified by the model." in reasoning(declared_items=("shirts",))


faults = st.lists(st.sampled_from(["timeout", "unavailable", "unreadable", "overloaded", "engine_error"]), min_size=1)


@given(faults.map(tuple), st.lists(st.sampled_from([KNIFE, SCISSORS]), max_size=3).map(tuple))
def test_every_fault_is_told_in_words_and_asks_for_a_person(engine_faults, found):
    said = reasoning(engine_faults=engine_faults, findings=found)
    assert "Inspect by hand." in said
    assert not any(name in said for name in ("engine_error", "overloaded"))


OTHERS = [language for language in LANGUAGES if language != "en"]


@pytest.mark.parametrize("language", OTHERS)
@given(
    st.lists(st.sampled_from([KNIFE, SCISSORS, Finding("Bullet", 0.7)]), max_size=3).map(tuple),
    st.sampled_from([None, (), ("clothing",), ("knife", "Bücher")]),
    st.lists(st.sampled_from(["timeout", "engine_error", "image_unreadable"]), max_size=2, unique=True).map(tuple),
    st.booleans(),
)
def test_every_language_says_as_many_things_as_english(language, found, declared, engine_faults, calibrated):
    fields = {"findings": found, "declared_items": declared, "engine_faults": engine_faults, "calibrated": calibrated}
    seen = Evidence(**{"scores": SCORED, "covered_categories": frozenset(CATEGORIES), **fields})
    decision = decide(POLICY, seen)
    said = write_reasoning(POLICY, seen, decision, language)
    lexicon, sentences = load_lexicon(language), load_sentences()[language]
    assert "{" not in said
    for finding in found:
        assert lexicon.categories[finding.category].one in said
        assert (lexicon.regions[finding.region].name if finding.region else sentences.no_place) in said
    assert not found or all(item in said for item in declared or ())
    assert (sentences.nothing in said) == (not found and not engine_faults)
    assert all(sentences.degraded[fault] in said for fault in engine_faults)
    assert (sentences.cleared in said) == (decision.action.value == "clear")


def test_all_languages_have_the_same_sentences_and_blanks():
    english, *others = (load_sentences()[language] for language in LANGUAGES)
    for other in others:
        assert list(other.degraded) == list(english.degraded)
        assert list(other.not_clear) == list(english.not_clear)
        for name in ("not_assessed", "declared_prohibited", "mismatch", "match", "unverified", "unclear", "over_count",
                     "counted", "missing", "unknown", "between"):  # fmt: skip
            assert blanks(getattr(other, name)) == blanks(getattr(english, name))
        assert blanks(other.findings) == {"count", "items"}


def blanks(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_the_guides_example_in_french_and_chinese():
    seen = Evidence(
        scores=SCORED, covered_categories=frozenset(CATEGORIES), calibrated=True, findings=(KNIFE, SCISSORS)
    )
    decision = decide(POLICY, seen)
    assert write_reasoning(POLICY, seen, decision, "fr") == (
        "Articles prohibés détectés : 2. couteau (au centre à gauche), ciseaux (en haut à droite)."
    )
    assert write_reasoning(POLICY, seen, decision, "zh").startswith("检出违禁品2件：")
