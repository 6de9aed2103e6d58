"""`xray-vqa benchmark --url` against real servers on loopback: the service over a script, and one that stalls."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image
from test_serve import Server, until

from xray_vqa.evaluation.operational.load import LoadClient, ScanSource, arrivals_s
from xray_vqa.evaluation.operational.load_results import summarise_load
from xray_vqa.evaluation.operational.server_load import LoadSettings, benchmark_server
from xray_vqa.simulation.packing import sample_scene
from xray_vqa.simulation.simulate import simulate


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Simulated bags: what does not look like a scan is cleared by no policy."""
    found = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(found):
        scan = simulate(sample_scene(number, size_wh=(252, 196)), "sixray-white-like")
        Image.fromarray(scan.image).save(path)
    return found


@pytest.fixture
def serve(tmp_path: Path):
    servers = []

    def start(script: list[dict], *words: str, **variables: str) -> Server:
        (tmp_path / "script.json").write_text(json.dumps(script))
        servers.append(Server(tmp_path, "--engine", "scripted", "--model", "script.json", *words, **variables))
        until(lambda: servers[-1].client.get("/ready").status_code == 200)
        return servers[-1]

    yield start
    for server in servers:
        server.client.close()
        server.process.kill()
        server.process.wait()


def test_a_light_load_is_stationary_and_no_scan_id_comes_twice(serve, scans, tmp_path):
    server = serve([{}])
    settings = LoadSettings(server.url, rates_per_s=(5.0,), closed=(2,), duration_s=3.0, poisson=False, max_requests=40)
    results = asyncio.run(benchmark_server(settings, scans)).results
    light, closed = results.points
    assert light.num_succeeded == light.num_sent == 15
    assert light.stationary, light.notes
    assert light.actions == {"clear": 15}
    assert closed.num_sent == 25  # what --max-requests left
    assert "limit of 40 requests" in results.notes[0]
    connection = sqlite3.connect(tmp_path / "outputs/audit.sqlite3")
    ids = [row[0] for row in connection.execute("SELECT scan_id FROM records WHERE kind = 'result'").fetchall()]
    connection.close()
    assert len(set(ids)) == len(ids) == 40 + results.num_warm_up
    assert all(name.startswith(f"bench-{results.run_id}-") for name in ids)


def test_a_rate_above_capacity_is_told_and_degraded_answers_are_no_successes(serve, scans):
    server = serve([{"delay_s": 0.1}], "--queue-size", "2")
    settings = LoadSettings(server.url, rates_per_s=(40.0,), duration_s=3.0)
    (point,) = asyncio.run(benchmark_server(settings, scans)).results.points
    turned_away = point.num_degraded + point.num_refused  # by a degraded answer, or by 503
    assert turned_away > point.num_sent / 2
    assert point.num_succeeded == point.num_sent - turned_away == point.latency.n
    assert point.throughput_per_s <= 10.5  # the script's own rate; the fast refusals would make it 40
    assert point.latency.p50_ms.value >= 100
    assert not point.stationary
    assert "arrival rate above capacity" in point.notes[0]


async def local_server(answer) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/api/v1/inspect", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


GOOD = {"action": "clear", "degraded": False, "reasons": []}


def test_a_stall_shows_in_what_was_due_meanwhile_and_hides_from_a_client_that_waits(scans):
    async def measure(*, is_open: bool):
        served, lock = 0, asyncio.Lock()

        async def answer(_):
            nonlocal served
            async with lock:
                served += 1
                if served == 10:
                    await asyncio.sleep(1.5)
            return web.json_response(GOOD)

        runner, url = await local_server(answer)
        async with LoadClient(url, ScanSource(scans)) as client:
            if is_open:
                record = await client.open_loop(arrivals_s(50, 2, poisson=False), 100)
            else:
                record = await client.closed_loop(1, 60.0, 100)
        await runner.cleanup()
        return summarise_load(record, 50, "constant" if is_open else "on answer")

    due, waiting = asyncio.run(measure(is_open=True)), asyncio.run(measure(is_open=False))
    assert due.num_succeeded == waiting.num_succeeded == 100
    assert due.latency.p50_ms.value > 200  # most requests were due during the stall
    assert due.latency.p95_ms.value > 1000
    assert waiting.latency.p95_ms.value < due.latency.p95_ms.value / 2


def test_refusals_and_unreadable_answers_are_counted_apart(scans):
    async def measure():
        replies = iter(
            [(200, json.dumps(GOOD)), (503, '{"code": "overloaded"}')] * 5
            + [(200, "<html>"), (413, '{"code": "body_too_large"}')]
        )

        async def answer(_):
            status, text = next(replies)
            return web.Response(status=status, text=text)

        runner, url = await local_server(answer)
        async with LoadClient(url, ScanSource(scans)) as client:
            record = await client.closed_loop(1, 60.0, 12)
        await runner.cleanup()
        return summarise_load(record, 1, "on answer")

    point = asyncio.run(measure())
    assert (point.num_succeeded, point.num_refused, point.num_failed, point.num_degraded) == (5, 5, 2, 0)
    assert point.statuses == {"200": 6, "413": 1, "503": 5}
    assert point.errors == {"answer_unreadable": 1, "body_too_large": 1, "overloaded": 5}


def start_benchmark(server: Server, tmp_path: Path) -> subprocess.Popen[str]:
    from test_evaluate import write_pairs, write_scans

    from xray_vqa.core.manifest import make_manifest, write_manifest

    root = tmp_path / "data"
    write_pairs(tmp_path / "val.jsonl", root, "test", write_scans(root, "test", 4, seed=1))
    write_manifest(root, make_manifest("synth", annotated_categories=["Knife"]))
    command = [sys.executable, "-m", "xray_vqa", "benchmark", "--url", server.url, "--rate", "10", "--duration", "120"]
    return subprocess.Popen(
        [*command, "--test-file", "val.jsonl", "--output", "load.json"],
        cwd=tmp_path, env=os.environ, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_ctrl_c_writes_what_was_measured_and_exits_with_130(serve, scans, tmp_path):
    server = serve([{}])
    process = start_benchmark(server, tmp_path)
    until(lambda: inspections(server) > 15)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "what was measured until then" in told
    results = json.loads((tmp_path / "load.json").read_text())
    assert results["interrupted"]
    assert 5 < results["points"][0]["num_succeeded"] < 1200
    assert (tmp_path / "load_latency.png").stat().st_size > 5000


def test_ctrl_c_before_the_load_ends_without_results(serve, tmp_path):
    server = serve([{"delay_s": 1.5}])
    process = start_benchmark(server, tmp_path)
    until(lambda: inspections(server) > 0)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "begins anew" in told
    assert not (tmp_path / "load.json").exists()


def inspections(server: Server) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("xray_vqa_inspections_total{"))
