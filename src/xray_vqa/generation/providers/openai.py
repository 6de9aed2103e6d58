"""OpenAI's models, by the Responses API and OpenAI's own SDK. Needs the extra `generate`."""

from typing import Any

import openai
from pydantic import ValidationError

from xray_vqa.config.llm import LlmSettings
from xray_vqa.config.loading import read_key
from xray_vqa.errors import ConfigError, ProviderError
from xray_vqa.generation.providers.batch_service import BatchService
from xray_vqa.generation.providers.failures import POLICY_CODES, Service
from xray_vqa.generation.providers.headers import openai_limits
from xray_vqa.generation.providers.llm import Body, LlmProvider
from xray_vqa.generation.providers.openai_batches import OpenAIBatches
from xray_vqa.generation.providers.pictures import Frame, Picture
from xray_vqa.generation.providers.prompt import PROMPT_VERSION, REPLY_SCHEMA, SYSTEM_PROMPT
from xray_vqa.generation.providers.provider import Price, Reply, Stop, Throttled, Unavailable

KEY_VARIABLE = "OPENAI_API_KEY"


class _Part(Body):
    type: str
    text: str = ""
    refusal: str = ""


class _Item(Body):
    type: str
    content: list[_Part] | None = None
    """Of a message; reasoning brings none."""


class _InputDetails(Body):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class _Usage(Body):
    input_tokens: int
    """Cached ones included."""
    input_tokens_details: _InputDetails = _InputDetails()
    output_tokens: int
    """Reasoning included."""


class _Incomplete(Body):
    reason: str | None = None


class _Error(Body):
    code: str
    message: str = ""


class _Response(Body):
    status: str
    model: str
    output: list[_Item]
    incomplete_details: _Incomplete | None = None
    error: _Error | None = None
    usage: _Usage | None = None


class OpenAIProvider(LlmProvider):
    """Asks for JSON by `text.format` in strict mode, and for nothing to be kept at the service."""

    name = "openai"
    sdk = openai
    body = _Response
    read_limits = staticmethod(openai_limits)
    frame = Frame(max_side=2048, patch=32, max_patches=1536)
    """Fits the smallest of the sizes that `detail: high` has had since patches are counted."""
    tokens_per_patch = 1.2
    most_tokens_per_patch = 2.5
    """Small models count a patch more than once (2.46 for gpt-4.1-nano)."""

    def __init__(
        self, settings: LlmSettings, *, price: Price, api_key: str | None = None, in_batches: bool = False
    ) -> None:
        super().__init__(settings, price=price, in_batches=in_batches)
        key = read_key(api_key, KEY_VARIABLE)
        if not key:
            raise ConfigError(f"the openai provider needs a key: set {KEY_VARIABLE}")
        self.service = Service("OpenAI", self.model, KEY_VARIABLE)
        self.client = self.open_client(openai.AsyncOpenAI, key)

    def batches(self) -> BatchService | None:
        return OpenAIBatches(self) if self.in_batches else None

    async def send(self, text: str, picture: Picture | None) -> Any:
        return await self.client.responses.with_raw_response.create(**self._parameters(text, picture))

    def _parameters(self, text: str, picture: Picture | None) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "input_text", "text": text}]
        if picture:
            content.insert(0, {"type": "input_image", "detail": "high", "image_url": picture.uri})
        parameters: dict[str, Any] = {
            "model": self.model,
            "instructions": SYSTEM_PROMPT,
            "input": [{"role": "user", "content": content}],
            "text": {"format": {"type": "json_schema", "name": "worded_pairs", "strict": True, "schema": REPLY_SCHEMA}},
            "max_output_tokens": self.settings.max_output_tokens,
            "prompt_cache_key": f"xray-vqa-{PROMPT_VERSION}",
            "store": False,
        }
        if self.settings.effort:
            parameters["reasoning"] = {"effort": self.settings.effort}
        return parameters

    def read(self, body: _Response) -> Reply:
        if body.error or body.status not in ("completed", "incomplete"):
            return self._read_failed(body)
        parts = [part for item in body.output if item.type == "message" for part in item.content or ()]
        refusals = [part.refusal for part in parts if part.type == "refusal"]
        reason = body.incomplete_details.reason if body.incomplete_details else None
        stop: Stop = "end"
        if refusals or reason == "content_filter":
            stop = "refusal"
        elif body.status == "incomplete":
            stop = "truncated"
        text = "".join(refusals) or "".join(part.text for part in parts if part.type == "output_text")
        return self._reply(text, stop, body)

    def _read_failed(self, body: _Response) -> Reply:
        """Sort an answer of 200 that says that nothing came of it. The work may have been billed all the same."""
        code = body.error.code if body.error else body.status
        said = f"OpenAI could not answer ({code}): {body.error.message[:300] if body.error else ''}"
        if code in POLICY_CODES:
            return self._reply(said, "refusal", body)
        if code == "rate_limit_exceeded":
            raise Throttled(said)
        if code == "server_error" or body.error is None:
            raise Unavailable(said, may_have_cost=True)
        raise ProviderError(said)

    def _reply(self, text: str, stop: Stop, body: _Response) -> Reply:
        usage = body.usage
        if usage is None:
            if stop == "refusal":
                return self.reply(text, stop, body.model)
            raise Unavailable("OpenAI did not say what the answer cost", may_have_cost=True)
        details = usage.input_tokens_details
        return self.reply(
            text,
            stop,
            body.model,
            input_tokens=max(0, usage.input_tokens - details.cached_tokens - details.cache_write_tokens),
            cache_read_tokens=details.cached_tokens,
            cache_write_tokens=details.cache_write_tokens,
            output_tokens=usage.output_tokens,
        )


class _ModelInfo(Body):
    id: str
    shutdown_date: str | None = None


class _Models(Body):
    data: list[_ModelInfo]


def describe_model(settings: LlmSettings, *, timeout_s: float) -> str:
    """Return what the service's list says of a model, with the key in the environment.

    Raises:
        ConfigError: The list does not have it.
        ProviderError, Incomplete: The list cannot be had, or not with this key.
    """
    model, service = settings.model, Service("OpenAI", settings.model, KEY_VARIABLE)
    client = openai.OpenAI(
        api_key=read_key(None, KEY_VARIABLE) or None,
        base_url=settings.base_url or None,
        timeout=timeout_s,
        max_retries=0,
    )
    with service.sorted_failures(openai), client:
        answer = client.models.with_raw_response.list()
    try:
        known = {info.id: info for info in _Models.model_validate_json(answer.http_response.content).data}
    except ValidationError as error:
        raise service.broken(error) from error
    if model not in known:
        raise ConfigError(f"OpenAI does not list the model {model!r}; it has {', '.join(sorted(known)) or 'none'}")
    shutdown = known[model].shutdown_date
    return f"{model}, listed" + (f", shut down on {shutdown}" if shutdown else "")
