"""An answer that was not written down is not given."""

import itertools
import sqlite3
from datetime import UTC, datetime, timedelta, timezone

import pytest
from service_kit import CLEAN, KNIFE_AND_SCISSORS, SCAN, make_request, metric, service_of
from store_kit import OpenStore, make_question, records_in

from xray_vqa.errors import ConfigError
from xray_vqa.inference.engines.scripted import ScriptedEngine
from xray_vqa.serving.store.audit import AuditStore, AuditUnavailable


def kinds(path) -> list[str]:
    return [row.kind for row in records_in(f"sqlite:///{path}")]


def test_the_record_holds_the_answer_as_it_was_given_and_what_it_came_from(open_client, tmp_path):
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]))
    answer = client.post("/api/v1/inspect", json=make_request(), headers={"X-Request-ID": "lane-1"}).json()
    record = client.get("/api/v1/inspections/TEST-001").json()
    assert record["inspection"] == answer
    assert record["request_id"] == "lane-1"
    assert record["scores"]["Knife"]["state"] == "value"
    assert record["scores"]["Knife"]["probability"] == pytest.approx(0.93)
    assert len(record["scores"]) == 20
    assert len(record["fingerprint"]) == 64
    assert record["received_at"] <= record["recorded_at"]
    assert datetime.fromisoformat(record["recorded_at"]).utcoffset() == timedelta(0)
    service_of(client).store.close()
    rows = {row.kind: row for row in records_in(f"sqlite:///{tmp_path}/audit.sqlite3")}
    assert list(rows) == ["key", "opened", "intent", "result", "checkpoint"]
    assert rows["intent"].audit_id == rows["result"].audit_id == answer["audit_id"]
    assert rows["intent"].record()["declared_items"] == ["clothing"]
    assert rows["result"].record()["answer"] == answer
    assert (record["sequence"], record["record_hash"]) == (rows["result"].sequence, rows["result"].row_hash)


def test_no_byte_of_the_image_is_kept(open_client, tmp_path):
    client = open_client()
    client.post("/api/v1/inspect", json=make_request())
    client.app.state.service.store.close()
    for file in tmp_path.iterdir():
        assert SCAN[:48].encode() not in file.read_bytes()


def test_equal_requests_have_equal_fingerprints_and_others_others(open_client):
    client, numbers = open_client(), itertools.count()

    def fingerprint(**changes) -> str:
        scan_id = f"S{next(numbers)}"
        client.post("/api/v1/inspect", json=make_request(scan_id=scan_id, **changes))
        return client.get(f"/api/v1/inspections/{scan_id}").json()["fingerprint"]

    plain = fingerprint()
    assert fingerprint() == plain
    assert fingerprint(image_base64=f"data:image/jpeg;base64,{SCAN}") == plain
    others = [fingerprint(declared_items=declared) for declared in ([], None, ["clothing", "x"], ["clothing,x"])]
    assert len({plain, *others}) == 5


def test_a_question_is_on_record_too(open_client, tmp_path):
    client = open_client(ScriptedEngine([CLEAN], answer="A bag."))
    asked = {"scan_id": "Q", "image_base64": SCAN, "question": "What is it?"}
    answer = client.post("/api/v1/ask", json=asked).json()
    row = next(row for row in records_in(f"sqlite:///{tmp_path}/audit.sqlite3") if row.kind == "question")
    assert (row.record()["question"], row.audit_id) == ("What is it?", answer["audit_id"])


def assert_withheld(client) -> None:
    response = client.post("/api/v1/inspect", json=make_request())
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert response.json()["code"] in ("audit_unavailable", "keys_unavailable")  # the store holds the keys too
    assert response.headers["retry-after"]
    assert "action" not in response.json()
    assert "sqlite" not in response.text.lower()


def test_without_a_store_no_answer_is_given_not_even_a_degraded_one(open_client):
    client = open_client(ScriptedEngine([CLEAN]))
    service_of(client).store.close()
    assert_withheld(client)
    asked = {"scan_id": "Q", "image_base64": SCAN, "question": "What is it?"}
    assert client.post("/api/v1/ask", json=asked).status_code == 503
    assert client.get("/api/v1/inspections/TEST-001").status_code == 503
    assert metric(client, "xray_vqa_audit_write_failures_total") == 2
    assert metric(client, 'xray_vqa_inspections_total{action="clear",risk_level="low"}') == 0


def test_a_store_that_cannot_be_opened_makes_the_service_not_ready_until_it_can(open_client, tmp_path):
    blocker = tmp_path / "outputs"
    blocker.write_text("a file where the folder should be")
    client = open_client(database_url=f"sqlite:///{blocker}/audit.sqlite3")
    assert_withheld(client)
    readiness = client.get("/ready")
    assert (readiness.status_code, readiness.json()["store"]) == (503, "unavailable")
    assert "no answer is given" in readiness.json()["message"]
    assert client.get("/health").status_code == 200
    blocker.unlink()
    assert client.post("/api/v1/inspect", json=make_request()).status_code == 200
    assert client.get("/ready").status_code == 200


def test_a_store_that_may_only_be_read_is_noticed(open_client, open_store, tmp_path):
    path = tmp_path / "ro.sqlite3"
    open_store(f"sqlite:///{path}").close()
    client = open_client(database_url=f"sqlite:///file:{path}?mode=ro&uri=true")
    assert_withheld(client)
    assert client.get("/ready").status_code == 503


def test_a_store_that_is_no_database_is_noticed(open_client, tmp_path, caplog):
    path = tmp_path / "text.sqlite3"
    path.write_text("this is no database, whatever its name says" * 50)
    assert_withheld(open_client(database_url=f"sqlite:///{path}"))
    assert "file is not a database" in caplog.text


def test_a_store_that_someone_else_has_locked_is_not_waited_for_for_ever(open_store, tmp_path, monkeypatch):
    monkeypatch.setattr("xray_vqa.serving.store.database.BUSY_TIMEOUT_MS", 20)
    store = open_store(f"sqlite:///{tmp_path}/a.sqlite3")
    other = sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AuditUnavailable):
        store.add_question(make_question()).result(10)
    other.execute("ROLLBACK")
    other.close()
    store.add_question(make_question()).result(10)
    assert kinds(tmp_path / "a.sqlite3").count("question") == 1


def test_a_store_that_was_deleted_in_use_is_begun_anew_and_not_written_into_the_void(open_store, tmp_path, caplog):
    path = tmp_path / "a.sqlite3"
    store = open_store(f"sqlite:///{path}")
    store.add_question(make_question()).result(10)
    path.unlink()
    store.add_question(make_question("after")).result(10)
    assert [row.scan_id for row in records_in(f"sqlite:///{path}") if row.kind == "question"] == ["after"]
    assert "was removed or replaced while in use" in caplog.text


def test_records_are_durable_wal_and_full(open_store, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/a.sqlite3")
    with store._opened().connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_times_come_back_as_the_moments_that_they_are(store: OpenStore):
    noon_in_delhi = datetime(2026, 11, 24, 12, tzinfo=timezone(timedelta(hours=5.5)))
    store.answer("S", received_at=noon_in_delhi)
    assert store.audit.newest("S").record.origin.received_at == datetime(2026, 11, 24, 6, 30, tzinfo=UTC)


def test_a_failed_write_logs_its_cause_and_none_of_the_record(open_store, tmp_path, caplog):
    store = open_store(f"sqlite:///{tmp_path}/a.sqlite3")
    with store._opened().begin() as connection:
        connection.exec_driver_sql("DROP TABLE records")
    with pytest.raises(AuditUnavailable):
        store.add_question(make_question("CANARY")).result(10)
    assert "no such table" in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://db/audit", "SQLite or PostgreSQL"),
        ("outputs/audit.sqlite3", "cannot be read"),
    ],
)
def test_a_url_that_names_no_durable_store_is_refused(url, message):
    with pytest.raises(ConfigError, match=message):
        AuditStore(url, interrupted=None)
