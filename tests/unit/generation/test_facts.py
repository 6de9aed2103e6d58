"""What annotations tell and what they are silent about."""

from bags import POLICY, make_record

from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED
from xray_vqa.generation import facts as truth
from xray_vqa.generation.facts import read_facts

SIXRAY = ("Gun", "Knife", "Wrench", "Pliers", "Scissors")


def test_absence_is_told_of_annotated_categories_alone():
    facts = read_facts(make_record(categories=["Gun"]), SIXRAY)
    assert truth.presence(facts, "Knife") == ("no", ())
    assert truth.presence(facts, "Explosive") is None
    assert truth.presence(facts, "Gun") == ("yes", (0,))


def test_an_unlisted_item_without_its_label_leaves_everything_else_open():
    facts = read_facts(make_record(categories=["Gun", UNLISTED]), CATEGORIES)
    assert facts.deniable == ()
    assert truth.listing(facts, ()) is None
    assert truth.listing(facts, ("Gun", "Knife")) is None


def test_an_unlisted_label_denies_nothing_that_it_could_mean():
    record = make_record(categories=[UNLISTED], raw_labels=["Cutlass_Knife"])
    facts = read_facts(record, CATEGORIES)
    assert "Knife" not in facts.deniable
    assert "Hammer" in facts.deniable


def test_a_vague_label_denies_nothing_at_all():
    record = make_record(categories=[UNLISTED], raw_labels=["Multilabel Threat"])
    assert read_facts(record, CATEGORIES).deniable == ()


def test_an_image_label_without_a_box_gives_neither_place_nor_number():
    facts = read_facts(make_record(categories=["Gun"], bboxes=[None]), CATEGORIES)
    assert truth.presence(facts, "Gun") == ("yes", (0,))
    assert truth.location(facts, "Gun") is None
    assert truth.count(facts, "Gun") is None
    assert truth.count(facts, "") is None


def test_a_box_without_area_counts_as_no_box():
    facts = read_facts(make_record(categories=["Gun"], bboxes=[(10, 10, 0, 5)]), CATEGORIES)
    assert truth.location(facts, "Gun") is None


def test_places_are_named_once_each_in_reading_order():
    boxes = [(210, 210, 40, 40), (10, 10, 40, 40), (220, 220, 40, 40)]
    facts = read_facts(make_record(categories=["Gun", "Gun", "Gun"], bboxes=boxes), CATEGORIES)
    assert truth.location(facts, "Gun") == ("upper-left, lower-right", (0, 1, 2))
    assert truth.count(facts, "Gun") == ("3", (0, 1, 2))


def test_a_region_names_an_item_where_it_is_alone():
    boxes = [(10, 10, 40, 40), (210, 210, 40, 40), (220, 220, 40, 40)]
    facts = read_facts(make_record(categories=["Gun", "Knife", "Hammer"], bboxes=boxes), CATEGORIES)
    assert truth.identification(facts, (), "upper-left") == ("gun", (0,))
    assert truth.identification(facts, (), "lower-right") is None


def test_an_item_of_unknown_place_may_lie_in_any_region():
    facts = read_facts(make_record(categories=["Gun", "Knife"], bboxes=[(10, 10, 40, 40), None]), CATEGORIES)
    assert truth.identification(facts, (), "upper-left") is None


def test_risk_follows_the_policy_and_names_what_it_rests_on():
    facts = read_facts(make_record(categories=["Knife", "Gun"]), CATEGORIES)
    assert truth.risk(facts, POLICY) == ("critical", (1,))
    assert truth.risk(read_facts(make_record(), CATEGORIES), POLICY) == ("low", ())


def test_risk_is_asked_of_fully_annotated_bags_alone():
    assert truth.risk(read_facts(make_record(categories=["Knife"]), SIXRAY), POLICY) is None
    assert truth.risk(read_facts(make_record(), SIXRAY), POLICY) is None
    assert truth.risk(read_facts(make_record(categories=["Gun"]), SIXRAY), POLICY) is None
