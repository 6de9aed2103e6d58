import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category, is_clean_label, names_of


def test_there_are_twenty_categories_and_unlisted_is_none_of_them():
    assert len(set(CATEGORIES)) == 20
    assert UNLISTED not in CATEGORIES


@pytest.mark.parametrize(
    ("label", "category"),
    [
        ("Gun", "Gun"), ("pistol", "Gun"), ("3D printed gun", "3D Gun"), ("3D-Gun", "3D Gun"), ("3d_gun", "3D Gun"),
        ("Syringe", "Injection"), ("HandCuffs", "Handcuffs"), ("Utility_Knife", "Cutter"),
        ("Multi-tool_Knife", "Knife"), ("Portable_Charger_2", "Powerbank"), ("Razor_blade", "Blade"),
        ("Nonmetallic_Lighter", "Lighter"), ("  Nail   Cutter ", "Nail Cutter"), ("SCISSOR", "Scissors"),
    ],
)  # fmt: skip
def test_labels_of_the_public_sets_are_known(label, category):
    assert canonical_category(label) == category


@pytest.mark.parametrize("label", ["Baton", "Laptop", "", "gunn", "not a gun", "Non Threat"])
def test_other_labels_are_unlisted(label):
    assert canonical_category(label) == UNLISTED


@pytest.mark.parametrize("label", ["Non Threat", "non_threat", "NON-THREAT", "Normal", "negative", " clean "])
def test_clean_labels_are_known_however_they_are_written(label):
    assert is_clean_label(label)


@pytest.mark.parametrize("label", [*CATEGORIES, UNLISTED, "", "threat", "cleaner"])
def test_no_category_is_a_clean_label(label):
    assert not is_clean_label(label)


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_name_of_a_category_leads_back_to_it(category):
    names = names_of(category)
    assert names[0] == category.lower()
    assert {canonical_category(name) for name in names} == {category}


@given(st.text(max_size=30))
def test_any_text_has_a_category_or_none(label):
    assert canonical_category(label) in {*CATEGORIES, UNLISTED}
