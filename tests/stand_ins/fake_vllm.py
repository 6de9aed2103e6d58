"""Stands in for vLLM where it is not installed: the few names that the vllm engine uses, with a real model behind them.

Like vLLM it takes a picture under a name, lets later requests leave the pixels out, and fails a request about a name
that it does not know.
"""

import sys
from collections import UserDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from stand_ins.chat_server import next_token

from xray_vqa.modeling.loading import LoadedModel


@dataclass
class FakeVllm:
    """One engine, and what was asked of it."""

    loaded: LoadedModel
    arguments: dict[str, Any] = field(default_factory=dict)
    frames: dict[str, torch.Tensor] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    dead: bool = False
    extra_image_tokens: int = 0
    """As if its processor resized the picture."""

    def install(self, monkeypatch: Any) -> None:
        """Put the modules where `import` looks first."""
        names = {
            "vllm": {},
            "vllm.engine": {},
            "vllm.engine.arg_utils": {"AsyncEngineArgs": dict},
            "vllm.v1": {},
            "vllm.v1.engine": {},
            "vllm.v1.engine.async_llm": {"AsyncLLM": SimpleNamespace(from_engine_args=self.start)},
            "vllm.sampling_params": {
                "SamplingParams": lambda **options: SimpleNamespace(**options),
                "RequestOutputKind": SimpleNamespace(FINAL_ONLY=2),
            },
        }
        for name, content in names.items():
            module = ModuleType(name)
            module.__dict__.update(content)
            module.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]
            monkeypatch.setitem(sys.modules, name, module)

    def start(self, arguments: dict[str, Any]) -> "FakeVllm":
        self.arguments = arguments
        return self

    @property
    def renderer(self) -> "FakeVllm":
        return self

    async def render_cmpl_async(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (prompt,) = prompts
        (name,) = prompt["multi_modal_uuids"]["image"]
        frame = torch.from_numpy(np.array(prompt["multi_modal_data"]["image"]))
        rows, columns = self.loaded.processor.grid_hw((frame.shape[1], frame.shape[0]))
        ids, pad = prompt["prompt_token_ids"], self.loaded.encoder.image_pad_id
        at = ids.index(pad)
        ids = [*ids[:at], *[pad] * (rows * columns + self.extra_image_tokens), *ids[at + 1 :]]
        return [{"prompt_token_ids": ids, "mm_kwargs": UserDict(image=[frame]), "mm_hashes": {"image": [name]}}]

    async def generate(self, prompt: dict[str, Any], parameters: Any, request_id: str) -> AsyncIterator[Any]:
        if self.dead:
            raise RuntimeError("EngineCore encountered an issue")
        self.requests.append(prompt)
        (name,), (pixels,) = prompt["mm_hashes"]["image"], prompt["mm_kwargs"]["image"]
        if pixels is not None:
            self.frames[name] = pixels
        ids, said = list(prompt["prompt_token_ids"]), list[int]()
        logprobs, finish = list[dict[int, Any]](), "length"
        for _ in range(parameters.max_tokens):
            scores = next_token(self.loaded, ids + said, self.frames[name])
            allowed = getattr(parameters, "allowed_token_ids", None) or range(len(scores))
            token = max(allowed, key=lambda each: float(scores[each]))
            if token in getattr(parameters, "stop_token_ids", ()):
                finish = "stop"
                break
            said.append(token)
            named = getattr(parameters, "logprob_token_ids", None) or [token]
            logprobs.append({each: SimpleNamespace(logprob=float(scores[each])) for each in named})
        text = self.loaded.encoder.tokenizer.decode(said)
        yield SimpleNamespace(outputs=[SimpleNamespace(text=text, logprobs=logprobs, finish_reason=finish)])

    def shutdown(self) -> None:
        self.frames.clear()
