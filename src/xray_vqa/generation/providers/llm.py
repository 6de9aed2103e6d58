"""What all language models have in common: one prompt, one frame, one way to count money."""

import asyncio
import hashlib
import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from xray_vqa.config.llm import LlmSettings
from xray_vqa.errors import XrayVqaError
from xray_vqa.generation.providers.batch_service import BatchPrice, BatchResult, BatchService
from xray_vqa.generation.providers.failures import Refused, Service
from xray_vqa.generation.providers.pictures import Frame, Picture, open_picture
from xray_vqa.generation.providers.prompt import PROMPT_VERSION, REPLY_SCHEMA, SYSTEM_PROMPT, write_prompt
from xray_vqa.generation.providers.provider import Limits, Price, Reply, Request, Stop, Unavailable

logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line for each request, tens of thousands of them

CHARS_PER_TOKEN = 3.3
"""Of English and JSON together, for the estimate; the newer tokenizers cut finer than the four of old."""

TOKENS_PER_PAIR, TOKENS_PER_REPLY = 60, 150
"""Written for a pair (JSON and evidence) and around all pairs (a little thinking), for the estimate: on the high side,
and not measured on a live service."""

ESTIMATED_FROM = 500
"""Requests whose prompts are written for an estimate; more change it by less than the rest of it is sure."""


class Body(BaseModel):
    """Base of what we read out of a service's answer: only what we need, for it grows new keys at any time."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LlmProvider(ABC):
    """A provider that shows scan and facts to a language model.

    Args:
        settings: Model, address, timeout and caps.
        price: Of that model.
        in_batches: Whether all goes by batches, at their price; then nothing is sent singly.
    """

    name: ClassVar[str]
    frame: ClassVar[Frame]
    """The largest image that none of the service's models scales down."""
    sdk: ClassVar[Any]
    """The vendor's package."""
    body: ClassVar[type[Body]]
    """What we read out of its answers."""
    service: Service
    client: Any
    """Of the SDK, its retries off: the caller retries, who knows budget and pace."""
    most_tokens_per_patch: ClassVar[float]
    """Upper bound over the service's models of what one patch is billed as."""
    tokens_per_patch: ClassVar[float]
    generated_by = "llm"
    prompt_version = PROMPT_VERSION
    paid = True
    listens = True

    def __init__(self, settings: LlmSettings, *, price: Price, in_batches: bool = False) -> None:
        self.settings, self.in_batches = settings, in_batches
        self.price: Price = BatchPrice(price) if in_batches else price
        self.model, self.concurrency = settings.model, settings.concurrency
        self.limits = Limits()

    def parameters(self) -> dict[str, str | int | float]:
        return {
            "max_output_tokens": self.settings.max_output_tokens,
            "effort": self.settings.effort,
            "frame": f"{self.frame.max_side}/{self.frame.max_patches}x{self.frame.patch}",
        }

    def open_client(self, kind: Any, api_key: str | None) -> Any:
        """Return a client of the SDK that tries once and gives up after our timeout."""
        return kind(
            api_key=api_key,
            base_url=self.settings.base_url or None,
            timeout=self.sdk.Timeout(self.settings.timeout_s, connect=10.0),
            max_retries=0,
        )

    def estimate_usd(self, requests: Sequence[Request]) -> float:
        """Return the probable cost: the system prompt from the cache, one try an image, little thinking.

        In a batch no cache is counted on: services promise none there.
        """
        if not requests:
            return 0.0
        sample = requests[:: max(1, len(requests) // ESTIMATED_FROM)]
        prefix = _tokens(SYSTEM_PROMPT)
        cached = 0 if self.in_batches else prefix
        total = sum(
            self.price.usd(
                input_tokens=_tokens(write_prompt(request, self._size_of(request)))
                + self._image_tokens(request, self.tokens_per_patch)
                + (prefix - cached),
                cache_read_tokens=cached,
                output_tokens=min(
                    self.settings.max_output_tokens, TOKENS_PER_REPLY + TOKENS_PER_PAIR * len(request.slots)
                ),
            )
            for request in sample
        )
        first = self.price.usd(input_tokens=0, cache_write_tokens=prefix)
        return total / len(sample) * len(requests) + first

    def most_usd(self, request: Request) -> float:
        """Return a bound that usage cannot pass: a token is at least a byte, all is written to the cache or none."""
        text = SYSTEM_PROMPT + write_prompt(request, self._size_of(request)) + json.dumps(REPLY_SCHEMA)
        # What a service puts around our texts, the schema's own instructions above all.
        tokens = len(text.encode()) + 1000 + self._image_tokens(request, self.most_tokens_per_patch)
        output = self.settings.max_output_tokens
        return max(
            self.price.usd(input_tokens=tokens, output_tokens=output),
            self.price.usd(input_tokens=0, cache_write_tokens=tokens, output_tokens=output),
        )

    async def generate(self, request: Request) -> Reply:
        """Return the words for one image. Raises as `Provider.generate` does."""
        assert not self.in_batches, "its price is that of batches"
        picture = None
        if request.with_image:
            # In a thread: decoding a large scan takes longer than a hundred other replies may wait.
            picture = await asyncio.to_thread(open_picture, request.image_file, request.record, self.frame)
        text = write_prompt(request, picture.size_wh if picture else request.record.size_wh)
        try:
            # The SDKs' own timeout begins anew with every byte, and some proxies send blanks to keep a line open.
            async with asyncio.timeout(self.settings.timeout_s):
                return await self.ask(text, picture)
        except TimeoutError as error:
            raise Unavailable(f"no answer from {self.name} in time", may_have_cost=True) from error

    def parameters_of(self, request: Request) -> dict[str, Any]:
        """Return what is sent for one image, as the SDK takes it. Reads the image. Raises ProviderError."""
        picture = open_picture(request.image_file, request.record, self.frame) if request.with_image else None
        text = write_prompt(request, picture.size_wh if picture else request.record.size_wh)
        return self._parameters(text, picture)

    def key_digest(self, salt: str) -> str:
        """Return what tells one key at one address from others, and not the key. Keys are too long to be guessed."""
        chosen = ("base_url", "api_key", "auth_token", "organization", "project")
        told = [salt, *(str(getattr(self.client, name, None)) for name in chosen)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def batches(self) -> BatchService | None:
        """Return what sends its requests by the batch; None where nothing does."""
        return None

    def read_json(self, value: Any) -> Reply:
        """Return the reply that a body out of a batch holds. Raises ValidationError where it is no such body."""
        return self.read(self.body.model_validate(value))

    def failed_result(self, custom_id: str, error: XrayVqaError) -> BatchResult:
        """Return the result for a request of a batch that brought an error; a refusal is a reply."""
        if isinstance(error, Refused):
            return BatchResult(custom_id, self.reply(str(error), "refusal", self.model))
        return BatchResult(custom_id, error=error)

    async def ask(self, text: str, picture: Picture | None) -> Reply:
        """Send one request and return what came back. Raises as `generate` does."""
        try:
            with self.service.sorted_failures(self.sdk):
                answer = await self.send(text, picture)
        except Refused as error:
            return self.reply(str(error), "refusal", self.model)
        self.limits = self.read_limits(answer.headers)
        try:
            # Not the SDK's own reading, which takes any JSON for an answer and costs a third of the time of a call.
            body = self.body.model_validate_json(answer.http_response.content)
        except ValidationError as error:
            raise self.service.broken(error) from error
        return self.read(body)

    @abstractmethod
    async def send(self, text: str, picture: Picture | None) -> Any:
        """Return the SDK's raw response to one request."""

    @abstractmethod
    def _parameters(self, text: str, picture: Picture | None) -> dict[str, Any]:
        """Return the parameters of one call."""

    @staticmethod
    @abstractmethod
    def read_limits(headers: Mapping[str, str]) -> Limits:
        """Return what an answer's headers say of the pace."""

    @abstractmethod
    def read(self, body: Any) -> Reply:
        """Return the reply that a body of type `body` holds."""

    async def close(self) -> None:
        """Close connections."""
        await self.client.close()

    def reply(
        self,
        text: str,
        stop: Stop,
        model: str,
        *,
        input_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        output_tokens: int = 0,
    ) -> Reply:
        """Return a reply with its cost; `input_tokens` without the cached ones."""
        tokens = {
            "input_tokens": input_tokens,
            "cache_read_tokens": cache_read_tokens,
            "cache_write_tokens": cache_write_tokens,
            "output_tokens": output_tokens,
        }
        return Reply(text=text, stop=stop, model=model, cost_usd=self.price.usd(**tokens), **tokens)

    def _size_of(self, request: Request) -> tuple[int, int]:
        return self.frame.fit(request.record.size_wh) if request.with_image else request.record.size_wh

    def _image_tokens(self, request: Request, tokens_per_patch: float) -> int:
        if not request.with_image:
            return 0
        return math.ceil(self.frame.num_patches(self._size_of(request)) * tokens_per_patch)


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARS_PER_TOKEN)
