"""Access to the service as a process of its own: keys made beside it, odd bytes on its socket, floods of requests."""

import itertools
import json
import os
import random
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis.generation import GenerationMode
from test_serve import Server, until

ROOT = Path(__file__).parents[2]


def keys(folder: Path, *words: str) -> str:
    """What `xray-vqa keys` prints, run beside a server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XRAY_VQA_")}
    run = subprocess.run(
        [sys.executable, "-m", "xray_vqa", "keys", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def start(tmp_path):
    servers = []
    (tmp_path / "script.json").write_text("[{}]")

    def make(*words: str, **variables: str) -> Server:
        servers.append(Server(tmp_path, "--engine", "scripted", "--model", "script.json", *words, **variables))
        return servers[-1]

    yield make
    for server in servers:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def test_the_first_key_closes_a_running_server_and_a_revoked_one_opens_it_no_more(start, tmp_path):
    server = start()
    server.wait_for("RUNNING OPEN")
    assert server.client.get("/docs").status_code == 200
    key = keys(tmp_path, "create", "--name", "officer", "--role", "officer")
    assert re.fullmatch(r"xvqa_[0-9a-f]{12}_[0-9a-f]{64}", key)
    until(lambda: server.client.get("/docs").status_code == 401)
    assert server.client.get("/docs", headers=bearer(key)).status_code == 200
    listed = json.loads(keys(tmp_path, "list", "--json"))
    assert (listed["key_id"], listed["name"], listed["role"]) == (key.split("_")[1], "officer", "officer")
    assert "digest" not in listed
    keys(tmp_path, "revoke", listed["key_id"], "--reason", "lost")
    until(lambda: server.client.get("/docs", headers=bearer(key)).status_code == 401)
    assert key.split("_")[2] not in "".join(server.log)
    assert server.stop() == 0


def test_the_guides_script_finds_a_closed_server_well_with_a_key(start, tmp_path):
    key = keys(tmp_path, "create", "--name", "trial", "--role", "officer")
    server = start()
    Image.effect_noise((300, 200), 40).convert("RGB").save(tmp_path / "scan.jpg")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XRAY_VQA_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "API_URL": server.url,
        "VIRTUAL_ENV": str(Path(sys.executable).parents[1]),
    }  # fmt: skip
    words = ["bash", str(ROOT / "scripts/test_api.sh"), "scan.jpg"]
    codes = [
        subprocess.run(words, cwd=tmp_path, env={**environment, **given}, check=False, timeout=120).returncode
        for given in ({"API_KEY": key}, {})
    ]
    assert codes == [0, 1]


def test_the_production_profile_does_not_start_open(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XRAY_VQA_")}
    run = subprocess.run(
        [sys.executable, "-m", "xray_vqa", "serve", "--port", "0", "--profile", "production", "--model", "no/such"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 2
    assert "does not start without keys or sign-in: make a key (xray-vqa keys create" in run.stderr


def exchange(server: Server, sent: bytes) -> bytes:
    """What comes back for some bytes until the server says no more."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.settimeout(2)
        received = b""
        try:
            connection.sendall(sent)
            while chunk := connection.recv(65536):
                received += chunk
                if b"\r\n\r\n" in received and b"HTTP/1.1 100" not in received:
                    break
        except (TimeoutError, ConnectionError):
            pass
        return received


def test_a_body_is_not_asked_for_before_the_credentials_hold(start, tmp_path):
    key = keys(tmp_path, "create", "--name", "a", "--role", "auditor")
    server = start()
    head = (
        b"POST /api/v1/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 15000000\r\nExpect: 100-continue\r\n"
    )
    assert exchange(server, head + b"\r\n").startswith(b"HTTP/1.1 401 ")
    assert exchange(server, head + f"Authorization: Bearer {key}\r\n\r\n".encode()).startswith(b"HTTP/1.1 403 ")


def test_odd_bytes_on_the_socket_reach_no_handler(start, tmp_path):
    keys(tmp_path, "create", "--name", "a", "--role", "auditor")
    server = start()
    targets = [
        b"//docs", b"/docs/", b"/DOCS", b"/%64ocs", b"/./docs", b"/x/../docs", b"/docs%00", b"/docs%0a",
        b"/docs;/health",
        b"/health/../docs", b"http://localhost/docs", b"http://localhost/health", b"localhost:80", b"*", b"/%2e/docs",
        b"/health%2f..%2fdocs", b"/docs?x=/health", b"/docs#/health", b"\\docs", b"/metrics", b"/openapi.json",
        b"/%68ealth",
    ]  # fmt: skip
    methods = [b"GET", b"HEAD", b"POST", b"OPTIONS", b"TRACE", b"CONNECT", b"PROPFIND"]
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    for method, target, extra in itertools.product(methods, targets, (b"", upgrade)):
        answer = exchange(server, method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + extra + b"\r\n")
        if (method, target) == (b"GET", b"http://localhost/health") and answer.startswith(b"HTTP/1.1 200"):
            continue  # the absolute form of a public address
        assert re.match(rb"HTTP/1.1 4\d\d ", answer) or answer == b"", (method, target, answer[:200])
    assert server.client.get("/health").status_code == 200


def test_behind_a_named_proxy_the_address_that_it_forwards_is_counted(start, tmp_path):
    keys(tmp_path, "create", "--name", "a", "--role", "auditor")
    server = start(XRAY_VQA_TRUSTED_PROXIES="127.0.0.1", XRAY_VQA_RATE_LIMIT_ADDRESS="3/minute")

    def ask(client: str) -> int:
        return server.client.get("/docs", headers={"Host": "lane.example", "X-Forwarded-For": client}).status_code

    assert [ask("10.0.0.1") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert ask("10.0.0.2") == 401
    assert ask("6.6.6.6, 10.0.0.1") == 429  # what the client itself puts in front does not count


# --- floods ----------------------------------------------------------------------------------------------------------

NUM_GENERATED = 9_000
NUM_FROM_CORPUS = 1_000


def odd_requests() -> st.SearchStrategy[dict]:
    """Requests that no schema would lead to: odd headers, odd bodies, bodies that are not what they say."""
    text = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
    return st.fixed_dictionaries(
        {
            "method": st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]),
            "headers": st.dictionaries(
                st.sampled_from(["Content-Type", "Content-Encoding", "X-Request-ID", "X-Lane", "Accept", "Range",
                                 "Cookie", "If-None-Match", "Origin", "X-HTTP-Method-Override", "Authorization"]),
                text.map(lambda value: value.strip().encode("latin-1")), max_size=4,
            ),
            "content": st.sampled_from([
                b"", b"{}", b"[]", b"null", b"{" * 5000, b"[" * 50_000, b'{"a":' * 9000, b"\xff\xfe{}", b"9" * 100_000,
                b'{"scan_id": 1e999}', b'{"scan_id": "\\ud800"}', b"\x1f\x8b\x08\x00", b'{"scan_id":"a","scan_id":"b"}',
                b'{"image_base64": "' + b"A" * 90_000 + b'"}', b"--x\r\nContent-Disposition: form-data\r\n\r\n--x--",
            ]) | st.binary(max_size=300),
        }
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_malformed_requests_make_no_server_error(start, tmp_path):
    key = keys(tmp_path, "create", "--name", "a", "--role", "supervisor")
    server = start(XRAY_VQA_RATE_LIMIT_KEY="1000000/second", XRAY_VQA_MAX_BODY_BYTES="200000")
    until(lambda: server.client.get("/ready").status_code == 200)
    document = server.client.get("/openapi.json", headers=bearer(key)).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    operations = [result.ok() for result in schema.get_all_operations()]
    statuses: dict[int, int] = {}

    def note(answer, method: str) -> None:
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500 or answer.json()["code"] in ("answer_unreadable", "overloaded"), answer.text
        if answer.status_code >= 400 and "x-request-id" in answer.headers and method != "HEAD":
            assert "application/problem+json" in answer.headers["content-type"]

    session = requests.Session()
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    paths = [path.replace("{scan_id}", "TEST-001") for path in document["paths"]]

    @settings(max_examples=NUM_FROM_CORPUS, deadline=None, suppress_health_check=quiet, database=None)
    @given(request=odd_requests(), path=st.sampled_from(paths))
    def odd(request, path) -> None:
        request["headers"] = {**bearer(key), **request["headers"]}
        note(server.client.request(url=path, **request), request["method"])

    odd()
    heavy = [operation for operation in operations if operation.body]
    for operation, mode in itertools.product(operations, GenerationMode):
        share = 0.9 / len(heavy) if operation in heavy else 0.1 / (len(operations) - len(heavy))
        examples = max(1, round(NUM_GENERATED * share / 2))

        @settings(max_examples=examples, deadline=None, suppress_health_check=quiet, database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def generated(case) -> None:
            note(case.call(session=session, headers=bearer(key)), case.method)

        with suppress(Unsatisfiable):  # an address without parameters has nothing that could be wrong
            generated()

    print(dict(sorted(statuses.items())))
    while sum(statuses.values()) < NUM_GENERATED + NUM_FROM_CORPUS:  # what Hypothesis found too few different ones of
        rng = random.Random(sum(statuses.values()))
        body = bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
        headers = bearer(key) | {"Content-Type": "application/json"}
        note(server.client.request("POST", rng.choice(paths), content=body, headers=headers), "POST")
    assert server.client.get("/health").status_code == 200
    assert server.stop() == 0
    assert "Traceback" not in "".join(server.log)
