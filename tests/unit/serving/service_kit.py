"""Scans, requests and engines for the tests of the service; the client itself is a fixture in conftest.py."""

import base64
import io
import threading
import time
from collections.abc import Callable

from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from xray_vqa.inference.engines.scripted import ScriptedEngine, ScriptedReading
from xray_vqa.serving.service import InspectionService

CLEAN = ScriptedReading()
KNIFE_AND_SCISSORS = ScriptedReading(
    {"Knife": 0.93, "Scissors": 0.81}, {"Knife": [[0.05, 0.4, 0.3, 0.6]], "Scissors": [[0.7, 0.05, 0.95, 0.3]]}
)


def image_bytes(size_wh: tuple[int, int] = (300, 200), kind: str = "JPEG") -> bytes:
    """A bag: an orange block and a blue bar on white."""
    image = Image.new("RGB", size_wh, "white")
    pen = ImageDraw.Draw(image)
    width, height = size_wh
    pen.rectangle((width * 0.1, height * 0.1, width * 0.9, height * 0.9), fill="#f0a040")
    pen.rectangle((width * 0.3, height * 0.4, width * 0.6, height * 0.5), fill="#3060c0")
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


SCAN = base64.b64encode(image_bytes()).decode()


def make_request(**changes) -> dict:
    """A request that is fine, but for what is changed; None leaves a field out."""
    body = {"scan_id": "TEST-001", "image_base64": SCAN, "declared_items": ["clothing"], **changes}
    return {name: value for name, value in body.items() if value is not None}


class GatedEngine(ScriptedEngine):
    """A scripted engine whose calls wait until the test opens the gate; `entered` says that one waits."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gate, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def read(self, images, categories, place_from):
        self.batches.append(len(images))
        self.entered.set()
        assert self.gate.wait(20)
        return super().read(images, categories, place_from)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def service_of(client: TestClient) -> InspectionService:
    return client.app.state.service


def metric(client: TestClient, line: str) -> float:
    """The value of one metric, by its name with labels; 0 where it was never counted."""
    for text in client.get("/metrics").text.splitlines():
        name, _, value = text.rpartition(" ")
        if name == line:
            return float(value)
    return 0.0
