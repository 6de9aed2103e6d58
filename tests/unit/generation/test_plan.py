"""The plan: true, balanced, the same every time, and honest about silence."""

from collections import Counter

from bags import POLICY, make_record, make_records
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED
from xray_vqa.generation.facts import NONE, read_facts
from xray_vqa.generation.plan import SHARES, Planner, Slot, plan_images
from xray_vqa.generation.plan.items import similar_to
from xray_vqa.generation.topics import MATCH, NOT_VERIFIED, UNKNOWABLE


def plan(records, annotated=CATEGORIES, **options):
    return plan_images(records, annotated, POLICY, **options)


def slots_of(planned, question_type) -> list[Slot]:
    return [slot for image in planned for slot in image.slots if slot.question_type == question_type]


def test_each_image_gets_the_pairs_asked_for():
    records = make_records(60)
    for samples in (1, 3, 12):
        assert {len(image.slots) for image in plan(records, samples_per_image=samples)} == {samples}


def test_every_category_is_answered_no_as_often_as_yes():
    answers: dict[str, Counter[str]] = {}
    for slot in slots_of(plan(make_records(3000)), "presence"):
        answers.setdefault(slot.target, Counter())[slot.short_answer] += 1
    assert len(answers) == len(CATEGORIES)
    for category, count in answers.items():
        assert abs(count["yes"] - count["no"]) <= max(1, count.total() // 25), (category, count)
    assert abs(sum(c["yes"] - c["no"] for c in answers.values())) <= 2


def test_the_shares_are_those_of_the_design():
    by_type: Counter[str] = Counter()
    for cell, share in SHARES.items():
        by_type[cell.partition("/")[0]] += share
    assert {name: round(100 * share) for name, share in by_type.items()} == {
        "presence": 18, "general": 10, "listing": 10, "count": 10, "location": 15, "identification": 10,
        "concealment": 8, "risk": 6, "declaration": 5, "absent": 5, "unanswerable": 3,
    }  # fmt: skip


def test_a_bag_with_a_threat_is_asked_about_as_often_as_a_clean_one():
    count = Counter(slot.short_answer for slot in slots_of(plan(make_records(1500)), "general"))
    assert min(count["yes"], count["no"]) >= 0.45 * count.total() > 90


def test_where_no_bag_can_be_called_clean_hardly_any_is_called_unclean():
    slots = slots_of(plan(make_records(400), ("Gun", "Knife")), "general")
    assert {slot.short_answer for slot in slots} == {"yes"}
    assert len(slots) <= 4


def test_the_right_one_of_lettered_choices_stands_everywhere_equally_often():
    slots = [s for s in slots_of(plan(make_records(1500)), "identification") if s.topic == "letters"]
    places = Counter([name.lower() for name in slot.options].index(slot.short_answer) for slot in slots)
    assert len(slots) > 150
    assert min(places[place] for place in range(4)) >= 0.2 * len(slots)


def test_a_declaration_that_names_a_category_is_wrong_as_often_as_right():
    slots = [s for s in slots_of(plan(make_records(1500)), "declaration") if s.topic == "whole"]
    count = Counter((slot.short_answer, bool(slot.options)) for slot in slots)
    assert len(count) == 4
    assert max(count.values()) <= 1.3 * min(count.values())


def test_what_cannot_be_known_stays_rare_where_the_source_tells_little():
    records = [record.model_copy(update={"factors": None}) for record in make_records(300)]
    planned = plan(records, ("Gun",))
    asked = sum(len(image.slots) for image in planned)
    assert len(slots_of(planned, "unanswerable")) <= 0.05 * asked + 1


def test_what_is_counted_does_not_tell_the_number():
    numbers: dict[str, Counter[str]] = {}
    for slot in slots_of(plan(make_records(1500)), "count"):
        numbers.setdefault(slot.target, Counter())[slot.short_answer] += 1
    total = Counter[str]()
    for count in numbers.values():
        total.update(count)
    of_all = numbers[""]
    assert len(of_all) == 4  # none to three
    assert max(of_all.values()) <= min(of_all.values()) + 5
    assert len(numbers) > 15
    known = sum(max(count.values()) for count in numbers.values())  # a bet on the commonest number of each
    assert known <= max(total.values()) + 0.02 * total.total()
    assert total["2"] + total["3"] >= 0.25 * total.total()


def test_the_likeness_of_choices_does_not_tell_which_one_is_there():
    slots = [slot for slot in slots_of(plan(make_records(1500)), "identification") if len(slot.options) == 4]
    right = 0.0
    for slot in slots:
        alike = [len(similar_to([name]) & set(slot.options)) for name in slot.options]
        best = [name.lower() for name, number in zip(slot.options, alike, strict=True) if number == max(alike)]
        right += slot.short_answer in best and 1 / len(best)
    assert len(slots) > 300
    assert 0.2 <= right / len(slots) <= 0.3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(CATEGORIES[:4]), max_size=4), max_size=30), st.integers(1, 12), st.integers(0, 3)
)
def test_none_and_one_lead_whatever_is_counted(contents, samples, seed):
    records = [make_record(number, categories) for number, categories in enumerate(contents)]
    numbers: dict[str, Counter[str]] = {}
    for slot in slots_of(plan(records, samples_per_image=samples, seed=seed), "count"):
        numbers.setdefault(slot.target, Counter())[slot.short_answer] += 1
        count = numbers[slot.target]
        assert max(count.values()) <= min(count["0"], count["1"]) + 1


def test_half_of_the_premises_are_true():
    count = Counter(slot.short_answer != NONE for slot in slots_of(plan(make_records(1000)), "absent"))
    assert count[True] >= 70
    assert abs(count[True] - count[False]) <= 2


def test_the_balance_holds_in_a_file_sorted_by_category():
    records = sorted(make_records(900), key=lambda record: record.categories)
    yes = Counter(slot.short_answer for slot in slots_of(plan(records, max_images=300), "presence"))
    assert abs(yes["yes"] - yes["no"]) <= 2


def test_absent_targets_are_random_popular_and_look_alike():
    chosen = Counter(slot.negative for slot in slots_of(plan(make_records(1000)), "presence") if slot.negative)
    assert set(chosen) == {"random", "popular", "look-alike"}
    assert min(chosen.values()) >= 0.1 * chosen.total()


def test_clean_bags_get_questions_too():
    planned = plan([make_record(number) for number in range(10)])
    assert {len(image.slots) for image in planned} == {3}
    answers = {slot.short_answer for image in planned for slot in image.slots}
    assert answers <= {"no", NONE, "0", "low", MATCH, NOT_VERIFIED, UNKNOWABLE}


def test_a_smaller_plan_is_the_beginning_of_a_larger_one():
    records = make_records(80)
    assert plan(records)[:20] == plan(records, max_images=20)


def test_another_seed_asks_other_questions():
    records = make_records(40)
    assert plan(records, seed=1) != plan(records, seed=2)


def test_the_order_of_the_annotation_file_does_not_matter():
    records = make_records(50)
    assert plan(records) == plan(records[::-1])


def test_an_unlisted_only_scan_of_unknown_label_gets_no_question():
    assert plan([make_record(categories=[UNLISTED])])[0].slots == ()


def test_an_unlisted_only_scan_of_known_label_gets_denials_but_no_place():
    (image,) = plan([make_record(categories=[UNLISTED], raw_labels=["Laptop"])], samples_per_image=12)
    types = {slot.question_type for slot in image.slots}
    assert "presence" in types
    assert not types & {"location", "identification", "risk"}
    assert all(slot.evidence == () for slot in image.slots)


def test_an_item_without_a_box_gets_no_place_and_no_number():
    (image,) = plan([make_record(categories=["Gun"], bboxes=[None])], samples_per_image=12)
    assert not [s for s in image.slots if s.question_type == "location"]
    assert not [s for s in image.slots if s.question_type in ("count", "absent") and s.target == "Gun"]


def test_a_planner_can_go_on_without_knowing_what_comes():
    planner = Planner(CATEGORIES, POLICY)
    slots = [slot for record in make_records(400) for slot in planner.plan(record).slots]
    polarity = Counter(slot.short_answer for slot in slots if slot.question_type == "presence")
    assert abs(polarity["yes"] - polarity["no"]) <= 2


box = st.tuples(*[st.floats(0, 280)] * 2, *[st.floats(1, 200)] * 2)
item = st.tuples(
    st.sampled_from([*CATEGORIES, UNLISTED]), st.none() | box, st.sampled_from(["Laptop", "Sword", "X knife"])
)


@st.composite
def bags(draw):
    records = []
    for number in range(draw(st.integers(1, 6))):
        items = draw(st.lists(item, max_size=4))
        labels = [label for _, _, label in items] if draw(st.booleans()) else None
        records.append(make_record(number, [c for c, _, _ in items], [b for _, b, _ in items], labels))
    return records


@settings(max_examples=150, deadline=None)
@given(bags(), st.sets(st.sampled_from(CATEGORIES)), st.integers(1, 12), st.integers(0, 3))
def test_every_plan_is_deterministic_honest_and_points_at_real_evidence(records, annotated, samples, seed):
    planned = plan(records, tuple(annotated), samples_per_image=samples, seed=seed)
    assert planned == plan(records, tuple(annotated), samples_per_image=samples, seed=seed)
    for image in planned:
        record = image.record
        assert len(image.slots) <= samples
        assert len({slot.subject for slot in image.slots}) == len(image.slots)
        for slot in image.slots:
            assert all(0 <= index < len(record.categories) for index in slot.evidence)
            assert all(record.categories[index] != UNLISTED for index in slot.evidence)
            absent = {slot.target, *slot.options} - {""} - set(record.categories)
            assert absent <= annotated or slot.question_type == "unanswerable"
            if slot.target:
                assert {record.categories[index] for index in slot.evidence} <= {slot.target}
            if slot.question_type == "unanswerable":
                assert slot.evidence == ()
                assert not slot.target or (slot.target in record.categories) == bool(slot.topic)
                assert slot.topic or slot.target not in read_facts(record, tuple(annotated)).decidable
                continue
            if slot.short_answer in ("no", NONE, "0", "low", "not verified"):
                assert slot.evidence == ()
            elif slot.topic in ("clutter", "container", "whole"):
                pass  # rests on the bag, or on what is not there
            else:
                assert slot.evidence
            if slot.question_type == "location":
                assert all(record.bboxes[index] is not None for index in slot.evidence)
            if slot.question_type in ("listing", "count", "risk") and slot.subject[2:] == ("", (), ""):
                assert read_facts(record, tuple(annotated)).complete
