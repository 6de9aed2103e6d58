"""What scoring a bag costs through vLLM on this GPU, beside writing an answer.

    python benchmarks/vllm_scoring.py --model DIR --json vllm_scoring.json [--ways prepared,json64] [--single 30]

One file that imports vLLM (0.26 or later) alone, so that it runs on a host that has nothing else. The model's folder
needs configuration, tokenizer and processor and no weights: they are random numbers, which take as long. Every time
begins with the bytes of a JPEG of 768x768 px and ends with what a decision needs; each bag is another picture.

Ways to score 20 categories, all with the prompts that the models of xray-vqa are trained in:

    at_once      20 requests, sent together, each with the picture
    behind       one request, then 19 that find the picture's tokens in the prefix cache; each prepares it again
    prepared     the same, but the picture is prepared once and its 19 further requests name it
    prepared_at_once   prepared once, 20 requests sent together

Ways that no model of ours is trained in, for comparison:

    codes        one request that writes yes or no 20 times; each answer sees those before it
    pass         one pass over 20 questions behind each other, by the log-probabilities of the prompt
    json64, json16     one request that writes 64 or 16 tokens of an answer in JSON
"""

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")  # needs a compiler or a package that is not everywhere
os.environ.setdefault("VLLM_USE_DEEP_GEMM", "0")

import numpy as np
from PIL import Image

SYSTEM = (
    "You are an X-ray screening assistant. You see one dual-energy scan of a bag; orange is organic, green is mixed, "
    "blue is metal. After the image comes a category with a colon: answer yes if such an item is in the bag, else no. "
    "A category with a box mark: give the place of each such item. Otherwise answer the question in a few words."
)
CATEGORIES = (
    "Explosive", "Gun", "3D Gun", "Knife", "Cutter", "Blade", "Shaving Razor", "Lighter", "Injection", "Battery",
    "Nail Cutter", "Other Sharp Item", "Powerbank", "Scissors", "Hammer", "Pliers", "Wrench", "Screwdriver",
    "Handcuffs", "Bullet",
)  # fmt: skip
PREFIX = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
"""As `xray_vqa.core.prompts` has them (a test compares); vLLM puts the image's tokens in the place of its one."""
PROBES = tuple(f"{category}:" for category in CATEGORIES)
QUESTION = "Declared items: clothing, electronics. Inspect.<|im_end|>\n<|im_start|>assistant\n"

SCHEMA = {
    "type": "object",
    "properties": {
        "detected_items": {"type": "array", "items": {"enum": [category.lower() for category in CATEGORIES]}},
        "risk_level": {"enum": ["low", "medium", "high", "critical"]},
        "action": {"enum": ["clear", "manual_inspection", "detain"]},
        "match_declaration": {"type": "boolean"},
        "reasoning": {"type": "string"},
    },
    "required": ["detected_items", "risk_level", "action", "match_declaration", "reasoning"],
    "additionalProperties": False,
}
SIDE = 768
FACTOR = 28
"""Pixels a side of one visual token of Qwen2.5-VL; a picture whose sides are multiples is not resized again."""


class Clocks:
    """Watches the GPU's clocks and power while something runs."""

    _FIELDS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "utilization.gpu")

    def __init__(self) -> None:
        self.samples: list[list[float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            values = _smi(",".join(self._FIELDS)).split(", ")
            try:
                self.samples.append([float(value) for value in values])
            except ValueError:  # no GPU, or one that does not tell
                return

    def end(self) -> dict[str, float]:
        """Return the medians of what was seen."""
        self._ended.set()
        self._thread.join()
        columns = zip(*self.samples, strict=True)
        return {name: statistics.median(column) for name, column in zip(self._FIELDS, columns, strict=False)}


def _smi(fields: str) -> str:
    try:
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def picture(seed: int) -> bytes:
    """Return a JPEG that looks no more like another than scans do: soft blobs and a little noise."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    noisy = np.asarray(soft, dtype=np.int16) + rng.integers(-12, 13, (SIDE, SIDE, 3), dtype=np.int16)
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def frame_of(data: bytes) -> Image.Image:
    """Return a picture decoded and in the size that the model sees."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = round(SIDE / FACTOR) * FACTOR
    return image.resize((side, side), Image.Resampling.BICUBIC)


class Scoring:
    """The ways to get an answer about one picture out of one engine."""

    def __init__(self, engine: Any) -> None:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # pyright: ignore[reportMissingImports]

        self.engine = engine
        tokenizer = engine.get_tokenizer()

        def ids(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        (yes,), (no,) = ids(" yes"), ids(" no")
        self.answers = (yes, no)
        self.prefix, self.probes, self.question = ids(PREFIX), [ids(probe) for probe in PROBES], ids(QUESTION)
        common: dict[str, Any] = {
            "temperature": 0.0,
            "detokenize": False,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        self.probe_params = SamplingParams(
            max_tokens=1, logprob_token_ids=[yes, no], allowed_token_ids=[yes, no], **common
        )
        count = len(CATEGORIES)
        self.codes_params = SamplingParams(
            max_tokens=count, min_tokens=count, logprobs=2, allowed_token_ids=[yes, no], **common
        )
        self.pass_params = SamplingParams(max_tokens=1, prompt_logprobs=1, **common)
        self.serial = [token for probe in self.probes for token in (*probe, yes)]
        grammar = StructuredOutputsParams(json=SCHEMA)
        self.json_params = {
            # Structured outputs read text; with random weights they never come to an end by themselves.
            length: SamplingParams(
                **{**common, "detokenize": True}, max_tokens=length, min_tokens=length, ignore_eos=True
            )
            for length in (64, 16)
        }
        self.schema_params = SamplingParams(**{**common, "detokenize": True}, max_tokens=64, structured_outputs=grammar)
        self.ways: dict[str, Callable[[Image.Image], Awaitable[Any]]] = {
            "at_once": self.at_once,
            "behind": self.behind,
            "prepared": self.prepared,
            "prepared_at_once": self.prepared_at_once,
            "codes": lambda image: self.ask(self.prompt(image, self.probes[0]), self.codes_params),
            "pass": lambda image: self.ask(self.prompt(image, self.serial), self.pass_params),
            "json64": lambda image: self.ask(self.prompt(image, self.question), self.json_params[64]),
            "json16": lambda image: self.ask(self.prompt(image, self.question), self.json_params[16]),
            "json64_schema": lambda image: self.ask(self.prompt(image, self.question), self.schema_params),
        }

    def prompt(self, image: Image.Image, tail: list[int], name: str | None = None) -> dict[str, Any]:
        prompt: dict[str, Any] = {"prompt_token_ids": self.prefix + tail, "multi_modal_data": {"image": image}}
        if name:
            prompt["multi_modal_uuids"] = {"image": [name]}
        return prompt

    async def ask(self, prompt: Any, params: Any) -> Any:
        last = None
        async for output in self.engine.generate(prompt, params, uuid.uuid4().hex):
            last = output
        assert last is not None
        return last

    async def probe(self, prompt: Any) -> float:
        """Return the probability of yes beside no."""
        output = (await self.ask(prompt, self.probe_params)).outputs[0]
        yes, no = (np.exp(output.logprobs[0][token].logprob) for token in self.answers)
        return float(yes / (yes + no))

    async def at_once(self, image: Image.Image) -> list[float]:
        return await asyncio.gather(*(self.probe(self.prompt(image, probe)) for probe in self.probes))

    async def behind(self, image: Image.Image) -> list[float]:
        first = await self.probe(self.prompt(image, self.probes[0]))
        return [first, *await asyncio.gather(*(self.probe(self.prompt(image, p)) for p in self.probes[1:]))]

    async def prepared(self, image: Image.Image) -> list[float]:
        first, *others = await self.rendered(image)
        score = await self.probe(first)
        return [score, *await asyncio.gather(*map(self.probe, others))]

    async def prepared_at_once(self, image: Image.Image) -> list[float]:
        return await asyncio.gather(*map(self.probe, await self.rendered(image)))

    async def rendered(self, image: Image.Image) -> list[Any]:
        """Return the requests of one picture, which is prepared and sent with the first one alone.

        The name that it gets is used for this inspection and never again: no other scan can find anything under it.
        """
        name = uuid.uuid4().hex
        (first,) = await self.engine.renderer.render_cmpl_async([self.prompt(image, self.probes[0], name)])
        body = first["prompt_token_ids"][: -len(self.probes[0])]
        known = type(first["mm_kwargs"])({kind: [None] * len(items) for kind, items in first["mm_kwargs"].items()})
        others = [{**first, "prompt_token_ids": body + probe, "mm_kwargs": known} for probe in self.probes[1:]]
        return [first, *others]


async def measure(scoring: Scoring, way: str, at_once: int, count: int, seed: int) -> dict[str, Any]:
    """Return latency and throughput of one way with some bags at once."""
    bags = [picture(seed + number) for number in range(count)]
    turns = asyncio.Semaphore(at_once)
    latencies: list[float] = []

    async def inspect(data: bytes) -> None:
        async with turns:
            started = time.perf_counter()
            await scoring.ways[way](await asyncio.to_thread(frame_of, data))
            latencies.append((time.perf_counter() - started) * 1000)

    clocks = Clocks()
    started = time.perf_counter()
    await asyncio.gather(*map(inspect, bags))
    seconds = time.perf_counter() - started
    return {
        "way": way,
        "bags_at_once": at_once,
        "bags": count,
        "p50_ms": round(statistics.median(latencies), 1),
        "p95_ms": round(float(np.percentile(latencies, 95)), 1),
        "images_s": round(count / seconds, 2),
        "gpu": clocks.end(),
    }


def engine_of(args: argparse.Namespace) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs  # pyright: ignore[reportMissingImports]
    from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]

    options: dict[str, Any] = {
        "model": args.model,
        "load_format": args.load_format,
        "dtype": args.dtype,
        "max_model_len": 4096,
        "max_num_seqs": args.max_num_seqs,
        "max_num_batched_tokens": args.batched_tokens,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "enable_prefix_caching": True,
        "mm_processor_cache_gb": 4,
        "generation_config": "vllm",
        "gpu_memory_utilization": args.gpu_memory_utilization,
        "disable_log_stats": True,
        "seed": 0,
    }
    if args.eager:
        options["enforce_eager"] = True
    if args.fp8:
        options["quantization"] = "fp8"
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**options))


async def run(args: argparse.Namespace) -> None:
    started = time.perf_counter()
    engine = engine_of(args)
    results: dict[str, Any] = {
        "conditions": {
            "gpu": _smi("name") or "none",
            "gpu_max_clock_sm_mhz": _smi("clocks.max.sm"),
            "driver": _smi("driver_version"),
            "precision": "fp8" if args.fp8 else args.dtype,
            "image": f"JPEG of {SIDE}x{SIDE} px, decoded and resized within the times",
            "categories": len(CATEGORIES),
            "weights": "random" if args.load_format == "dummy" else "as stored",
            "vllm": importlib.metadata.version(args.package),
            "torch": importlib.metadata.version("torch"),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "engine_start_s": round(time.perf_counter() - started, 1),
        },
        "rows": [],
    }
    try:
        scoring = Scoring(engine)
        ways = args.ways.split(",") if args.ways else list(scoring.ways)
        for number, way in enumerate(ways):  # compiles, captures, fills caches
            await measure(scoring, way, 1, 2, seed=10_000 + 10 * number)
        probabilities = [await scoring.ways[way](frame_of(picture(7))) for way in ("behind", "prepared")]
        difference = float(np.abs(np.subtract(*probabilities)).max())
        results["largest_difference_between_behind_and_prepared"] = difference
        for number, way in enumerate(ways):
            for at_once in (1, 8, 32):
                count = args.single if at_once == 1 else args.rounds * at_once
                row = await measure(scoring, way, at_once, count, seed=100_000 * (number + 1) + 1_000 * at_once)
                results["rows"].append(row)
                print(json.dumps(row), flush=True)
                args.json.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        engine.shutdown()
    print(json.dumps(results["conditions"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="folder with config.json, tokenizer and processor")
    add("--json", type=Path, required=True, help="where the figures go, row by row")
    add("--ways", help="comma-separated; by default all")
    add("--single", type=int, default=30, help="bags of a row with one at once")
    add("--rounds", type=int, default=4, help="a row with N at once has N times as many bags")
    add("--load-format", default="dummy", help="`auto` reads weights")
    add("--dtype", default="bfloat16")
    add("--fp8", action="store_true", help="weights quantised while loading")
    add("--eager", action="store_true", help="neither compiled nor captured; starts sooner")
    add("--max-num-seqs", type=int, default=256)
    add("--batched-tokens", type=int, default=8192)
    add("--gpu-memory-utilization", type=float, default=0.85)
    add("--package", default="vllm", help="the distribution's name, for its version")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
