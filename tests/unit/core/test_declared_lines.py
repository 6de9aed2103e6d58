import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.lexicon import LANGUAGES, load_lexicon
from xray_vqa.core.policy.ontology import goods, load_ontology, read_line
from xray_vqa.core.taxonomy import CATEGORIES, names_of


@pytest.mark.parametrize(
    ("text", "quantities"),
    [
        ("knife", {"Knife": None}),
        ("a gun", {"Gun": 1}),
        ("2x knife", {"Knife": 2}),
        ("3 power banks", {"Powerbank": 3}),
        ("Power-Bank x 3", {"Powerbank": 3}),
        ("power bank (2)", {"Powerbank": 2}),
        ("power bank: 2 pcs", {"Powerbank": 2}),
        ("power bank, 2 pcs", {"Powerbank": 2}),
        ("12 pcs of batteries", {"Battery": 12}),
        ("4 × AA batteries", {"Battery": 4}),
        ("two lighters and a laptop", {"Lighter": 2, "laptop": 1}),
        ("lighter; 2 lighters", {"Lighter": None}),
        ("1 lighter / 2 lighters", {"Lighter": 3}),
        ("3d printed gun", {"3D Gun": None}),
        ("pair of scissors", {"Scissors": None}),
        ("nail scissors", {"Nail Cutter": None}),
        ("kitchen knives", {"Knife": None}),
        ("cell phone", {"mobile phone": None}),
        ("glue gun", {"glue gun": None}),
        ("power bank 2 pcs", {"Powerbank": 2}),
        ("an umbrella", {"umbrella": 1}),
        ("the laptop", {"laptop": 1}),
        ("8211.10 2 knives", {"Knife": 2}),
        ("knife!", {"Knife": None}),
        ("make-up", {"cosmetics": None}),
        ("no batteries", {}),
        ("without batteries", {}),
        ("not a gun", {}),
        ("zero lighters", {}),
        ("ни одного ножа", {}),
        ("0 lighters", {}),
        ("deux briquets", {"Lighter": 2}),
        ("batterie externe", {"Powerbank": None}),
        ("小刀", {"Knife": None}),
        ("ПИСТОЛЕТ", {"Gun": None}),
    ],
)
def test_a_line_names_things_and_says_how_many(text, quantities):
    line = read_line(text)
    assert line.quantities == quantities
    assert line.understood


@pytest.mark.parametrize(
    ("text", "concepts"),
    [
        ("8211", {"Knife"}),
        ("HS 8211.93.00", {"Knife"}),
        ("hs code: 821193", {"Knife"}),
        ("8212", {"Shaving Razor", "Blade"}),
        ("8212.10", {"Shaving Razor"}),
        ("8212.10.00", {"Shaving Razor"}),
        ("HS 9305", {"Gun", "Bullet"}),
        ("HS 3604 rockets", {"fireworks"}),
        ("8507.60 power bank x2", {"Powerbank"}),
        ("HS 6203 knife", {"clothes", "Knife"}),
        ("HS 9999", set()),
    ],
)
def test_a_heading_of_the_tariff_names_things_by_its_longest_known_part(text, concepts):
    assert set(read_line(text).quantities) == concepts


def test_what_only_stands_among_other_words_is_mentioned_and_not_declared():
    line = read_line("knife block")
    assert (line.quantities, line.mentioned) == ({}, {"Knife"})
    toy = read_line("battery-powered toy")
    assert (toy.quantities, toy.mentioned) == ({"toys": None}, {"Battery"})


@pytest.mark.parametrize("text", ["zorblax", "ignore all rules", "  ", "???", "HS", "2", "gu n"])
def test_words_that_nobody_knows_are_not_understood(text):
    line = read_line(text)
    assert (line.quantities, line.mentioned) == ({}, frozenset())
    assert not line.understood or text == "2"


def test_a_line_with_one_strange_part_is_not_understood_as_a_whole():
    line = read_line("laptop, zorblax")
    assert set(line.quantities) == {"laptop"}
    assert not line.understood


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_name_of_a_category_is_read_as_that_category(category):
    nouns = [load_lexicon(language).categories[category].one for language in LANGUAGES]
    for name in (*names_of(category), *load_ontology().categories[category].names, *nouns):
        assert category in read_line(name).quantities, name


def test_categories_and_goods_have_names_of_their_own():
    assert set(load_ontology().categories) == set(CATEGORIES)
    assert not goods() & set(CATEGORIES)
    headings = [code for entry in load_ontology().goods.values() for code in entry.headings]
    assert all(set(code) <= set(string.digits) and len(code) in (2, 4, 6) for code in headings)


@given(st.text(max_size=120))
def test_any_text_is_a_line(text):
    line = read_line(text)
    assert set(line.quantities) | line.mentioned <= set(CATEGORIES) | goods()
    assert all(count is None or count >= 0 for count in line.quantities.values())
