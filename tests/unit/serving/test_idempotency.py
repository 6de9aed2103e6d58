"""A scan that is sent twice is inspected once, and a clear does not outlive what it rests on."""

import itertools
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from service_kit import CLEAN, KNIFE_AND_SCISSORS, GatedEngine, make_request, metric, service_of, wait_until
from store_kit import OpenStore, make_record, records_in

from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.serving.store import audit, chain
from xray_vqa.serving.store.audit import OtherPayload, ScanInFlight


def kinds(url: str) -> list[str]:
    return [row.kind for row in records_in(url)]


def test_an_intent_is_on_record_before_its_result(store: OpenStore):
    stored = store.answer("S")
    intent, result = records_in(store.url)[2:]
    assert (intent.kind, result.kind) == ("intent", "result")
    assert intent.audit_id == result.audit_id
    assert (stored.sequence, stored.row_hash) == (result.sequence, result.row_hash)
    assert store.audit.newest("S") == stored


def test_the_same_scan_gets_the_same_answer_and_no_second_record(store: OpenStore):
    stored = store.answer("S")
    assert store.claim("S")[1] == stored
    assert kinds(store.url) == ["key", "opened", "intent", "result"]


def test_another_payload_under_the_same_scan_id_is_refused(store: OpenStore):
    store.answer("S")
    with pytest.raises(OtherPayload):
        store.claim("S", fingerprint="other")


def test_a_scan_id_is_a_name_within_a_key_and_a_lane(store: OpenStore):
    store.answer("S")
    store.answer("S", fingerprint="other", lane="2")
    store.answer("S", fingerprint="other", principal="key-2")
    assert kinds(store.url).count("result") == 3


def test_a_scan_that_is_being_inspected_is_not_inspected_again(store: OpenStore):
    store.claim("S")
    with pytest.raises(ScanInFlight):
        store.claim("S")


def test_a_clear_is_given_again_under_the_same_policy_and_model(store: OpenStore):
    stored = store.answer("S", "clear")
    assert store.claim("S")[1] == stored


@pytest.mark.parametrize("changes", [{"policy": "p@2"}, {"model_version": "m2"}])
def test_a_clear_is_inspected_anew_under_another_policy_or_model(store: OpenStore, changes):
    store.answer("S", "clear")
    assert store.claim("S", **changes)[1] is None


@pytest.mark.parametrize(("minutes", "repeated"), [(9, True), (11, False), (-1, False)])
def test_a_clear_holds_for_ten_minutes_and_not_where_the_clock_was_set_back(store, monkeypatch, minutes, repeated):
    stored = store.answer("S", "clear")

    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(minutes=minutes)

    monkeypatch.setattr(audit, "datetime", Later)
    assert store.claim("S")[1] == (stored if repeated else None)


def test_a_scan_that_nobody_works_on_any_more_is_given_to_a_person_when_it_is_sent_again(store: OpenStore):
    intent, _ = store.claim("S")
    store.audit.release(intent.origin.audit_id)
    answer = store.claim("S")[1]
    assert (answer.record.action, answer.record.closed) == ("manual_inspection", "interrupted")
    assert answer.record.origin == intent.origin


def test_what_nobody_works_on_any_more_is_closed_without_being_asked_for(store: OpenStore, open_store):
    done, _ = store.claim("dead")
    store.claim("alive")
    store.audit.release(done.origin.audit_id)
    assert [stored.record.origin.scan_id for stored in store.audit.housekeep()] == ["dead"]
    assert store.audit.housekeep() == []
    assert kinds(store.url).count("result") == 1


def test_another_server_closes_what_is_past_its_deadline_and_no_more(store: OpenStore, open_store):
    store.claim("late", seconds=-1)
    store.claim("in time")
    other = open_store(store.url)
    assert [stored.record.origin.scan_id for stored in other.housekeep()] == ["late"]


def test_an_intent_of_a_process_that_has_ended_is_closed_at_once(store: OpenStore):
    code = "from xray_vqa.serving.store.owners import this_process; print(this_process())"
    owner = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    store.claim("S", owner=owner, seconds=3600)
    assert store.claim("S")[1].record.closed == "interrupted"


def test_an_intent_from_the_future_is_closed_because_the_clock_was_set_back(store, open_store, monkeypatch):
    monkeypatch.setattr(chain, "now", lambda: (datetime.now(UTC) + timedelta(hours=1)).isoformat())
    store.claim("S", seconds=3700)
    monkeypatch.undo()
    assert len(open_store(store.url).housekeep()) == 1


def test_an_answer_that_comes_when_its_scan_was_given_to_a_person_is_not_given(store: OpenStore, open_store):
    intent, _ = store.claim("S", seconds=-1)
    open_store(store.url).housekeep()
    stored = store.audit.conclude(make_record(intent.origin, "clear")).result(10)
    assert (stored.record.action, stored.record.closed) == ("manual_inspection", "interrupted")
    assert kinds(store.url).count("result") == 1


def test_two_servers_extend_one_chain(store: OpenStore, open_store):
    other = OpenStore(store.url, open_store(store.url))
    futures = [one.audit.add_question(question(number)) for number in range(40) for one in (store, other)]
    for future in futures:
        future.result(20)
    rows = records_in(store.url)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
    assert all(after.previous_hash == before.row_hash for before, after in itertools.pairwise(rows))


def question(number: int):
    from store_kit import make_question

    return make_question(f"Q{number}")


def test_over_http_a_repeated_scan_is_marked_and_not_inspected_again(open_client):
    engine = ScriptedEngine([KNIFE_AND_SCISSORS, CLEAN])
    client = open_client(engine)
    first, second = (client.post("/api/v1/inspect", json=make_request()).json() for _ in range(2))
    assert first["replayed"] is False
    assert second == {**first, "replayed": True}
    assert metric(client, "model_inference_duration_seconds_count") == 1
    assert metric(client, "xray_vqa_replayed_total") == 1


def test_over_http_another_image_or_declaration_under_a_scan_id_is_a_problem(open_client):
    client = open_client()
    client.post("/api/v1/inspect", json=make_request())
    refused = client.post("/api/v1/inspect", json=make_request(declared_items=["other"]))
    assert (refused.status_code, refused.json()["code"]) == (422, "scan_id_taken")


def test_over_http_a_scan_in_flight_is_a_conflict_and_the_retry_gets_its_answer(open_client):
    from concurrent.futures import ThreadPoolExecutor

    engine = GatedEngine([CLEAN])
    client = open_client(engine)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/api/v1/inspect", json=make_request())
        assert engine.entered.wait(10)
        refused = client.post("/api/v1/inspect", json=make_request())
        assert (refused.status_code, refused.json()["code"]) == (409, "scan_in_flight")
        assert refused.headers["retry-after"] == "1"
        engine.gate.set()
        answer = first.result().json()
    assert client.post("/api/v1/inspect", json=make_request()).json() == {**answer, "replayed": True}
    assert engine.batches == [1]


def test_over_http_an_error_of_ours_leaves_a_scan_that_goes_to_a_person(open_client):
    client = open_client(ScriptedEngine([ScriptedReading({"Lighter": 0.9})]))
    service = service_of(client)
    inspect, service.queue.inspect = service.queue.inspect, None
    assert client.post("/api/v1/inspect", json=make_request()).status_code == 500
    service.queue.inspect = inspect
    answer = client.post("/api/v1/inspect", json=make_request()).json()
    assert (answer["action"], answer["degraded"], answer["replayed"]) == ("manual_inspection", True, True)
    assert answer["reasons"][0] == "interrupted"
    assert "the service broke off" in answer["reasoning"]
    assert client.get("/api/v1/inspections/TEST-001").json()["closed"] == "interrupted"


def test_over_http_a_late_answer_is_on_record_and_not_given(open_client, tmp_path):
    engine = GatedEngine([CLEAN])
    client = open_client(engine, timeout_s=0.4)
    given = client.post("/api/v1/inspect", json=make_request()).json()
    assert (given["action"], given["reasons"][0]) == ("manual_inspection", "timeout")
    engine.gate.set()
    url = f"sqlite:///{tmp_path}/audit.sqlite3"
    wait_until(lambda: "late" in kinds(url))
    late = next(row for row in records_in(url) if row.kind == "late")
    assert (late.audit_id, late.record()["action"]) == (given["audit_id"], "clear")
    assert client.post("/api/v1/inspect", json=make_request()).json() == {**given, "replayed": True}
