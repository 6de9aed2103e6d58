"""Stands in for the Hugging Face hub: the parts of its interface that reading a data set takes, and its bad days.

Two servers on this machine, as the hub and its store are two: a `resolve` address answers with the file's size and
digest and sends the client on to the store, which serves byte ranges to whoever has the signed address. By hand:

    PYTHONPATH=tests python -m stand_ins.hub       then <what it prints> python data/download_stcray.py --any-version
"""

import hashlib
import http.server
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

REPO_ID = "Naoufel555/STCray-Dataset"
COMMIT = "3c0a96b1f5e14b7c8a3f1d2e4b5a69788796a5b4"
MEMBER_TOKEN, STRANGER_TOKEN = "hf_member", "hf_stranger"
"""Of one who accepted the conditions, and of one who did not."""


@dataclass(frozen=True)
class Request:
    server: str
    """`hub` or `store`."""
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Behaviour:
    """What is served and what goes wrong; tests change it while the servers run."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = True
    repo_exists: bool = True
    xet: bool = False
    """Announce Xet storage, as the hub does for large files today."""
    failures: deque[tuple[str, int, dict[str, str]]] = field(default_factory=deque)
    """(`HEAD`, `GET` or `STORE`, status, headers): answers to the next requests of that kind, in this order."""
    cuts: deque[int] = field(default_factory=deque)
    """The next bodies of the store end after so many bytes, and the connection with them."""
    damage: bool = False
    """One byte of each body is another."""
    knows_ranges: bool = True
    bytes_per_s: float | None = None
    silent: threading.Event | None = None
    """Where set, the store sends headers and then nothing until the event."""
    requests: list[Request] = field(default_factory=list)

    def asked(self, server: str, method: str) -> list[Request]:
        return [one for one in self.requests if (one.server, one.method) == (server, method)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour
    store_url = ""

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.route()

    def do_GET(self) -> None:
        self.route()

    def route(self) -> None:
        server = "hub" if self.store_url else "store"
        self.behaviour.requests.append(Request(server, self.command, self.path, dict(self.headers)))
        kind = "STORE" if server == "store" else self.command
        failures = self.behaviour.failures
        if failures and failures[0][0] == kind:
            _, status, headers = failures.popleft()
            self.answer(status, headers)
        elif server == "store":
            self.serve()
        else:
            self.refuse() or self.inform()

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # --- the hub

    def refuse(self) -> bool:
        """Answer as a gate that is shut, where it is."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", MEMBER_TOKEN, STRANGER_TOKEN):
            self.complain(401, "", "Invalid credentials in Authorization header")
        elif not self.behaviour.repo_exists or REPO_ID not in self.path:
            self.complain(404 if token else 401, "RepoNotFound", "Repository not found")
        elif (
            self.behaviour.gated
            and token != MEMBER_TOKEN
            and ("/resolve/" in self.path or self.path.endswith("/auth-check"))
        ):
            said = "Please log in." if not token else "Visit the page to ask for access."
            self.complain(403 if token else 401, "GatedRepo", f"Access to dataset {REPO_ID} is restricted. {said}")
        else:
            return False
        return True

    def complain(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer(status, headers, json.dumps({"error": message}).encode())

    def inform(self) -> None:
        path = unquote(urlsplit(self.path).path)
        files = self.behaviour.files
        if match := re.fullmatch(rf"/datasets/{REPO_ID}/resolve/[^/]+/(.+)", path):
            self.resolve(match.group(1))
        elif path == f"/api/datasets/{REPO_ID}/auth-check":
            self.answer(200)
        elif re.fullmatch(rf"/api/datasets/{REPO_ID}(/revision/[^/]+)?", path):
            siblings = [
                {"rfilename": name, "size": len(data), "lfs": {**lfs(data), "sha256": lfs(data)["oid"]}}
                for name, data in files.items()
            ]
            self.answer_json({"id": REPO_ID, "sha": COMMIT, "gated": "auto", "private": False, "siblings": siblings})
        elif re.fullmatch(rf"/api/datasets/{REPO_ID}/tree/[^/]+/?", path):
            self.answer_json(
                [
                    {"type": "file", "oid": "0" * 40, "path": name, "size": len(data), "lfs": lfs(data)}
                    for name, data in files.items()
                ]
            )
        else:
            self.complain(404, "", "Not Found")

    def answer_json(self, value: Any) -> None:
        self.answer(200, {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}, json.dumps(value).encode())

    def resolve(self, name: str) -> None:
        data = self.behaviour.files.get(name)
        if data is None:
            self.complain(404, "EntryNotFound", "Entry not found")
            return
        digest = hashlib.sha256(data).hexdigest()
        headers = {
            "Location": f"{self.store_url}/{quote(name)}?signature=valid",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(data)),
            "X-Linked-ETag": f'"{digest}"',
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
        }
        if self.behaviour.xet:
            refresh = f"/api/datasets/{REPO_ID}/xet-read-token/{COMMIT}"
            headers |= {"X-Xet-Hash": digest, "Link": f'<http://127.0.0.1:9{refresh}>; rel="xet-auth"'}
        self.answer(302, headers)

    # --- the store

    def serve(self) -> None:
        behaviour, address = self.behaviour, urlsplit(self.path)
        data = behaviour.files.get(unquote(address.path[1:]))
        if data is None or parse_qs(address.query).get("signature") != ["valid"] or "Authorization" in self.headers:
            self.answer(400)  # the real store refuses two kinds of credentials at once
            return
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if behaviour.knows_ranges else None
        start = int(match.group(1)) if match else 0
        if start > 0 and start >= len(data):
            self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        body = data[start:]
        if behaviour.damage:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour.silent is not None:
            behaviour.silent.wait(30)
        cut = behaviour.cuts.popleft() if behaviour.cuts else None
        try:
            self.send(body if cut is None else body[:cut])
        except OSError:
            self.close_connection = True  # the client is gone
        if cut is not None:
            self.close_connection = True

    def send(self, body: bytes) -> None:
        speed = self.behaviour.bytes_per_s
        step = len(body) if speed is None else max(1, int(speed / 100))
        for at in range(0, len(body), step or 1):
            self.wfile.write(body[at : at + step])
            if speed is not None:
                time.sleep(step / speed)


def lfs(data: bytes) -> dict[str, Any]:
    return {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}


@contextmanager
def running(behaviour: Behaviour, port: int = 0) -> Iterator[str]:
    """Run hub and store, and give the hub's address, for HF_ENDPOINT."""
    store = _start(type("Store", (Handler,), {"behaviour": behaviour}))
    url = f"http://127.0.0.1:{store.server_port}"
    hub = _start(type("Hub", (Handler,), {"behaviour": behaviour, "store_url": url}), port)
    try:
        yield f"http://127.0.0.1:{hub.server_port}"
    finally:
        for server in (hub, store):
            server.shutdown()
            server.server_close()


def _start(handler: type[Handler], port: int = 0) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


if __name__ == "__main__":
    from stand_ins.stcray import archives

    with running(Behaviour(files=archives())) as endpoint:
        print(f"HF_ENDPOINT={endpoint} HF_TOKEN={MEMBER_TOKEN}", flush=True)
        threading.Event().wait()
