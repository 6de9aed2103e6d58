"""What a language model is told."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from bags import make_record
from hypothesis import given
from hypothesis import strategies as st

from xray_vqa.core.geometry import REGIONS
from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED, canonical_category, names_of
from xray_vqa.generation.plan import Slot
from xray_vqa.generation.providers.prompt import PROMPT_VERSION, REPLY_SCHEMA, SYSTEM_PROMPT, write_prompt
from xray_vqa.generation.providers.provider import Request, WordedPair, WordedPairs


def prompt_of(
    record: ScanRecord,
    *slots: Slot,
    annotated: tuple[str, ...] = CATEGORIES,
    size_wh: tuple[int, int] | None = None,
    complaint: str = "",
) -> dict[str, Any]:
    request = Request(record, slots, Path("/data") / record.image_path, annotated, complaint)
    return json.loads(write_prompt(request, size_wh or record.size_wh))


def test_a_changed_prompt_has_a_new_version():
    """Replies are kept under the version; a changed prompt under the old one would never be asked again."""
    digest = hashlib.sha256((SYSTEM_PROMPT + json.dumps(REPLY_SCHEMA)).encode()).hexdigest()[:16]
    assert {PROMPT_VERSION: digest} == {"llm-2": "f2c125474738f297"}, (
        "raise PROMPT_VERSION and note the new digest here"
    )


def test_the_static_part_is_long_enough_for_a_cache_and_holds_all_names():
    assert len(SYSTEM_PROMPT.encode()) > 512 * 6  # no tokenizer makes less than a token of six letters of English
    assert all(name in SYSTEM_PROMPT for category in CATEGORIES for name in (category, *names_of(category)))
    assert all(region in SYSTEM_PROMPT for region in REGIONS)


def test_the_schema_is_the_form_of_a_reply():
    """Strict modes want every field required and nothing else allowed."""
    pair = REPLY_SCHEMA["properties"]["pairs"]["items"]
    assert set(REPLY_SCHEMA["properties"]) == set(REPLY_SCHEMA["required"]) == set(WordedPairs.model_fields)
    assert set(pair["properties"]) == set(pair["required"]) == set(WordedPair.model_fields)
    assert pair["additionalProperties"] is REPLY_SCHEMA["additionalProperties"] is False


def test_facts_come_with_their_ids_boxes_and_regions():
    record = make_record(1, ["Gun", UNLISTED, "Knife"], [(0, 0, 60, 30), (120, 120, 30, 30), None])
    told = prompt_of(record, size_wh=(600, 300))
    assert told["facts"] == [
        {"id": 0, "class": "Gun", "box": [0, 0, 120, 30], "region": "upper-left"},
        {"id": 1, "class": "an item of no class", "box": [240, 120, 300, 150], "region": "center"},
        {"id": 2, "class": "Knife", "box": None, "region": None},
    ]


def test_slots_come_with_what_they_must_say():
    slot = Slot("identification", "gun", (0,), options=("Gun", "Knife"))
    told = prompt_of(make_record(1, ["Gun"]), slot, Slot("presence", "no", (), "Knife", negative="look-alike"))
    assert told["slots"] == [
        {"slot": 0, "type": "identification", "answer": "gun", "evidence": [0], "options": ["Gun", "Knife"]},
        {"slot": 1, "type": "presence", "answer": "no", "evidence": [], "target": "Knife"},
    ]


def test_silence_of_the_source_is_told():
    record = make_record(1, ["Gun"])
    assert prompt_of(record)["searched"] == "all classes"
    assert prompt_of(record, annotated=("Gun", "Knife"))["searched"] == ["Gun", "Knife"]


def test_a_complaint_stands_only_where_there_is_one():
    record = make_record(1, ["Gun"])
    assert "complaint" not in prompt_of(record)
    assert prompt_of(record, complaint="pair 0 names no category")["complaint"] == "pair 0 names no category"


@given(
    st.integers(0, 10**6), st.lists(st.sampled_from(CATEGORIES), max_size=4), st.text("abcdef0123456789", min_size=8)
)
def test_no_name_of_a_file_is_told(number: int, categories: list[str], stem: str):
    record = make_record(number, categories).model_copy(
        update={"image_filename": f"{stem}.jpg", "image_path": f"train/images/{stem}.jpg", "group": f"bag-{stem}",
                "original_name": f"{stem}.jpg", "caption": f"caption {stem}", "source": f"set-{stem}"}
    )  # fmt: skip
    text = json.dumps(prompt_of(record))
    assert ".jpg" not in text
    assert f"bag-{stem}" not in text
    assert record.sha256 not in text
    assert "caption" not in text


@pytest.mark.parametrize("phrase", ["blade", "cell", "cartridge"])
def test_the_traps_that_the_prompt_names_are_traps(phrase: str):
    assert canonical_category(phrase) != UNLISTED
