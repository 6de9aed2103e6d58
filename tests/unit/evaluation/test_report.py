"""The page: what it draws and what it must never do."""

import html.parser
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prediction_samples import IDENTITY, make_header, make_prediction

from xray_vqa.config.loading import load_policy
from xray_vqa.core.calibration import Calibration
from xray_vqa.core.manifest import make_manifest
from xray_vqa.evaluation.report import choose_scans, page, write_report
from xray_vqa.evaluation.report.about import about_run
from xray_vqa.evaluation.report.bars import BAR_WIDTH, category_rows
from xray_vqa.evaluation.report.curves import roc_plot
from xray_vqa.evaluation.report.evidence import write_evidence
from xray_vqa.evaluation.report.markdown import write_markdown
from xray_vqa.evaluation.score import score

TEMPLATES = Path(page.__file__).with_name("templates")
VOID = {"meta", "input", "img", "br", "line", "rect", "circle", "polygon", "polyline"}


def save_scans(root, predictions, side=100):
    rng = np.random.default_rng(0)
    (root / "test/images").mkdir(parents=True)
    for prediction in predictions:
        Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(root / prediction.image_path)


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


def test_misses_stand_first_then_false_alarms_then_right_ones(made):
    _, _, scans = made()
    assert [(scan.prediction.image_id, scan.kind) for scan in scans] == [
        (1, "missed"), (2, "alarm"), (0, "found"), (3, "quiet")
    ]  # fmt: skip


def test_a_clean_bag_without_a_score_is_shown_as_a_false_alarm(made):
    _, _, scans = made([make_prediction(0, (), {"Gun": 2.0, "Knife": 0.1})])
    assert [(scan.kind, scan.alarms) for scan in scans] == [("alarm", ("Gun",))]


def test_boxes_answers_and_decisions_are_on_the_page(made):
    page, _, _ = made()
    assert page.count('<rect class="truth"') == 2
    assert page.count('<rect class="predicted"') == 2
    assert 'viewBox="0 0 100 100"' in page
    verdicts = re.findall(r'<span class="badge [a-z]+">(right|wrong|same meaning|unreadable)</span>', page)
    assert verdicts == ["wrong", "same meaning", "right", "unreadable"]
    assert "One prohibited firearm detected: gun (upper-left)." in page


def test_the_page_is_whole_and_refers_to_nothing_outside(made):
    page, _, _ = made()
    assert not re.findall(r'(?:src|href)="(?!data:image/|#)', page)
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("<script") == 1  # our own, named by its digest in the page's policy
    assert "default-src 'none'" in page
    assert not re.findall(r'<[^>]+ (?:style|on[a-z]+)="', page)
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
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "<b>bold</b>" not in page


def test_a_page_without_scans_and_without_clean_bags_can_be_made(tmp_path):
    results = score([make_prediction(0, ("Gun",), {"Gun": 0.9, "Knife": 0.1})], make_header(), make_manifest("predict"))
    page = write_report(tmp_path / "report.html", results).read_text()
    assert "It takes threat bags and clean ones" in page


def test_the_roc_is_drawn_as_steps_with_the_working_point(made):
    _, results, _ = made()
    plot = roc_plot(results.screening.bag)
    assert plot is not None
    # Bag margins: threat 0.4 and -0.3, clean 0.3 and -0.4. Pd rises to 1/2, then Pfa to 1/2, then Pd to 1, then Pfa.
    line = next(line for line in plot.lines if line.kind == "model")
    points = [tuple(float(value) for value in point.split(",")) for point in line.points.split()]
    side = plot.width
    assert points == [(0, side), (0, side / 2), (side / 2, side / 2), (side / 2, 0), (side, 0)]
    assert plot.rings == [(side / 2, side / 2)]


def test_bars_are_as_long_as_the_detection_rate(made):
    _, results, _ = made()
    (row,) = category_rows(results.screening.categories)  # no knife occurs
    assert (row.name, row.bar.length, row.bar.tick) == ("Gun", BAR_WIDTH / 2, BAR_WIDTH / 2)
    assert 0 < row.bar.low < row.bar.length < row.bar.high < BAR_WIDTH


def test_the_headline_says_of_a_hundred_bags_what_was_found_with_its_range(made):
    page, results, _ = made()
    pd = results.screening.bag.pd
    assert "finds 50 of 100 bags with a threat" in page
    assert f"[{100 * pd.low:.0f}, {100 * pd.high:.0f}]" in page
    assert "not a certification" in page


def from_source(source):
    return [prediction.model_copy(update={"source": source}) for prediction in some_predictions()]


@pytest.mark.parametrize(
    ("source", "told"), [("synth/x@1", "SIMULATED SCANS."), ("", "is not recorded"), ("lab", "Scans from lab")]
)
def test_the_page_and_the_tables_say_whether_the_scans_are_simulated(tmp_path, source, told):
    predictions, header = from_source(source), make_header()
    save_scans(tmp_path, predictions)
    results = score(predictions, header, make_manifest("predict"))
    about = about_run(predictions, header, [])
    scans = choose_scans(tmp_path, predictions, header, load_policy())
    page = write_report(tmp_path / "report.html", results, scans, about=about).read_text()
    assert told in page
    assert page.count('"tag">SIMULATED') == (len(scans) if source.startswith("synth/") else 0)
    tables = write_markdown(tmp_path / "report.md", results, about=about).read_text()
    assert ("SIMULATED SCANS" in tables) == source.startswith("synth/")


def test_real_scans_read_by_thresholds_of_simulated_ones_are_called_so(tmp_path):
    calibration = Calibration(identity=IDENTITY, thresholds={}, measured_on="sim", num_scans=9, simulated=True)
    header = make_header()
    header = header.model_copy(update={"point": header.point.model_copy(update={"calibration": calibration})})
    predictions = from_source("lab")
    results = score(predictions, header, make_manifest("predict"))
    text = write_report(tmp_path / "report.html", results, about=about_run(predictions, header, [])).read_text()
    assert ">calibrated on simulated scans<" in text


def test_what_is_said_where_something_else_is_there_is_counted():
    box = [{"category": "Gun", "box": None}]
    predictions = [
        make_prediction(0, (), {"Gun": 0.1, "Knife": 0.9}, truth=box),
        make_prediction(1, (), {"Gun": 0.9, "Knife": 0.1}, truth=box),
        make_prediction(2, (), {"Gun": 0.1, "Knife": 0.1}),
        make_prediction(3, ("Gun", "Knife"), {"Gun": 0.9, "Knife": 0.9}),
    ]
    confusion = about_run(predictions, make_header(), []).confusion
    assert confusion is not None
    assert confusion.counts == {("Gun", "Knife"): 1, ("Gun", "Gun"): 1, ("(nothing)", "(nothing)"): 1}
    assert confusion.num_left_out == 1


def test_sixty_scans_of_noise_with_heat_maps_stay_under_5_mb(tmp_path):
    predictions = [make_prediction(n, ("Gun",), {"Gun": 0.1, "Knife": 0.1}) for n in range(70)]
    save_scans(tmp_path, predictions, side=640)
    header = make_header()
    scans = choose_scans(tmp_path, predictions, header, load_policy())
    assert len(scans) == 60
    rng = np.random.default_rng(0)
    maps = {p.image_path: rng.random((24, 32)) for p in predictions}
    results = score(predictions, header, make_manifest("predict"))
    path = write_report(tmp_path / "report.html", results, scans, heat_maps=maps)
    assert path.stat().st_size < 5_000_000
    assert path.read_text().count("heat-layer") >= 60


def test_markdown_from_outside_stays_in_its_cell(made, tmp_path):
    _, results, _ = made()
    row = results.rows[0].model_copy(update={"what": "a | b <img src=x>\n# head"})
    write_markdown(tmp_path / "r.md", results.model_copy(update={"rows": [row]}))
    assert "a \\| b &lt;img src=x> \\# head" in (tmp_path / "r.md").read_text()


def test_evidence_is_kept_only_beside_the_weights_that_were_measured(made, tmp_path):
    from xray_vqa.modeling.loading import digest_of

    _, results, _ = made()
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    files = {"report.html": tmp_path / "report.html"}
    assert write_evidence(str(model), results, files, make_manifest("evaluate")) is None
    assert not (model / "evaluation").exists()
    identity = results.scored.identity.model_copy(update={"model_digest": digest_of(model)})
    measured = results.model_copy(update={"scored": results.scored.model_copy(update={"identity": identity})})
    folder = write_evidence(str(model), measured, files, make_manifest("evaluate"))
    assert folder == model / "evaluation"
    assert (folder / "report.html").read_bytes() == files["report.html"].read_bytes()
    assert digest_of(model) in (folder / "manifest.json").read_text()
    assert write_evidence("nano", measured, files, make_manifest("evaluate")) is None


def test_scans_that_come_in_groups_are_not_called_bags(made):
    alike = [prediction.model_copy(update={"group": "series"}) for prediction in some_predictions()]
    page, *_ = made(alike)
    assert "finds 50 of 100 scans with a threat" in page
    assert "stops 50 of 100 clean scans" in page
    assert "4 scans in 1 groups" in page
    assert "4 scans come in 1 groups" in page
    assert "of 100 bags" not in page


PALETTE = (TEMPLATES / "page.css").read_text()
TEXT_ON_GROUND = (
    *((ink, ground) for ink in ("ink", "soft", "accent", "bad") for ground in ("page", "card")),
    *((kind, f"{kind}-soft") for kind in ("good", "bad", "warn", "accent")),
    *((ink, "accent-soft") for ink in ("ink", "soft")),  # the model's row
    ("card", "accent"),  # a chosen chip
    ("ink", "warn-soft"), ("ink", "stripe"),  # the stripes over a page of simulated scans
)  # fmt: skip
MARK_ON_GROUND = (("accent", "card"), ("bad", "card"), ("accent", "line"), ("ink", "line"))


def palettes() -> dict[str, dict[str, str]]:
    """The page's colours by name, in light, in dark and in print."""
    blocks = re.findall(r":root \{(.*?)\}", PALETTE, re.DOTALL)
    assert len(blocks) == 3
    found = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks]
    return dict(zip(("light", "dark", "print"), found, strict=True))


def luminance(rgb: np.ndarray) -> float:
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def rgb_of(colour: str) -> np.ndarray:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], dtype=float)


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """WCAG 2.2's ratio, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_black_on_white_has_the_largest_contrast():
    assert contrast(rgb_of("#000000"), rgb_of("#ffffff")) == pytest.approx(21)


@pytest.mark.parametrize("look", ["light", "dark", "print"])
def test_text_has_a_contrast_of_four_and_a_half_and_marks_of_three(look):
    colours = {name: rgb_of(value) for name, value in palettes()[look].items()}
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in TEXT_ON_GROUND}
    # The cells of the confusion table are mixed with up to 30 % of `bad`.
    low[("ink", "wrong3")] = contrast(colours["ink"], 0.3 * colours["bad"] + 0.7 * colours["card"])
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
    marks = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in MARK_ON_GROUND}
    assert {pair: ratio for pair, ratio in marks.items() if ratio < 3} == {}


@pytest.mark.parametrize("colour", ["#00754a", "#c2185b"])
def test_boxes_and_their_names_stand_out_from_their_white_edge(colour):
    assert colour in PALETTE
    assert contrast(rgb_of(colour), rgb_of("#ffffff")) >= 4.5


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def browse(page, tmp_path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", *options, page.as_uri()],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1000:]
    assert "CONSOLE" not in done.stderr
    return done


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.mark.slow
@needs_browser
def test_a_browser_opens_the_page_without_a_complaint(made, tmp_path):
    made()
    picture = tmp_path / "page.png"
    browse(tmp_path / "report.html", tmp_path, "--window-size=1280,2400", f"--screenshot={picture}")
    with Image.open(picture) as image:
        assert image.size == (1280, 2400)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.slow
@needs_browser
def test_without_scripts_the_page_looks_the_same_but_for_what_they_add(made, tmp_path):
    made()
    page, bare = tmp_path / "report.html", tmp_path / "bare.html"
    bare.write_text(re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL))
    pictures = []
    for path in (page, bare):
        browse(path, tmp_path, "--window-size=1280,9000", "--hide-scrollbars", f"--screenshot={tmp_path / 'p.png'}")
        with Image.open(tmp_path / "p.png") as image:
            pictures.append(np.asarray(image.convert("L"), dtype=int))
    ink = [(picture < 128).sum() for picture in pictures]
    assert ink[1] == pytest.approx(ink[0], rel=0.03)  # arrows at the heads of tables, and the count of scans
    shown = browse(bare, tmp_path, "--dump-dom").stdout
    assert shown.count('class="card scan') == 4


@pytest.mark.slow
@needs_browser
def test_printed_it_is_a_few_pages_of_a4(made, tmp_path):
    made()
    printed = tmp_path / "report.pdf"
    browse(tmp_path / "report.html", tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}")
    content = printed.read_bytes()
    boxes = re.findall(rb"/MediaBox\s*\[\s*0\s+0\s+([0-9.]+)\s+([0-9.]+)", content)
    assert 2 <= len(boxes) <= 12
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {(595, 842)}
