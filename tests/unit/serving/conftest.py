"""The real app over a scripted engine."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from service_kit import CLEAN, GatedEngine, service_of, wait_until
from store_kit import OpenStore, give_to_a_person

from xray_vqa.config.loading import load_policy
from xray_vqa.config.serve import ServeSettings
from xray_vqa.inference.engines.scripted import ScriptedEngine
from xray_vqa.inference.inspector import Inspector
from xray_vqa.serving.app import create_app
from xray_vqa.serving.queue import EngineState
from xray_vqa.serving.store.audit import AuditStore


@pytest.fixture
def open_client(tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Makes clients of apps of their own: `open_client(engine, wait=True, **settings)`."""
    with contextlib.ExitStack() as stack:

        def make(engine: ScriptedEngine | None = None, *, wait: bool = True, **settings) -> TestClient:
            values = {"database_url": f"sqlite:///{tmp_path}/audit.sqlite3", "drain_s": 5.0, **settings}
            inspector = Inspector(engine or ScriptedEngine([CLEAN]), load_policy())
            app = create_app(ServeSettings(**values), inspector)
            client = stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))
            if isinstance(engine, GatedEngine):
                stack.callback(engine.gate.set)  # runs before the app is closed, which waits for the engine
            if wait:
                wait_until(lambda: service_of(client).queue.state is EngineState.READY)
            return client

        yield make


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., AuditStore]]:
    """Opens stores, several of one address too: `open_store(url, key_path=..., anchors=...)`."""
    with contextlib.ExitStack() as stack:

        def make(url: str, **settings) -> AuditStore:
            values = {"key_path": tmp_path / "audit.key", "anchors": f"{tmp_path}/anchors.jsonl", **settings}
            store = AuditStore(url, give_to_a_person, **values)
            stack.callback(store.close)
            store.check().result(20)
            return store

        yield make


@pytest.fixture
def store(store_url: str, open_store: Callable[..., AuditStore]) -> OpenStore:
    """An empty store, on SQLite and on PostgreSQL."""
    return OpenStore(store_url, open_store(store_url))
