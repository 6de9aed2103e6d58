"""Fitting a calibration: what it must do with plenty of scores, and what it must never do with few."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_samples import IDENTITY, make_info, make_prediction
from pydantic import ValidationError
from scipy.special import expit, logit

from xray_vqa.core.calibration import Calibration
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.calibrate import (
    MAX_CLEAN_FLAGGED,
    SHARED_POSITIVES,
    CalibrationAim,
    best_f1_threshold,
    between,
    fit_calibration,
    fit_knots,
    fit_line,
    lowest_by_group,
    proving_threshold,
    raise_to_floor,
    shrunk,
    unsure_limit,
)
from xray_vqa.evaluation.metrics.intervals import lower_bound

probabilities = st.floats(1e-6, 1 - 1e-6)


def test_recovers_a_known_correction_from_many_scores():
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 2, 20_000)
    truth = rng.random(20_000) < expit(0.5 * raw - 1.5)
    line = fit_line(expit(raw), truth)
    assert line.scale == pytest.approx(0.5, abs=0.03)
    assert line.offset == pytest.approx(-1.5, abs=0.06)


def test_changes_nothing_without_positives():
    line = fit_line(np.array([0.2, 0.7]), np.array([False, False]))
    assert (line.scale, line.offset) == (1.0, 0.0)


def test_one_positive_cannot_bend_the_line_far():
    line = fit_line(np.array([0.999, 0.001]), np.array([True, False]))
    assert 0.3 < line.scale < 3
    assert abs(line.offset) < 1


@given(st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=60))
def test_the_correction_is_finite_and_keeps_the_order(rows):
    line = fit_line(np.array([p for p, _ in rows]), np.array([t for _, t in rows]))
    assert line.scale > 0
    assert math.isfinite(line.scale)
    assert math.isfinite(line.offset)


def test_best_f1_threshold_worked_by_hand():
    # Flagging from 0.8 up: 2 hits of 3, no alarm: F1 0.8. From 0.3 up: 3 hits, 1 alarm: 6/7. Half way to 0.1 in logits.
    found = best_f1_threshold(np.array([0.9, 0.8, 0.3, 0.5, 0.1]), np.array([True, True, True, False, False]))
    assert found == pytest.approx(float(expit((logit(0.3) + logit(0.1)) / 2)))


def test_of_equally_good_thresholds_the_lowest_counts():
    # 0.9 alone: 1 hit of 2, F1 2/3. From 0.2 up: 2 hits and 2 alarms, F1 2/3.
    found = best_f1_threshold(np.array([0.9, 0.5, 0.4, 0.2]), np.array([True, False, False, True]))
    assert found is not None
    assert found < 0.2


@given(st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=40))
def test_no_threshold_has_a_better_f1(rows):
    scores, truth = np.array([p for p, _ in rows]), np.array([t for _, t in rows])
    found = best_f1_threshold(scores, truth)
    if found is None:
        assert not truth.any()
        return

    def f1(threshold: float) -> float:
        flagged = scores >= threshold
        return 2 * (flagged & truth).sum() / (flagged.sum() + truth.sum())

    assert 0 < found < 1
    assert f1(found) == pytest.approx(max(f1(level) for level in scores))


@given(probabilities, probabilities)
def test_a_threshold_between_two_scores_parts_them(one, other):
    lower, upper = sorted((one, other))
    if lower < upper:
        assert lower < between(lower, upper) <= upper


def test_few_positives_draw_towards_the_shared_threshold():
    assert shrunk(None, 0.3, 0) == 0.3
    assert shrunk(0.8, 0.3, SHARED_POSITIVES) == pytest.approx(float(expit((logit(0.8) + logit(0.3)) / 2)))
    assert shrunk(0.8, 0.3, 100 * SHARED_POSITIVES) == pytest.approx(0.8, abs=0.01)
    rising = [shrunk(0.8, 0.3, number) for number in (1, 5, 20, 80, 320)]
    assert rising == sorted(rising)


matrices = st.integers(1, 30).flatmap(
    lambda rows: st.lists(
        st.lists(probabilities | st.just(math.nan), min_size=3, max_size=3), min_size=rows, max_size=rows
    )
)


@settings(max_examples=200)
@given(matrices, st.lists(probabilities, min_size=3, max_size=3), st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]))
def test_clean_bags_are_flagged_no_more_than_allowed_and_no_threshold_falls(clean, before, share):
    scores, thresholds = np.array(clean), np.array(before)
    raised = raise_to_floor(thresholds, scores, share)
    assert (raised >= thresholds).all()
    assert (raised < 1).all()
    with np.errstate(invalid="ignore"):
        assert (scores >= raised).any(axis=1).sum() <= share * len(scores) + 1e-9
    if (np.nan_to_num(scores, nan=-1) >= thresholds).any(axis=1).sum() == 0:
        assert (raised == thresholds).all()


def test_a_category_that_cannot_tell_clean_bags_apart_does_not_set_the_others():
    rng = np.random.default_rng(1)
    clean = np.column_stack([rng.uniform(0.55, 0.6, 100), rng.uniform(0.0, 0.05, 100)])
    raised = raise_to_floor(np.array([0.5, 0.3]), clean)
    assert (clean >= raised).any(axis=1).sum() == 20
    assert raised[0] > 0.58
    assert raised[1] == 0.3


def development(num_positive: int, num_clean: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    there = [make_prediction(k, ("Gun",), {"Gun": rng.uniform(0.3, 0.6), "Knife": 0.01}) for k in range(num_positive)]
    clean = [make_prediction(1000 + k, (), {"Gun": rng.uniform(0.05, 0.3), "Knife": 0.01}) for k in range(num_clean)]
    return [*there, *clean]


def test_covered_and_annotated_categories_get_a_threshold_and_no_other():
    calibration = fit_calibration(development(20, 40), make_info(("Gun", "Hammer")), "toy scans", simulated=False)
    assert set(calibration.thresholds) == {"Gun"}  # Knife is not covered, Hammer not annotated
    assert calibration.num_positives == {"Gun": 20, "Knife": 0}
    assert calibration.num_scans == 60
    assert any("Hammer" in note for note in calibration.notes)


def test_a_base_model_that_covers_nothing_gets_no_threshold():
    calibration = fit_calibration(development(20, 40), make_info(()), "toy scans", simulated=False)
    assert calibration.thresholds == {}
    assert calibration.scale > 0


def test_scores_that_cannot_be_read_make_no_calibration():
    lost = [make_prediction(k, ("Gun",), {"Gun": 9.0}) for k in range(10)]
    with pytest.raises(DatasetError, match="10 scores could not"):
        fit_calibration(lost, make_info(), "toy scans", simulated=False)


def test_thresholds_part_what_scores_part():
    predictions = development(30, 60)
    calibration = fit_calibration(predictions, make_info(), "toy scans", simulated=False)
    flagged = [calibration.correct(p.probability("Gun") or 0.0) >= calibration.thresholds["Gun"] for p in predictions]
    assert flagged == [bool(p.present) for p in predictions]


def test_scores_that_cannot_be_read_are_left_out_and_told():
    predictions = [*development(20, 40), make_prediction(5000, ("Gun",), {"Gun": 9.0, "Knife": 9.0})]
    with_lost = fit_calibration(predictions, make_info(), "toy scans", simulated=False)
    without = fit_calibration(predictions[:-1], make_info(), "toy scans", simulated=False)
    assert with_lost.thresholds == without.thresholds
    assert any("2 scores could not be read" in note for note in with_lost.notes)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([(), ("Gun",), ("Knife",), ("Gun", "Knife")]), probabilities, probabilities),
        min_size=1,
        max_size=50,
    )
)
def test_any_development_set_gives_usable_thresholds(rows):
    predictions = [make_prediction(k, there, {"Gun": a, "Knife": b}) for k, (there, a, b) in enumerate(rows)]
    if not any(there for there, *_ in rows):
        with pytest.raises(DatasetError, match="nothing to calibrate on"):
            fit_calibration(predictions, make_info(), "anything", simulated=False)
        return
    calibration = fit_calibration(predictions, make_info(), "anything", simulated=False)
    assert set(calibration.thresholds) == {"Gun", "Knife"}
    for threshold in calibration.thresholds.values():
        assert 0 < threshold < 1
        assert 0 < calibration.uncorrect(threshold) < 1
    clean = [p for p in predictions if not p.present]
    if calibration.thresholds and len(clean) >= 20:
        flagged = sum(
            any(calibration.correct(p.probability(c) or 0.0) >= t for c, t in calibration.thresholds.items())
            for p in clean
        )
        assert flagged <= MAX_CLEAN_FLAGGED * len(clean)


def test_isotonic_recovers_a_bend_that_no_line_can():
    rng = np.random.default_rng(2)
    raw = rng.normal(0, 2, 40_000)
    chance = expit(np.where(raw < 0, 0.3 * raw - 1, 2 * raw - 1))
    calibration = calibration_by(fit_knots(expit(raw), rng.random(40_000) < chance))
    for logit_value, wanted in ((-3.0, expit(-1.9)), (0.5, expit(0.0)), (1.0, expit(1.0))):
        assert calibration.correct(float(expit(logit_value))) == pytest.approx(wanted, abs=0.03)


def calibration_by(knots: list[tuple[float, float]]) -> Calibration:
    return Calibration(identity=IDENTITY, knots=knots, thresholds={}, measured_on="", num_scans=0)


@given(st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=60), probabilities, probabilities)
def test_an_isotonic_correction_rises_stays_a_probability_and_can_be_undone(rows, one, other):
    knots = fit_knots(np.array([p for p, _ in rows]), np.array([t for _, t in rows]))
    calibration = calibration_by(knots)
    lower, upper = sorted((one, other))
    assert 0 < calibration.correct(lower) <= calibration.correct(upper) < 1
    if 1e-3 < calibration.correct(one) < 1 - 1e-3:
        assert calibration.uncorrect(calibration.correct(one)) == pytest.approx(one, abs=1e-6)


def test_knots_that_do_not_rise_are_refused():
    with pytest.raises(ValidationError, match="knots have to rise"):
        calibration_by([(0.0, 1.0), (1.0, 0.5)])


@pytest.mark.parametrize(("num", "target"), [(29, 0.9), (60, 0.9), (200, 0.95), (500, 0.8)])
def test_a_threshold_for_a_wanted_pd_keeps_its_claim_on_fresh_bags(num, target):
    # A positive's score is uniform, so that the true Pd at a threshold t is 1 - t.
    rng = np.random.default_rng(num)
    found = [proving_threshold(rng.random(num), target, 0.95) for _ in range(2000)]
    kept = np.mean([threshold is not None and 1 - threshold >= target for threshold in found])
    assert kept >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert np.mean([1 - threshold for threshold in found if threshold is not None]) < target + 4 / math.sqrt(num)


@given(st.lists(probabilities, min_size=1, max_size=80), st.sampled_from([0.5, 0.8, 0.9]))
def test_a_wanted_pd_is_shown_by_the_scores_themselves_or_refused(scores, target):
    positives = np.array(scores)
    threshold = proving_threshold(positives, target, 0.95)
    if threshold is None:
        assert target ** len(scores) > 0.05  # not even without a miss
        return
    hits = int((positives >= threshold).sum())
    assert lower_bound(hits, len(scores)) >= target
    assert 0 < threshold < 1


@pytest.mark.parametrize("num", [19, 40, 130])
def test_at_most_the_stated_share_of_fresh_bags_with_an_item_lies_below_the_limit(num):
    rng = np.random.default_rng(num)
    limits = [unsure_limit(rng.random(num), 0.05) for _ in range(4000)]
    assert np.mean([limit for limit in limits if limit is not None]) <= 0.05 + 3 * 0.05 / math.sqrt(4000)


def test_eighteen_bags_cannot_rule_an_item_out_at_five_percent():
    assert unsure_limit(np.linspace(0.1, 0.9, 18), 0.05) is None
    assert unsure_limit(np.linspace(0.1, 0.9, 19), 0.05) == pytest.approx(0.1)


def test_several_scans_of_one_bag_are_one_observation():
    assert sorted(lowest_by_group(np.array([0.4, 0.2, 0.9]), ["a", "a", "b"])) == [0.2, 0.9]
    views = [make_prediction(k, ("Gun",), {"Gun": 0.5 + k / 1000}, group=f"bag-{k // 2}") for k in range(40)]
    clean = [make_prediction(1000 + k, (), {"Gun": 0.1}) for k in range(40)]
    aim = CalibrationAim(target_pd=0.9)
    calibration = fit_calibration([*views, *clean], make_info(("Gun",)), "toy", simulated=False, aim=aim)
    assert calibration.thresholds == {}  # 20 bags, of which 29 are needed
    assert any("29 are needed" in note and "Gun (20)" in note for note in calibration.notes)


def test_a_category_in_too_few_bags_has_no_threshold_that_could_clear():
    calibration = fit_calibration(development(18, 60), make_info(("Gun",)), "toy", simulated=False)
    assert "Gun" in calibration.thresholds
    assert not calibration.may_clear("Gun")
    assert any("19 are needed" in note and "Gun (18)" in note for note in calibration.notes)
    assert fit_calibration(development(19, 60), make_info(("Gun",)), "toy", simulated=False).may_clear("Gun")


def test_what_becomes_of_the_development_scans_is_said():
    aim = CalibrationAim(target_pd=0.5)
    calibration = fit_calibration(development(40, 60), make_info(("Gun",)), "toy", simulated=False, aim=aim)
    assert calibration.target_pd == 0.5
    assert calibration.confidence == 0.95
    told = calibration.notes[-1]
    assert told.startswith("of 60 clean development scans these thresholds flag 0 and leave 0 more unsure; of 40 with")
    flagged, unsure = told.split()[-3::2]
    assert lower_bound(int(flagged), 40) >= 0.5
    assert int(flagged) + int(unsure) >= 38  # at most floor(0.05 * 41) - 1 lie below the limit


def test_where_no_threshold_can_clear_every_unflagged_development_scan_is_told_as_unsure():
    aim = CalibrationAim(target_pd=0.9)
    calibration = fit_calibration(development(20, 60), make_info(("Gun",)), "toy", simulated=False, aim=aim)
    told = "of 60 clean development scans these thresholds flag 0 and leave 60 more unsure; of 20 with an item 0 and 20"
    assert calibration.notes[-1] == told
