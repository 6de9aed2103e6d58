"""Two models on the same scans: what is a difference and what is luck."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_samples import make_header, make_prediction
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from xray_vqa.cli.main import main
from xray_vqa.core.jsonl import write_jsonl
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import compact
from xray_vqa.errors import DatasetError, Incomplete
from xray_vqa.evaluation.comparison.compare import compare
from xray_vqa.evaluation.comparison.paired import holm, mcnemar_exact, paired_difference, ranking, ratio
from xray_vqa.evaluation.comparison.table import format_comparison


def write(path: Path, predictions, inputs=None) -> Path:
    count = write_jsonl(path, (compact(prediction) for prediction in predictions))
    manifest = make_manifest(
        "predict",
        config=make_header().model_dump(mode="json"),
        inputs=inputs or {"val.jsonl": "a" * 64, "annotations.json": "b" * 64},
        counts={"scans": count, "done": count},
        split="test",
    )
    write_manifest(path, manifest)
    return path


def answer(number: int, said: str, kind: str = "presence") -> dict:
    truth = "There is a gun in the middle of the bag."
    return {
        "pair": number, "question": "Is there a gun?", "question_type": kind,
        "truth": truth, "short_truth": "yes", "answer": said,
    }  # fmt: skip


def scans(seed: int, *, n: int = 40, repeats: int = 1, skill: float = 1.0):
    """Every other bag holds a gun; a score is noise about the truth, and half of the answers are right."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        there = k % 2 == 0
        score = float(np.clip(0.5 + skill * (0.2 if there else -0.2) + rng.normal(0, 0.25), 0, 1))
        said = "yes" if rng.random() < 0.5 else "no"
        made.append(
            make_prediction(
                k,
                ("Gun",) if there else (),
                {"Gun": score, "Knife": 0.1},
                factors={"clutter_level": k % 4},
                answers=[answer(k * repeats + r, said) for r in range(repeats)],
            )
        )
    return made


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_binomial_tail(only_a, only_b):
    n, few = only_a + only_b, min(only_a, only_b)
    expected = min(1.0, 2 * float(binom.cdf(few, n, 0.5)))
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(values):
    corrected = holm(values)
    assert all(raw <= new <= 1 for raw, new in zip(values, corrected, strict=True))
    order = np.argsort(values, kind="stable")
    assert all(np.diff(np.array(corrected)[order]) >= 0) if values else corrected == []


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(5, 60))
def test_ranking_agrees_with_scikit_learn_under_any_weights(seed, n):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 6, n) / 6, rng.random(n) < 0.5
    truth[:2] = [True, False]
    weights = rng.integers(1, 4, (n, 1)).astype(float)
    found = ranking(scores, truth, np.arange(n), n).statistic(weights)[0]
    assert found == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights[:, 0]), abs=1e-12)


def test_detection_at_a_false_alarm_rate_is_found_by_trying_every_threshold():
    rng = np.random.default_rng(3)
    scores, truth = rng.integers(0, 30, 200) / 30, rng.random(200) < 0.4
    found = ranking(scores, truth, np.arange(200), 200, 0.05).statistic(np.ones((200, 1)))[0]
    tried = [(scores >= limit) for limit in [*np.unique(scores), np.inf]]
    assert found == max(flagged[truth].mean() for flagged in tried if flagged[~truth].mean() <= 0.05)


def test_the_interval_of_a_mean_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 0.1, 80), rng.normal(0.55, 0.1, 80)
    member = np.arange(80)
    found = paired_difference(ratio(a, np.ones(80), member, 80), ratio(b, np.ones(80), member, 80), 80)
    from scipy.stats import ttest_rel

    expected = ttest_rel(b, a)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.002)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.2)


def test_a_model_against_itself_differs_in_nothing(tmp_path):
    a, b = (write(tmp_path / name, scans(0)) for name in ("a.jsonl", "b.jsonl"))
    found = compare(a, b, margin=0.2)
    assert not found.flips
    for delta in found.metrics.values():
        assert (delta.difference, delta.p_value, delta.num_differing) == (0.0, 1.0, 0)
        assert delta.low < 0 < delta.high  # forty bags are no proof of no difference at all
        assert delta.not_worse
    assert all(entry.p_corrected == 1.0 for entry in found.slices.values())


def test_no_difference_in_a_few_bags_is_no_proof_of_none(tmp_path):
    a, b = (write(tmp_path / name, scans(0, n=6)) for name in ("a.jsonl", "b.jsonl"))
    assert compare(a, b, margin=0.02).metrics["pd"].not_worse is False


def test_threats_lost_stand_first_and_say_where_and_what(tmp_path):
    before = scans(0)
    changed = []
    for prediction in before:
        flagged = prediction.probability("Gun") >= 0.5
        score = {"Gun": 0.1 if flagged else 0.9, "Knife": 0.1}
        changed.append(make_prediction(
            prediction.image_id, tuple(prediction.present), score,
            factors=prediction.factors, answers=[a.model_dump() for a in prediction.answers],
        ))  # fmt: skip
    found = compare(write(tmp_path / "a.jsonl", before), write(tmp_path / "b.jsonl", changed))
    kinds = [flip.kind for flip in found.flips]
    assert kinds[0] == "threat lost"
    assert kinds == sorted(kinds, key=["threat lost", "false alarm new", "threat found", "false alarm gone"].index)
    assert len(kinds) == 40
    lost = found.flips[0]
    assert lost.categories == ["Gun"]
    assert found.detection.only_a == kinds.count("threat lost")
    assert found.alarms.only_a == kinds.count("false alarm new")
    assert "threat lost" in format_comparison(found)
    assert found.slices["category Gun"].only_a == kinds.count("threat lost")
    assert sum(entry.n for name, entry in found.slices.items() if name.startswith("clutter level")) == 20


def test_questions_asked_again_add_no_significance(tmp_path):
    once = [write(tmp_path / f"{k}.jsonl", scans(k)) for k in (1, 2)]
    often = [write(tmp_path / f"{k}x.jsonl", scans(k, repeats=9)) for k in (1, 2)]
    one, nine = (compare(*files).metrics["exact_match_accuracy"] for files in (once, often))
    assert one.difference != 0
    assert (nine.difference, nine.low, nine.p_value) == pytest.approx((one.difference, one.low, one.p_value))


def test_the_order_of_lines_changes_nothing(tmp_path):
    a, b = write(tmp_path / "a.jsonl", scans(1)), write(tmp_path / "b.jsonl", scans(2))
    first = compare(a, b)
    write(a, scans(1)[::-1])
    second = compare(a, b)
    assert first.model_dump(exclude={"a"}) == second.model_dump(exclude={"a"})


def test_other_test_sets_are_refused_by_their_digests(tmp_path):
    a = write(tmp_path / "a.jsonl", scans(0))
    b = write(tmp_path / "b.jsonl", scans(0), inputs={"val.jsonl": "c" * 64})
    with pytest.raises(DatasetError, match="different test sets"):
        compare(a, b)


def test_scans_that_only_one_side_has_are_named(tmp_path):
    a, b = write(tmp_path / "a.jsonl", scans(0)), write(tmp_path / "b.jsonl", scans(0)[:-1])
    with pytest.raises(DatasetError, match=r"1 scans are in one of them alone, first test/images/000039\.jpg"):
        compare(a, b)


def test_doubled_scans_are_named(tmp_path):
    a = write(tmp_path / "a.jsonl", scans(0))
    b = write(tmp_path / "b.jsonl", [*scans(0), scans(0)[3]])
    with pytest.raises(DatasetError, match=r"b\.jsonl: 1 scans doubled, first test/images/000003\.jpg"):
        compare(a, b)


@pytest.mark.parametrize("probability", ["NaN", "1.5", "-0.1", "Infinity"])
def test_a_score_that_is_no_probability_is_named_with_its_line(tmp_path, probability):
    a = write(tmp_path / "a.jsonl", scans(0))
    lines = a.read_text().splitlines()
    score = json.loads(lines[4])["scores"]["Gun"]["probability"]
    lines[4] = lines[4].replace(f'"probability": {score}', f'"probability": {probability}')
    a.write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match=r"a\.jsonl:5: scores\.Gun\.probability"):
        compare(a, a)


def test_clean_bags_alone_are_compared_and_the_rest_is_said_to_be_missing(tmp_path):
    clean = [p for p in scans(0) if not p.present]
    a = write(tmp_path / "a.jsonl", clean)
    found = compare(a, a, draws=100)
    assert found.metrics["pd"].difference is None
    assert found.metrics["bag_auc"].a is None
    assert any("no bag with a threat" in note for note in found.notes)


def test_unfinished_predictions_are_refused(tmp_path):
    a = write(tmp_path / "a.jsonl", scans(0))
    manifest = tmp_path / "a.jsonl.manifest.json"
    value = json.loads(manifest.read_text())
    value["counts"]["done"] = 3
    manifest.write_text(json.dumps(value))
    with pytest.raises(Incomplete):
        compare(a, a)


def test_the_command_prints_json_and_fails_the_gate_of_a_margin(tmp_path, capsys):
    a, b = write(tmp_path / "a.jsonl", scans(1)), write(tmp_path / "b.jsonl", scans(2))
    assert main(["compare", str(a), str(b), "--draws", "500"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["metrics"]["item_f1"]["a"] is not None
    assert "B - A" in printed.err
    output = tmp_path / "compare.json"
    assert main(["compare", str(a), str(b), "--draws", "500", "--margin", "0.001", "--output", str(output)]) == 4
    assert "not shown to be no worse" in capsys.readouterr().err
    assert json.loads(output.read_text())["margin"] == 0.001
    with pytest.raises(SystemExit):
        main(["compare", str(a), str(b), "--margin", "-1"])


@pytest.mark.slow
def test_two_runs_of_equal_models_differ_significantly_no_oftener_than_alpha():
    rng = np.random.default_rng(0)
    trials, bags, asked = 1000, 60, 5
    member, ones = np.repeat(np.arange(bags), asked), np.ones(bags * asked)
    hits = dict.fromkeys(("mean", "auc"), 0)
    for trial in range(trials):
        means = [(rng.normal(0, 0.6, bags).repeat(asked) + rng.normal(0, 1, bags * asked) > 0) for _ in "ab"]
        sides = [ratio(right.astype(float), ones, member, bags) for right in means]
        hits["mean"] += paired_difference(*sides, bags, draws=400, seed=trial).p_value < 0.05
        truth = np.arange(bags) % 2 == 0
        sides = [ranking(rng.normal(0, 1, bags) + truth, truth, np.arange(bags), bags) for _ in "ab"]
        hits["auc"] += paired_difference(*sides, bags, draws=400, seed=trial).p_value < 0.05
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)
    assert all(count / trials <= limit for count in hits.values()), hits


def drawn_from_one_process(rng: np.random.Generator, bags: int, asked: int):
    """Two models alike: each answers five questions a bag, any two of which correlate by 0.3, and scores every scan."""
    made = []
    for bag in range(bags):
        there = bag % 2 == 0
        of_bag, own = rng.random() < 0.7, rng.random(asked) < 0.7
        right = np.where(rng.random(asked) < 0.3**0.5, of_bag, own)
        score = float(np.clip(0.5 + (0.15 if there else -0.15) + rng.normal(0, 0.25), 0, 1))
        answers = [answer(bag * asked + k, "yes" if right[k] else "no") for k in range(asked)]
        made.append(make_prediction(bag, ("Gun",) if there else (), {"Gun": score, "Knife": 0.1}, answers=answers))
    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_drawn_from_one_process_differ_significantly_no_oftener_than_alpha(tmp_path):
    rng = np.random.default_rng(11)
    trials, found = 300, Counter()
    for trial in range(trials):
        files = [write(tmp_path / f"{name}.jsonl", drawn_from_one_process(rng, 60, 5)) for name in "ab"]
        compared = compare(*files, draws=500, seed=trial)
        found.update(name for name, delta in compared.metrics.items() if (delta.p_value or 1.0) < 0.05)
        found.update(name for name in ("detection", "alarms") if getattr(compared, name).p_value < 0.05)
    # At a rate of 0.05 each of the nine is above this in one run of ten thousand.
    limit = int(binom.ppf(1 - 1e-4, trials, 0.05))
    assert max(found.values(), default=0) <= limit, found
    assert found["exact_match_accuracy"] > 0  # a test that never finds anything would pass too
