"""How long one waits: for the package, for `--help`, for a server's first answer, for one inspection with nano.

    python benchmarks/start_up.py [--json FILE]

Prints medians with a calibration loop's time beside them: the machine's cores may be shared. Wants idle cores.
"""

import argparse
import base64
import io
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from measuring import calibration_loop_ms, conditions, publish
from PIL import Image

SIZE_WH = (504, 392)


def seconds(*command: str, times: int = 5) -> float:
    """Return the median time of a command as a whole process."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def request_body() -> bytes:
    from xray_vqa.simulation.packing import sample_scene
    from xray_vqa.simulation.simulate import simulate

    scan = simulate(sample_scene(5, size_wh=SIZE_WH), "sixray-white-like").image
    stream = io.BytesIO()
    Image.fromarray(np.asarray(scan)).save(stream, "JPEG", quality=92)
    image = base64.b64encode(stream.getvalue()).decode()
    return json.dumps({"scan_id": "BENCH-1", "image_base64": image, "declared_items": ["clothing"]}).encode()


def post(url: str, body: bytes) -> dict:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def measure_server(times: int = 30) -> dict[str, float]:
    """Return the time from start to the first true answer, and the latency of the following ones."""
    body = request_body()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "xray_vqa", "serve", "--model", "nano", "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        first = None
        while first is None and time.perf_counter() - started < 120:
            try:
                if not post(f"http://127.0.0.1:{port}/api/v1/inspect", body)["degraded"]:
                    first = time.perf_counter() - started
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        latencies = []
        for _ in range(times):
            at = time.perf_counter()
            assert not post(f"http://127.0.0.1:{port}/api/v1/inspect", body)["degraded"]
            latencies.append((time.perf_counter() - at) * 1000)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    if first is None:
        sys.exit("error: no true answer within 120 s")
    return {
        "server_start_to_first_answer_s": round(first, 2),
        "inspection_p50_ms": round(statistics.median(latencies), 1),
        "inspection_max_ms": round(max(latencies), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    path = parser.parse_args().json
    bare = seconds(sys.executable, "-c", "pass")
    figures = {
        "import_xray_vqa_s": round(seconds(sys.executable, "-c", "import xray_vqa") - bare, 3),
        "help_s": round(seconds(sys.executable, "-m", "xray_vqa", "--help"), 3),
        **measure_server(),
        "calibration_loop_ms": calibration_loop_ms(),
        "conditions": conditions(
            "torch", image=f"{SIZE_WH[0]}x{SIZE_WH[1]} JPEG over HTTP on loopback, nano, one scan at a time"
        ),
    }
    publish(figures, path)


if __name__ == "__main__":
    main()
