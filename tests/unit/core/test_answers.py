"""The only parser of model answers: negation, longest names, boxes; what has no meaning raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.answers import format_box_digits, parse_box_digits, parse_categories, parse_yes_no
from xray_vqa.core.geometry import Box
from xray_vqa.core.taxonomy import CATEGORIES, names_of
from xray_vqa.errors import AnswerUnreadable

FRAME = (640, 480)


@pytest.mark.parametrize("text", ["Yes.", "yes", " YES, there is.", "Correct", "True", '"Yes"'])
def test_yes_is_read(text):
    assert parse_yes_no(text) is True


@pytest.mark.parametrize("text", ["No.", "no", "None of them.", "Nothing is there", "Not at all", "False", "- no"])
def test_no_is_read(text):
    assert parse_yes_no(text) is False


@pytest.mark.parametrize(
    "text", ["", "Perhaps", "I cannot help with that.", "Notice the gun", "A gun: yes", "yesterday"]
)
def test_neither_yes_nor_no_is_unreadable_and_kept_for_the_record(text):
    with pytest.raises(AnswerUnreadable) as raised:
        parse_yes_no(text)
    assert raised.value.text == text


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_name_of_a_category_means_that_category_alone(category):
    for name in names_of(category):
        assert parse_categories(f"There is a {name} here.") == {category}, name
        assert parse_categories(f"There is no {name} here.") == frozenset(), name


def test_the_longest_name_counts():
    assert parse_categories("a 3D-printed gun") == {"3D Gun"}
    assert parse_categories("a utility knife and a nail cutter") == {"Cutter", "Nail Cutter"}
    assert parse_categories("a swiss army knife") == {"Knife"}
    assert parse_categories("a 3D printed gun and a gun") == {"3D Gun", "Gun"}


def test_a_name_inside_a_word_is_none():
    assert parse_categories("gunmetal, hammered, batterylike, non-gun") == frozenset()


def test_plurals_and_underscores_are_read():
    assert parse_categories("two pistols, screwdrivers; nail_cutters") == {"Gun", "Screwdriver", "Nail Cutter"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No knife, no gun.", set()),
        ("No, there is no knife", set()),
        ("There is neither a knife nor a gun", set()),
        ("The bag is free of guns and knives", set()),
        ("It doesn't hold a hammer", set()),
        ("A gun without bullets", {"Gun"}),
        ("No knife, but a gun", {"Gun"}),
        ("There is no knife. There is a gun.", {"Gun"}),
        ("No wrench; pliers however", {"Pliers"}),
        ("Not a lighter, only a battery", {"Battery"}),
        ("A gun, not a knife", {"Gun"}),
    ],
)
def test_a_negation_reaches_to_the_end_of_its_clause(text, found):
    assert parse_categories(text) == found


def test_a_text_that_names_nothing_is_empty():
    assert parse_categories("A suitcase with clothes.") == frozenset()


@given(
    st.integers(0, 638).flatmap(lambda x: st.tuples(st.just(x), st.integers(x + 1, 639))),
    st.integers(0, 478).flatmap(lambda y: st.tuples(st.just(y), st.integers(y + 1, 479))),
)
def test_a_box_survives_digits(xs, ys):
    box = Box.from_xyxy(xs[0], ys[0], xs[1], ys[1])
    digits = format_box_digits(box)
    assert len(digits) == 12
    assert parse_box_digits(digits, FRAME) == box


@given(st.floats(0, 600), st.floats(0, 440), st.floats(0.01, 39), st.floats(0.01, 39))
def test_any_box_in_the_frame_can_be_read_back_within_a_pixel(x, y, w, h):
    box = Box(x, y, w, h)
    again = parse_box_digits(format_box_digits(box), FRAME)
    for before, after in zip(box.as_xyxy(), again.as_xyxy(), strict=True):
        assert abs(before - after) <= 1.5


def test_a_box_that_leaves_the_frame_is_clipped():
    assert parse_box_digits("600400700500", FRAME) == Box.from_xyxy(600, 400, 640, 480)


@pytest.mark.parametrize(
    "digits",
    [
        "",
        "12345678901",
        "1234567890123",
        "1 0020030040",
        "-10020030040",
        "٠٠٠٠٠٠٠١٠٠١٠",  # Arabic-Indic digits satisfy str.isdigit and int()
        "100100100200",
        "100200200100",
        "700100800200",
    ],
)
def test_a_box_without_meaning_is_unreadable(digits):
    with pytest.raises(AnswerUnreadable):
        parse_box_digits(digits, FRAME)
