"""Screening metrics against values worked out by hand, and what has to hold for any scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_vqa.core.geometry import Box
from xray_vqa.evaluation.metrics.localisation import PlacedCategory, match_boxes, score_localisation
from xray_vqa.evaluation.metrics.ranking import Ranking, auc, average_precision, roc_points
from xray_vqa.evaluation.metrics.screening import ScoreTable, score_screening

NAN = float("nan")


def arrays(positives, negatives):
    scores = np.array([*positives, *negatives], dtype=float)
    return scores, np.array([True] * len(positives) + [False] * len(negatives))


def table(scores, truth, annotated=None, unlisted=None, groups=None) -> ScoreTable:
    values = np.array(scores, dtype=float)
    names = ("Gun", "Knife", "Blade")[: values.shape[1]]
    return ScoreTable(
        categories=names,
        scores=values,
        truth=np.array(truth, dtype=bool),
        annotated=np.ones(values.shape, dtype=bool) if annotated is None else np.array(annotated, dtype=bool),
        unlisted=np.zeros(len(values), dtype=bool) if unlisted is None else np.array(unlisted, dtype=bool),
        groups=np.unique(groups or [str(row) for row in range(len(values))], return_inverse=True)[1],
    )


def screened(the_table: ScoreTable, threshold: float = 0.5):
    limits = dict.fromkeys(the_table.categories, threshold)
    return score_screening(the_table, limits, dict.fromkeys(the_table.categories, "default"), draws=500)


def ranked(scores, truth, weights=None) -> dict[str, float]:
    counts = np.ones(len(truth)) if weights is None else np.array(weights, dtype=float)
    found = Ranking(scores, truth)(counts[None])[0]
    return dict(zip(Ranking.names, map(float, found), strict=True))


def test_auc_worked_by_hand():
    # 0.8 beats 0.5 and 0.3; 0.5 ties with 0.5 (half) and beats 0.3: 3.5 of 4 pairs.
    assert auc(np.array([0.8, 0.5]), np.array([0.5, 0.3])) == 3.5 / 4
    assert auc(np.array([]), np.array([0.5])) is None


def test_average_precision_worked_by_hand():
    # Down the ranking: hit, alarm, hit. Precision 1 at recall 1/2, 2/3 at recall 1: (1 + 2/3) / 2.
    assert average_precision(*arrays([0.9, 0.7], [0.8])) == pytest.approx((1 + 2 / 3) / 2)
    # Everything tied: one step of precision 1/4.
    assert average_precision(*arrays([0.5], [0.5, 0.5, 0.5])) == pytest.approx(0.25)
    assert average_precision(*arrays([], [0.5])) is None


def test_roc_worked_by_hand():
    points = roc_points(*arrays([0.9, 0.6], [0.6, 0.1]))
    assert points == [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]
    assert roc_points(*arrays([0.9], [])) == []


def test_pd_at_pfa_does_not_interpolate():
    scores, truth = arrays([0.9, 0.6, 0.2], [0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert ranked(scores, truth)["pd@0.05"] == pytest.approx(1 / 3)  # no false alarm is allowed among ten
    assert ranked(scores, truth)["pd@0.1"] == 1.0  # one is


def test_a_category_worked_by_hand():
    knife = screened(table([[0.9], [0.2], [0.7], [0.1], [0.3]], [[1], [1], [0], [0], [0]])).categories["Gun"]
    assert (knife.pd.value, knife.pfa.value) == (0.5, pytest.approx(1 / 3))
    assert knife.auc == pytest.approx(4 / 6)
    assert knife.auc_interval.value == knife.auc
    assert knife.auc_interval.n == 5
    assert knife.f1 == pytest.approx(2 * 1 / (2 + 2))
    assert (knife.num_positive, knife.num_negative, knife.num_unscored) == (2, 3, 0)


def test_a_score_at_the_threshold_is_flagged():
    assert screened(table([[0.5]], [[1]])).categories["Gun"].pd.value == 1.0


def test_unusable_scores_count_as_wrong_on_both_sides():
    scores = screened(table([[NAN], [NAN], [0.9], [0.1]], [[1], [0], [1], [0]]))
    gun = scores.categories["Gun"]
    assert (gun.num_unscored, gun.pd.value, gun.pfa.value) == (2, 0.5, 0.5)
    assert gun.auc == pytest.approx(1 / 4)  # 0.9 beats 0.1; the other three pairs are lost
    assert (scores.bag.pd.value, scores.bag.pfa.value) == (0.5, 0.5)


def test_a_false_alarm_does_not_hide_an_unscored_item_of_a_threat_bag():
    # The gun was not scored and the knife is not flagged: a missed bag, not a lucky one.
    bag = screened(table([[NAN, 0.1]], [[1, 0]])).bag
    assert bag.pd.value == 0.0


def test_bags_are_judged_by_their_largest_margin():
    rows = [[0.4, 0.9], [0.6, 0.1], [0.45, 0.2], [0.1, 0.1]]
    scores = score_screening(
        table(rows, [[0, 1], [1, 0], [0, 0], [0, 0]]),
        {"Gun": 0.5, "Knife": 0.8},
        {"Gun": "calibration", "Knife": "calibration"},
    )
    assert (scores.bag.num_threat, scores.bag.num_clean) == (2, 2)
    assert (scores.bag.pd.value, scores.bag.pfa.value, scores.bag.auc.value) == (1.0, 0.0, 1.0)
    assert scores.item_f1.f1.value == 1.0


def test_only_annotated_categories_are_scored():
    # The second scan's source says nothing of guns: its high score is no false alarm, its gun no hit.
    scores = screened(table([[0.9], [0.9]], [[1], [1]], annotated=[[1], [0]]))
    assert scores.categories["Gun"].num_positive == 1
    assert scores.bag.num_left_out == 1
    assert scores.item_f1.f1.n == 1


def test_a_bag_with_items_outside_the_taxonomy_is_neither_threat_nor_clean():
    bag = screened(table([[0.9], [0.1]], [[0], [0]], unlisted=[1, 0])).bag
    assert (bag.num_threat, bag.num_clean, bag.num_left_out) == (0, 1, 1)
    assert bag.pfa.value == 0.0


def test_the_interval_of_an_auc_rests_on_groups_and_not_on_scans():
    scores, truth = [[0.9], [0.2], [0.7], [0.1]] * 8, [[1], [1], [0], [0]] * 8
    apart = screened(table(scores, truth)).categories["Gun"].auc_interval
    few = screened(table(scores, truth, groups=[f"bag-{k // 8}" for k in range(32)])).categories["Gun"].auc_interval
    assert apart.value == few.value == pytest.approx(0.75)
    assert apart.low is not None
    assert 0.4 < apart.low < 0.75
    assert (few.low, few.high) == (pytest.approx(0.75), pytest.approx(0.75))  # the bags are alike


def test_macro_and_worst_over_categories():
    scores = screened(table([[0.9, 0.1], [0.1, 0.9], [0.1, 0.2]], [[1, 1], [0, 0], [0, 0]]))
    assert scores.categories["Gun"].auc == 1.0
    assert scores.categories["Knife"].auc == 0.0
    assert scores.macro_auc == 0.5
    assert scores.worst_auc is not None
    assert scores.worst_auc.category == "Knife"
    assert scores.macro_pd == 0.5


def test_macro_f1_counts_each_category_that_is_there_or_flagged_the_same():
    # Gun: one hit, one false alarm: 2/3. Knife: there and missed: 0. Blade: neither there nor flagged, so left out.
    found = screened(table([[0.9, 0.1, 0.1], [0.8, 0.1, 0.2]], [[1, 1, 0], [0, 0, 0]])).macro_f1
    assert found.value == pytest.approx(1 / 3)
    assert found.n == 2


def test_calibration_error_worked_by_hand():
    # Bin 0.2-0.3: mean 0.25, one of two there: off by 0.25. Bin 0.9-1: 0.95 and 1, both there: off by 0.025.
    scores = screened(table([[0.2], [0.3 - 1e-9], [0.95], [1.0], [NAN]], [[0], [1], [1], [1], [1]]))
    assert scores.calibration_error == pytest.approx((2 * 0.25 + 2 * 0.025) / 4)


def box(x: float, y: float, w: float, h: float) -> Box:
    return Box(x, y, w, h)


def test_each_box_is_used_once():
    one = box(0, 0, 10, 10)
    matches = match_boxes([one, one], [one, box(100, 100, 10, 10)])
    assert matches == [(0, 0, 1.0)]


def test_the_best_overlap_is_taken_first():
    annotated = [box(0, 0, 10, 10), box(5, 0, 10, 10)]
    matches = match_boxes([box(4, 0, 10, 10)], annotated)
    assert [(i, j) for i, j, _ in matches] == [(0, 1)]
    assert matches[0][2] == pytest.approx(90 / 110)


def test_localisation_worked_by_hand():
    # Scan a: IoU 50/150 = 1/3, no hit. Scan b: perfect. Scan c: missing box. Scan d: a box where nothing is.
    placed = [
        PlacedCategory([box(5, 0, 10, 10)], [box(0, 0, 10, 10)], "a"),
        PlacedCategory([box(0, 0, 10, 10)], [box(0, 0, 10, 10)], "b"),
        PlacedCategory([], [box(0, 0, 10, 10)], "c"),
        PlacedCategory([box(0, 0, 10, 10)], [], "d"),
    ]
    scores = score_localisation(placed)
    assert (scores.accuracy.value, scores.accuracy.n) == (pytest.approx(1 / 3), 3)
    assert scores.mean_iou == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert (scores.num_predicted, scores.precision) == (3, pytest.approx(1 / 3))


def test_iou_of_exactly_one_half_counts():
    # 10 x 10 inside 20 x 10.
    assert score_localisation([PlacedCategory([box(0, 0, 10, 10)], [box(0, 0, 20, 10)], "a")]).accuracy.value == 1.0


def test_no_boxes_no_number():
    scores = score_localisation([])
    assert (scores.accuracy.value, scores.mean_iou, scores.precision) == (None, None, None)


probabilities = st.floats(0, 1).map(lambda value: round(value, 2))
labelled = st.lists(st.tuples(probabilities, st.booleans()), min_size=2, max_size=40)


@given(labelled)
def test_auc_agrees_with_its_definition_and_its_weighted_form(rows):
    scores, truth = np.array([p for p, _ in rows]), np.array([t for _, t in rows])
    value = auc(scores[truth], scores[~truth])
    if value is None:
        assert np.isnan(ranked(scores, truth)["auc"])
        return
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    assert value == pytest.approx(np.mean(pairs))
    assert ranked(scores, truth)["auc"] == pytest.approx(value)


@given(labelled, st.integers(0, 3))
def test_weighted_auc_counts_repeats(rows, seed):
    weights = np.random.default_rng(seed).integers(0, 4, len(rows))
    scores, truth = np.array([p for p, _ in rows]), np.array([t for _, t in rows])
    repeated, repeated_truth = np.repeat(scores, weights), np.repeat(truth, weights)
    expected = auc(repeated[repeated_truth], repeated[~repeated_truth])
    weighted = ranked(scores, truth, weights)["auc"]
    assert np.isnan(weighted) if expected is None else weighted == pytest.approx(expected)


@given(labelled)
def test_a_monotone_correction_changes_no_ranking(rows):
    scores, truth = np.array([p for p, _ in rows]), np.array([t for _, t in rows])
    bent = scores**3 / 2
    assert average_precision(scores, truth) == average_precision(bent, truth)
    assert roc_points(scores, truth) == roc_points(bent, truth)


@given(labelled)
def test_detection_grows_with_the_false_alarms_allowed(rows):
    scores, truth = np.array([p for p, _ in rows]), np.array([t for _, t in rows])
    found = ranked(scores, truth)
    if not np.isnan(found["auc"]):
        assert found["pd@0.01"] <= found["pd@0.05"] <= found["pd@0.1"]
        assert found["pfa@0.9"] <= found["pfa@0.95"]


matrices = st.integers(2, 12).flatmap(
    lambda rows: st.tuples(
        st.lists(st.lists(probabilities | st.just(NAN), min_size=3, max_size=3), min_size=rows, max_size=rows),
        st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=rows, max_size=rows),
    )
)


@settings(max_examples=20, deadline=None)
@given(matrices, st.randoms())
def test_no_number_depends_on_the_order_of_scans(matrix, random):
    scores, truth = matrix
    order = list(range(len(scores)))
    random.shuffle(order)
    groups = [f"bag-{row % 4}" for row in range(len(scores))]
    before = screened(table(scores, truth, groups=groups))
    after = screened(table([scores[k] for k in order], [truth[k] for k in order], groups=[groups[k] for k in order]))
    assert _numbers(before.model_dump()) == pytest.approx(_numbers(after.model_dump()), nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=12))
def test_scores_equal_to_the_truth_are_perfect(truth):
    scores = screened(table(np.array(truth, dtype=float), truth))
    there = sum(map(sum, truth))
    assert scores.item_f1.f1.value == (1.0 if there else None)
    for row in scores.categories.values():
        assert row.auc in (1.0, None)
        assert row.pd.value in (1.0, None)
        assert row.pfa.value in (0.0, None)
    assert scores.bag.auc.value in (1.0, None)
    assert scores.bag.pd_at_pfa["0.01"].value in (1.0, None)


@settings(max_examples=20, deadline=None)
@given(matrices)
def test_a_score_that_is_lost_never_helps(matrix):
    scores, truth = matrix
    whole = screened(table(scores, truth))
    without = screened(table(np.full_like(np.array(scores), NAN), truth))
    for name, row in whole.categories.items():
        lost = without.categories[name]
        if row.auc is not None:
            assert lost.auc == 0.0
        if row.pd.value is not None:
            assert lost.pd.value == 0.0
        if row.pfa.value is not None:
            assert lost.pfa.value == 1.0


def _numbers(value) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in _numbers(value[key])]
    if isinstance(value, list | tuple):
        return [number for inner in value for number in _numbers(inner)]
    return [float("nan") if value is None else float(value)] if isinstance(value, int | float | None) else []
