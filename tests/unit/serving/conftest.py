"""The real app over a scripted engine."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from service_kit import CLEAN, GatedEngine, service_of, wait_until

from xray_vqa.config.loading import load_policy
from xray_vqa.config.serve import ServeSettings
from xray_vqa.inference.engines.scripted import ScriptedEngine
from xray_vqa.inference.inspector import Inspector
from xray_vqa.serving.app import create_app
from xray_vqa.serving.queue import EngineState


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
