"""Bad input is the caller's: a 4xx problem document with a code and what to do, never a 5xx."""

import base64
import json
import struct
import zlib

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_kit import CLEAN, SCAN, image_bytes, make_request

from xray_vqa.config.loading import load_policy
from xray_vqa.config.serve import ServeSettings
from xray_vqa.inference.engines.scripted import ScriptedEngine
from xray_vqa.inference.inspector import Inspector
from xray_vqa.serving.app import create_app
from xray_vqa.serving.errors import PROBLEMS

PROBLEM_KEYS = {"type", "title", "status", "detail", "instance", "code", "next_step", "request_id"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('audit')}/audit.sqlite3"
    inspector = Inspector(ScriptedEngine([CLEAN]), load_policy())
    app = create_app(ServeSettings(database_url=url, max_body_bytes=200_000, max_image_bytes=100_000), inspector)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size; its pixels are all there, compressed, up to 40 MB of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 40_000_000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def assert_problem(response, status: int, code: str) -> dict:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) - {"errors"} == PROBLEM_KEYS
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:problem-type:xray-vqa:{code}"
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["detail"]
    assert body["next_step"] == PROBLEMS[code].next_step
    for leak in ("Traceback", "site-packages", " at 0x", "PIL", "pydantic"):
        assert leak not in response.text
    return body


BOMB = png_of(20_000, 20_000)


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        ("", 422, "empty"),
        ("data:image/png;base64,", 422, "empty"),
        ("not base64!", 422, "invalid_base64"),
        ("ü" * 8, 422, "invalid_base64"),
        ("abc", 422, "invalid_base64"),
        ("YWJj=YWJj", 422, "invalid_base64"),
        ("https://example.org/scan.jpg", 422, "invalid_base64"),
        ("data:text/html;base64,YWJj", 422, "invalid_base64"),
        (encode(b"no image at all"), 422, "not_an_image"),
        (encode(b"%PDF-1.7 \n" + bytes(100)), 422, "not_an_image"),
        (encode(b"GIF89a" + bytes(100)), 422, "not_an_image"),
        (encode(image_bytes()[:-400]), 422, "broken_image"),
        (encode(image_bytes(kind="PNG")[:200]), 422, "broken_image"),
        (encode(BOMB), 422, "too_many_pixels"),
        (encode(png_of(16, 16)), 422, "too_small"),
        (encode(png_of(40, 4000)), 422, "too_narrow"),
        (encode(image_bytes() + bytes(100_000)), 413, "too_many_bytes"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else str(value),
)
@pytest.mark.parametrize("path", ["/api/v1/inspect", "/api/v1/ask"])
def test_an_image_that_cannot_be_read_is_refused(client, path, image, status, code):
    body = {"scan_id": "a", "image_base64": image}
    if path.endswith("ask"):
        body["question"] = "What is in it?"
    assert_problem(client.post(path, json=body), status, code)


def test_the_bomb_is_small_on_the_wire():
    assert len(BOMB) < 60_000


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"scan_id": None}, "scan_id", "required field is missing"),
        ({"image_base64": None}, "image_base64", "required field is missing"),
        ({"declared_itms": ["x"]}, "declared_itms", "unknown field"),
        ({"image_url": "http://169.254.169.254/"}, "image_url", "unknown field"),
        ({"scan_id": 7}, "scan_id", "valid string"),
        ({"scan_id": ""}, "scan_id", "pattern"),
        ({"scan_id": "a/b"}, "scan_id", "pattern"),
        ({"scan_id": "../../etc/passwd"}, "scan_id", "pattern"),
        ({"scan_id": ".hidden"}, "scan_id", "pattern"),
        ({"scan_id": "a\n"}, "scan_id", "pattern"),
        ({"scan_id": "a" * 65}, "scan_id", "pattern"),
        ({"image_base64": ["x"]}, "image_base64", "valid string"),
        ({"declared_items": "knife"}, "declared_items", "list"),
        ({"declared_items": [1]}, "declared_items.0", "valid string"),
        ({"declared_items": [None]}, "declared_items.0", "valid string"),
        ({"declared_items": ["x"] * 65}, "declared_items", "64"),
        ({"declared_items": ["x" * 121]}, "declared_items.0", "120"),
        ({"declared_items": ["shirt", "  "]}, "declared_items.1", "visible characters"),
        ({"declared_items": ["a\nb"]}, "declared_items.0", "control characters"),
        ({"declared_items": ["a\u202eb"]}, "declared_items.0", "control characters"),
    ],
)
def test_a_field_that_does_not_fit_is_named(client, changes, field, message):
    body = assert_problem(client.post("/api/v1/inspect", json=make_request(**changes)), 422, "invalid_request")
    assert [error["field"] for error in body["errors"]] == [field]
    assert message in body["errors"][0]["message"]
    assert body["detail"].startswith(f"{field}: ")


def test_several_faults_are_named_at_once_and_a_flood_of_them_is_cut_short(client):
    some = assert_problem(client.post("/api/v1/inspect", json={"x": 1}), 422, "invalid_request")
    assert [error["field"] for error in some["errors"]] == ["scan_id", "image_base64", "x"]
    twenty = {**make_request(), **{f"field{n}": n for n in range(20)}}
    many = assert_problem(client.post("/api/v1/inspect", json=twenty), 422, "invalid_request")
    assert len(many["errors"]) == 10
    assert many["detail"].endswith("(and 10 more)")
    flood = assert_problem(
        client.post("/api/v1/inspect", json={f"f{n}": n for n in range(999)}), 422, "invalid_request"
    )
    assert "999 fields" in flood["detail"]


def test_a_field_name_of_the_caller_is_shown_short_and_harmless(client):
    name = "\x1b[31m" + "y" * 5000
    body = assert_problem(client.post("/api/v1/inspect", json={**make_request(), name: 1}), 422, "invalid_request")
    assert body["errors"][0]["field"].startswith("?[31myyy")
    assert len(body["errors"][0]["field"]) < 70


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null,", b"\xff\xfe", b'{"scan_id": "a"', b"[" * 100_000, b'{"scan_id": "\\ud800"}', b"NaN!"],
    ids=["empty", "cut", "comma", "not UTF-8", "no end", "deep", "half a surrogate", "word"],
)
def test_a_body_that_is_no_json_is_refused(client, content):
    response = client.post("/api/v1/inspect", content=content, headers={"Content-Type": "application/json"})
    assert_problem(response, 400, "invalid_json")


@pytest.mark.parametrize("content", [b"null", b"[]", b'"text"', b"1", b"NaN", b"true"])
def test_a_body_that_is_no_object_is_refused(client, content):
    response = client.post("/api/v1/inspect", content=content, headers={"Content-Type": "application/json"})
    body = assert_problem(response, 422, "invalid_request")
    assert body["errors"][0]["field"] == "body"


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"],
)
def test_another_content_type_is_refused_with_the_header_to_send(client, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    response = client.post("/api/v1/inspect", content=json.dumps(make_request()), headers=headers)
    body = assert_problem(response, 415, "unsupported_content_type")
    assert "application/json" in body["next_step"]


def test_json_with_a_charset_is_accepted(client):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/api/v1/inspect", content=json.dumps(make_request()), headers=headers).status_code == 200


def test_a_compressed_body_is_refused(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = client.post("/api/v1/inspect", content=zlib.compress(b"{}"), headers=headers)
    assert_problem(response, 415, "unsupported_encoding")


def test_a_body_over_the_limit_is_refused_by_its_announced_length(client):
    headers = {"Content-Type": "application/json", "Content-Length": "200001"}  # and before any of it is read
    response = client.post("/api/v1/inspect", content=b"{}", headers=headers)
    body = assert_problem(response, 413, "body_too_large")
    assert "200,000" in body["detail"]


def test_a_chunked_body_over_the_limit_is_refused_while_it_arrives(client):
    sent = 0

    def endless():
        nonlocal sent
        yield b'{"scan_id": "a", "image_base64": "'
        for _ in range(50):
            sent += 10_000
            yield b"A" * 10_000

    response = client.post("/api/v1/inspect", content=endless(), headers={"Content-Type": "application/json"})
    assert_problem(response, 413, "body_too_large")


def test_a_body_up_to_the_limit_is_read(client):
    spaces = 200_000 - len(json.dumps(make_request()))
    content = json.dumps(make_request()) + " " * spaces
    assert len(content) == 200_000
    response = client.post("/api/v1/inspect", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/api/v1/inspect/", "/api/v2/inspect", "//api/v1/inspect", "/docs/../x", "/api/v1/inspections/"],
)
def test_an_unknown_address_is_a_problem(client, path):
    assert_problem(client.get(path), 404, "not_found")


@pytest.mark.parametrize(("method", "path", "allow"), [
    ("GET", "/api/v1/inspect", "POST"), ("DELETE", "/health", "GET"), ("PUT", "/api/v1/ask", "POST"),
    ("POST", "/api/v1/inspections/TEST-001", "GET"), ("OPTIONS", "/api/v1/inspect", "POST"),
])  # fmt: skip
def test_another_method_is_a_problem_that_names_the_right_one(client, method, path, allow):
    response = client.request(method, path)
    assert_problem(response, 405, "method_not_allowed")
    assert allow in response.headers["allow"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1/inspections/never-seen", 404, "no_such_inspection"),
        ("/api/v1/inspections/%2e%2e", 422, "invalid_request"),
        ("/api/v1/inspections/a%20b", 422, "invalid_request"),
        ("/api/v1/inspections/" + "a" * 65, 422, "invalid_request"),
        ("/api/v1/inspections/a%2fb", 404, "not_found"),
    ],
)
def test_a_record_that_is_not_there_is_a_problem(client, path, status, code):
    assert_problem(client.get(path), status, code)


@pytest.mark.parametrize(
    ("question", "message"), [("", "visible"), ("\n", "visible"), ("x" * 501, "500"), (None, "missing"), (3, "string")]
)
def test_a_question_that_does_not_fit_is_refused(client, question, message):
    sent = {"scan_id": "a", "image_base64": SCAN, "question": question}
    response = client.post("/api/v1/ask", json={name: value for name, value in sent.items() if value is not None})
    assert message in assert_problem(response, 422, "invalid_request")["errors"][0]["message"]


def test_safe_headers_stand_on_every_answer(client):
    for response in (client.get("/health"), client.get("/nothing"), client.post("/api/v1/inspect", json={})):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]


def test_every_code_of_an_unreadable_image_has_its_problem():
    import re
    from pathlib import Path

    import xray_vqa.core.images

    codes = set(re.findall(r'code="(\w+)"', Path(xray_vqa.core.images.__file__).read_text()))
    assert len(codes) >= 7
    assert codes - {"missing"} <= set(PROBLEMS)


# --- fuzzing ---------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "scan_id": st.just("F-1") | json_values,
        "image_base64": st.just(SCAN) | st.binary(max_size=60).map(encode) | json_values,
        "declared_items": st.lists(st.text(max_size=8), max_size=3) | json_values,
        "extra": json_values,
    },
)
fuzzing = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_answered_or_refused(response) -> None:
    assert response.status_code < 500
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] in PROBLEMS


@fuzzing
@given(json_values | near_misses, st.sampled_from(["/api/v1/inspect", "/api/v1/ask"]))
def test_no_json_makes_the_service_fail(client, body, path):
    content = json.dumps(body).encode()
    assert_answered_or_refused(client.post(path, content=content, headers={"Content-Type": "application/json"}))


@fuzzing
@given(st.binary(max_size=200))
def test_no_bytes_make_the_service_fail(client, content):
    assert_answered_or_refused(
        client.post("/api/v1/inspect", content=content, headers={"Content-Type": "application/json"})
    )


@fuzzing
@given(st.integers(0, len(image_bytes()) - 1), st.integers(0, 255), st.integers(0, len(image_bytes())))
def test_no_damage_to_an_image_makes_the_service_fail_or_look_degraded(client, at, value, end):
    data = bytearray(image_bytes())
    data[at] = value
    response = client.post("/api/v1/inspect", json=make_request(image_base64=encode(bytes(data[:end]))))
    assert_answered_or_refused(response)
    if response.status_code == 200:
        assert response.json()["degraded"] is False
