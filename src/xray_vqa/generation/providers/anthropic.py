"""Claude, by the Messages API and Anthropic's own SDK. Needs the extra `generate`."""

import os
from datetime import datetime
from typing import Any

import anthropic
from pydantic import ValidationError

from xray_vqa.config.llm import LlmSettings
from xray_vqa.config.loading import read_key
from xray_vqa.errors import ConfigError
from xray_vqa.generation.providers.anthropic_batches import AnthropicBatches
from xray_vqa.generation.providers.batch_service import BatchService
from xray_vqa.generation.providers.failures import Service
from xray_vqa.generation.providers.headers import anthropic_limits
from xray_vqa.generation.providers.llm import Body, LlmProvider
from xray_vqa.generation.providers.pictures import Frame, Picture
from xray_vqa.generation.providers.prompt import REPLY_SCHEMA, SYSTEM_PROMPT
from xray_vqa.generation.providers.provider import Price, Reply, Stop

KEY_VARIABLE = "ANTHROPIC_API_KEY"


class _Block(Body):
    type: str
    text: str = ""
    """Of a text block; a thinking block has none for us."""


class _Usage(Body):
    input_tokens: int
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int
    """Thinking included."""


class _StopDetails(Body):
    category: str | None = None
    explanation: str | None = None


class _Message(Body):
    model: str
    content: list[_Block]
    stop_reason: str | None
    stop_details: _StopDetails | None = None
    usage: _Usage


_STOPS: dict[str, Stop] = {
    "refusal": "refusal",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
}


class AnthropicProvider(LlmProvider):
    """Sends the system prompt with a cache mark and asks for JSON by `output_config.format`.

    That is the one way to JSON that every current Claude has: newer ones refuse a prefilled answer, always think and
    take no forced tool. No temperature either, the SDK has no such parameter any more.
    """

    name = "anthropic"
    sdk = anthropic
    body = _Message
    read_limits = staticmethod(anthropic_limits)
    frame = Frame(max_side=1568, patch=28, max_patches=1568)
    """Fits the smaller of the two sizes that Claude models see (1568 or 2576 pixels a side)."""
    tokens_per_patch = 1.0
    most_tokens_per_patch = 1.5

    def __init__(
        self, settings: LlmSettings, *, price: Price, api_key: str | None = None, in_batches: bool = False
    ) -> None:
        super().__init__(settings, price=price, in_batches=in_batches)
        key = read_key(api_key, KEY_VARIABLE)
        if not key and not os.environ.get("ANTHROPIC_AUTH_TOKEN"):
            raise ConfigError(f"the anthropic provider needs a key: set {KEY_VARIABLE}")
        self.service = Service("Anthropic", self.model, KEY_VARIABLE)
        self.client = self.open_client(anthropic.AsyncAnthropic, key or None)

    def batches(self) -> BatchService | None:
        return AnthropicBatches(self) if self.in_batches else None

    async def send(self, text: str, picture: Picture | None) -> Any:
        return await self.client.messages.with_raw_response.create(**self._parameters(text, picture))

    def _parameters(self, text: str, picture: Picture | None) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if picture:
            source = {"type": "base64", "media_type": picture.media_type, "data": picture.data}
            # "error": a picture that is too large after all is refused, not scaled away from under its boxes.
            transformations = {"oversized_image": "error"}
            content.insert(0, {"type": "image", "source": source, "transformations": transformations})
        output: dict[str, Any] = {"format": {"type": "json_schema", "schema": REPLY_SCHEMA}}
        if self.settings.effort:
            output["effort"] = self.settings.effort
        return {
            "model": self.model,
            "max_tokens": self.settings.max_output_tokens,
            "system": [{"type": "text", "text": SYSTEM_PROMPT, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": content}],
            "output_config": output,
        }

    def read(self, body: _Message) -> Reply:
        stop: Stop = _STOPS.get(body.stop_reason or "", "end")
        text = "".join(block.text for block in body.content if block.type == "text")
        if stop == "refusal" and body.stop_details:
            text = f"{body.stop_details.category or ''}: {body.stop_details.explanation or text}".strip(": ")
        usage = body.usage
        return self.reply(
            text,
            stop,
            body.model,
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_input_tokens or 0,
            cache_write_tokens=usage.cache_creation_input_tokens or 0,
            output_tokens=usage.output_tokens,
        )


class _ModelInfo(Body):
    id: str
    lifecycle: str = ""
    retires_at: datetime | None = None


class _Models(Body):
    data: list[_ModelInfo]


def describe_model(settings: LlmSettings, *, timeout_s: float) -> str:
    """Return what the service's list says of a model, with the key in the environment.

    Raises:
        ConfigError: The list does not have it.
        ProviderError, Incomplete: The list cannot be had, or not with this key.
    """
    model, service = settings.model, Service("Anthropic", settings.model, KEY_VARIABLE)
    client = anthropic.Anthropic(
        api_key=read_key(None, KEY_VARIABLE) or None,
        base_url=settings.base_url or None,
        timeout=timeout_s,
        max_retries=0,
    )
    with service.sorted_failures(anthropic), client:
        answer = client.models.with_raw_response.list(limit=1000)
    try:
        known = {info.id: info for info in _Models.model_validate_json(answer.http_response.content).data}
    except ValidationError as error:
        raise service.broken(error) from error
    if model not in known:
        raise ConfigError(f"Anthropic does not list the model {model!r}; it has {', '.join(sorted(known)) or 'none'}")
    info = known[model]
    return f"{model}, {info.lifecycle}" + (f", retires {info.retires_at:%Y-%m-%d}" if info.retires_at else "")
