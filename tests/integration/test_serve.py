"""The service as a process of its own: started by its command, asked over HTTP, stopped by a signal."""

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]


class Server:
    """One `xray-vqa serve` on a free port; its log is read while it runs."""

    def __init__(self, folder: Path, *words: str, **variables: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XRAY_VQA_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xray_vqa", "serve", "--port", "0", *words],
            cwd=folder, env={**environment, **variables}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.wait_for(r"listening on (http://\S+)").group(1)
        self.client = httpx.Client(base_url=self.url, timeout=20)
        until(lambda: self._answers())

    def _read(self) -> None:
        self.log.extend(self.process.stderr)

    def _answers(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def wait_for(self, pattern: str) -> re.Match:
        until(lambda: re.search(pattern, "".join(self.log)) is not None or self.process.poll() is not None)
        found = re.search(pattern, "".join(self.log))
        assert found, "".join(self.log)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join(5)
        return code


def until(condition, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(script: list[dict], *words: str, **variables: str) -> Server:
        (tmp_path / "script.json").write_text(json.dumps(script))
        servers.append(Server(tmp_path, "--engine", "scripted", "--model", "script.json", *words, **variables))
        return servers[-1]

    yield start
    for server in servers:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture
def request_body(tmp_path) -> dict:
    image = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(image).rectangle((50, 50, 250, 150), fill="orange")
    image.save(tmp_path / "scan.jpg")
    encoded = base64.b64encode((tmp_path / "scan.jpg").read_bytes()).decode()
    return {"scan_id": "TEST-001", "image_base64": encoded, "declared_items": ["clothing", "electronics"]}


SHARP = {
    "probabilities": {"Knife": 0.93, "Scissors": 0.81},
    "boxes": {"Knife": [[0.05, 0.4, 0.3, 0.6]], "Scissors": [[0.7, 0.05, 0.95, 0.3]]},
}


def test_the_guides_request_over_the_wire_is_on_record_and_sigterm_ends_it_with_0(serve, request_body, tmp_path):
    server = serve([SHARP])
    until(lambda: server.client.get("/ready").status_code == 200)
    answer = server.client.post("/api/v1/inspect", json=request_body)
    assert answer.status_code == 200
    assert answer.json()["reasoning"].startswith("Two prohibited sharp items detected: knife (center-left), scissors")
    assert server.client.get("/docs").status_code == 200
    connection = sqlite3.connect(tmp_path / "outputs/audit.sqlite3")
    rows = connection.execute("SELECT scan_id, audit_id FROM records WHERE kind = 'result'").fetchall()
    connection.close()
    assert rows == [("TEST-001", answer.json()["audit_id"])]
    assert server.stop() == 0
    assert "RUNNING OPEN" in "".join(server.log)
    assert "TEST-001" not in "".join(server.log)


def test_sigterm_lets_what_is_in_work_finish(serve, request_body):
    server = serve([{"delay_s": 1.0}])
    until(lambda: server.client.get("/ready").status_code == 200)
    with ThreadPoolExecutor(2) as pool:
        bodies = [{**request_body, "scan_id": scan_id} for scan_id in "ab"]
        answers = [pool.submit(httpx.post, f"{server.url}/api/v1/inspect", json=body, timeout=20) for body in bodies]
        until(lambda: "xray_vqa_queue_depth 1.0" in server.client.get("/metrics").text)
        assert server.stop() == 0
        assert [answer.result().json()["action"] for answer in answers] == ["clear", "clear"]


def test_sigterm_while_the_engine_hangs_ends_all_the_same(serve, request_body):
    server = serve([{"delay_s": 600}], XRAY_VQA_TIMEOUT_S="0.2", XRAY_VQA_DRAIN_S="1")
    until(lambda: server.client.get("/ready").status_code == 200)
    answer = server.client.post("/api/v1/inspect", json=request_body).json()
    assert (answer["action"], answer["reasons"][0]) == ("manual_inspection", "timeout")
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 15


def test_a_killed_server_loses_no_answer_that_it_gave(serve, request_body, tmp_path):
    server = serve([{}])
    until(lambda: server.client.get("/ready").status_code == 200)
    bodies = [{**request_body, "scan_id": f"S{number}"} for number in range(5)]
    given = [server.client.post("/api/v1/inspect", json=body).json()["audit_id"] for body in bodies]
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    connection = sqlite3.connect(tmp_path / "outputs/audit.sqlite3")
    query = "SELECT audit_id FROM records WHERE kind = 'result' ORDER BY sequence"
    assert [row[0] for row in connection.execute(query)] == given
    connection.close()


def test_a_model_that_does_not_load_leaves_a_service_that_sends_every_bag_to_a_person(tmp_path, request_body):
    server = Server(tmp_path, "--model", "no/such/model")
    try:
        until(lambda: server.client.get("/ready").json()["engine"] == "failed")
        assert "no/such/model" in server.client.get("/ready").json()["message"]
        answer = server.client.post("/api/v1/inspect", json=request_body)
        assert (answer.status_code, answer.json()["action"]) == (200, "manual_inspection")
        assert answer.json()["reasons"][0] == "unavailable"
        assert server.stop() == 0
    finally:
        server.client.close()
        server.process.kill()
        server.process.wait()


def test_on_an_address_for_others_nobody_gets_in_without_a_key(serve, request_body):
    server = serve([{}], "--host", "0.0.0.0")
    server.wait_for("NOBODY GETS IN")
    answer = server.client.post("/api/v1/inspect", json=request_body)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert server.client.get("/health").status_code == 200
    assert server.stop() == 0


def test_a_body_over_the_limit_is_refused_on_a_real_socket(serve):
    server = serve([{}], XRAY_VQA_MAX_BODY_BYTES="100000")

    def chunks():
        for _ in range(40):
            yield b"A" * 10_000

    headers = {"Content-Type": "application/json"}
    for content in (b"A" * 400_000, chunks()):
        response = server.client.post("/api/v1/inspect", content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert server.client.get("/health").status_code == 200


def test_the_guides_scripts_start_it_and_find_it_well(request_body, tmp_path):
    (tmp_path / "script.json").write_text(json.dumps([SHARP]))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XRAY_VQA_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(Path(sys.executable).parents[1]),
        "MODEL": str(tmp_path / "script.json"), "PORT": "0", "HOST": "127.0.0.1",
        "XRAY_VQA_ENGINE": "scripted", "XRAY_VQA_DATABASE_URL": f"sqlite:///{tmp_path}/audit.sqlite3",
    }  # fmt: skip
    log_path = tmp_path / "serve.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            ["bash", str(ROOT / "scripts/deploy_inference.sh"), "--timeout-s", "5"], env=environment, stderr=log
        )
    try:
        until(lambda: "listening on" in log_path.read_text() or process.poll() is not None)
        url = re.search(r"listening on (http://\S+)", log_path.read_text()).group(1)
        run = subprocess.run(
            ["bash", str(ROOT / "scripts/test_api.sh"), "scan.jpg"],
            cwd=tmp_path, env={**environment, "API_URL": url}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        assert "FAIL" not in run.stdout
        assert "ok    /api/v1/inspect: 200" in run.stdout
        process.terminate()
        assert process.wait(30) == 0  # exec: the signal reaches the server itself
    finally:
        process.kill()
        process.wait()
    nobody = subprocess.run(
        ["bash", str(ROOT / "scripts/test_api.sh"), "scan.jpg"],
        cwd=tmp_path, env={**environment, "API_URL": url, "WAIT_S": "1"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert nobody.returncode == 2
    assert "nothing answers" in nobody.stderr


def test_a_real_model_is_served_and_without_a_calibration_clears_nothing(tiny_model_dir, request_body, tmp_path):
    server = Server(tmp_path, "--model", str(tiny_model_dir), "--device", "cpu", XRAY_VQA_TIMEOUT_S="120")
    try:
        until(lambda: server.client.get("/ready").status_code == 200, timeout_s=120)
        readiness = server.client.get("/ready").json()
        assert (readiness["device"], readiness["calibrated"], readiness["can_clear"]) == ("cpu", False, False)
        answer = server.client.post("/api/v1/inspect", json=request_body, timeout=120).json()
        assert not answer["degraded"], answer
        assert answer["action"] != "clear"
        assert "calibration_matches" in answer["reasons"]
        assert len(answer["screened_for"]) == 20
        assert answer["model_version"] == readiness["model_version"]
        assert server.stop() == 0
    finally:
        server.client.close()
        server.process.kill()
        server.process.wait()
