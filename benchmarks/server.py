"""The real inspection server as a process of its own, to be timed and weighed."""

import base64
import io
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SIZE_WH = (504, 392)
START_LIMIT_S = 120


def simulated_jpeg() -> bytes:
    """Return one simulated scan as JPEG."""
    from xray_vqa.simulation.packing import sample_scene
    from xray_vqa.simulation.simulate import simulate

    scan = simulate(sample_scene(5, size_wh=SIZE_WH), "sixray-white-like").image
    stream = io.BytesIO()
    Image.fromarray(scan).save(stream, "JPEG", quality=92)
    return stream.getvalue()


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    process_id: int
    url: str
    first_answer_s: float
    """From the start of the process to the first answer that the model gave."""

    def timed_ms(self, image: bytes) -> float:
        """Return how long one inspection of an image file takes over HTTP; the model has to succeed."""
        started = time.perf_counter()
        answer = _inspect(self.url, image)
        assert not answer["degraded"], answer
        assert not answer["replayed"], answer
        return (time.perf_counter() - started) * 1000

    def memory_mib(self) -> dict[str, float]:
        """Return resident memory of the process now and at its highest, as Linux counts it."""
        lines = Path(f"/proc/{self.process_id}/status").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, rest in (line.split(":", 1) for line in lines) if name in _MEMORY}
        return {_MEMORY[name]: round(kib[name] / 1024, 1) for name in _MEMORY}


_MEMORY = {"VmRSS": "resident_mib", "VmHWM": "peak_mib"}


@contextmanager
def running_server(model: str = "nano", *options: str) -> Iterator[Server]:
    """Start a server on a free port of this machine, with an audit store of its own, and stop that very process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, image = f"http://127.0.0.1:{port}/api/v1/inspect", simulated_jpeg()
    with tempfile.TemporaryDirectory() as folder:
        store = ("--database-url", f"sqlite:///{folder}/audit.sqlite3")
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "xray_vqa", "serve", "--model", model, "--port", str(port), *store, *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not _answers(url, image):
                if process.poll() is not None or time.perf_counter() - started > START_LIMIT_S:
                    sys.exit(f"error: no answer from the server within {START_LIMIT_S} s (exit {process.poll()})")
                time.sleep(0.05)
            yield Server(process.pid, url, time.perf_counter() - started)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _answers(url: str, image: bytes) -> bool:
    try:
        return not _inspect(url, image)["degraded"]
    except (urllib.error.URLError, ConnectionError):
        return False


def _inspect(url: str, image: bytes) -> dict:
    """A name of its own for each: a scan that is sent again gets the answer that was recorded, without a model."""
    encoded = base64.b64encode(image).decode()
    asked = {"scan_id": uuid.uuid4().hex, "image_base64": encoded, "declared_items": ["clothing"]}
    body = json.dumps(asked).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
