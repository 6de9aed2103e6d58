"""From predictions to results: what is refused, what is counted, and what stands in slices."""

import pytest
from prediction_samples import make_header, make_prediction

from xray_vqa.core.manifest import make_manifest
from xray_vqa.errors import DatasetError
from xray_vqa.evaluation.metrics.prevalence import at_prevalences, cost_points, proof_of
from xray_vqa.evaluation.score import Contender, check_same_scans, score

SCANS = [
    make_prediction(0, ("Gun",), {"Gun": 0.9, "Knife": 0.1}, source="synth/a", factors={"clutter_level": 1}),
    make_prediction(1, ("Knife",), {"Gun": 0.1, "Knife": 0.2}, source="synth/b", factors={"clutter_level": 3}),
    make_prediction(2, (), {"Gun": 0.1, "Knife": 0.7}, source="synth/b", factors={"clutter_level": 3}),
    make_prediction(3, (), {"Gun": 0.2, "Knife": 0.1}, source="synth/a"),
]


def scored(predictions, **more):
    return score(predictions, make_header(), make_manifest("predict", split="test"), draws=200, **more)


def test_a_scan_that_stands_there_twice_is_refused_by_name():
    with pytest.raises(DatasetError, match=r"twice, first test/images/000000\.jpg"):
        scored([*SCANS, SCANS[0]])


def test_a_row_about_other_scans_is_refused_by_name():
    other = Contender("blind", "grey", [*SCANS[1:], make_prediction(9, (), {"Gun": 0.5})], make_header().point)
    with pytest.raises(DatasetError, match=r"blind: 1 scans are missing, first .*0\.jpg; 1 scans are not of this"):
        scored(SCANS, others=[other])
    check_same_scans(SCANS, [scan.image_path for scan in SCANS], "model")


def test_slices_are_of_what_scans_tell_and_of_nothing_else():
    slices = scored(SCANS).slices
    by_clutter = {row.value: row for row in slices["bag clutter_level"]}
    assert {value: (row.num_scans, row.pd.value, row.pd.n) for value, row in by_clutter.items()} == {
        "1": (1, 1.0, 1),
        "3": (2, 0.0, 1),
    }
    assert (by_clutter["1"].pfa.value, by_clutter["3"].pfa.value) == (None, 1.0)
    assert [row.value for row in slices["source"]] == ["synth/a", "synth/b"]
    assert "item visible share" not in slices


def test_scores_that_are_no_number_are_wrong_and_counted():
    results = scored([make_prediction(0, ("Gun",), {"Gun": float("nan")}), *SCANS[1:]])
    assert results.unreadable.scores == 1
    assert results.screening.categories["Gun"].pd.value == 0.0


def test_scans_of_one_kind_alone_have_no_auc_and_this_is_said():
    results = scored(SCANS[:2])
    assert results.screening.bag.auc.value is None
    assert results.screening.bag.at_prevalence == []
    assert any("no clean bag" in note for note in results.notes)


def test_every_interval_names_its_method():
    bag = scored(SCANS).screening.bag
    assert bag.pd.method == "wilson"
    assert (bag.pd.low is None) is (bag.pd.method is None)


def test_an_operators_day_worked_by_hand():
    # 1 % of 1,000 bags are threats: 9 of 10 found, and 5 % of 990 clean ones stopped: 9 + 49.5.
    day = {row.prevalence: row for row in at_prevalences(0.9, 0.05)}[0.01]
    assert day.alarms_per_1000 == pytest.approx(58.5)
    assert day.ppv == pytest.approx(9 / 58.5)
    assert day.npv == pytest.approx(940.5 / 941.5)
    assert day.threats_missed_per_million == pytest.approx(1000)


def test_a_dearer_miss_moves_the_cheapest_margin_to_more_alarms():
    points = [point for point in cost_points([(0, 0), (0.1, 0.9), (1, 1)], 0.9, 0.1) if point.prevalence == 0.1]
    assert [point.pd for point in points] == [0, 0.9, 1, 1, 1]
    assert points[1].cost_per_1000 == points[1].cost_at_thresholds == pytest.approx(100 * 0.1 * 10 + 900 * 0.1)


def test_no_miss_among_thirty_bags_proves_nine_in_ten():
    proof = proof_of(hits=30, num_positive=30, positive_size=30, alarms=0, num_negative=60, negative_size=60)
    assert proof.pd_at_least == pytest.approx(0.05 ** (1 / 30))
    assert proof.pfa_at_most == pytest.approx(1 - 0.05 ** (1 / 60))
    assert (proof.miss_rule_of_three, proof.bags_for_pd_90) == (0.1, 29)
    assert proof_of(
        hits=3, num_positive=30, positive_size=30, alarms=0, num_negative=1, negative_size=1
    ).bags_for_pd_90 is None  # fmt: skip
