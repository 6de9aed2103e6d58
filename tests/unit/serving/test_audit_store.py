"""An answer that was not written down is not given."""

import sqlite3
from datetime import UTC, datetime, timedelta, timezone

import pytest
from service_kit import CLEAN, KNIFE_AND_SCISSORS, SCAN, make_request, metric, service_of

from xray_vqa.errors import ConfigError
from xray_vqa.inference.engines.scripted import ScriptedEngine
from xray_vqa.serving.store.audit import AuditStore, AuditUnavailable, InspectionRecord, Origin


def rows(path, table="inspections"):
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute(f"SELECT * FROM {table} ORDER BY sequence").fetchall()
    finally:
        connection.close()


def make_record(scan_id: str = "S", **changes) -> InspectionRecord:
    now = datetime.now(UTC)
    origin = {
        "audit_id": "a1", "scan_id": scan_id, "request_id": "r", "fingerprint": "f", "received_at": now,
        "recorded_at": now, "model_version": "m", "prompt_version": "2", "software_version": "0", "device": "cpu",
        **changes,
    }  # fmt: skip
    return InspectionRecord(Origin(**origin), "p@1", "high", "manual_inspection", False, {"k": [1]}, {"Gun": {}})


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
    (row,) = rows(tmp_path / "audit.sqlite3")
    assert (row["action"], row["risk_level"], row["degraded"]) == ("manual_inspection", "high", 0)
    assert row["audit_id"] == answer["audit_id"]


def test_no_byte_of_the_image_is_kept(open_client, tmp_path):
    client = open_client()
    client.post("/api/v1/inspect", json=make_request())
    client.app.state.service.store.close()
    for file in tmp_path.iterdir():
        assert SCAN[:48].encode() not in file.read_bytes()


def test_the_same_scan_id_again_is_a_new_record_and_the_newest_is_shown(open_client, tmp_path):
    client = open_client(ScriptedEngine([CLEAN, KNIFE_AND_SCISSORS]))
    first, second = (client.post("/api/v1/inspect", json=make_request()).json() for _ in range(2))
    assert client.get("/api/v1/inspections/TEST-001").json()["inspection"] == second
    assert [row["audit_id"] for row in rows(tmp_path / "audit.sqlite3")] == [first["audit_id"], second["audit_id"]]


def test_equal_requests_have_equal_fingerprints_and_others_others(open_client):
    client = open_client()

    def fingerprint(**changes) -> str:
        client.post("/api/v1/inspect", json=make_request(**changes))
        return client.get("/api/v1/inspections/TEST-001").json()["fingerprint"]

    plain = fingerprint()
    assert fingerprint() == plain
    assert fingerprint(image_base64=f"data:image/jpeg;base64,{SCAN}") == plain
    others = [fingerprint(declared_items=declared) for declared in ([], None, ["clothing", "x"], ["clothing,x"])]
    assert len({plain, *others}) == 5


def test_a_question_is_on_record_too(open_client, tmp_path):
    client = open_client(ScriptedEngine([CLEAN], answer="A bag."))
    asked = {"scan_id": "Q", "image_base64": SCAN, "question": "What is it?"}
    answer = client.post("/api/v1/ask", json=asked).json()
    (row,) = rows(tmp_path / "audit.sqlite3", "questions")
    assert (row["question"], row["audit_id"]) == ("What is it?", answer["audit_id"])


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


def test_a_store_that_may_only_be_read_is_noticed(open_client, tmp_path):
    path = tmp_path / "ro.sqlite3"
    AuditStore(f"sqlite:///{path}").check()
    client = open_client(database_url=f"sqlite:///file:{path}?mode=ro&uri=true")
    assert_withheld(client)
    assert client.get("/ready").status_code == 503


def test_a_store_that_is_no_database_is_noticed(open_client, tmp_path, caplog):
    path = tmp_path / "text.sqlite3"
    path.write_text("this is no database, whatever its name says" * 50)
    assert_withheld(open_client(database_url=f"sqlite:///{path}"))
    assert "file is not a database" in caplog.text


def test_a_store_that_someone_else_has_locked_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("xray_vqa.serving.store.database.BUSY_TIMEOUT_MS", 20)
    store = AuditStore(f"sqlite:///{tmp_path}/a.sqlite3")
    store.check()
    other = sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AuditUnavailable):
        store.write(make_record())
    other.execute("ROLLBACK")
    store.write(make_record())
    assert len(rows(tmp_path / "a.sqlite3")) == 1
    other.close()


def test_a_store_that_was_deleted_in_use_is_begun_anew_and_not_written_into_the_void(tmp_path, caplog):
    path = tmp_path / "a.sqlite3"
    store = AuditStore(f"sqlite:///{path}")
    store.write(make_record())
    path.unlink()
    store.write(make_record("after"))
    assert [row["scan_id"] for row in rows(path)] == ["after"]
    assert "was removed or replaced while in use" in caplog.text


def test_records_are_durable_wal_and_full(tmp_path):
    store = AuditStore(f"sqlite:///{tmp_path}/a.sqlite3")
    store.check()
    with store._opened().connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_times_come_back_in_utc(tmp_path):
    store = AuditStore(f"sqlite:///{tmp_path}/a.sqlite3")
    noon_in_delhi = datetime(2026, 11, 24, 12, tzinfo=timezone(timedelta(hours=5.5)))
    store.write(make_record(received_at=noon_in_delhi))
    assert store.newest("S").origin.received_at == datetime(2026, 11, 24, 6, 30, tzinfo=UTC)


def test_a_failed_write_logs_its_cause_and_none_of_the_record(tmp_path, caplog):
    store = AuditStore(f"sqlite:///{tmp_path}/a.sqlite3")
    store.write(make_record())
    with pytest.raises(AuditUnavailable):
        store.write(make_record("CANARY"))  # the audit_id is there already
    assert "UNIQUE" in caplog.text
    assert "CANARY" not in caplog.text
    store.write(make_record("next", audit_id="a2"))
    assert store.newest("next") is not None
    assert store.newest("CANARY") is None


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
        AuditStore(url)
