"""What people do about the machine's answers is on record before it counts, and changes no answer."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from access_kit import bearer, make_key
from hypothesis import given
from hypothesis import strategies as st
from service_kit import CLEAN, KNIFE_AND_SCISSORS, GatedEngine, make_request, metric, service_of, wait_until

from xray_vqa.inference.engines.scripted import ScriptedEngine
from xray_vqa.serving.access.roles import Role
from xray_vqa.serving.oversight import stops
from xray_vqa.serving.oversight.records import StopRecord
from xray_vqa.serving.oversight.stops import stops_after

STOPPED = ("manual_inspection", ["not_stopped"])


NUMBERS = itertools.count()


def inspect(client, lane: str | None = None, **changes):
    headers = {"X-Lane": lane} if lane else {}
    scan = make_request(**{"scan_id": f"BAG-{next(NUMBERS)}", **changes})
    answer = client.post("/api/v1/inspect", json=scan, headers=headers)
    assert answer.status_code == 200
    return answer.json()["action"], answer.json()["reasons"]


def throw(client, path: str = "stop", lane: str | None = None, **changes):
    return client.post(f"/api/v1/{path}", json={"lane": lane, "reason": "fire drill", **changes})


def test_while_all_lanes_are_stopped_no_bag_is_cleared(open_client):
    client = open_client()
    assert inspect(client) == ("clear", [])
    answer = throw(client)
    assert answer.status_code == 200
    (on,) = answer.json()["stops"]
    assert (on["lane"], on["reason"], on["by"]) == (None, "fire drill", "open")
    assert inspect(client) == inspect(client, "L1") == STOPPED
    assert client.get("/api/v1/stop").json() == answer.json()
    assert metric(client, "xray_vqa_stop_switches") == 1
    assert throw(client, "resume").json() == {"stops": []}
    assert inspect(client) == inspect(client, "L1") == ("clear", [])


def test_one_lane_is_stopped_and_put_back_by_itself(open_client):
    client = open_client()
    throw(client, lane="L1")
    assert inspect(client, "L1") == STOPPED
    assert inspect(client, "L2") == inspect(client) == ("clear", [])
    throw(client)
    throw(client, "resume")
    assert inspect(client, "L1") == STOPPED
    throw(client, "resume", lane="L1")
    assert inspect(client, "L1") == ("clear", [])


def test_a_stop_outlives_the_service(open_client):
    throw(open_client(), lane="L1")
    assert inspect(open_client(), "L1") == STOPPED


def test_a_stop_in_another_replica_counts_within_two_seconds(open_client, monkeypatch):
    class Clock:
        ahead_s = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.ahead_s

    clock = Clock()
    monkeypatch.setattr(stops, "time", clock)
    one, other = open_client(), open_client()
    assert inspect(one) == inspect(other) == ("clear", [])
    throw(other)
    clock.ahead_s += stops.READ_AGAIN_AFTER_S + 0.1
    assert inspect(one) == STOPPED


def test_a_bag_that_waits_while_the_switch_is_thrown_is_not_cleared(open_client):
    engine = GatedEngine([CLEAN])
    client = open_client(engine)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(inspect, client)
        wait_until(engine.entered.is_set)
        throw(client)
        engine.gate.set()
        assert waiting.result() == STOPPED


def test_a_clear_is_not_given_again_once_a_switch_was_thrown_or_it_was_overruled(open_client):
    client = open_client()
    for number, doubt in enumerate(("stop", "override")):
        first = client.post("/api/v1/inspect", json=make_request(scan_id=f"S-{number}")).json()
        again = client.post("/api/v1/inspect", json=make_request(scan_id=f"S-{number}")).json()
        assert (first["action"], again["audit_id"], again["replayed"]) == ("clear", first["audit_id"], True)
        if doubt == "stop":
            throw(client)
            assert inspect(client, scan_id="S-0") == STOPPED
            throw(client, "resume")
        else:
            override(client, first, action="detain")
        after = client.post("/api/v1/inspect", json=make_request(scan_id=f"S-{number}")).json()
        assert after["audit_id"] != first["audit_id"]


def test_where_the_switches_were_never_read_everything_counts_as_stopped(open_client, tmp_path):
    client = open_client()
    service = service_of(client)
    assert service.stops.is_on(None)
    assert service.stops.is_on("L1")
    service.stops.look()
    assert not service.stops.is_on("L1")


def test_a_switch_that_is_not_on_cannot_be_put_back(open_client):
    client = open_client()
    throw(client, lane="L1")
    for lane in (None, "L2"):
        answer = throw(client, "resume", lane=lane)
        assert (answer.status_code, answer.json()["code"]) == (409, "not_stopped")


def test_without_the_store_no_switch_is_thrown_and_that_is_said(open_client):
    client = open_client()
    assert inspect(client) == ("clear", [])
    service_of(client).store.close()
    answer = throw(client)
    assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")


@pytest.mark.parametrize(
    "changes",
    [{"reason": None}, {"reason": ""}, {"reason": " "}, {"reason": "a\nb"}, {"reason": "x" * 501}, {"reason": 7},
     {"lane": "a b"}, {"lane": ""}, {"lane": "../x"}, {"lane": ["L1"]}, {"extra": 1}],
    ids=str,
)  # fmt: skip
def test_a_switch_wants_a_reason_and_a_lane_that_can_be_one(open_client, changes):
    client = open_client()
    for path in ("stop", "resume"):
        answer = throw(client, path, **changes)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert client.get("/api/v1/stop").json() == {"stops": []}


def test_who_is_bound_to_lanes_stops_these_and_no_others(open_client, tmp_path):
    key = make_key(tmp_path, Role.SUPERVISOR, lanes=["L1", "L2"])
    client = open_client()
    client.headers.update(bearer(key))
    assert throw(client, lane="L1").status_code == 200
    assert throw(client, lane="L1").json()["stops"][0]["by"] == f"key:{key.split('_')[1]}"
    for lane in (None, "L3"):
        for path in ("stop", "resume"):
            answer = throw(client, path, lane=lane)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


T0 = datetime(2026, 1, 1, tzinfo=UTC)
switches = st.lists(st.tuples(st.booleans(), st.sampled_from([None, "A", "B"])), max_size=12)


@given(switches)
def test_a_switch_is_on_when_it_was_last_thrown_and_since_it_was_first(thrown):
    records = [
        (StopRecord(is_on=on, lane=lane, reason=str(number), by="x"), T0 + timedelta(seconds=number))
        for number, (on, lane) in enumerate(thrown)
    ]
    found = stops_after(records)
    for lane in (None, "A", "B"):
        last = next((on for on, of in reversed(thrown) if of == lane), False)
        assert (lane in found) == last
        if last:
            off = max((n for n, (on, of) in enumerate(thrown) if of == lane and not on), default=-1)
            first = next(n for n, (on, of) in enumerate(thrown) if of == lane and n > off)
            assert found[lane].since == T0 + timedelta(seconds=first)


# --- overrides and feedback ------------------------------------------------------------------------------------------


@pytest.fixture
def answered(open_client):
    """A client, and the answer that it got to a bag with a knife and scissors."""
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]))
    return client, client.post("/api/v1/inspect", json=make_request()).json()


def override(client, answer, **changes):
    body = {
        "audit_id": answer["audit_id"],
        "action": "clear",
        "reason": "kitchen ware, looked at",
        **changes,
    }
    return client.post(f"/api/v1/inspections/{answer['scan_id']}/override", json=body)


def feedback(client, answer, **changes):
    body = {"audit_id": answer["audit_id"], "outcome": "item_found", **changes}
    return client.post(f"/api/v1/inspections/{answer['scan_id']}/feedback", json=body)


def test_an_override_stands_beside_the_answer_and_leaves_it_as_it_was(answered):
    client, answer = answered
    said = override(client, answer)
    assert said.status_code == 200
    body = said.json()
    assert (body["given_action"], body["given_risk_level"]) == (answer["action"], answer["risk_level"])
    assert (body["action"], body["by"], body["audit_id"]) == ("clear", "open", answer["audit_id"])
    assert client.get("/api/v1/inspections/TEST-001").json()["inspection"] == answer
    override(client, answer, action="detain", reason="second thoughts")
    beside = client.get("/api/v1/inspections/TEST-001/oversight").json()
    assert [one["action"] for one in beside["overrides"]] == ["clear", "detain"]
    assert beside["overrides"][0] == body


def test_feedback_confirms_rejects_and_adds(answered):
    client, answer = answered
    findings = [
        {"category": "Knife", "verdict": "confirmed", "box": [10, 20.5, 30, 40]},
        {"category": "Scissors", "verdict": "rejected"},
        {"category": "Hammer", "verdict": "added", "box": [1, 2, 3, 4]},
    ]
    said = feedback(client, answer, findings=findings, note="under the laptop")
    assert said.status_code == 200
    assert [(one["category"], one["verdict"]) for one in said.json()["findings"]] == [
        ("Knife", "confirmed"), ("Scissors", "rejected"), ("Hammer", "added"),
    ]  # fmt: skip
    assert client.get("/api/v1/inspections/TEST-001/oversight").json()["feedback"] == [said.json()]
    assert client.get("/api/v1/inspections/TEST-001").json()["inspection"] == answer


def test_only_the_newest_answer_can_be_meant(answered):
    client, first = answered
    second = client.post("/api/v1/inspect", json=make_request(declared_items=["other"], scan_id="TEST-002")).json()
    for tell in (override, feedback):
        answer = tell(client, {**second, "audit_id": first["audit_id"]})
        assert (answer.status_code, answer.json()["code"]) == (409, "another_answer")
        answer = tell(client, {**second, "scan_id": "never-seen"})
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_inspection")
    assert client.get("/api/v1/inspections/never-seen/oversight").status_code == 404


@pytest.mark.parametrize(
    "changes",
    [{"action": "burn"}, {"action": None}, {"reason": ""}, {"reason": None}, {"audit_id": "x"}, {"audit_id": None},
     {"x": 1}],
    ids=str,
)  # fmt: skip
def test_an_override_wants_an_action_a_reason_and_the_answer_that_is_meant(answered, changes):
    client, answer = answered
    assert override(client, answer, **changes).status_code == 422
    assert client.get("/api/v1/inspections/TEST-001/oversight").json()["overrides"] == []


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        ({"category": "Gun", "verdict": "confirmed"}, "no finding of Gun; what it lacks is `added`"),
        ({"category": "Gun", "verdict": "rejected"}, "no finding of Gun"),
        ({"category": "Teapot", "verdict": "added"}, "category is none of"),
        ({"category": "knife", "verdict": "confirmed"}, "category is none of"),
        ({"category": "Knife", "verdict": "perhaps"}, "confirmed"),
        ({"category": "Knife", "verdict": "confirmed", "box": [0, 0, 0, 5]}, "no width or no height"),
        ({"category": "Knife", "verdict": "confirmed", "box": [-1, 0, 5, 5]}, "greater than or equal to 0"),
        ({"category": "Knife", "verdict": "confirmed", "box": [0, 0, 5]}, "box"),
        ({"category": "Knife", "verdict": "confirmed", "box": [0, 0, 1e999, 5]}, "box"),
    ],
    ids=str,
)
def test_feedback_that_cannot_be_meant_is_refused_with_what_is_wrong(answered, finding, message):
    client, answer = answered
    body = {"audit_id": answer["audit_id"], "outcome": "item_found", "findings": [finding]}
    headers = {"Content-Type": "application/json"}
    said = client.post("/api/v1/inspections/TEST-001/feedback", content=json.dumps(body), headers=headers)
    assert said.status_code == 422
    assert message in said.json()["detail"]
    assert client.get("/api/v1/inspections/TEST-001/oversight").json()["feedback"] == []


def test_without_the_store_nothing_counts(answered):
    client, answer = answered
    service_of(client).store.close()
    assert override(client, answer).status_code == feedback(client, answer).status_code == 503


# --- what the service goes by ----------------------------------------------------------------------------------------


def test_the_policy_is_told_with_all_that_a_clear_needs(answered):
    client, answer = answered
    (policy,) = client.get("/api/v1/policies").json()
    assert policy["policy_version"] == answer["policy_version"]
    assert {"no_findings", "not_stopped", "engine_answered"} <= set(policy["clear_conditions"])
    assert policy["rules"]["categories"]["Gun"]["risk_level"] == "critical"


def test_the_model_is_told_with_what_it_covers_and_was_measured_on(answered):
    client, answer = answered
    (model,) = client.get("/api/v1/models").json()
    assert (model["model_version"], model["prompt_version"]) == (answer["model_version"], answer["prompt_version"])
    assert model["covered_categories"]
    assert model["calibration"]["matches"] is True


def test_a_model_that_is_not_loaded_is_none(open_client):
    class Broken(ScriptedEngine):
        def start(self):
            raise RuntimeError("no weights")

    client = open_client(Broken([CLEAN]), wait=False)
    wait_until(lambda: client.get("/ready").json()["engine"] == "failed")
    assert client.get("/api/v1/models").json() == []
