"""What is computed at once, compiled or in several processes equals what plain loops over single answers give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from xray_vqa.evaluation.metrics import bootstrap, judging
from xray_vqa.evaluation.metrics.answers import AnswerTable, score_answers
from xray_vqa.evaluation.metrics.bootstrap import draw_weights, drawn_counts, weighted_sums
from xray_vqa.evaluation.metrics.ranking import PD_LEVELS, PFA_LEVELS, Ranking
from xray_vqa.evaluation.metrics.screening import ScoreTable, score_screening
from xray_vqa.evaluation.metrics.text import corpus_bleu, corpus_chrf, is_exact, is_lenient, is_long, rouge_l, tokens
from xray_vqa.evaluation.records import AnswerRecord

seeds = st.integers(0, 2**32 - 1)


def ranked_slowly(scores, truth, weights) -> list[float]:
    """The numbers of `Ranking` by their definitions, trying every threshold."""
    hits, alarms = weights * truth, weights * ~truth
    if not hits.sum() or not alarms.sum():
        return [float("nan")] * (1 + len(PFA_LEVELS) + len(PD_LEVELS))
    won = sum(
        hits[i] * alarms[j] * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
        for i in range(len(scores))
        for j in range(len(scores))
    )
    points = [(0.0, 0.0)]
    points += [(alarms[scores >= t].sum() / alarms.sum(), hits[scores >= t].sum() / hits.sum()) for t in scores]
    pd = [max(pd for pfa, pd in points if pfa <= level + 1e-9) for level in PFA_LEVELS]
    pfa = [min(pfa for pfa, pd in points if pd >= level - 1e-9) for level in PD_LEVELS]
    return [won / (hits.sum() * alarms.sum()), *pd, *pfa]


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 60), st.integers(1, 30))
def test_a_ranking_under_any_weights_is_what_its_definition_says(seed, size, num_levels):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, num_levels, size) / num_levels, rng.random(size) < 0.4
    scores[rng.random(size) < 0.1] = np.inf
    weights = rng.integers(0, 4, (3, size))
    expected = [ranked_slowly(scores, truth, row) for row in weights]
    for kind in (np.uint8, np.uint16, np.float64):
        assert Ranking(scores, truth)(weights.astype(kind)) == pytest.approx(np.array(expected), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("size", [1, 3, 300])
@pytest.mark.parametrize("block", [1, 700, 1 << 21])
def test_draws_are_those_of_the_seed_whatever_comes_at_once(monkeypatch, size, block):
    monkeypatch.setattr(bootstrap, "BLOCK_WEIGHTS", block)
    rng = np.random.default_rng(5)
    expected = [np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(40)]
    assert np.vstack(list(drawn_counts(size, 40, seed=5))).tolist() == np.array(expected).tolist()


def test_one_bag_that_is_drawn_every_time_is_counted_to_the_end():
    (counts,) = drawn_counts(1, 1, seed=0)
    assert counts.tolist() == [[1]]
    assert draw_weights(["a"] * 300, draws=2).tolist() == [[1.0] * 300] * 3


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 50), st.integers(0, 6))
def test_weighted_sums_are_matrix_products(seed, size, num_columns):
    rng = np.random.default_rng(seed)
    weights, columns = rng.integers(0, 5, (4, size)).astype(np.uint8), rng.normal(size=(size, num_columns))
    assert weighted_sums(weights, columns) == pytest.approx(weights.astype(float) @ columns, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_item_f1_of_drawn_bags_is_that_of_the_scans_drawn(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 30))
    table = ScoreTable(
        categories=("Gun", "Knife", "Blade"),
        scores=rng.random((size, 3)),
        truth=rng.random((size, 3)) < 0.3,
        annotated=rng.random((size, 3)) < 0.9,
        unlisted=np.zeros(size, dtype=bool),
        groups=np.arange(size),
    )
    draws = 40
    limits = dict.fromkeys(table.categories, 0.5)
    found = score_screening(table, limits, dict.fromkeys(table.categories, "default"), draws=draws)
    flagged, present = table.flagged(np.full(3, 0.5)), table.present
    micro, macro = [], []
    for picked in np.random.default_rng(0).integers(0, size, (draws, size)):
        hits = (flagged & present)[picked].sum(axis=0)
        both = flagged[picked].sum(axis=0) + present[picked].sum(axis=0)
        micro.append(2 * hits.sum() / both.sum() if both.sum() else np.nan)
        macro.append(np.mean(2 * hits[both > 0] / both[both > 0]) if both.any() else np.nan)
    for estimate, drawn in ((found.item_f1.f1, micro), (found.macro_f1, macro)):
        if estimate.method == "cluster bootstrap":
            tail = bootstrap._expanded_tail(size)
            assert (estimate.low, estimate.high) == pytest.approx(np.nanquantile(drawn, [tail, 1 - tail]), abs=1e-12)


class Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


words = st.lists(st.sampled_from(["a", "gun", "no", "knife", "нож", "刀", "left"]), max_size=70).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(words, words)
def test_rouge_l_is_that_of_googles_package(said, truth):
    expected = RougeScorer(["rougeL"], tokenizer=Tokenizer()).score(truth, said)["rougeL"].fmeasure
    assert rouge_l(said, truth) == expected


def made_up_answers(num: int) -> tuple[list[AnswerRecord], list[str]]:
    rng = np.random.default_rng(3)
    long = ["The bag holds a gun in the upper left.", "There is no knife, but a blade beneath the laptop.", "yes"]
    answers = [
        AnswerRecord(
            pair=number, question="?", question_type=str(rng.choice(["listing", "presence", "detailed"])),
            truth=str(rng.choice(long)), short_truth=str(rng.choice(["gun", "yes", "none", ""])),
            answer=str(rng.choice([*long, "gun", "A gun.", "no"])), language=str(rng.choice(["en", "zh", "ru"])),
            failure=None if rng.random() < 0.9 else "unreadable",
        )
        for number in range(num)
    ]  # fmt: skip
    return answers, [f"bag {number // 3}" for number in range(num)]


def test_answers_judged_once_are_worth_what_each_is_by_itself():
    answers, groups = made_up_answers(120)
    scores = score_answers(answers, groups, draws=50)
    exact = [is_exact(a.said, a.short_truth, a.truth) for a in answers]
    lenient = [is_lenient(a.said, a.short_truth, a.truth, a.language) for a in answers]
    assert (scores.exact_match.value, scores.lenient_match.value) == (np.mean(exact), np.mean(lenient))
    long = [a for a in answers if is_long(a.truth)]
    said, truths = [a.said for a in long], [a.truth for a in long]
    assert scores.bleu == corpus_bleu(said, truths, [a.language for a in long])
    assert scores.chrf == corpus_chrf(said, truths)
    assert scores.rouge_l.value == pytest.approx(np.mean([rouge_l(a.said, a.truth) for a in long]), abs=1e-12)


def test_a_part_of_the_answers_scores_as_it_does_alone():
    answers, groups = made_up_answers(120)
    for kind, scores in AnswerTable.of(answers, groups).by(np.array([a.question_type for a in answers])).items():
        of_kind = [(a, g) for a, g in zip(answers, groups, strict=True) if a.question_type == kind]
        assert scores == score_answers([a for a, _ in of_kind], [g for _, g in of_kind])


def test_several_processes_judge_as_one_does(monkeypatch):
    monkeypatch.setattr(judging, "_PAIRS_A_JOB", 20)
    answers, groups = made_up_answers(200)
    one, two = (AnswerTable.of(answers, groups, workers=workers) for workers in (1, 2))
    assert one.matches.tobytes() == two.matches.tobytes()
    assert one.scores(draws=200) == two.scores(draws=200)
