"""The quality report: what it counts, what it judges, and what it tells people."""

import json
import math
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bags import POLICY, config_of, make_record, write_scans
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_vqa.config.loading import load_config
from xray_vqa.config.quality import PairGates, load_gates
from xray_vqa.core.jsonl import replacing
from xray_vqa.core.lexicon import load_lexicon
from xray_vqa.core.manifest import make_manifest, write_manifest
from xray_vqa.core.records import PairMetadata, VQAPair
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import ConfigError
from xray_vqa.generation.facts import read_facts
from xray_vqa.generation.providers import open_provider
from xray_vqa.generation.quality import QualityMeter, measure
from xray_vqa.generation.quality.blind import NUM_FEATURES, num_right_blind, question_features
from xray_vqa.generation.quality.checking import check_and_measure, write_pages
from xray_vqa.generation.quality.choices import right_choice
from xray_vqa.generation.quality.duplicates import NearCopies
from xray_vqa.generation.quality.texts import Texts
from xray_vqa.generation.quality.words import distinct_share, entropy_bits, type_token_ratio, words
from xray_vqa.generation.run import generate
from xray_vqa.generation.source import Source, open_source
from xray_vqa.generation.validation import check_image, kind_of


def pair(image, short_answer, question, question_type="presence", target="Gun", answer="", language="en", **more):
    about = PairMetadata(
        image_id=image,
        question_type=question_type,
        generated_by="template",
        short_answer=short_answer,
        target=target,
        language=language,
        **more,
    )
    path = f"train/images/{image:06d}.jpg"
    return VQAPair(image_path=path, question=question, answer=answer or short_answer or "text", metadata=about)


def presence_set(count, shortcut):
    """Half yes, half no; with a shortcut, "please" stands in the questions whose answer is yes."""
    chance = random.Random(1)
    for number in range(count):
        answer = "yes" if number % 2 else "no"
        polite = answer == "yes" if shortcut else chance.random() < 0.5
        words = f"Is there a gun in bag {chance.choice(('one', 'two', 'three'))}{', please' if polite else ''}?"
        yield pair(number, answer, words)


# Without looking


def test_a_word_that_gives_the_answer_away_is_found():
    quality = measure(presence_set(400, shortcut=True))
    assert quality.blind_accuracy["presence"].classifier > 0.95
    assert quality.blind_accuracy["presence"].accuracy < 0.6  # the majority by target does not read the words
    assert any("presence questions are answered right by" in warning for warning in quality.warnings)


def bayes(texts, answers, halves):
    """How many of the answers naive Bayes gets right, by its definition and over the words themselves.

    None where a tie is decided by rounding.
    """
    grams = [{*text, *pairwise(("^", *text))} for text in texts]
    right = 0
    for half in (0, 1):
        learned = [k for k in range(len(texts)) if halves[k] != half]
        for k in (k for k in range(len(texts)) if halves[k] == half and learned):
            scores = sorted((blind_score(grams, answers, learned, grams[k], a), a) for a in sorted({*answers}))
            if len(scores) > 1 and scores[-1][0] - scores[-2][0] < 1e-6:
                return None
            right += scores[-1][1] == answers[k]
    return right


def blind_score(grams, answers, learned, asked, answer):
    prior = sum(answers[k] == answer for k in learned)
    score = math.log(prior + 1)
    used = set().union(asked, *(grams[k] for k in learned))
    for gram in used:
        everywhere = sum(gram in grams[k] for k in learned)
        seen = sum(gram in grams[k] for k in learned if answers[k] == answer)
        chance = (seen + (everywhere + 0.5) / (len(learned) + 1)) / (prior + 1)
        score += math.log(chance if gram in asked else 1 - chance)
    unused = 0.5 / (len(learned) + 1) / (prior + 1)  # the chance of what no question has
    return score + (NUM_FEATURES - len(used)) * math.log(1 - unused)


@given(st.lists(st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5).map(tuple),
                          st.integers(0, 2), st.integers(0, 1)), min_size=2, max_size=14))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_blind_answers_are_those_of_naive_bayes_over_the_words(asked):
    texts, numbers = Texts(), []
    for text, _, _ in asked:
        numbers.append(texts.add(text))
    answers, halves = np.array([answer for _, answer, _ in asked]), np.array([half for *_, half in asked])
    expected = bayes([text for text, *_ in asked], answers.tolist(), halves.tolist())
    assume(expected is not None)
    assert num_right_blind(question_features(texts), np.array(numbers), answers, halves) == expected


def test_a_shortcut_is_found_among_very_many_pairs():
    features = question_features(Texts([words("how many items are there"), words("how many knives are there")]))
    question = np.arange(4_000_000) % 2
    halves = np.arange(4_000_000) // 2 % 2
    assert num_right_blind(features, question, question, halves) == 4_000_000  # "how" is in every one of them


def test_nothing_is_found_in_balanced_questions():
    quality = measure(presence_set(400, shortcut=False))
    assert quality.blind_accuracy["presence"].classifier == pytest.approx(0.5, abs=0.1)
    assert quality.warnings == []


def test_a_lucky_pick_among_the_choices_is_no_shortcut():
    chance = random.Random(2)
    pairs = []
    for number in range(600):
        choices = chance.sample(["gun", "knife", "hammer", "pliers", "wrench", "bullet", "battery", "lighter"], 4)
        question = f"Which of these is in the bag: {choices[0]}, {choices[1]}, {choices[2]} or {choices[3]}?"
        pairs.append(pair(number, chance.choice(choices), question, "identification", ""))
    score = measure(pairs).blind_accuracy["identification"]
    assert score.majority == 0.25  # though each of the eight answers is right an eighth of the time
    assert score.classifier < 0.35


def test_each_topic_has_a_commonest_answer_of_its_own():
    pairs = []
    for number in range(400):
        for topic, question, answers in (
            ("orientation", "How is the gun oriented?", ("horizontal", "vertical")),
            ("clutter", "How tightly is the bag packed?", ("sparse", "moderate", "dense", "heavy")),
        ):
            pairs.append(pair(number, answers[number % len(answers)], question, "concealment", topic=topic))
    score = measure(pairs).blind_accuracy["concealment"]
    assert (score.commonest_share, score.majority) == (0.25, 0.375)


def test_lettered_choices_with_articles_are_choices():
    letters = "(A) a syringe, (B) a 3D-printed gun, (C) a knife, (D) a gun"
    answers = ("injection", "3d gun", "knife", "gun")
    quality = measure([pair(n, answers[n % 4], f"Which is it? {letters}", "identification", "") for n in range(400)])
    assert quality.choices["4"].by_place == {"A": 100, "B": 100, "C": 100, "D": 100}


def test_choices_are_choices_in_any_language():
    answers = ("gun", "knife", "hammer", "pliers", "wrench", "bullet", "battery", "lighter")
    nouns = [load_lexicon("fr").categories[name.capitalize()].one for name in answers]
    pairs = []
    for number in range(400):
        offered = load_lexicon("fr").joined([nouns[(number + k) % 8] for k in range(4)], "or")
        question = f"Que montre l'image : {offered} ?"
        pairs.append(pair(number, answers[number % 8], question, "identification", "", language="fr"))
    assert measure(pairs).blind_accuracy["identification"].majority == 0.25


def test_open_questions_have_no_answer_to_guess():
    quality = measure([pair(n, "", f"Describe scan {n}.", "detailed", "") for n in range(10)])
    assert quality.blind_accuracy == {}
    assert quality.question_types == {"detailed": 10}


# Choices


@pytest.mark.parametrize(
    ("question", "short_answer", "found"),
    [
        ("What is it? A) a knife B) a gun", "b", (1, 2)),
        ("What is it? A) knife B) gun C) bullet", "gun", (1, 3)),
        ("What is it? (A) knife (B) gun", "hammer", None),
        ("Which of these is it: a knife, a gun or a bullet?", "bullet", (2, 3)),
        ("Is there a gun?", "yes", None),
        ("What lies in the center?", "gun", None),
    ],
)
def test_the_place_of_the_right_choice(question, short_answer, found):
    assert right_choice(question, short_answer) == found


def test_a_letter_that_is_mostly_right_breaches_its_gate():
    pairs = [pair(n, "A" if n % 10 else "B", f"Number {n}: A) gun B) knife", "identification", "") for n in range(300)]
    quality = measure(pairs)
    assert quality.choices["2"].by_place == {"A": 270, "B": 30}
    assert quality.choices["2"].lead == 0.4
    assert any("of 2 choices A is right 90% of the time" in warning for warning in quality.warnings)


# Copies


def jaccard(left, right):
    a, b = (set(pairwise(text)) if len(text) > 1 else {text} for text in (left, right))
    return len(a & b) / len(a | b)


WORDS = ["is", "there", "a", "gun", "knife", "in", "the", "bag", "here", "now"]
QUESTIONS = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(tuple),
    min_size=1, max_size=9, unique=True,
).map(sorted)  # fmt: skip


@given(QUESTIONS)
@settings(max_examples=150, deadline=None)
def test_near_copies_are_those_of_brute_force(questions):
    found = NearCopies(Texts(questions), 0.7).have_copies()
    for number, question in enumerate(questions):
        others = [jaccard(question, other) for k, other in enumerate(questions) if k != number]
        if found[number]:
            assert max(others) >= 0.7 - 1e-9
        elif others:
            assert max(others) < 0.9  # 16 bands of 4 miss such a pair once in 20 million


def test_the_same_question_again_in_an_image_is_told_from_one_in_another():
    asked = [pair(0, "yes", "Is there a gun?"), pair(0, "yes", "is there a gun"), pair(1, "no", "Is there a gun?")]
    copies = measure(asked).duplicates
    assert (copies.num_different, copies.repeated_in_image, copies.repeated) == (1, 0.333333, 0.666667)


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)), max_size=24))
@settings(max_examples=100, deadline=None)
def test_questions_asked_again_are_those_of_brute_force(asked):
    copies = measure([pair(image, "yes", " ".join(text)) for image, text in asked]).duplicates
    again = nearly = 0
    for number, (image, text) in enumerate(asked):
        before = [other for i, other in asked[:number] if i == image]
        again += text in before
        nearly += text not in before and any(jaccard(tuple(text), tuple(other)) >= 0.7 - 1e-9 for other in before)
    count = max(len(asked), 1)
    assert copies.num_different == len({tuple(text) for _, text in asked})
    assert copies.repeated_in_image == pytest.approx(again / count, abs=1e-6)
    assert copies.near_in_image == pytest.approx(nearly / count, abs=1e-6)


def test_the_page_shows_a_pair_that_stands_twice():
    meter = QualityMeter()
    for _ in range(4):
        meter.add(pair(0, "yes", "Is there a gun?"))
    assert len(meter.samples["presence"]) == 3


def test_one_more_word_is_a_near_copy():
    first = "can you see any gun hidden somewhere in this bag"
    asked = [pair(0, "yes", f"{first}?"), pair(0, "yes", f"{first} now?"), pair(0, "no", "Is there a knife?")]
    copies = measure(asked).duplicates
    assert (copies.near_in_image, copies.near) == (0.333333, 0.666667)


# Variety


def test_variety_worked_out_by_hand():
    assert distinct_share([["a", "b", "a"], ["a", "b"]], 1) == 0.4
    assert distinct_share([["a", "b", "a"], ["a", "b"]], 2) == 0.6667  # ab, ba, ab
    assert type_token_ratio([["a", "b"]] * 500) == 0.002
    assert type_token_ratio([["a", "b"]]) is None
    assert entropy_bits([5, 5, 5, 5]) == 2.0
    assert words("刀在哪里?") == ["刀", "在", "哪", "里"]


@given(st.permutations(list(presence_set(24, shortcut=False))))
@settings(max_examples=10, deadline=None)
def test_no_number_depends_on_the_order_of_the_lines(pairs):
    assert measure(pairs) == measure(presence_set(24, shortcut=False))


# Truth


@given(st.permutations(range(9)))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pairs_are_judged_by_image_wherever_they_stand(tmp_path, order):
    """Three pairs of each of three images, of which the second and third of each image ask the same."""
    (tmp_path / "train/images").mkdir(parents=True, exist_ok=True)
    records = [make_record(n, ["Gun"]) for n in range(3)]
    for record in records:
        (tmp_path / record.image_path).touch()
    about = {"evidence": [0], "categories": ["Gun"], "num_categories": 1, "answer": "Yes."}
    lines = [
        pair(n, "yes", question, **about).model_dump_json()
        for n in range(3)
        for question in ("Is there a gun?", "Is a gun in there?", "Is a gun in there?")
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("{\n\n" + "\n".join(lines[k] for k in order))
    source = Source(tmp_path, "train", tuple(records), CATEGORIES, ())
    checked = check_and_measure(path, source, POLICY, PairGates())
    later = sorted(3 + max(order.index(3 * n + 1), order.index(3 * n + 2)) for n in range(3))
    assert [fault.position for fault in checked.faults] == [1, *later]
    assert checked.quality.checks.faults == {"invalid": 1, "repeat": 3}
    assert checked.quality.num_pairs == 9


def faults_of(record, **changes):
    truth = {"short_answer": "yes", "question": "Is there a gun?", "answer": "Yes, there is a gun.", "evidence": [0]}
    given = truth | changes
    made = pair(0, given.pop("short_answer"), given.pop("question"), categories=["Gun"], num_categories=1, **given)
    return [message for _, message in check_image([made], read_facts(record, CATEGORIES), POLICY)]


def test_faults_are_counted_by_kind():
    record = make_record(0, ["Gun"])
    assert faults_of(record) == []
    assert {kind_of(m) for m in faults_of(record, answer="No, there is none.")} == {"disagreement"}
    assert {kind_of(m) for m in faults_of(record, answer="Yes, a gun, as the caption says.")} == {"leak"}
    assert {kind_of(m) for m in faults_of(record, target="Revolver")} == {"invalid"}
    strange = faults_of(record, question_type="detailed", target="", answer="A gun and a knife.")
    assert {kind_of(m) for m in strange} == {"unsupported"}
    twice = [pair(0, answer, "Is there a gun?", categories=["Gun"], num_categories=1) for answer in ("yes", "no")]
    kinds = {kind_of(m) for _, m in check_image(twice, read_facts(record, CATEGORIES), POLICY)}
    assert {"repeat", "contradiction"} <= kinds


def test_an_item_that_the_evidence_does_not_hold_is_counted():
    meter = QualityMeter({"train/images/000000.jpg": ["Gun", "Knife"]})
    meter.add(pair(0, "2", "How many?", "count", "", answer="Two: a gun and a knife.", evidence=[0, 1]))
    meter.add(pair(0, "1", "How many, then?", "count", "", answer="One gun and a hammer.", evidence=[0]))
    assert meter.result().checks.unsupported_rate == 0.5


@pytest.mark.parametrize(("short_answer", "rate"), [("not verified", 0.0), ("match", 1.0)])
def test_what_is_left_undecided_may_be_named_again(short_answer, rate):
    meter = QualityMeter()
    asked = "Declared were keys and a lighter. Does the scan bear out the lighter?"
    meter.add(pair(1, short_answer, asked, "declaration", "Lighter", f"The lighter is a {short_answer}.", topic="item"))
    assert meter.result().checks.unsupported_rate == rate


@pytest.mark.parametrize("question", ["What does 000012.jpg show?", "Is 3DGun1_B5_L1 dangerous?"])
def test_a_file_name_in_a_question_is_a_leak(question):
    assert measure([pair(0, "yes", question)]).checks.leak_rate == 1.0


def test_a_question_that_names_what_it_asks_for_is_a_leak():
    quality = measure([pair(0, "gun", "What kind of gun lies in the center?", "identification", "")])
    assert quality.checks.leak_rate == 1.0


# Gates


def test_the_shipped_gates_are_the_defaults_but_for_variety_and_making():
    shipped = load_gates().model_dump()
    differing = {name for name, value in PairGates().model_dump().items() if shipped[name] != value}
    assert differing == {"min_distinct_2", "min_opening_entropy_bits", "max_rejected", "max_rejected_of_category"}


def test_an_unknown_gate_is_refused(tmp_path):
    path = tmp_path / "gates.yaml"
    path.write_text("min_validty: 1.0\n")
    with pytest.raises(ConfigError, match="did you mean 'min_validity'"):
        load_config(PairGates, path)


def test_a_gate_without_a_threshold_is_not_judged():
    quality = measure([pair(n, "yes", "Is there a gun?") for n in range(40)], PairGates(yes_ratio=None))
    assert [gate.passed for gate in quality.gates if gate.name == "yes_ratio"] == [None]
    assert quality.warnings == []


# Page and card


@pytest.fixture
def scans(tmp_path):
    root = tmp_path / "scans"
    records = [make_record(n, ["Gun", "Knife"] if n % 2 else []) for n in range(10)]
    write_scans(root, [record.model_copy(update={"licence": "CC BY 4.0", "source": "mine"}) for record in records])
    for record in records:
        Image.new("RGB", (300, 300), "white").save(root / record.image_path)
    write_manifest(root, make_manifest("synth", annotated_categories=list(CATEGORIES)))
    return root


def finished(scans):
    config = config_of(scans)
    generate(config, open_provider(config.provider))
    return config.output_path


def test_a_finished_run_leaves_page_card_and_numbers(scans):
    output = finished(scans)
    page = output.with_name("pairs_quality.html").read_text()
    assert "gates passed" in page
    assert page.count('class="box"') > 2
    assert "data:image/jpeg;base64," in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "agrees with the annotations" in page
    card = output.with_name("pairs_card.md").read_text()
    assert card.startswith("---\npretty_name: pairs\n")
    assert "license: cc-by-4.0" in card
    assert "| template template-2 | 30 |" in card
    assert "No pair was worded by a vendor's model" in card
    quality = json.loads(output.with_name("pairs_stats.json").read_text())["quality"]
    assert quality["checks"]["agreement"] == 1.0
    assert quality["making"]["usd_per_pair"] == 0.0


def test_a_wrong_pair_stands_on_the_page_with_its_fault(scans):
    output = finished(scans)
    lines = output.read_text().splitlines()
    place = next(k for k, line in enumerate(lines) if '"short_answer":"yes"' in line)
    wrong = json.loads(lines[place]) | {"answer": "No, <b>there</b> is none."}
    lines[place] = json.dumps(wrong)
    with replacing(output) as stream:
        stream.write("\n".join([*lines, "{"]).encode())
    source = open_source(scans / "train" / "annotations.json")
    checked = check_and_measure(output, source, POLICY, PairGates())
    assert len(checked.faults) == 2
    assert checked.quality.checks.faults == {"disagreement": 1, "invalid": 1}
    assert checked.quality.checks.validity == round(30 / 31, 6)
    page = write_pages(output, source, checked)[0].read_text()
    assert "2 faults in the file" in page
    assert "does not say" in page
    assert "No, &lt;b&gt;there&lt;/b&gt; is none." in page


def test_a_scan_that_cannot_be_read_is_said_and_not_drawn(scans):
    for path in Path(scans, "train", "images").iterdir():
        path.write_bytes(b"pixels")
    page = finished(scans).with_name("pairs_quality.html").read_text()
    assert "data:image" not in page
    assert 'class="blank"' in page
