"""Keys for the tests of access, and requests as bytes: what no client library would send."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

from fastapi import FastAPI
from fastapi.testclient import TestClient

from xray_vqa.serving.access.key_store import KeyStore
from xray_vqa.serving.access.roles import Permission, Role
from xray_vqa.serving.store.audit import AuditStore


def make_key(
    folder: Path, role: Role, *, lanes=("L1",), scopes: list[Permission] | None = None, lasts=timedelta(days=1)
) -> str:
    """A new key in the store that the fixture `open_client` uses."""
    store = AuditStore(f"sqlite:///{folder}/audit.sqlite3")
    try:
        return KeyStore(store).make("a test", role, lanes=lanes, scopes=scopes, lasts=lasts)[1]
    finally:
        store.close()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def send_raw(
    client: TestClient, method: str, raw_path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str]]:
    """Send a request with exactly this path; its body fails the test when it is read. Returns status and headers."""
    return send_many(client, [(method, raw_path)], headers)[method, raw_path]


def send_many(
    client: TestClient, requests: Iterable[tuple[str, str]], headers: dict[str, str] | None = None
) -> dict[tuple[str, str], tuple[int, dict[str, str]]]:
    """Send a request for each method and path; returns what `send_raw` does by them."""

    async def receive() -> dict:
        raise AssertionError("the body was read")

    async def call(app: FastAPI, method: str, raw_path: str) -> tuple[int, dict[str, str]]:
        sent: list[dict] = []

        async def send(message) -> None:
            sent.append(message)

        named = {"host": "127.0.0.1", "content-type": "application/json", "content-length": "9", **(headers or {})}
        path, _, query = raw_path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip
        await app(scope, receive, send)
        return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}

    async def call_each(app: FastAPI):
        return {one: await call(app, *one) for one in requests}

    assert client.portal is not None
    return client.portal.call(call_each, client.app)
