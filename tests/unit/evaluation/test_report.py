"""The page: what it draws and what it must never do."""

import html.parser
import re

import numpy as np
import pytest
from PIL import Image
from prediction_samples import make_header, make_prediction

from xray_vqa.config.loading import load_policy
from xray_vqa.core.manifest import make_manifest
from xray_vqa.evaluation.report import choose_scans, write_report
from xray_vqa.evaluation.report.charts import BAR_WIDTH, ROC_SIDE, category_bars, roc_chart
from xray_vqa.evaluation.score import score

VOID = {"meta", "img", "br", "line", "rect", "circle", "polygon", "polyline"}


def save_scans(root, predictions):
    rng = np.random.default_rng(0)
    (root / "test/images").mkdir(parents=True)
    for prediction in predictions:
        Image.fromarray(rng.integers(0, 255, (100, 100, 3), dtype=np.uint8)).save(root / prediction.image_path)


def some_predictions(question: str = "Is there a gun?"):
    asked = {"pair": 0, "question": question, "question_type": "presence", "truth": "Yes.", "short_truth": "yes"}
    box = [{"category": "Gun", "box": (10.0, 10.0, 30.0, 30.0)}]
    return [
        make_prediction(0, (), {"Gun": 0.9, "Knife": 0.1}, truth=box, boxes={"Gun": [(12.0, 12.0, 30.0, 30.0)]},
                        answers=[asked | {"answer": "yes"}]),
        make_prediction(1, (), {"Gun": 0.2, "Knife": 0.1}, truth=box, answers=[asked | {"answer": "no"}]),
        make_prediction(2, (), {"Gun": 0.8, "Knife": 0.1}, boxes={"Gun": [(0.0, 0.0, 9.0, 9.0)]},
                        answers=[asked | {"answer": "yes, a gun"}]),
        make_prediction(3, (), {"Gun": 0.1, "Knife": 0.1}, answers=[asked | {"answer": "?", "failure": "unreadable"}]),
    ]  # fmt: skip


@pytest.fixture
def made(tmp_path):
    def make(predictions=None, title="Trial"):
        predictions = some_predictions() if predictions is None else predictions
        save_scans(tmp_path, predictions)
        header = make_header()
        results = score(predictions, header, make_manifest("predict", split="test"))
        scans = choose_scans(tmp_path, predictions, header, load_policy())
        return write_report(tmp_path / "report.html", results, scans, title).read_text(), results, scans

    return make


def test_scans_of_every_kind_are_shown_in_turn(made):
    _, _, scans = made()
    assert [scan.prediction.image_id for scan in scans] == [0, 1, 2, 3]  # found, missed, false alarm, quiet


def test_boxes_answers_and_decisions_are_on_the_page(made):
    page, _, _ = made()
    assert page.count('class="truth"') == 2
    assert page.count('class="predicted"') == 2
    assert 'viewBox="0 0 100 100"' in page
    verdicts = re.findall(r'<span class="badge [a-z]+">(right|wrong|same meaning|unreadable)</span>', page)
    assert verdicts == ["right", "wrong", "same meaning", "unreadable"]
    assert "One prohibited firearm detected: gun (upper-left)." in page


def test_the_page_is_whole_and_refers_to_nothing_outside(made):
    page, _, _ = made()
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page)
    assert "url(" not in page
    assert "@import" not in page
    assert "<script" not in page
    open_tags: list[str] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in VOID:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            if tag not in VOID:
                assert open_tags.pop() == tag

    Parser().feed(page)
    assert open_tags == []


def test_text_from_outside_cannot_become_markup(made):
    page, _, _ = made(some_predictions("<script>alert(1)</script>"), title="<b>bold</b>")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>bold</b>" not in page


def test_a_page_without_scans_and_without_clean_bags_can_be_made(tmp_path):
    results = score([make_prediction(0, ("Gun",), {"Gun": 0.9, "Knife": 0.1})], make_header(), make_manifest("predict"))
    page = write_report(tmp_path / "report.html", results).read_text()
    assert "It takes threat bags and clean ones" in page


def test_the_roc_is_drawn_as_steps_with_the_working_point(made):
    _, results, _ = made()
    chart = roc_chart(results.screening.bag)
    assert chart is not None
    # Bag margins: threat 0.4 and -0.3, clean 0.3 and -0.4. Pd rises to 1/2, then Pfa to 1/2, then Pd to 1, then Pfa.
    points = [tuple(float(value) for value in point.split(",")) for point in chart.line.split()]
    half = ROC_SIDE / 2
    assert points == [(0, ROC_SIDE), (0, half), (half, half), (half, 0), (ROC_SIDE, 0)]
    assert chart.point == (half, half)


def test_bars_are_as_long_as_the_detection_rate(made):
    _, results, _ = made()
    (bar,) = category_bars(results.screening.categories)  # no knife occurs
    assert (bar.label, bar.length, bar.pfa_x) == ("Gun", BAR_WIDTH / 2, BAR_WIDTH / 2)
    assert 0 < bar.low < bar.length < bar.high < BAR_WIDTH
