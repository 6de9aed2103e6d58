"""Nothing reaches a handler past the gate: who asks comes first, then how often, then whether they may."""

import itertools
import logging
import sqlite3
from datetime import timedelta
from urllib.parse import unquote

import pytest
from access_kit import bearer, make_key, send_many, send_raw
from service_kit import make_request, metric, service_of
from stand_ins.identity_provider import AUDIENCE, running
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect

from xray_vqa.config.serve import ServeSettings
from xray_vqa.errors import ConfigError
from xray_vqa.serving.access import identity
from xray_vqa.serving.access.key_store import KeyStore
from xray_vqa.serving.access.roles import ROUTES, Permission, Role

PUBLIC = {("GET", "/health"), ("GET", "/ready")}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", "")


def spellings(path: str) -> set[str]:
    """A path, and ways to write it that some server somewhere has taken for it."""
    last = path.rpartition("/")[2]
    return {
        path, path + "/", path + "//", "/" + path, path.replace("/", "//"), path.upper(), path.title(), "/." + path,
        "/x/.." + path, "/%2e%2e" + path, "/%2e" + path, path + "/.", path + "/..", path + "/%2e%2e/" + last,
        path.replace("/", "/%2f"), path.replace("/", "%2f"), "/" + path[1:].replace("/", "%2F"), path + "%00",
        path + "%0a", path + "%20", path + ".", path + ".json", path + ";x=1", path + "?x=/health",
        path.replace("/", "\\"), "/health/.." + path, "/health%2f.." + path, "/health;" + path, "/health?" + path,
        path + "?", path + "#", path.replace("e", "%65"), path + "/%c0%ae", "http://127.0.0.1" + path, path[1:],
        "*", "",
    }  # fmt: skip


@pytest.fixture
def closed_client(open_client, tmp_path):
    """The service with one key in its store, which nobody here holds."""
    make_key(tmp_path, Role.ADMIN)
    return open_client(rate_limit_address="1000000/minute")


def routes_of(routes) -> set[tuple[str, str]]:
    """Every method and path that an app answers."""
    found = set()
    for route in routes:
        if inner := getattr(route, "original_router", None):  # how FastAPI keeps an included router
            found |= routes_of(inner.routes)
        else:
            assert not isinstance(route, Mount), "give the mounted app its line in ROUTES, and this test its paths"
            found |= {(method, route.path) for method in route.methods}
    return found


def test_every_route_of_the_app_has_its_line_in_the_table_and_every_line_its_route(closed_client):
    assert routes_of(closed_client.app.routes) == set(ROUTES)
    assert {route for route, needed in ROUTES.items() if needed is None} == PUBLIC


def test_without_credentials_no_route_method_or_spelling_of_one_reaches_a_handler(closed_client):
    paths = {path.replace("{scan_id}", "TEST-001") for _, path in ROUTES} | {"/", "/redoc", "/admin", "/docs/x", "/api"}
    asked = set(itertools.product(METHODS, set().union(*map(spellings, paths))))
    answers = send_many(
        closed_client, [(method, path) for method, path in asked if (method, path.partition("?")[0]) not in PUBLIC]
    )
    assert len(answers) > 5000
    assert {status for status, _ in answers.values()} == {401}
    assert {headers["www-authenticate"] for _, headers in answers.values()} == {'Bearer realm="xray-vqa"'}


def test_only_the_two_public_addresses_answer_without_credentials(closed_client):
    assert {path: send_raw(closed_client, "GET", path)[0] for _, path in PUBLIC} == {"/health": 200, "/ready": 200}
    assert send_raw(closed_client, "GET", "/health?x=1")[0] == 200


def test_with_credentials_an_odd_spelling_is_nothing_and_another_method_is_named(open_client, tmp_path):
    headers = bearer(make_key(tmp_path, Role.SUPERVISOR, lanes=None))
    client = open_client()
    known = {path.replace("{scan_id}", "TEST-001") for _, path in ROUTES}
    odd = {path for path in set().union(*map(spellings, known)) if unquote(path.partition("?")[0]) not in known}
    answers = send_many(client, [("GET", path) for path in odd], headers)
    assert {status for status, _ in answers.values()} <= {404, 405, 422}
    assert send_raw(client, "GET", "/%68ealth", headers)[0] == 404
    status, found = send_raw(client, "PUT", "/api/v1/inspect", headers)
    assert (status, found["allow"]) == (405, "POST")
    status, found = send_raw(client, "HEAD", "/health", headers)
    assert (status, found["allow"]) == (405, "GET")


def test_a_websocket_is_closed_before_it_opens(closed_client, open_client, tmp_path):
    key = make_key(tmp_path, Role.SUPERVISOR)
    for headers in ({}, bearer(key)):
        with pytest.raises(WebSocketDisconnect), closed_client.websocket_connect("/api/v1/inspect", headers=headers):
            pass


EXPECTED = {
    ("GET", "/metrics"): {Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN},
    ("GET", "/docs"): set(Role),
    ("GET", "/docs/start.js"): set(Role),
    ("GET", "/docs/swagger-ui-bundle.js"): set(Role),
    ("GET", "/docs/swagger-ui.css"): set(Role),
    ("GET", "/openapi.json"): set(Role),
    ("POST", "/api/v1/inspect"): {Role.LANE, Role.OFFICER, Role.SUPERVISOR},
    ("POST", "/api/v1/ask"): {Role.OFFICER, Role.SUPERVISOR},
    ("GET", "/api/v1/inspections"): {Role.OFFICER, Role.SUPERVISOR, Role.AUDITOR},
    ("GET", "/api/v1/inspections/{scan_id}/image"): {Role.OFFICER, Role.SUPERVISOR, Role.AUDITOR},
    ("GET", "/api/v1/figures"): {Role.OFFICER, Role.SUPERVISOR, Role.AUDITOR},
    ("GET", "/api/v1/declarable"): set(Role),
    ("GET", "/api/v1/inspections/{scan_id}"): {Role.OFFICER, Role.SUPERVISOR, Role.AUDITOR},
    ("GET", "/api/v1/inspections/{scan_id}/oversight"): {Role.OFFICER, Role.SUPERVISOR, Role.AUDITOR},
    ("POST", "/api/v1/inspections/{scan_id}/override"): {Role.SUPERVISOR},
    ("POST", "/api/v1/inspections/{scan_id}/feedback"): {Role.OFFICER, Role.SUPERVISOR},
    ("GET", "/api/v1/stop"): set(Role),
    ("POST", "/api/v1/stop"): {Role.SUPERVISOR},
    ("POST", "/api/v1/resume"): {Role.SUPERVISOR},
    ("GET", "/api/v1/policies"): set(Role),
    ("GET", "/api/v1/models"): set(Role),
}


def test_each_role_reaches_what_it_may_and_nothing_else_by_key_and_by_token(open_client, tmp_path):
    assert set(EXPECTED) == set(ROUTES) - PUBLIC
    with running() as provider:
        keys = {role: make_key(tmp_path, role) for role in Role}
        client = open_client(oidc_issuer=provider.issuer, oidc_audience=AUDIENCE)
        for role in Role:
            for credentials in (keys[role], provider.token(roles=[role.value])):
                reached = set()
                for method, path in EXPECTED:
                    named = path.replace("{scan_id}", "never-seen")
                    answer = client.request(method, named, headers=bearer(credentials))
                    if answer.status_code != 403:
                        assert answer.status_code in (200, 404, 415, 422), (role, path, answer.text)
                        reached.add((method, path))
                        continue
                    assert answer.json()["code"] == "forbidden"
                    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
                assert reached == {route for route, roles in EXPECTED.items() if role in roles}


def test_a_scope_narrows_a_key(open_client, tmp_path):
    key = make_key(tmp_path, Role.AUDITOR, scopes=[Permission.METRICS])
    client = open_client()
    assert client.get("/metrics", headers=bearer(key)).status_code == 200
    assert client.get("/docs", headers=bearer(key)).status_code == 403
    assert client.get("/api/v1/inspections/x", headers=bearer(key)).status_code == 403


def test_a_refused_request_is_answered_before_its_body_is_read(open_client, tmp_path):
    key = make_key(tmp_path, Role.AUDITOR)
    client = open_client(max_body_bytes=2000)
    big = {"content-length": "999999999", "expect": "100-continue"}
    assert send_raw(client, "POST", "/api/v1/inspect", big)[0] == 401
    assert send_raw(client, "POST", "/api/v1/inspect", {**big, **bearer("x")})[0] == 401
    assert send_raw(client, "POST", "/api/v1/inspect", {**big, **bearer(key)})[0] == 403


@pytest.mark.parametrize(
    "authorization",
    [
        "", "Bearer", "Bearer ", "Bearer  x", "Basic eHZxYTp4", "Token {key}", "{key}", "Bearer {key}x",
        "Bearer x{key}", "Bearer {KEY}", "Bearer {key} {key}", "Bearer {key},x", "Bearer {other}", "Bearer xvqa_{id}_",
        "Bearer xvqa__",
        "Bearer xvqa_{id}_" + "0" * 64, "Bearer " + "a" * 20_000, "Bearer a.b.c", "Digest username=x", "Bearer null",
    ],
)  # fmt: skip
def test_what_is_no_valid_key_is_refused_and_does_not_say_why(open_client, tmp_path, authorization):
    key = make_key(tmp_path, Role.OFFICER)
    client = open_client()
    other = key[:-1] + ("0" if key[-1] != "0" else "1")
    sent = authorization.format(key=key, KEY=key.upper(), other=other, id=key.split("_")[1])
    answer = client.get("/docs", headers={"Authorization": sent})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")
    assert answer.json()["detail"] == "the key or token is not known here, has expired or was revoked"
    assert answer.headers["www-authenticate"] == 'Bearer realm="xray-vqa", error="invalid_token"'
    assert key[-20:] not in answer.text


def test_two_authorization_headers_are_refused_even_if_both_are_right(open_client, tmp_path):
    key = f"Bearer {make_key(tmp_path, Role.OFFICER)}"
    answer = open_client().get("/docs", headers=[("Authorization", key), ("Authorization", key)])
    assert answer.status_code == 401


def test_a_key_in_the_address_opens_nothing(open_client, tmp_path):
    key = make_key(tmp_path, Role.OFFICER)
    answer = open_client().get(f"/docs?key={key}&access_token={key}&api_key={key}", headers={"X-API-Key": key})
    assert answer.status_code == 401


def test_an_expired_key_opens_nothing(open_client, tmp_path):
    key = make_key(tmp_path, Role.OFFICER, lasts=timedelta(0))
    assert open_client().get("/docs", headers=bearer(key)).status_code == 401


class Clock:
    """Seconds that a test can add to the clock by which keys are read again."""

    def __init__(self, monkeypatch) -> None:
        import time

        self.ahead_s = 0.0
        self.time = time
        monkeypatch.setattr(identity, "time", self)

    def monotonic(self) -> float:
        return self.time.monotonic() + self.ahead_s


def test_a_revoked_key_opens_nothing_after_five_seconds_and_a_rotated_one_until_its_overlap_ends(
    open_client, tmp_path, monkeypatch
):
    clock = Clock(monkeypatch)
    keys = {name: make_key(tmp_path, Role.OFFICER) for name in ("revoked", "rotated", "kept")}
    client = open_client()
    store = KeyStore(service_of(client).store)

    def statuses():
        return [client.get("/docs", headers=bearer(key)).status_code for key in keys.values()]

    assert statuses() == [200, 200, 200]
    store.revoke(keys["revoked"].split("_")[1], "lost")
    _, new = store.rotate(keys["rotated"].split("_")[1], lasts=timedelta(days=1), overlap=timedelta(hours=1))
    clock.ahead_s += identity.READ_AGAIN_AFTER_S + 0.1
    assert statuses() == [401, 200, 200]
    assert client.get("/docs", headers=bearer(new)).status_code == 200
    store.rotate(keys["kept"].split("_")[1], lasts=timedelta(days=1), overlap=timedelta(0))
    clock.ahead_s += identity.READ_AGAIN_AFTER_S + 0.1
    assert statuses() == [401, 200, 401]


def test_a_new_key_counts_at_once_and_invented_ones_do_not_make_us_read_each_time(open_client, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    make_key(tmp_path, Role.ADMIN)
    client = open_client()
    reads = []
    read = identity.KeyRing._look

    async def counted(self):
        reads.append(1)
        await read(self)

    monkeypatch.setattr(identity.KeyRing, "_look", counted)
    clock.ahead_s += 2
    assert client.get("/docs", headers=bearer(make_key(tmp_path, Role.OFFICER))).status_code == 200
    clock.ahead_s += 0.5
    reads.clear()
    for number in range(20):
        assert client.get("/docs", headers=bearer(f"xvqa_{number:012x}_{'0' * 64}")).status_code == 401
    assert len(reads) <= 1


# --- lanes -----------------------------------------------------------------------------------------------------------


def test_a_key_speaks_for_its_own_lanes_alone(open_client, tmp_path):
    one, two = make_key(tmp_path, Role.LANE, lanes=["L1"]), make_key(tmp_path, Role.LANE, lanes=["L1", "L2"])
    every = make_key(tmp_path, Role.OFFICER, lanes=None)
    client = open_client()

    def ask(key, lane=None):
        headers = bearer(key) | ({"X-Lane": lane} if lane is not None else {})
        answer = client.post("/api/v1/inspect", json=make_request(), headers=headers)
        return answer.status_code, answer.json().get("code")

    assert ask(one) == ask(one, "L1") == ask(two, "L2") == ask(every) == ask(every, "any-9") == (200, None)
    assert ask(one, "L2") == ask(two, "L3") == (403, "forbidden")
    assert ask(two) == (422, "invalid_request")
    for odd in ("", " ", "a b", "../x", "L" * 65, "L1,L2", "é"):
        assert ask(every, odd.encode()) == (422, "invalid_request")


# --- running open ----------------------------------------------------------------------------------------------------


def test_without_a_key_this_machine_may_do_everything_and_that_is_said(open_client, caplog):
    with caplog.at_level(logging.WARNING):
        client = open_client()
    assert "RUNNING OPEN" in caplog.text
    assert client.post("/api/v1/inspect", json=make_request()).status_code == 200
    assert client.get("/metrics").status_code == 200


FOREIGN = [
    {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Host": "localhost.evil.example"},
    {"Host": "10.0.0.1"}, {"Host": ""}, {"Host": "localhost."}, {"Host": "localhost:80:80"}, {"Host": "localhost:x"},
    {"Host": "[::2]"}, {"Host": "user@localhost"}, {"Host": "0.0.0.0"}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": "http://127.0.0.1:3000"}, {"Origin": "http://[::1"},
    {"Origin": "file://127.0.0.1"}, {"Origin": ""}, {"Origin": "http://127.0.0.1.evil.example"},
    {"X-Forwarded-For": "1.2.3.4"}, {"X-Forwarded-Host": "localhost"}, {"Forwarded": "for=1.2.3.4"},
    {"X-Real-IP": "1.2.3.4"}, {"Via": "1.1 proxy"}, {"X-Forwarded-Proto": "https"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_server_for_its_own_machine_refuses_proxies_and_foreign_pages(open_client, headers):
    client = open_client()
    for method, path in (*PUBLIC, ("GET", "/docs"), ("POST", "/api/v1/inspect"), ("GET", "/nothing")):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_request")


@pytest.mark.parametrize(
    "headers",
    [{"Host": host} for host in ("localhost", "localhost:8080", "LOCALHOST", "127.0.0.1:9", "127.1.2.3", "[::1]:8080")]
    + [{"Host": "localhost:8080", "Origin": "http://localhost:8080"}],
    ids=str,
)
def test_the_names_of_this_machine_are_answered(open_client, headers):
    assert open_client().get("/docs", headers=headers).status_code == 200


def test_the_first_key_closes_a_server_that_ran_open(open_client, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    client = open_client()
    assert client.get("/docs").status_code == 200
    key = make_key(tmp_path, Role.OFFICER)
    clock.ahead_s += identity.READ_AGAIN_AFTER_S + 0.1
    assert client.get("/docs").status_code == 401
    assert client.get("/docs", headers=bearer(key)).status_code == 200


def test_a_store_that_is_taken_away_opens_no_closed_server(open_client, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    key = make_key(tmp_path, Role.OFFICER)
    client = open_client()
    for file in tmp_path.glob("audit.sqlite3*"):
        file.unlink()
    clock.ahead_s += identity.READ_AGAIN_AFTER_S + 0.1
    assert client.get("/docs").status_code == 401
    assert client.get("/docs", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(
    "settings", [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "10.0.0.5"}, {"profile": "production"},
                 {"trusted_proxies": "127.0.0.1"}],
    ids=str,
)  # fmt: skip
def test_nothing_but_a_trial_on_this_machine_runs_open(open_client, caplog, settings):
    client = open_client(**settings)
    assert "NOBODY GETS IN" in caplog.text
    for method, path in set(ROUTES) - PUBLIC:
        assert client.request(method, path).status_code == 401
    assert client.get("/health").status_code == 200


def test_production_starts_with_a_key_or_with_sign_in_and_not_without(tmp_path):
    keys = {"a": None}

    def start(keys, **settings) -> None:
        settings = ServeSettings(profile="production", database_url=f"sqlite:///{tmp_path}/x.sqlite3", **settings)
        identity.Identity(settings, lambda: keys).check_start()

    start(keys)
    start({}, oidc_issuer="https://id.example", oidc_audience=AUDIENCE)
    with pytest.raises(ConfigError, match=r"without keys or sign-in: make a key \(xray-vqa keys create"):
        start({})


def test_a_server_with_sign_in_never_runs_open(open_client):
    client = open_client(oidc_issuer="https://id.example", oidc_audience=AUDIENCE)
    assert client.get("/docs").status_code == 401


def test_behind_a_proxy_that_is_named_foreign_hosts_are_answered(open_client, tmp_path):
    key = make_key(tmp_path, Role.OFFICER)
    client = open_client(trusted_proxies="127.0.0.1")
    headers = bearer(key) | {"Host": "screening.example", "X-Forwarded-For": "10.1.2.3"}
    assert client.get("/docs", headers=headers).status_code == 200


# --- the store away --------------------------------------------------------------------------------------------------


def test_while_the_store_is_away_the_last_keys_hold(open_client, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    key = make_key(tmp_path, Role.OFFICER)
    client = open_client()
    service_of(client).store.close()
    clock.ahead_s += identity.READ_AGAIN_AFTER_S + 0.1
    assert client.get("/docs", headers=bearer(key)).status_code == 200
    assert client.get("/docs").status_code == 401


def test_where_the_keys_were_never_read_nobody_gets_in_and_it_still_lives(open_client, tmp_path):
    path = tmp_path / "text.sqlite3"
    path.write_text("this is no database" * 99)
    client = open_client(database_url=f"sqlite:///{path}")
    answer = client.get("/docs")
    assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
    assert answer.headers["retry-after"]
    assert client.get("/health").status_code == 200


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_key_that_asks_too_often_waits_and_no_other_does(open_client, tmp_path):
    eager, calm = make_key(tmp_path, Role.OFFICER), make_key(tmp_path, Role.OFFICER)
    client = open_client(rate_limit_key="5/minute")
    statuses = [client.get("/openapi.json", headers=bearer(eager)).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    answer = client.get("/openapi.json", headers=bearer(eager))
    assert (answer.headers["content-type"], answer.json()["code"]) == ("application/problem+json", "too_often")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert client.get("/openapi.json", headers=bearer(calm)).status_code == 200


def test_guessing_is_bounded_by_address_and_locks_no_valid_key_out(open_client, tmp_path):
    key = make_key(tmp_path, Role.OFFICER)
    client = open_client(rate_limit_address="5/minute", host="10.0.0.5")
    guesses = [client.get("/docs", headers=bearer("x")).status_code for _ in range(7)]
    assert guesses == [401] * 5 + [429] * 2
    assert client.get("/health").status_code == 429
    assert client.get("/docs", headers=bearer(key)).status_code == 200


# --- what is told and what is not ------------------------------------------------------------------------------------


def test_no_secret_is_logged_counted_or_stored(open_client, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    key, lost = make_key(tmp_path, Role.SUPERVISOR), make_key(tmp_path, Role.SUPERVISOR)
    client = open_client()
    KeyStore(service_of(client).store).revoke(lost.split("_")[1], "lost")
    wrong = key[:-4] + "beef"
    for credentials in (key, lost, wrong, "canary-in-a-token.e30.e30"):
        for path in ("/docs", "/nothing", "/api/v1/inspections/x"):
            client.get(path, headers=bearer(credentials))
        client.post("/api/v1/inspect", json={"x": credentials}, headers=bearer(credentials))
    scraped = client.get("/metrics", headers=bearer(key)).text
    for secret in (key.split("_")[2], lost.split("_")[2], wrong.split("_")[2], "canary-in-a-token"):
        assert secret not in caplog.text
        assert secret not in scraped
        for file in tmp_path.glob("audit.sqlite3*"):
            assert secret.encode() not in file.read_bytes()
    assert metric(client, "x") == 0.0
    assert 'xray_vqa_access_refused_total{code="invalid_credentials"}' in scraped


def test_what_happened_to_keys_is_on_record(open_client, tmp_path):
    key_id = make_key(tmp_path, Role.LANE).split("_")[1]
    client = open_client()
    KeyStore(service_of(client).store).revoke(key_id, "laptop lost")
    connection = sqlite3.connect(tmp_path / "audit.sqlite3")
    bodies = [body for (body,) in connection.execute("SELECT body FROM records WHERE kind = 'api_key'")]
    connection.close()
    assert len(bodies) == 2
    assert key_id in bodies[0]
    assert "laptop lost" in bodies[1]
