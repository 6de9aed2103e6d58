"""The same numbers as independent implementations give, on random inputs; where definitions differ, how."""

import contextlib
import io

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from xray_vqa.core.geometry import Box
from xray_vqa.evaluation.metrics.answers import item_scores
from xray_vqa.evaluation.metrics.calibration import brier_score, calibration_error, risk_coverage, score_calibration
from xray_vqa.evaluation.metrics.intervals import exact_rate, lower_bound, rate, trials_to_prove, upper_bound
from xray_vqa.evaluation.metrics.localisation import COCO_IOUS, PlacedCategory, detection_scores
from xray_vqa.evaluation.metrics.ranking import Ranking, auc, average_precision, d_prime, det_points, roc_points
from xray_vqa.evaluation.metrics.screening import ScoreTable, score_screening
from xray_vqa.evaluation.metrics.text import corpus_bleu, corpus_chrf, rouge_l

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def labelled(seed: int, size: int = 300, digits: int = 2):
    """Scores with many ties, and labels that they tell apart a little."""
    rng = np.random.default_rng(seed)
    truth = rng.random(size) < 0.3
    return np.round(1 / (1 + np.exp(-rng.normal(truth * 1.2 - 0.8, 1.0))), digits), truth


@pytest.mark.parametrize("seed", range(5))
def test_auc_average_precision_and_brier_equal_scikit_learns(seed):
    scores, truth = labelled(seed)
    assert auc(scores[truth], scores[~truth]) == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores), abs=1e-9)
    assert average_precision(scores, truth) == pytest.approx(
        sklearn_metrics.average_precision_score(truth, scores), abs=1e-9
    )
    assert brier_score(scores, truth) == pytest.approx(sklearn_metrics.brier_score_loss(truth, scores), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_auc_equals_scikit_learns(seed):
    scores, truth = labelled(seed)
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(scores))).astype(float)
    expected = [sklearn_metrics.roc_auc_score(truth, scores, sample_weight=row) for row in weights]
    assert Ranking(scores, truth)(weights)[:, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_rates_at_fixed_rates_are_points_of_scikit_learns_roc(seed):
    scores, truth = labelled(seed)
    pfa, pd, _ = sklearn_metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert np.array(roc_points(scores, truth)) == pytest.approx(np.column_stack([pfa, pd]), abs=1e-9)
    found = dict(zip(Ranking.names, Ranking(scores, truth)(np.ones((1, len(scores))))[0], strict=True))
    for level in (0.01, 0.05, 0.1):
        assert found[f"pd@{level:g}"] == pytest.approx(pd[pfa <= level + 1e-12].max(), abs=1e-9)
    for level in (0.9, 0.95):
        assert found[f"pfa@{level:g}"] == pytest.approx(pfa[pd >= level - 1e-12].min(), abs=1e-9)


def test_rates_at_fixed_rates_with_weights_equal_those_of_repeated_scans():
    scores, truth = labelled(9, size=60)
    weights = np.random.default_rng(1).integers(0, 4, len(scores))
    repeated = Ranking(np.repeat(scores, weights), np.repeat(truth, weights))(np.ones((1, weights.sum())))
    assert Ranking(scores, truth)(weights[None].astype(float)) == pytest.approx(repeated, abs=1e-9)


def test_calibration_error_equals_torchmetrics():
    classification = pytest.importorskip("torchmetrics.classification")
    import torch

    scores, truth = labelled(4, size=500, digits=12)  # torchmetrics closes its bins to the right: no score on an edge
    metric = classification.BinaryCalibrationError(n_bins=10, norm="l1")
    # Its own bins are of the probability of "yes", as ours; it works in float32 unless told otherwise.
    metric.set_dtype(torch.float64)
    expected = float(metric(torch.tensor(scores, dtype=torch.float64), torch.tensor(truth.astype(int))))
    assert calibration_error(scores, truth) == pytest.approx(expected, abs=1e-9)


def test_equal_mass_bins_hold_equal_shares():
    scores, truth = np.array([0.1, 0.2, 0.3, 0.9] * 5), np.array([False, False, True, True] * 5)
    # Equal probabilities stay together, so each quarter is a bin of its own.
    expected = (0.1 + 0.2 + 0.7 + 0.1) / 4
    assert calibration_error(scores, truth, equal_mass=True) == pytest.approx(expected)


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (18, 20), (20, 20), (431, 1000)])
def test_intervals_equal_scipys(hits, n):
    for ours, method in ((rate(hits, n), "wilson"), (exact_rate(hits, n), "exact")):
        theirs = binomtest(hits, n).proportion_ci(0.95, method=method)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_how_many_bags_a_claim_needs():
    # Without a miss n bags prove 0.9 once 0.9 ** n <= 0.05: 28.4. The tables of the success run theorem say 29, 46, 61.
    assert [trials_to_prove(0.9, misses) for misses in (0, 1, 2)] == [29, 46, 61]
    assert lower_bound(29, 29) >= 0.9 > lower_bound(28, 28)


def test_d_prime_worked_by_hand():
    # (9 + 0.5) / 11 and (1 + 0.5) / 11: z = 1.0968 and -1.0968.
    assert d_prime(9, 10, 1, 10) == pytest.approx(2.1936, abs=1e-3)
    assert d_prime(10, 10, 0, 10) is not None
    assert d_prime(0, 0, 1, 10) is None


def test_corpus_scores_equal_sacrebleus_own():
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    rng = np.random.default_rng(0)
    words = ["a", "knife", "gun", "lies", "beneath", "the", "laptop", "in", "upper", "left", "."]
    said, truth = ([" ".join(rng.choice(words, rng.integers(6, 15))) for _ in range(60)] for _ in range(2))
    bleu, chrf = BLEU(), CHRF(word_order=2)
    expected_bleu, expected_chrf = bleu.corpus_score(said, [truth]).score, chrf.corpus_score(said, [truth]).score
    found = corpus_bleu(said, truth, ["en"] * 60)
    assert found.value == pytest.approx(expected_bleu / 100, abs=1e-9)
    assert found.signatures == [str(bleu.get_signature())]
    assert corpus_chrf(said, truth).value == pytest.approx(expected_chrf / 100, abs=1e-9)
    assert corpus_chrf(said, truth).signatures == [str(chrf.get_signature())]


@pytest.mark.parametrize(
    "text",
    ["يوجد سكين في أعلى اليسار تحت الحاسوب", "行李左上角有一把刀和一支枪", "В сумке слева лежит нож"],
)
def test_perfect_answers_score_one_in_every_script(text):
    assert rouge_l(text, text) == 1.0
    assert corpus_chrf([text], [text]).value == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_of_boxes_equals_pycocotools(seed):
    coco_module, eval_module = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(seed)
    placed, annotations, detections = [], [], []
    for image in range(40):
        for category, name in ((1, "Gun"), (2, "Knife")):
            there = [Box(*map(float, rng.integers(1, 60, 4))) for _ in range(rng.integers(0, 3))]
            near = [Box(b.x + rng.integers(-4, 5), b.y + rng.integers(-4, 5), b.w, b.h) for b in there]
            near += [Box(*map(float, rng.integers(1, 60, 4))) for _ in range(rng.integers(0, 2))]
            score = float(np.round(rng.random(), 6))
            if there or near:
                placed.append(PlacedCategory(near, there, str(image), name, score))
            for each in there:
                annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category,
                                    "bbox": list(each.as_xywh()), "area": each.area, "iscrowd": 0})  # fmt: skip
            detections += [
                {"image_id": image, "category_id": category, "bbox": list(b.as_xywh()), "score": score} for b in near
            ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO()
        truth.dataset = {"images": [{"id": k} for k in range(40)], "annotations": annotations,
                         "categories": [{"id": 1, "name": "Gun"}, {"id": 2, "name": "Knife"}]}  # fmt: skip
        truth.createIndex()
        evaluation = eval_module.COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, category), all areas, 100 boxes
    assert evaluation.params.iouThrs == pytest.approx(COCO_IOUS)
    found = detection_scores(placed)
    assert found is not None
    assert found.map == pytest.approx(precision.mean(), abs=1e-9)
    assert found.map_50 == pytest.approx(precision[0].mean(), abs=1e-9)
    assert found.map_75 == pytest.approx(precision[5].mean(), abs=1e-9)
    assert found.by_category["Knife"] == pytest.approx(precision[:, :, 1].mean(), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_item_scores_equal_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    truth, scores = rng.random((80, 3)) < 0.3, np.round(rng.random((80, 3)), 3)
    table = ScoreTable(
        categories=("Gun", "Knife", "Blade"), scores=scores, truth=truth, annotated=np.ones((80, 3), dtype=bool),
        unlisted=np.zeros(80, dtype=bool), groups=np.arange(80),
    )  # fmt: skip
    found = score_screening(table, dict.fromkeys(table.categories, 0.6), dict.fromkeys(table.categories, "default"))
    flagged = scores >= 0.6
    for ours, name in (
        (found.item_f1.precision, "precision_score"),
        (found.item_f1.recall, "recall_score"),
        (found.item_f1.f1.value, "f1_score"),
    ):
        assert ours == pytest.approx(getattr(sklearn_metrics, name)(truth, flagged, average="micro"), abs=1e-9)
    macro = sklearn_metrics.f1_score(truth, flagged, average="macro")
    assert found.macro_f1.value == pytest.approx(macro, abs=1e-9)
    for column, row in enumerate(found.categories.values()):
        assert row.f1 == pytest.approx(sklearn_metrics.f1_score(truth[:, column], flagged[:, column]), abs=1e-9)
        assert row.pd.value == pytest.approx(sklearn_metrics.recall_score(truth[:, column], flagged[:, column]))


def test_named_items_in_answers_score_as_scikit_learn_counts_them():
    rng = np.random.default_rng(2)
    named, there = rng.random((60, 4)) < 0.4, rng.random((60, 4)) < 0.4
    counts = np.stack([(named & there).sum(axis=1), named.sum(axis=1), there.sum(axis=1)], axis=1).astype(float)
    found = item_scores(counts, np.arange(60), draws=50)
    expected = sklearn_metrics.precision_recall_fscore_support(there, named, average="micro")[:3]
    assert (found.precision, found.recall, found.f1.value) == pytest.approx(expected, abs=1e-9)


def test_the_det_curve_is_scikit_learns_in_normal_deviates():
    scores, truth = labelled(6)
    pfa, miss, _ = sklearn_metrics.det_curve(truth, scores, drop_intermediate=False)
    kept = (pfa > 0) & (pfa < 1) & (miss > 0) & (miss < 1)
    expected = np.column_stack([norm.ppf(pfa[kept]), norm.ppf(miss[kept])])[::-1]  # theirs goes up the ranking
    assert np.array(det_points(roc_points(scores, truth))) == pytest.approx(expected, abs=1e-9)


def test_reliability_equals_scikit_learns_curve():
    calibration = pytest.importorskip("sklearn.calibration")
    scores, truth = labelled(8, size=400, digits=12)
    share, mean = calibration.calibration_curve(truth, scores, n_bins=10)
    bins = score_calibration(scores, truth).reliability
    assert [row.share_there.value for row in bins] == pytest.approx(share, abs=1e-9)
    assert [row.mean_probability for row in bins] == pytest.approx(mean, abs=1e-9)


def test_risk_at_each_coverage_is_that_of_the_surest_probes():
    scores, truth = labelled(5, size=200, digits=12)  # no two are equally sure
    surest = np.argsort(-np.abs(scores - 0.5))
    wrong = (scores > 0.5)[surest] != truth[surest]
    risks = [wrong[: count + 1].mean() for count in range(len(wrong))]
    curve, area = risk_coverage(scores, truth)
    assert area == pytest.approx(np.mean(risks), abs=1e-9)
    assert [risk for _, risk in curve] == pytest.approx([risks[round(c * 200) - 1] for c, _ in curve], abs=1e-9)


def test_overlap_equals_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    boxes, others = ([Box(*map(float, rng.integers(1, 60, 4))) for _ in range(30)] for _ in range(2))
    theirs = mask.iou(*(np.array([b.as_xywh() for b in some]) for some in (boxes, others)), [False] * len(others))
    assert [[box.iou(other) for other in others] for box in boxes] == pytest.approx(np.array(theirs), abs=1e-9)


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (18, 20), (20, 20), (431, 1000)])
def test_one_sided_bounds_equal_scipys(hits, n):
    # A two-sided interval at 90 % leaves 5 % on each side.
    theirs = binomtest(hits, n).proportion_ci(0.9, method="exact")
    assert (lower_bound(hits, n), upper_bound(hits, n)) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
