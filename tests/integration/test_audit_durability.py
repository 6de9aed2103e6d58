"""What is on record survives kill -9, a database that is away, a full disk and eight racing duplicates."""

import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import test_serve
from sqlalchemy import select
from test_serve import Server, until

from xray_vqa.serving.store.anchors import Anchors
from xray_vqa.serving.store.chain import Row
from xray_vqa.serving.store.database import connect, store_url
from xray_vqa.serving.store.keys import SigningKey
from xray_vqa.serving.store.reading import erased_rows, reading, rows_of
from xray_vqa.serving.store.tables import records
from xray_vqa.serving.store.verify import Verification, verify

serve, request_body = test_serve.serve, test_serve.request_body
"""Its fixtures."""

KILLS = int(os.environ.get("XRAY_VQA_TEST_KILLS", "200"))
CLIENTS = 8


def verified(url: str, folder: Path) -> Verification:
    anchors = Anchors(str(folder / "anchors.jsonl")).read()
    with reading(url) as connection:
        key = SigningKey.load(folder / "audit.key")
        return verify(rows_of(connection), key, erased=erased_rows(connection), anchors=anchors)


def rows_by_kind(url: str, kind: str) -> list[Row]:
    engine = connect(store_url(url))
    with engine.connect() as connection:
        query = select(records).where(records.c.kind == kind).order_by(records.c.sequence)
        rows = [Row._make(row) for row in connection.execute(query)]
    engine.dispose()
    return rows


def variables(url: str, folder: Path) -> dict[str, str]:
    return {
        "XRAY_VQA_DATABASE_URL": url, "XRAY_VQA_AUDIT_KEY": f"{folder}/audit.key",
        "XRAY_VQA_AUDIT_ANCHORS": f"{folder}/anchors.jsonl",
    }  # fmt: skip


def send(server: Server, body: dict) -> httpx.Response | None:
    try:
        return httpx.post(f"{server.url}/api/v1/inspect", json=body, timeout=20)
    except httpx.TransportError:
        return None


def kill_under_load(serve, request_body, url: str, folder: Path, kills: int) -> dict[str, dict]:
    """Send scans from several clients to servers that are killed at random moments; the answers that came."""
    answers: dict[str, dict] = {}
    for turn in range(kills):
        server = serve([{}], **variables(url, folder))
        ends = threading.Event()

        def client(number: int, server=server, ends=ends, turn=turn) -> None:
            count = 0
            while not ends.is_set():
                scan_id = f"k{turn}-{number}-{count}"
                response = send(server, {**request_body, "scan_id": scan_id})
                if response is not None and response.status_code == 200:
                    answers[scan_id] = response.json()
                count += 1

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            time.sleep(random.uniform(0.0, 0.6))
            server.stop(signal.SIGKILL)
            ends.set()
            for one in clients:
                one.result()
    return answers


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kill_9_under_load_loses_and_doubles_no_answer_that_was_given(serve, request_body, store_url, tmp_path):
    answers = kill_under_load(serve, request_body, store_url, tmp_path, KILLS)
    assert answers
    server = serve([{}], **variables(store_url, tmp_path))
    intents = {row.audit_id for row in rows_by_kind(store_url, "intent")}
    until(lambda: {row.audit_id for row in rows_by_kind(store_url, "result")} == intents)  # what broke off is closed
    assert server.stop() == 0
    results = rows_by_kind(store_url, "result")
    recorded = {row.audit_id: row.record()["answer"] for row in results}
    assert len(recorded) == len(results)
    assert all(recorded[answer["audit_id"]] == answer for answer in answers.values())
    found = verified(store_url, tmp_path)
    assert found.faults == []
    print(json.dumps({"kills": KILLS, "acknowledged": len(answers), "rows": found.rows, "interrupted": sum(
        row.record()["closed"] == "interrupted" for row in results)}))  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_eight_racing_duplicates_one_is_inspected_and_all_get_its_answer(serve, request_body, store_url, tmp_path):
    scans = int(os.environ.get("XRAY_VQA_TEST_RACES", "1000"))
    server = serve([{}], "--queue-size", "64", **variables(store_url, tmp_path))
    until(lambda: server.client.get("/ready").status_code == 200)
    with httpx.Client(base_url=server.url, timeout=30, limits=httpx.Limits(max_connections=32)) as client:

        def ask(scan_id: str) -> dict:
            while True:
                response = client.post("/api/v1/inspect", json={**request_body, "scan_id": scan_id})
                if response.status_code != 409:
                    assert response.status_code == 200, response.text
                    return response.json()
                time.sleep(0.02)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, [f"race-{number}" for number in range(scans) for _ in range(8)]))
        metrics = client.get("/metrics").text
    assert server.stop() == 0
    assert f"model_inference_duration_seconds_count {scans}.0" in metrics
    for start in range(0, len(answers), 8):
        bodies = [{**answer, "replayed": None} for answer in answers[start : start + 8]]
        assert all(body == bodies[0] for body in bodies)
        assert sum(not answer["replayed"] for answer in answers[start : start + 8]) == 1
    assert len(rows_by_kind(store_url, "result")) == len(rows_by_kind(store_url, "intent")) == scans
    assert verified(store_url, tmp_path).faults == []


@pytest.mark.parametrize("away", ["stopped", "frozen"])
@pytest.mark.slow
def test_while_the_database_is_away_nothing_is_answered_and_afterwards_all_is_without_a_restart(
    serve,
    request_body,
    postgres,
    tmp_path,
    away,
):
    url = postgres.emptied()
    server = serve([{}], **variables(url, tmp_path))
    until(lambda: server.client.get("/ready").status_code == 200)
    assert server.client.post("/api/v1/inspect", json={**request_body, "scan_id": "before"}).status_code == 200
    (postgres.stop if away == "stopped" else postgres.freeze)()
    ends = time.monotonic() + float(os.environ.get("XRAY_VQA_TEST_AWAY_S", "60"))
    statuses, number = set(), 0
    while time.monotonic() < ends:
        statuses.add(server.client.post("/api/v1/inspect", json={**request_body, "scan_id": f"a{number}"}).status_code)
        assert server.client.get("/ready").status_code == 503
        assert server.client.get("/health").status_code == 200
        number += 1
    assert statuses == {503}
    (postgres.start if away == "stopped" else postgres.thaw)()
    until(lambda: server.client.get("/ready").status_code == 200)
    after = server.client.post("/api/v1/inspect", json={**request_body, "scan_id": "after"}).json()
    assert (after["action"], after["replayed"]) == ("clear", False)
    again = server.client.post("/api/v1/inspect", json={**request_body, "scan_id": "before"}).json()
    assert again["replayed"] is True
    assert server.stop() == 0
    assert verified(url, tmp_path).faults == []


def test_a_full_disk_withholds_answers_and_room_gives_them_again(serve, request_body, small_disk, tmp_path):
    disk = small_disk("1m")
    url = f"sqlite:///{disk}/audit.sqlite3"
    server = serve([{}], **variables(url, tmp_path))
    until(lambda: server.client.get("/ready").status_code == 200)
    filler = disk / "filler"
    filler.write_bytes(b"")
    given, refused = [], None
    with filler.open("ab", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    for number in range(400):
        response = server.client.post("/api/v1/inspect", json={**request_body, "scan_id": f"s{number}"})
        if response.status_code != 200:
            refused = response
            break
        given.append(response.json())
    assert refused is not None
    assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
    assert server.client.get("/ready").status_code == 503
    filler.unlink()
    until(lambda: server.client.get("/ready").status_code == 200)
    assert server.client.post("/api/v1/inspect", json={**request_body, "scan_id": "room"}).status_code == 200
    assert server.stop() == 0
    recorded = {row.audit_id: row.record()["answer"] for row in rows_by_kind(url, "result")}
    assert all(recorded[answer["audit_id"]] == answer for answer in given)
    assert verified(url, tmp_path).faults == []
