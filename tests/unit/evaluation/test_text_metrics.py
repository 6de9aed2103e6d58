"""Text metrics against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_vqa.core.lexicon import load_lexicon
from xray_vqa.evaluation.metrics.answers import item_scores, score_answers
from xray_vqa.evaluation.metrics.text import corpus_bleu, is_exact, is_lenient, is_long, normalise, rouge_l
from xray_vqa.evaluation.records import AnswerRecord


def answer(said: str | None, truth: str, *, short: str = "", kind: str = "general", **more: object) -> AnswerRecord:
    values = {"pair": 0, "question": "?", "question_type": kind, "truth": truth, "short_truth": short, "answer": said}
    return AnswerRecord.model_validate(values | more)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("A knife.", "knife"),
        ("The Gun, the knife!", "gun knife"),
        ("Two guns", "2 guns"),
        ("none", "0"),
        ("upper-left", "upper left"),
        ("about 2.5 cm.", "about 2.5 cm"),
        ("1,000", "1000"),
        ("Don't know", "dont know"),
        ("dont know", "dont know"),
        ("knife\n\tgun", "knife gun"),
        ("knife/gun", "knife gun"),
        ("НОЖ", "нож"),
    ],
)
def test_normalises_as_vqav2_does(text, normalised):
    assert normalise(text) == normalised


def test_exact_match_takes_the_short_or_the_full_reference():
    assert is_exact("Yes", "yes", "Yes, a gun is in the bag.")
    assert is_exact("yes a gun is in bag", "yes", "Yes, a gun is in the bag.")
    assert not is_exact("Yes, a knife is in the bag.", "yes", "Yes, a gun is in the bag.")


def test_an_empty_answer_matches_nothing_even_an_empty_reference():
    assert not is_exact("", "", "the")
    assert not is_exact("", "", "...")
    assert not is_exact("...", "", "...")
    assert not is_lenient("", "", "the")


@pytest.mark.parametrize(
    ("said", "short", "same"),
    [
        ("Yes, there is one near the laptop.", "yes", True),
        ("No, there is none.", "yes", False),
        ("There might be.", "yes", False),
        ("There are two of them.", "2", True),
        ("There are two or three of them.", "2", False),
        ("I can see a knife and a gun", "gun, knife", True),
        ("A gun, but no knife.", "gun, knife", False),
        ("A gun, a knife and a hammer", "gun, knife", False),
        ("It lies in the upper left of the bag.", "upper-left", True),
        ("It lies in the upper center.", "center", False),
        ("center", "center", True),
        ("A knife in the lower-right.", "knife (lower-right)", True),
        ("A knife in the lower-left.", "knife (lower-right)", False),
        ("No prohibited items are visible.", "none", True),
        ("None but a gun", "none", False),
        ("This cannot be determined from the scan.", "cannot be determined", True),
        ("The risk is high", "high", True),
        ("The risk is not high", "high", False),
        ("higher", "high", False),
        ("High: it holds a knife and no gun.", "high", True),
        ("Low, medium or high", "low", False),
        ("There is nothing to report.", "none", True),
        ("There is no battery in this bag.", "none", True),
        ("It is not there, it is in the upper-left.", "none", False),
        ("There are none.", "0", True),
        ("There is one.", "0", False),
    ],
)
def test_lenient_match_asks_for_the_same_meaning(said, short, same):
    assert is_lenient(said, short, "A reference of some length that is not said.") is same


def test_bleu_of_a_perfect_corpus_is_one_and_of_the_wrong_one_is_near_zero():
    truth = ["The bag holds a knife in the upper left.", "There is a gun beneath the laptop charger."]
    perfect = corpus_bleu(truth, truth, ["en", "en"])
    assert (perfect.value, perfect.n) == (1.0, 2)
    assert perfect.signatures[0].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    wrong = corpus_bleu(list(reversed(truth)), truth, ["en", "en"])
    assert wrong.value is not None
    assert wrong.value < 0.1


def test_bleu_worked_by_hand():
    # Tokens a b c d e against a b c d f: precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty: (1/5) ** (1/4).
    score = corpus_bleu(["a b c d e"], ["a b c d f"], ["en"]).value
    assert score == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_chinese_is_tokenised_by_letter():
    text = "行李左上角有一把刀和一支枪"
    score = corpus_bleu([text], [text], ["zh"])
    assert score.value == pytest.approx(1.0)
    assert "tok:zh" in score.signatures[0]


def test_rouge_l_worked_by_hand_and_in_any_script():
    # Longest common subsequence "a knife upper left": 4 of 5 words said, 4 of 6 in the reference.
    assert rouge_l("a knife is upper left", "there a knife in upper left") == pytest.approx(
        2 * 0.8 * 4 / 6 / (0.8 + 4 / 6)
    )
    assert rouge_l("нож в верхнем углу", "нож в верхнем углу") == 1.0
    assert rouge_l("пистолет 3", "нож 3 слева") == pytest.approx(0.4)
    assert rouge_l("左上有刀", "左上有枪") == pytest.approx(0.75)
    assert rouge_l("", "a knife") == 0.0


def test_item_scores_count_over_all_answers():
    # Gun and knife said of a gun, gun said of a gun and a blade, nothing of nothing: right, said, there.
    scores = item_scores(np.array([[1.0, 2, 1], [1, 1, 2], [0, 0, 0]]), ["a", "b", "c"])
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == pytest.approx(2 / 3)
    assert scores.f1.value == pytest.approx(2 / 3)
    assert scores.f1.n == 3


def test_nothing_there_and_nothing_named_has_no_item_f1():
    assert item_scores(np.zeros((1, 3)), ["a"]).f1.value is None


def test_a_negated_item_is_not_named():
    scores = score_answers([answer("A gun, but no knife.", "A gun.", short="gun", kind="listing")], ["a"])
    assert scores.item_f1 is not None
    assert scores.item_f1.precision == 1.0


@pytest.mark.parametrize("language", ["zh", "ar", "es", "fr", "ru"])
def test_a_right_answer_in_other_words_scores_in_every_language(language):
    lexicon = load_lexicon(language)
    gun, knife = lexicon.categories["Gun"].one, lexicon.categories["Knife"].one
    for said, short, wrong in (
        (f"{lexicon.yes.name}, {gun}.", "yes", "no"),
        (f"{lexicon.no.name}.", "no", "yes"),
        (f"{gun}, {knife}.", "gun, knife", "gun"),
        (f"{lexicon.regions['upper-left'].name}.", "upper-left", "center"),
        (f"{lexicon.none.name}.", "none", "gun"),
        (f"{lexicon.risk_levels['critical'].name}.", "critical", "low"),
        ("2", "2", "3"),
        (f"{lexicon.undetermined.name}.", "cannot be determined", "gun"),
        (f"{lexicon.attributes['clutter']['dense'].name}.", "dense", "heavy"),
        (f"{lexicon.attributes['container']['hard suitcase'].name}.", "hard suitcase", "suitcase"),
        (f"{lexicon.attributes['concealer']['towel'].name}.", "towel", "jacket"),
        (f"{lexicon.declaration['match'].name}.", "match", "mismatch"),
        (f"{lexicon.declaration['mismatch'].name}.", "mismatch", "match"),
        (f"{lexicon.declaration['not verified'].name}.", "not verified", "match"),
    ):
        assert is_lenient(said, short, "?", language), said
        assert not is_lenient(said, wrong, "?", language), said


@pytest.mark.parametrize("language", ["zh", "ar", "es", "fr", "ru"])
def test_items_are_read_in_the_language_of_the_pair(language):
    lexicon = load_lexicon(language)
    said = lexicon.joined([lexicon.categories[name].one for name in ("Gun", "Knife", "Lighter")])
    record = AnswerRecord(
        pair=0, question="?", question_type="listing", language=language, truth=said, short_truth="gun, knife, lighter",
        answer=f"{said}.",
    )  # fmt: skip
    scores = score_answers([record], ["bag"])
    assert scores.item_f1 is not None
    assert (scores.exact_match.value, scores.lenient_match.value, scores.item_f1.f1.value) == (1.0, 1.0, 1.0)


def test_questions_that_ask_for_no_items_have_no_item_f1():
    assert score_answers([answer("yes", "Yes.", kind="presence")], ["a"]).item_f1 is None


def test_bleu_and_rouge_judge_long_references_only():
    scores = score_answers([answer("yes", "Yes."), answer("a b c d e f", "a b c d e f")], ["a", "b"])
    assert (scores.bleu.n, scores.rouge_l.n, scores.rouge_l_all.n) == (1, 1, 2)
    assert scores.bleu.value == 1.0
    assert not is_long("knife, gun, blade, hammer, cutter")
    assert score_answers([answer("yes", "Yes.")], ["a"]).bleu.value is None


def test_an_unreadable_answer_is_wrong_whatever_it_begins_with():
    cut_off = answer("yes", "Yes.", short="yes", failure="unreadable", failure_text="does not end")
    scores = score_answers([cut_off, answer("yes", "Yes.", short="yes")], ["a", "b"])
    assert (scores.exact_match.value, scores.num_unreadable, scores.num_questions) == (0.5, 1, 2)


words = st.lists(
    st.sampled_from(["gun", "knife", "no", "the", "bag", "left", "upper", "yes", "2"]), min_size=1, max_size=9
)
texts = words.map(" ".join)


@given(texts)
def test_what_is_equal_is_an_exact_and_a_lenient_match(text):
    if normalise(text):
        assert is_exact(text, text, text)
        assert is_lenient(text, text, text)
        assert rouge_l(text, text) == 1.0


@given(texts, texts)
def test_every_exact_match_is_a_lenient_one(said, truth):
    assert not is_exact(said, truth, "") or is_lenient(said, truth, "")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(texts, texts, st.sampled_from("abcd")), min_size=1, max_size=8), st.randoms())
def test_scores_do_not_depend_on_the_order_of_answers(entries, random):
    def scored(rows):
        scores = score_answers([answer(said, truth) for said, truth, _ in rows], [group for *_, group in rows])
        return scores.model_dump(exclude={"bleu"}), scores.bleu.value

    shuffled = list(entries)
    random.shuffle(shuffled)
    before, after = scored(entries), scored(shuffled)
    assert _close(before[0], after[0])
    assert before[1] == pytest.approx(after[1])


def _close(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_close(left[key], right[key]) for key in left)
    return left == right if not isinstance(left, float) else left == pytest.approx(right, abs=1e-9)
