"""The numbers of a pairs file, on sets small enough to work them out by hand."""

from xray_vqa.core.records import PairMetadata, VQAPair
from xray_vqa.generation.quality import describe, measure


def pair(image, short_answer, question="Is there a gun?", question_type="presence", target="Gun"):
    about = PairMetadata(
        image_id=image,
        question_type=question_type,
        categories=["Gun"] if short_answer == "yes" else [],
        generated_by="template",
        short_answer=short_answer,
        target=target,
    )
    return VQAPair(image_path=f"train/images/{image}.jpg", question=question, answer=short_answer, metadata=about)


def test_a_lopsided_category_is_warned_of():
    quality = measure([pair(i, "yes" if i < 15 else "no") for i in range(20)])
    assert quality.yes_ratio_by_category["Gun"].ratio == 0.75
    assert any("Gun is 0.75 (15 yes, 5 no)" in warning for warning in quality.warnings)


def test_a_few_questions_are_not_judged():
    assert measure([pair(0, "yes"), pair(1, "yes")]).warnings == []


def test_always_yes_can_be_answered_blind():
    blind = measure([pair(i, "yes") for i in range(40)]).blind_accuracy["presence"]
    assert (blind.accuracy, blind.commonest, blind.commonest_share) == (1.0, "yes", 1.0)


def test_knowing_the_target_helps_the_blind():
    quality = measure(
        [pair(i, "yes", target="Gun") for i in range(40)] + [pair(i, "no", target="Knife") for i in range(40)]
    )
    assert quality.blind_accuracy["presence"].accuracy == 1.0
    assert quality.blind_accuracy["presence"].commonest_share == 0.5


def test_counts_and_shares():
    quality = measure([pair(0, "yes"), pair(0, "gun", "What is there?", "listing", ""), pair(1, "no"), pair(2, "no")])
    assert (quality.num_pairs, quality.num_images) == (4, 3)
    assert quality.question_types == {"listing": 1, "presence": 3}
    assert quality.type_shares == {"listing": 0.25, "presence": 0.75}
    assert quality.distinct_question_ratio == 0.5
    assert quality.category_counts == {"Gun": 1}
    assert "presence           1 yes, 2 no" in describe(quality)


def test_an_empty_set_has_no_ratios():
    quality = measure([])
    assert (quality.num_pairs, quality.yes_ratio, quality.blind_accuracy) == (0, None, {})
