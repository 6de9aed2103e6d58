"""Latency and throughput of inspections with the 7B's shape on a GPU: scored, placed and decided, from JPEG bytes on.

    python benchmarks/inspect_latency.py --output benchmarks/results/inspect_latency.json
    python benchmarks/inspect_latency.py --shape tiny --device cpu --rounds 3     # tries the script, measures nothing

The weights are random numbers, so the script says which categories count as found and lets a branch end behind its
first box. Each inspection runs the way of the server without HTTP and audit: bytes, decoder, queue, engine, policy.
"""

import argparse
import asyncio
import io
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import calibration_loop_ms, conditions, publish
from PIL import Image
from train_throughput import make_model
from transformers import AutoTokenizer

from xray_vqa.config.loading import load_policy
from xray_vqa.core.images import decode_image
from xray_vqa.core.inspection import Scan
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.inference import engine as engine_module
from xray_vqa.inference.engine import Reading
from xray_vqa.inference.engines.transformers import TransformersEngine
from xray_vqa.inference.inspector import Inspector
from xray_vqa.modeling import serving as serving_module
from xray_vqa.modeling.attention import use_segment_attention
from xray_vqa.modeling.branch_rows import decoder_of
from xray_vqa.modeling.chat import PromptEncoder
from xray_vqa.modeling.loading import NANO_DIR, LoadedModel
from xray_vqa.modeling.patches import use_patch_products
from xray_vqa.modeling.precision import Precision
from xray_vqa.modeling.processor import Processor
from xray_vqa.modeling.registry import QWEN2_5_VL
from xray_vqa.modeling.serving import serving_decoder
from xray_vqa.serving.metrics import Metrics
from xray_vqa.serving.queue import EngineQueue, EngineState

FOUND = {"clean": (), "two findings": ("Gun", "Knife")}
DECODERS = 8
"""Threads that open images, as many as a server with this GPU would have."""


class Forced(TransformersEngine):
    """An engine that places what it is told to, whatever the random weights say."""

    found: Sequence[str] = ()

    def read(
        self, images: Sequence[Image.Image], categories: Sequence[str], place_from: Mapping[str, float]
    ) -> list[Reading]:
        return super().read(images, categories, dict.fromkeys(self.found, 0.0))

    def close(self) -> None:
        """The engine goes on to the next row."""


def picture(side: int, seed: int) -> bytes:
    """Return a JPEG of noisy shapes, as large as a scan of its size is."""
    generator = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 245.0)
    for _ in range(60):
        x, y = generator.integers(0, side - 40, 2)
        width, height = generator.integers(20, side // 3, 2)
        pixels[y : y + height, x : x + width] *= generator.uniform(0.5, 1.0, 3)
    stream = io.BytesIO()
    noisy = (pixels + generator.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def random_model(shape: str, device: str, tokenizer: Path) -> LoadedModel:
    model = make_model(shape, device).unload().eval()
    encoder = PromptEncoder(AutoTokenizer.from_pretrained(tokenizer))
    model.config.image_token_id = encoder.image_pad_id
    use_patch_products(model)
    use_segment_attention(model)
    encoder.box_open_id = encoder.box_close_id  # a branch ends behind its first box
    return LoadedModel(
        model=model,
        encoder=encoder,
        processor=Processor(max_pixels=1280 * 28 * 28),
        spec=QWEN2_5_VL,
        name="random weights",
        model_digest="random",
        adapter_digest="",
        precision=Precision("bf16", "as served"),
        covered_categories=CATEGORIES,
        weights_dir=Path("nowhere"),
    )


async def inspect(queue: EngineQueue, decoders: ThreadPoolExecutor, data: bytes) -> tuple[float, dict[str, float]]:
    """Return the milliseconds of one inspection and of its parts."""
    started = time.perf_counter()
    with queue.coming():
        image = await asyncio.get_running_loop().run_in_executor(decoders, decode_image, data)
        decoded = time.perf_counter()
        waiting = asyncio.ensure_future(queue.inspect(Scan("bench", image), 120.0))
        await asyncio.sleep(0)  # it is in the line now
    inspection = await waiting
    if inspection.engine_faults:
        raise RuntimeError(f"an inspection failed: {inspection.engine_faults}")
    parts = {"decode": (decoded - started) * 1000, **inspection.timings_ms}
    return (time.perf_counter() - started) * 1000, parts


async def measure(engine: Forced, found: Sequence[str], side: int, rounds: int) -> dict[str, Any]:
    engine.found = found
    inspector = Inspector(engine, load_policy(None))
    pictures = [picture(side, seed) for seed in range(8)]
    figures: dict[str, Any] = {}
    with ThreadPoolExecutor(DECODERS) as decoders:
        queue = EngineQueue(inspector, Metrics(), size=128, max_batch=16)
        queue.start()
        while queue.state is EngineState.LOADING:
            await asyncio.sleep(0.05)
        if queue.state is not EngineState.READY:
            raise RuntimeError(queue.message)

        async def client(count: int, offset: int) -> list[tuple[float, dict[str, float]]]:
            return [await inspect(queue, decoders, pictures[(offset + k) % 8]) for k in range(count)]

        await client(5, 0)
        alone = await client(rounds, 0)
        times = sorted(time_ms for time_ms, _ in alone)
        figures["p50_ms"] = round(statistics.median(times), 1)
        figures["p95_ms"] = round(times[min(len(times) - 1, int(0.95 * len(times)))], 1)
        figures["p50_ms_of"] = {
            name: round(statistics.median(parts[name] for _, parts in alone), 1) for name in alone[0][1]
        }
        for clients in (8, 32):
            each = max(2, 3 * rounds // clients)
            await asyncio.gather(*(client(each, k) for k in range(clients)))  # records what comes again
            started = time.perf_counter()
            await asyncio.gather(*(client(each, k) for k in range(clients)))
            figures[f"images_per_s_at_{clients}"] = round(each * clients / (time.perf_counter() - started), 1)
        await asyncio.to_thread(queue.close, 30.0)
    return figures


def gpu() -> dict[str, str]:
    """Return the GPU's name and clocks as its driver tells them."""
    fields = "name,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,driver_version"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(fields.split(","), told, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokenizer", type=Path, default=NANO_DIR, help="folder with the 7B's own tokenizer")
    parser.add_argument("--sides", type=int, nargs="+", default=[768], help="of the square scans, in pixels")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp8"], choices=("eager", "bf16", "fp8"))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    engine_module.MIN_ANSWER_MASS = 0.0  # random weights give yes and no next to nothing
    serving_module.MAX_SHIFT = serving_module.MEAN_SHIFT = 1.0  # and turn any rounding into another answer
    loaded = random_model(args.shape, args.device, args.tokenizer)
    rows: list[dict[str, Any]] = []
    for precision in args.precisions:  # fp8 comes last: it changes the weights
        started = time.perf_counter()
        decoder = decoder_of(loaded) if precision == "eager" else serving_decoder(loaded, fp8=precision == "fp8")
        engine = Forced.of(decoder)
        with torch.inference_mode():
            engine.start()
        start_s = round(time.perf_counter() - started, 1)
        for side in args.sides:
            for kind, found in FOUND.items():
                figures = asyncio.run(measure(engine, found, side, args.rounds))
                rows.append({"precision": precision, "side": side, "scan": kind, **figures})
                print(rows[-1], flush=True)
        memory = torch.cuda.max_memory_allocated() / 2**30 if args.device == "cuda" else None
        rows.append({"precision": precision, "start_s": start_s, "gpu_memory_gib": memory and round(memory, 1)})
        print(rows[-1], flush=True)
    publish(
        {
            "rows": rows,
            "gpu": gpu(),
            "calibration_loop_ms": calibration_loop_ms(),
            "categories": len(CATEGORIES),
            **conditions("torch", "transformers", "pillow"),
        },
        args.output,
    )


if __name__ == "__main__":
    main()
