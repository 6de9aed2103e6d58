"""Stands in for a site's identity provider: its discovery document, its public keys, tokens, and its bad days."""

import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "xray-vqa"


class IdentityProvider:
    """One issuer on this machine. Tests change its keys and documents while it runs."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.keys: dict[str, Any] = {}
        self.published: list[dict] = []
        self.discovery: dict = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        self.requests: list[str] = []
        self.is_away = False
        self.add_key("first")

    def add_key(self, key_id: str, algorithm: str = "RS256", *, publish: bool = True) -> None:
        if algorithm.startswith("ES"):
            self.keys[key_id] = ec.generate_private_key(ec.SECP256R1())
            public = jwt.algorithms.ECAlgorithm.to_jwk(self.keys[key_id].public_key(), as_dict=True)
        else:
            self.keys[key_id] = _rsa_key(key_id)
            public = jwt.algorithms.RSAAlgorithm.to_jwk(self.keys[key_id].public_key(), as_dict=True)
        if publish:
            self.published.append({**public, "kid": key_id, "use": "sig", "alg": algorithm})

    def claims(self, **changes) -> dict:
        """The claims of an officer's token that holds; None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": "officer-7", "iat": now, "exp": now + 300, "roles": ["officer"],
            **changes,
        }  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key_id: str = "first", algorithm: str = "RS256", headers: dict | None = None, **changes) -> str:
        headers = {"kid": key_id, **(headers or {})}
        return jwt.encode(self.claims(**changes), self.keys[key_id], algorithm, headers)

    def answer(self, path: str) -> tuple[int, bytes]:
        self.requests.append(path)
        if self.is_away:
            return 503, b"away"
        if path == "/keys":
            return 200, json.dumps({"keys": self.published}).encode()
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(self.discovery).encode()
        return 404, b"{}"


@functools.cache
def _rsa_key(key_id: str) -> rsa.RSAPrivateKey:
    """One key for each id in a session: making one takes longer than a test."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@contextmanager
def running() -> Iterator[IdentityProvider]:
    """A provider on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = provider.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = IdentityProvider(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
