"""Any server that speaks Chat Completions: vLLM, SGLang, Ollama, LM Studio, a proxy. Needs the extra `generate`."""

from typing import Any

import openai

from xray_vqa.config.llm import LlmSettings
from xray_vqa.config.loading import read_key
from xray_vqa.errors import ConfigError
from xray_vqa.generation.providers.failures import Service
from xray_vqa.generation.providers.headers import openai_limits
from xray_vqa.generation.providers.llm import Body, LlmProvider
from xray_vqa.generation.providers.pictures import Frame, Picture
from xray_vqa.generation.providers.prompt import REPLY_SCHEMA, SYSTEM_PROMPT
from xray_vqa.generation.providers.provider import Price, Reply, Stop, Unavailable

KEY_VARIABLE = "OPENAI_COMPATIBLE_API_KEY"
"""A variable of its own: OPENAI_API_KEY is not sent to somebody else's server."""


class _Answer(Body):
    content: str | None = None
    refusal: str | None = None


class _Choice(Body):
    message: _Answer
    finish_reason: str | None = None


class _PromptDetails(Body):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Usage(Body):
    prompt_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens: int = 0


class _Completion(Body):
    model: str = ""
    choices: list[_Choice]
    usage: _Usage | None = None


_STOPS: dict[str, Stop] = {"length": "truncated", "content_filter": "refusal"}


class _Free:
    """What a server of one's own charges."""

    def usd(
        self, *, input_tokens: int, cache_read_tokens: int = 0, cache_write_tokens: int = 0, output_tokens: int = 0
    ) -> float:
        return 0.0


class OpenAICompatibleProvider(LlmProvider):
    """Asks for JSON by `response_format`, the one way that all of these servers have.

    Without a price it counts as free: no question before the start, no pause between calls.
    """

    name = "openai_compatible"
    sdk = openai
    body = _Completion
    read_limits = staticmethod(openai_limits)
    frame = Frame(max_side=1568, patch=28, max_patches=1568)
    """Qwen's patches; well below what its processor scales down on its own."""
    tokens_per_patch = 1.0
    most_tokens_per_patch = 2.5

    def __init__(self, settings: LlmSettings, *, price: Price | None = None, api_key: str | None = None) -> None:
        super().__init__(settings, price=price or _Free())
        if not settings.base_url:
            raise ConfigError(
                "the openai_compatible provider needs the address of a server: set base_url in configs/llm.yaml, "
                "for instance http://localhost:8000/v1"
            )
        self.paid = price is not None
        self.service = Service(f"the server at {settings.base_url}", self.model, KEY_VARIABLE)
        # The SDK insists on some key; servers without keys look at none.
        self.client = self.open_client(openai.AsyncOpenAI, read_key(api_key, KEY_VARIABLE) or "none")

    async def send(self, text: str, picture: Picture | None) -> Any:
        return await self.client.chat.completions.with_raw_response.create(**self._parameters(text, picture))

    def _parameters(self, text: str, picture: Picture | None) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if picture:
            content.insert(0, {"type": "image_url", "image_url": {"url": picture.uri, "detail": "high"}})
        parameters: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": content}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "worded_pairs", "strict": True, "schema": REPLY_SCHEMA},
            },
            # Its successor max_completion_tokens is not known to all of these servers.
            "max_tokens": self.settings.max_output_tokens,
        }
        if self.settings.effort:
            parameters["reasoning_effort"] = self.settings.effort
        return parameters

    def read(self, body: _Completion) -> Reply:
        if not body.choices:
            raise self.service.broken(ValueError("it has no choices"))
        choice = body.choices[0]
        refusal = choice.message.refusal or ""
        stop: Stop = "refusal" if refusal else _STOPS.get(choice.finish_reason or "", "end")
        if body.usage is None and self.paid:
            raise Unavailable("the server did not say what the answer cost", may_have_cost=True)
        usage = body.usage or _Usage()
        details = usage.prompt_tokens_details or _PromptDetails()
        read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
        return self.reply(
            refusal or choice.message.content or "",
            stop,
            body.model or self.model,
            input_tokens=max(0, usage.prompt_tokens - read - written),
            cache_read_tokens=read,
            cache_write_tokens=written,
            output_tokens=usage.completion_tokens,
        )
