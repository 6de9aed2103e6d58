"""Our normaliser against the rules of VQAv2's published evaluation, written down a second time, literally."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.evaluation.metrics.text import is_exact, is_lenient, normalise

PUNCTUATION = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]
NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = ["a", "an", "the"]
# Of the 120 of its table, those of one word; all have the form that an apostrophe is put where it was left out.
CONTRACTIONS = {
    "aint": "ain't", "arent": "aren't", "cant": "can't", "couldve": "could've", "couldnt": "couldn't",
    "didnt": "didn't", "doesnt": "doesn't", "dont": "don't", "hadnt": "hadn't", "hasnt": "hasn't",
    "havent": "haven't", "hes": "he's", "hows": "how's", "isnt": "isn't", "itll": "it'll", "mustnt": "mustn't",
    "oclock": "o'clock", "shouldnt": "shouldn't", "somebodys": "somebody's", "thats": "that's", "theres": "there's",
    "theyre": "they're", "wasnt": "wasn't", "werent": "weren't", "whats": "what's", "wheres": "where's",
    "whos": "who's", "wont": "won't", "wouldnt": "wouldn't", "youre": "you're", "youve": "you've",
}  # fmt: skip


def published(text: str) -> str:
    """The rules as published: punctuation, then numbers and articles, then contractions."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in PUNCTUATION:
        if (mark + " " in text or " " + mark in text) or re.search(r"(\d)(\,)(\d)", text) is not None:
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    out = re.sub(r"(?!<=\d)(\.)(?!\d)", "", out)
    words = []
    for word in out.lower().split():
        number = NUMBERS.get(word, word)
        if number not in ARTICLES:
            words.append(number)
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


GOLDEN = [
    ("Yes.", "yes"),
    ("the red suitcase", "red suitcase"),
    ("Two knives, one gun", "2 knives 1 gun"),
    ("2,000 bags", "2000 bags"),
    ("1.5", "1.5"),
    ("v1.5.", "v1.5"),
    ("e.g. a gun", "eg gun"),
    ("knife/gun", "knife gun"),
    ("knife / gun", "knife gun"),
    ("upper-left", "upper left"),
    ("upper -left", "upper left"),
    ("hand-gun, 3-D printed", "hand gun 3 d printed"),
    ("gun?!", "gun"),
    ('"gun"', "gun"),
    ("(knife)", "knife"),
    ("x_y", "x y"),
    ("none", "0"),
    ("\tA\nknife ", "knife"),
    ("an  axe", "axe"),
    ("No: nothing", "no: nothing"),
    ("нож", "нож"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), GOLDEN)
def test_the_golden_table_holds_for_both(text, expected):
    assert published(text) == expected
    assert normalise(text) == expected


words = st.sampled_from(
    ["a", "The", "an", "gun", "Knife", "two", "ten", "none", "10", "1,000", "2.5", "upper-left", "x/y", "(b)", "c;",
     "no.", ".5", "end...", "!", "- d", "нож", "刀", "e.g.", "f_g", '"q"', "@", "\n", "\t", "  "]
)  # fmt: skip


@given(st.lists(words, max_size=9), st.sampled_from(["", " "]))
def test_texts_without_apostrophes_are_normalised_as_published(parts, between):
    text = between.join(parts)
    if published(text):
        assert normalise(text) == published(text)


@given(st.text(st.sampled_from('aAnN theT019.,;/[]"{}()=+\\_-<>@`?!:%&\n\t刀é'), max_size=20))
def test_any_letters_and_marks_are_normalised_as_published(text):
    if published(text):
        assert normalise(text) == published(text)


@pytest.mark.parametrize(("bare", "marked"), CONTRACTIONS.items())
def test_contractions_are_one_with_and_without_their_apostrophe(bare, marked):
    assert published(bare) == published(marked)
    assert normalise(bare) == normalise(marked) == normalise(marked.replace("'", "’"))


@pytest.mark.parametrize(("text", "kept"), [("A", "a"), ("a.", "a"), ("The", "the"), ("(A)", "a"), ("an a", "an a")])
def test_an_answer_of_articles_alone_is_kept(text, kept):
    assert published(text) == ""
    assert normalise(text) == kept


@pytest.mark.parametrize("said", ["A", "a", "A.", "(a)"])
def test_the_letter_a_answers_a_question_of_letters(said):
    assert is_exact(said, "A", "A")
    assert is_lenient(said, "A", "A")
    assert not is_exact(said, "B", "B")
    assert not is_lenient("B", "A", "A")
    assert is_lenient("A. Gun", "A", "A")
    assert not is_lenient("There is a knife.", "A", "A")
    assert not is_exact("", "A", "A")


def test_an_article_beside_other_words_is_no_letter():
    assert is_exact("a gun", "gun", "The gun.")
    assert not is_exact("A", "gun", "A gun.")
    assert not is_lenient("A", "gun", "A gun.")


@pytest.mark.parametrize("letter", "BCD")
def test_other_letters_do_not_depend_on_the_rule(letter):
    assert is_exact(f"{letter}.", letter, letter)
