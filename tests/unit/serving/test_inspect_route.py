"""What a lane gets for a scan: the decision, or a person."""

import base64
import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from service_kit import (
    CLEAN,
    KNIFE_AND_SCISSORS,
    SCAN,
    GatedEngine,
    image_bytes,
    make_request,
    metric,
    service_of,
    wait_until,
)

from xray_vqa.config.loading import load_policy
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable, ModelUnavailable
from xray_vqa.inference.engine import Answer
from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.serving.queue import EngineState

GUIDE_KEYS = [
    "scan_id", "detected_items", "risk_level", "action", "reasoning", "match_declaration", "processing_time_ms",
]  # fmt: skip


def assert_degraded(body: dict, fault: str) -> None:
    assert (body["action"], body["risk_level"], body["degraded"]) == ("manual_inspection", "high", True)
    assert body["reasons"][0] == fault
    assert body["reasoning"].startswith("The scan was not fully assessed:")
    assert body["match_declaration"] is False
    assert body["screened_for"] == []


def test_the_guides_request_gets_the_guides_answer(open_client):
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]))
    response = client.post("/api/v1/inspect", json=make_request(declared_items=["clothing", "electronics"]))
    body = response.json()
    assert response.status_code == 200
    assert list(body)[:7] == GUIDE_KEYS
    assert isinstance(body["processing_time_ms"], int)
    assert {name: body[name] for name in GUIDE_KEYS[:6]} == {
        "scan_id": "TEST-001",
        "detected_items": ["knife", "scissors"],
        "risk_level": "high",
        "action": "manual_inspection",
        "reasoning": "Two prohibited sharp items detected: knife (center-left), scissors (upper-right). "
        "Items declared (clothing, electronics) do not match detected items.",
        "match_declaration": False,
    }


def test_findings_tell_category_probability_region_and_pixels_of_the_scan_as_sent(open_client):
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]))
    scan = base64.b64encode(image_bytes((1000, 500))).decode()
    findings = client.post("/api/v1/inspect", json=make_request(image_base64=scan)).json()["findings"]
    assert findings == [
        {"category": "Knife", "probability": 0.93, "region": "center-left", "box": [50.0, 200.0, 250.0, 100.0]},
        {"category": "Scissors", "probability": 0.81, "region": "upper-right", "box": [700.0, 25.0, 250.0, 125.0]},
    ]


def test_several_items_of_one_category_are_named_once(open_client):
    twice = ScriptedReading({"Knife": 0.9}, {"Knife": [[0, 0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6]]})
    body = open_client(ScriptedEngine([twice])).post("/api/v1/inspect", json=make_request()).json()
    assert body["detected_items"] == ["knife"]
    assert len(body["findings"]) == 2


def test_a_finding_without_a_place_has_null_for_it(open_client):
    body = open_client(ScriptedEngine([ScriptedReading({"Gun": 0.9})])).post("/api/v1/inspect", json=make_request())
    assert body.json()["findings"] == [{"category": "Gun", "probability": 0.9, "region": None, "box": None}]
    assert (body.json()["action"], body.json()["risk_level"]) == ("detain", "critical")


def test_a_clean_bag_is_cleared(open_client):
    body = open_client().post("/api/v1/inspect", json=make_request()).json()
    assert (body["action"], body["risk_level"], body["degraded"]) == ("clear", "low", False)
    assert body["reasons"] == []
    assert body["detected_items"] == []
    assert body["screened_for"] == list(CATEGORIES)


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (ScriptedEngine([CLEAN], calibrated=False), "calibration_matches"),
        (ScriptedEngine([CLEAN], covered=CATEGORIES[1:]), "every_required_category_covered"),
        (ScriptedEngine([ScriptedReading(missing=("Gun",))]), "every_required_category_scored"),
        (ScriptedEngine([ScriptedReading({"Gun": float("nan")})]), "every_required_category_scored"),
    ],
    ids=["uncalibrated", "not covered", "a score is missing", "a score cannot be read"],
)
def test_a_clean_bag_is_not_cleared_by_a_model_that_cannot_vouch_for_it(open_client, engine, reason):
    body = open_client(engine).post("/api/v1/inspect", json=make_request()).json()
    assert body["action"] == "manual_inspection"
    assert body["reasons"] == [reason]
    assert body["degraded"] is False


def test_a_category_that_the_model_does_not_cover_is_not_among_those_screened_for(open_client):
    body = open_client(ScriptedEngine([CLEAN], covered=["Gun"])).post("/api/v1/inspect", json=make_request()).json()
    assert body["screened_for"] == ["Gun"]


def test_a_blank_image_is_not_cleared(open_client):
    stream = io.BytesIO()
    Image.new("RGB", (300, 200), "white").save(stream, "PNG")
    blank = base64.b64encode(stream.getvalue()).decode()
    body = open_client().post("/api/v1/inspect", json=make_request(image_base64=blank)).json()
    assert (body["action"], body["reasons"]) == ("manual_inspection", ["input_is_a_scan"])


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (RuntimeError("CUDA out of memory"), "engine_error"),
        (AnswerUnreadable("cut off", text="..."), "unreadable"),
        (ModelUnavailable("gone"), "unavailable"),
        (TimeoutError("a library's own"), "engine_error"),
    ],
)
def test_an_engine_that_fails_sends_the_bag_to_a_person_and_the_next_one_is_served(open_client, error, fault):
    client = open_client(ScriptedEngine([ScriptedReading(error=error), CLEAN]))
    response = client.post("/api/v1/inspect", json=make_request())
    assert response.status_code == 200
    assert_degraded(response.json(), fault)
    assert str(error) not in response.text
    assert client.post("/api/v1/inspect", json=make_request(scan_id="next")).json()["action"] == "clear"
    assert metric(client, f'xray_vqa_degraded_total{{reason="{fault}"}}') == 1


def test_an_engine_that_is_too_slow_is_not_waited_for_and_its_late_result_is_discarded(open_client):
    engine = GatedEngine([CLEAN])
    client = open_client(engine, timeout_s=0.4)
    response = client.post("/api/v1/inspect", json=make_request())
    assert_degraded(response.json(), "timeout")
    assert service_of(client).queue.state is EngineState.READY
    engine.gate.set()
    wait_until(lambda: metric(client, "xray_vqa_late_results_total") == 1)
    assert client.get("/api/v1/inspections/TEST-001").json()["inspection"] == response.json()


def test_a_scan_whose_time_is_up_before_the_engine_comes_to_it_is_not_computed(open_client):
    engine = GatedEngine([CLEAN])
    client = open_client(engine, timeout_s=0.4)
    for number in range(3):
        assert_degraded(client.post("/api/v1/inspect", json=make_request(scan_id=f"S{number}")).json(), "timeout")
    engine.gate.set()
    wait_until(lambda: metric(client, "xray_vqa_late_results_total") == 1)
    client.post("/api/v1/inspect", json=make_request(scan_id="later"))
    assert metric(client, "xray_vqa_expired_total") == 2
    assert engine.batches == [1, 1]


def test_a_call_that_does_not_end_makes_the_service_not_ready(open_client):
    engine = GatedEngine([CLEAN])
    client = open_client(engine, timeout_s=0.3)
    client.post("/api/v1/inspect", json=make_request())
    wait_until(lambda: client.get("/ready").status_code == 503)
    assert client.get("/ready").json()["engine"] == "stalled"
    engine.gate.set()
    wait_until(lambda: client.get("/ready").status_code == 200)


def test_when_the_line_is_full_the_next_scan_goes_to_a_person_at_once(open_client):
    engine = GatedEngine([CLEAN])
    client = open_client(engine, queue_size=2)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, "/api/v1/inspect", json=make_request(scan_id="in-work"))
        assert engine.entered.wait(10)
        waiting = [pool.submit(client.post, "/api/v1/inspect", json=make_request(scan_id=f"w{n}")) for n in range(2)]
        wait_until(lambda: metric(client, "xray_vqa_queue_depth") == 2)
        refused = client.post("/api/v1/inspect", json=make_request(scan_id="too-many"))
        engine.gate.set()
        answers = [job.result().json() for job in (first, *waiting)]
    assert refused.status_code == 200
    assert_degraded(refused.json(), "overloaded")
    assert metric(client, 'xray_vqa_degraded_total{reason="overloaded"}') == 1
    assert [(body["scan_id"], body["action"]) for body in answers] == [
        ("in-work", "clear"), ("w0", "clear"), ("w1", "clear"),
    ]  # fmt: skip


def test_waiting_scans_can_go_to_the_engine_together_and_each_gets_its_own_answer(open_client):
    engine = GatedEngine([CLEAN, *(ScriptedReading({name: 0.9}) for name in ("Gun", "Knife", "Hammer"))])
    client = open_client(engine, max_batch=2)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(client.post, "/api/v1/inspect", json=make_request(scan_id="s0"))]
        assert engine.entered.wait(10)
        for number in range(1, 4):
            jobs.append(pool.submit(client.post, "/api/v1/inspect", json=make_request(scan_id=f"s{number}")))
            wait_until(lambda number=number: metric(client, "xray_vqa_queue_depth") == number)
        engine.gate.set()
        answers = [job.result().json() for job in jobs]
    assert engine.batches == [1, 2, 1]
    assert [(body["scan_id"], body["detected_items"]) for body in answers] == [
        ("s0", []), ("s1", ["gun"]), ("s2", ["knife"]), ("s3", ["hammer"]),
    ]  # fmt: skip


def test_before_the_model_is_loaded_every_scan_goes_to_a_person(open_client):
    class SlowStart(GatedEngine):
        def start(self):
            assert self.gate.wait(20)
            return super().start()

    engine = SlowStart([CLEAN])
    client = open_client(engine, wait=False)
    assert client.get("/health").json()["status"] == "ok"
    readiness = client.get("/ready")
    assert (readiness.status_code, readiness.json()["engine"]) == (503, "loading")
    body = client.post("/api/v1/inspect", json=make_request()).json()
    assert_degraded(body, "unavailable")
    assert body["model_version"] == "none"
    engine.gate.set()
    wait_until(lambda: client.get("/ready").status_code == 200)
    assert client.post("/api/v1/inspect", json=make_request(scan_id="next")).json()["action"] == "clear"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelUnavailable("outputs/x: no weights here"), "outputs/x: no weights here"),
        (RuntimeError("secret detail"), "RuntimeError; see the log"),
    ],
)
def test_when_the_model_does_not_start_the_service_says_why_and_keeps_answering(open_client, error, told, caplog):
    client = open_client(ScriptedEngine([CLEAN], start_error=error), wait=False)
    wait_until(lambda: client.get("/ready").json()["engine"] == "failed")
    readiness = client.get("/ready")
    assert readiness.status_code == 503
    assert readiness.json()["message"] == f"the model did not start: {told}"
    assert readiness.json()["can_clear"] is False
    assert str(error) in caplog.text
    assert_degraded(client.post("/api/v1/inspect", json=make_request()).json(), "unavailable")
    assert client.get("/health").status_code == 200


def test_an_absent_and_an_empty_declaration_are_told_apart(open_client):
    client = open_client(ScriptedEngine([ScriptedReading({"Lighter": 0.9})]))
    absent = client.post("/api/v1/inspect", json=make_request(declared_items=None)).json()
    empty = client.post("/api/v1/inspect", json=make_request(scan_id="empty", declared_items=[])).json()
    assert absent["declaration"] == empty["declaration"] == []
    assert (absent["match_declaration"], empty["match_declaration"]) == (False, False)


def test_null_is_no_declaration(open_client):
    client = open_client()
    response = client.post("/api/v1/inspect", json={**make_request(), "declared_items": None})
    assert (response.status_code, response.json()["declaration"]) == (200, [])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda scan: f"data:image/jpeg;base64,{scan}",
        lambda scan: f"DATA:IMAGE/PNG;BASE64,{scan}",
        lambda scan: re.sub("(.{76})", "\\1\n", scan),
        lambda scan: re.sub("(.{76})", "\\1\r\n", scan) + "\n",
        lambda scan: f" \t{scan} ",
    ],
    ids=["data URL", "loud data URL", "lines", "Windows lines", "spaces"],
)
def test_base64_may_come_as_tools_write_it(open_client, wrap):
    assert open_client().post("/api/v1/inspect", json=make_request(image_base64=wrap(SCAN))).status_code == 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_each_known_format_is_read(open_client, kind):
    scan = base64.b64encode(image_bytes(kind=kind)).decode()
    assert open_client().post("/api/v1/inspect", json=make_request(image_base64=scan)).json()["action"] == "clear"


def test_requests_and_inspections_are_counted(open_client):
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS, CLEAN]))
    for number in range(3):
        client.post("/api/v1/inspect", json=make_request(scan_id=f"S{number}"))
    client.post("/api/v1/inspect", json={})
    client.get("/nothing/here")
    route = 'method="POST",route="/api/v1/inspect"'
    assert metric(client, f'api_requests_total{{{route},status="200"}}') == 3
    assert metric(client, f'api_requests_total{{{route},status="422"}}') == 1
    assert metric(client, f'api_request_duration_seconds_count{{{route},status="200"}}') == 3
    assert metric(client, 'api_requests_total{method="GET",route="unmatched",status="404"}') == 1
    assert metric(client, "model_inference_duration_seconds_count") == 3
    assert metric(client, 'xray_vqa_inspections_total{action="clear",risk_level="low"}') == 2
    assert metric(client, 'xray_vqa_inspections_total{action="manual_inspection",risk_level="high"}') == 1
    assert metric(client, 'xray_vqa_findings_total{category="Knife"}') == 1
    assert metric(client, "xray_vqa_requests_in_flight") == 1  # the one that reads this
    policy = f'policy_version="{load_policy().label}"'
    info = f'calibrated="true",device="none",model_version="scripted@scripted",{policy}'
    assert metric(client, f"xray_vqa_model_info{{{info}}}") == 1


def test_ready_tells_what_runs_and_what_keeps_it_from_clearing(open_client):
    client = open_client(ScriptedEngine([CLEAN], calibrated=False, covered=["Gun", "Knife"]))
    body = client.get("/ready").json()
    assert (body["ready"], body["calibrated"], body["can_clear"]) == (True, False, False)
    assert body["covered_categories"] == ["Gun", "Knife"]
    assert len(body["uncovered_categories"]) == 18
    assert (body["model_version"], body["device"], body["store"]) == ("scripted@scripted", "none", "writable")


def test_a_question_gets_the_models_words(open_client):
    client = open_client(ScriptedEngine([CLEAN], answer="Two laptops."))
    body = client.post("/api/v1/ask", json={"scan_id": "Q", "image_base64": SCAN, "question": "What is in it?"}).json()
    assert (body["scan_id"], body["answer"]) == ("Q", "Two laptops.")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AnswerUnreadable("cut", text=""), 502, "answer_unreadable"),
        (ModelUnavailable("gone"), 503, "model_unavailable"),
        (RuntimeError("secret"), 503, "model_unavailable"),
    ],
)
def test_a_question_that_fails_is_a_problem(open_client, error, status, code):
    class Mute(ScriptedEngine):
        def ask(self, images, questions, max_tokens=64):
            raise error

    client = open_client(Mute([CLEAN]))
    response = client.post("/api/v1/ask", json={"scan_id": "Q", "image_base64": SCAN, "question": "What?"})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert "secret" not in response.text
    assert client.post("/api/v1/inspect", json=make_request()).json()["action"] == "clear"


def test_a_question_waits_no_longer_than_the_limit(open_client):
    class Slow(GatedEngine):
        def ask(self, images, questions, max_tokens=64):
            assert self.gate.wait(20)
            return [[Answer("late")]]

    client = open_client(Slow([CLEAN]), timeout_s=0.4)
    response = client.post("/api/v1/ask", json={"scan_id": "Q", "image_base64": SCAN, "question": "What?"})
    assert (response.status_code, response.json()["code"]) == (504, "timeout")


def test_an_error_of_our_own_is_a_problem_without_its_text(open_client, caplog):
    client = open_client()
    service_of(client).queue.inspect = None  # nothing can be called: a defect that no code expects
    response = client.post("/api/v1/inspect", json=make_request())
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert response.json()["code"] == "internal_error"
    assert "NoneType" not in response.text
    assert "Traceback" not in response.text
    assert response.json()["request_id"] in caplog.text


def test_neither_scan_nor_declaration_nor_scan_id_reaches_the_log(open_client, caplog):
    caplog.set_level("DEBUG")
    client = open_client(ScriptedEngine([ScriptedReading(error=RuntimeError("boom")), CLEAN]))
    for _ in range(2):
        client.post("/api/v1/inspect", json=make_request(scan_id="CANARY-ID", declared_items=["canary goods"]))
    client.get("/api/v1/inspections/CANARY-ID")
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("xray_vqa"))
    assert "/api/v1/inspect" in ours
    for secret in ("CANARY-ID", "canary goods", SCAN[:40]):
        assert secret not in ours


def test_a_request_id_is_given_or_taken_over_when_it_is_harmless(open_client):
    client = open_client()
    assert client.get("/health", headers={"X-Request-ID": "lane-3.77"}).headers["x-request-id"] == "lane-3.77"
    made = client.get("/health", headers={"X-Request-ID": "a b\tc<script>"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_the_documentation_page_loads_nothing_from_elsewhere(open_client):
    client = open_client()
    page = client.get("/docs")
    references = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert "docs/swagger-ui-bundle.js" in references
    for reference in references:
        assert "//" not in reference
        if not reference.startswith("data:"):
            assert client.get(f"/{reference}").status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "http" not in client.get("/docs/start.js").text


def test_the_openapi_document_has_an_example_that_can_be_sent_as_it_stands(open_client):
    client = open_client(ScriptedEngine([KNIFE_AND_SCISSORS]))
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    response = client.post("/api/v1/inspect", json=schemas["InspectRequest"]["examples"][0])
    assert response.status_code == 200
    assert list(response.json()) == list(schemas["InspectResponse"]["examples"][0])
    asked = client.post("/api/v1/ask", json=schemas["AskRequest"]["examples"][0])
    assert asked.status_code == 200
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert references <= set(schemas)


def test_openapi_names_every_route_of_the_api(open_client):
    document = open_client().get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/health", "/ready", "/metrics", "/api/v1/inspect", "/api/v1/ask", "/api/v1/inspections", "/api/v1/figures",
        "/api/v1/declarable", "/api/v1/inspections/{scan_id}", "/api/v1/inspections/{scan_id}/image",
        "/api/v1/inspections/{scan_id}/oversight", "/api/v1/inspections/{scan_id}/override",
        "/api/v1/inspections/{scan_id}/feedback", "/api/v1/stop", "/api/v1/resume", "/api/v1/policies",
        "/api/v1/models",
    }  # fmt: skip


def test_openapi_says_what_each_address_needs_and_how_it_refuses(open_client):
    document = open_client().get("/openapi.json").json()
    stop = document["paths"]["/api/v1/stop"]["post"]
    assert "Needs the permission `stop` (supervisor)." in stop["description"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            public = path in ("/health", "/ready")
            assert ("security" in operation) != public
            assert ({"401", "403", "429"} <= set(operation["responses"])) != public


def test_importing_the_wire_needs_no_web_framework():
    code = "import sys, xray_vqa.serving.schemas; print({'fastapi', 'torch', 'sqlalchemy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_gpu_memory_is_read_only_where_torch_runs_already(open_client, monkeypatch):
    class Cuda:
        is_available = is_initialized = staticmethod(lambda: True)
        device_count = staticmethod(lambda: 1)
        mem_get_info = staticmethod(lambda device: (30, 100))

    client = open_client()
    assert "gpu_memory_usage_bytes{" not in client.get("/metrics").text
    monkeypatch.setitem(sys.modules, "torch", type("Torch", (), {"cuda": Cuda}))
    assert metric(client, 'gpu_memory_usage_bytes{device="0"}') == 70
