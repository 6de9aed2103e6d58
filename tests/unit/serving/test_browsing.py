"""Answers are found again: by pages, filters and images, on both databases, each for the lanes of who asks."""

import base64
import json

import pytest
from access_kit import bearer, make_key
from PIL import Image
from service_kit import CLEAN, KNIFE_AND_SCISSORS, SCAN, image_bytes, make_request, service_of
from sqlalchemy import text
from store_kit import OpenStore, records_in

from xray_vqa.core.lexicon import LANGUAGES
from xray_vqa.core.policy.ontology import read_line
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.serving.access.roles import Role
from xray_vqa.serving.browsing.declarable import suggestions
from xray_vqa.serving.store.database import connect, store_url
from xray_vqa.serving.store.keys import SigningKey
from xray_vqa.serving.store.retention import erase_older_records

GUN = ScriptedReading({"Gun": 0.97}, {"Gun": [[0.1, 0.1, 0.5, 0.5]]})


def send(client, scan_id: str, lane: str | None = None) -> dict:
    headers = {"X-Lane": lane} if lane else {}
    answer = client.post("/api/v1/inspect", json=make_request(scan_id=scan_id), headers=headers)
    assert answer.status_code == 200
    return answer.json()


def ids(client, **filters) -> list[str]:
    answer = client.get("/api/v1/inspections", params=filters)
    assert answer.status_code == 200, answer.text
    return [one["scan_id"] for one in answer.json()["inspections"]]


@pytest.fixture
def client(open_client, store_url, tmp_path):
    """Four answers: A-1 clear, A-2 with knife and scissors, B-1 with a gun on lane L2, B-2 clear on lane L2."""
    engine = ScriptedEngine([CLEAN, KNIFE_AND_SCISSORS, GUN, CLEAN])
    client = open_client(engine, database_url=store_url, audit_key=tmp_path / "audit.key", image_store=f"{tmp_path}/i")
    for scan_id, lane in (("A-1", None), ("A-2", None), ("B-1", "L2"), ("B-2", "L2")):
        send(client, scan_id, lane)
    return client


def test_answers_are_listed_by_pages_the_newest_first_and_new_ones_shift_nothing(client):
    assert ids(client) == ["B-2", "B-1", "A-2", "A-1"]
    first = client.get("/api/v1/inspections", params={"limit": 3}).json()
    send(client, "C-1")
    rest = client.get("/api/v1/inspections", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [one["scan_id"] for one in (*first["inspections"], *rest["inspections"])] == ["B-2", "B-1", "A-2", "A-1"]
    assert rest["next_cursor"] is None
    shown = first["inspections"][2]
    assert (shown["action"], shown["standing"], shown["lane"]) == ("manual_inspection", "open", "default")
    assert (shown["detected_items"], shown["risk_level"]) == (["knife", "scissors"], "high")


def test_filters_narrow_a_list_and_go_together(client):
    assert ids(client, search="A") == ["A-2", "A-1"]
    assert ids(client, search="A-1") == ["A-1"]
    assert ids(client, search="a-1") == ids(client, search="Z") == []
    assert ids(client, lane="L2", action="clear") == ["B-2"]
    assert ids(client, action=["manual_inspection", "detain"]) == ids(client, standing="open") == ["B-1", "A-2"]
    assert ids(client, category="Gun") == ["B-1"]
    assert ids(client, category="Scissors", lane="L2") == ids(client, degraded=True) == []
    assert ids(client, since="2020-01-01T00:00:00", until="2020-01-02T00:00:00") == []
    assert ids(client, since="2020-01-01T00:00:00+05:00") == ["B-2", "B-1", "A-2", "A-1"]


@pytest.mark.parametrize(
    "filters",
    [{"search": "%"}, {"search": "a b"}, {"cursor": "x"}, {"cursor": "-1"}, {"limit": 0}, {"limit": 101},
     {"action": "x"}, {"standing": "x"}, {"category": "Gnu"}, {"since": "yesterday"}, {"lane": "../x"}],
    ids=str,
)  # fmt: skip
def test_a_filter_that_does_not_fit_is_refused_by_name(client, filters):
    answer = client.get("/api/v1/inspections", params=filters)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert next(iter(filters)) in answer.json()["detail"]


def test_what_an_officer_decided_leaves_the_queue(client):
    (knife,) = client.get("/api/v1/inspections", params={"search": "A-2"}).json()["inspections"]
    said = {"audit_id": knife["audit_id"], "outcome": "item_found", "findings": []}
    assert client.post("/api/v1/inspections/A-2/feedback", json=said).status_code == 200
    assert ids(client, standing=["open", "second"]) == ["B-1"]
    assert ids(client, standing="closed") == ["A-2"]
    assert client.get("/api/v1/inspections/A-2/oversight").json()["standing"] == "closed"


def test_lists_images_and_figures_are_those_of_the_lanes_of_who_asks(client, tmp_path, store_url):
    key = bearer(make_key_in(store_url, tmp_path, ["L2"]))
    client.app.state.identity._ring._looked_at = float("-inf")
    listed = client.get("/api/v1/inspections", headers=key).json()["inspections"]
    assert [one["scan_id"] for one in listed] == ["B-2", "B-1"]
    assert client.get("/api/v1/inspections?lane=default", headers=key).json()["inspections"] == []
    assert client.get("/api/v1/inspections/A-2/image", headers=key).status_code == 404
    assert client.get("/api/v1/figures", headers=key).json()["inspections"] == 2


def make_key_in(url: str, folder, lanes) -> str:
    from datetime import timedelta

    from xray_vqa.serving.access.key_store import KeyStore
    from xray_vqa.serving.store.audit import AuditStore

    store = AuditStore(url, key_path=folder / "audit.key")
    try:
        return KeyStore(store).make("a test", Role.OFFICER, lanes=lanes, scopes=None, lasts=timedelta(days=1))[1]
    finally:
        store.close()


def test_an_image_comes_back_as_it_was_sent_and_the_look_at_it_is_on_record(client, store_url):
    service_of(client)._keeping.submit(lambda: None).result(10)  # what was to be kept is kept
    answer = client.get("/api/v1/inspections/A-2/image")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.content == base64.b64decode(SCAN)
    assert answer.headers["cache-control"] == "no-store"
    views = [row.record() for row in records_in(store_url) if row.kind == "view"]
    assert views == [{"scan_id": "A-2", "by": "open"}]


def test_an_image_that_is_not_kept_is_a_problem_and_no_error(open_client):
    client = open_client()
    send(client, "S")
    for scan_id, code in (("S", "no_image"), ("T", "no_such_inspection")):
        answer = client.get(f"/api/v1/inspections/{scan_id}/image")
        assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_figures_count_what_is_on_record(client):
    figures = client.get("/api/v1/figures").json()
    assert {name: figures[name] for name in ("inspections", "clear", "manual_inspection", "detain", "degraded")} == {
        "inspections": 4, "clear": 2, "manual_inspection": 1, "detain": 1, "degraded": 0,
    }  # fmt: skip
    assert (figures["clear_share"], figures["queue_open"], figures["queue_second"]) == (0.5, 2, 0)
    assert sum(hour["clear"] + hour["manual_inspection"] + hour["detain"] for hour in figures["hours"]) == 4
    assert figures["p50_ms"] <= figures["p95_ms"]


def test_with_nothing_on_record_figures_have_no_shares(open_client):
    figures = open_client().get("/api/v1/figures").json()
    assert (figures["inspections"], figures["clear_share"], figures["p95_ms"], figures["hours"]) == (0, None, None, [])


def test_the_same_scan_id_of_two_lanes_is_two_answers_and_each_can_be_decided(open_client):
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]))
    one, two = send(client, "S", "L1"), send(client, "S", "L2")
    assert one["audit_id"] != two["audit_id"]
    for answer in (one, two):
        said = {"audit_id": answer["audit_id"], "outcome": "nothing_found", "findings": []}
        assert client.post("/api/v1/inspections/S/feedback", json=said).status_code == 200
        beside = client.get(f"/api/v1/inspections/S/oversight?audit_id={answer['audit_id']}").json()
        assert (beside["audit_id"], beside["standing"]) == (answer["audit_id"], "closed")
        record = client.get(f"/api/v1/inspections/S?audit_id={answer['audit_id']}").json()
        assert record["inspection"]["audit_id"] == answer["audit_id"]


# --- four eyes --------------------------------------------------------------------------------


def test_with_four_eyes_a_rejected_alarm_waits_for_another_key(open_client, tmp_path):
    first, second = (bearer(make_key(tmp_path, Role.OFFICER)) for _ in range(2))
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]), four_eyes=True)
    answer = client.post("/api/v1/inspect", json=make_request(scan_id="S"), headers=first).json()
    rejected = {
        "audit_id": answer["audit_id"], "outcome": "nothing_found",
        "findings": [{"category": "Knife", "verdict": "rejected"}],
    }  # fmt: skip

    def say(key) -> str:
        assert client.post("/api/v1/inspections/S/feedback", json=rejected, headers=key).status_code == 200
        return client.get("/api/v1/inspections/S/oversight", headers=key).json()["standing"]

    assert [say(first), say(first)] == ["second", "second"]
    listed = client.get("/api/v1/inspections?standing=second", headers=second).json()["inspections"]
    assert [one["scan_id"] for one in listed] == ["S"]
    assert say(second) == "closed"


def test_with_four_eyes_one_officer_confirms_and_a_supervisor_settles(open_client, tmp_path):
    officer, supervisor = bearer(make_key(tmp_path, Role.OFFICER)), bearer(make_key(tmp_path, Role.SUPERVISOR))
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]), four_eyes=True)
    for scan_id, path, key, said in (
        ("S", "feedback", officer, {"outcome": "item_found"}),
        ("T", "override", supervisor, {"action": "clear", "reason": "opened, a nail file"}),
    ):
        answer = client.post("/api/v1/inspect", json=make_request(scan_id=scan_id), headers=officer).json()
        sent = {"audit_id": answer["audit_id"], **said}
        assert client.post(f"/api/v1/inspections/{scan_id}/{path}", json=sent, headers=key).status_code == 200
        assert client.get(f"/api/v1/inspections/{scan_id}/oversight", headers=key).json()["standing"] == "closed"


# --- the tables behind the lists --------------------------------------------------------------------------------


def test_erased_answers_leave_the_lists(store: OpenStore, tmp_path):
    store.answer("S")
    store.audit.close()
    assert erase_older_records(store.url, SigningKey.load_or_make(tmp_path / "audit.key"), days=-1) > 0
    engine = connect(store_url_of(store))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM summaries")).scalar() == 0
    engine.dispose()


def store_url_of(store: OpenStore):
    return store_url(store.url)


def test_answers_of_a_store_without_lists_are_listed_after_the_migration(open_client, tmp_path):
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS, CLEAN, GUN]))
    for scan_id in ("A", "B", "C"):
        answer = send(client, scan_id)
    said = {"audit_id": answer["audit_id"], "outcome": "item_found"}
    assert client.post("/api/v1/inspections/C/feedback", json=said).status_code == 200
    before = client.get("/api/v1/inspections").json()
    service_of(client).store.close()
    engine = connect(store_url(f"sqlite:///{tmp_path}/audit.sqlite3"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE summaries"))
        connection.execute(text("DROP TABLE sightings"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0003_kinds'"))
    engine.dispose()
    again = open_client()
    assert again.get("/api/v1/inspections").json() == before
    assert ids(again, category="Gun") == ["C"]
    assert ids(again, standing="open") == ["A"]


# --- declarations --------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_suggestion_is_understood_as_what_it_stands_for(language):
    found = suggestions("", language, 10_000)
    assert len(found) > 40
    for one in found:
        line = read_line(one.name)
        assert one.concept in {*line.quantities, *line.mentioned}, one


def test_suggestions_begin_with_what_was_typed_and_say_what_is_looked_for(open_client):
    client = open_client()
    said = client.get("/api/v1/declarable", params={"search": "lap"}).json()
    assert said[0] == {"name": "laptop", "concept": "laptop", "prohibited": False}
    knife = client.get("/api/v1/declarable", params={"search": "cuchill", "language": "es"}).json()
    assert knife[0] == {"name": "cuchillo", "concept": "Knife", "prohibited": True}
    assert client.get("/api/v1/declarable", params={"language": "tlh"}).status_code == 422


def test_images_of_every_format_name_their_type(open_client, tmp_path):
    client = open_client(image_store=f"{tmp_path}/images")
    for kind, media_type in (("PNG", "image/png"), ("BMP", "image/bmp")):
        encoded = base64.b64encode(image_bytes(kind=kind)).decode()
        body = json.dumps(make_request(scan_id=kind, image_base64=encoded))
        answer = client.post("/api/v1/inspect", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200
        service_of(client)._keeping.submit(lambda: None).result(10)
        answer = client.get(f"/api/v1/inspections/{kind}/image")
        assert answer.headers["content-type"] == media_type
        (tmp_path / kind).write_bytes(answer.content)
        assert Image.open(tmp_path / kind).size == (300, 200)
