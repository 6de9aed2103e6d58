"""Message Batches of Anthropic. They carry nothing of ours but custom ids, which show once a batch has ended."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

import anthropic
from anthropic.types.messages import MessageBatch
from pydantic import ValidationError

from xray_vqa.errors import Incomplete, XrayVqaError
from xray_vqa.generation.providers.batch_service import (
    Account,
    BatchForm,
    BatchResult,
    BatchState,
    BatchUnknown,
    Greeting,
    ResultsGone,
    Undecided,
)
from xray_vqa.generation.providers.failures import code_and_message
from xray_vqa.generation.providers.headers import service_time
from xray_vqa.generation.providers.provider import Request, Unavailable

if TYPE_CHECKING:
    from xray_vqa.generation.providers.anthropic import AnthropicProvider

CLOCK_SKEW_S = 900.0
"""By how much the service's clocks may differ among themselves."""

CHUNK_BYTES = 1 << 16

_STATUSES = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "overloaded_error": 529,
}  # fmt: skip
"""Of what stands as an error in a batch's results; all else is 500. None of them is billed."""


class AnthropicBatches:
    """Message Batches for one provider."""

    form = BatchForm(100_000, 200_000_000, b'{"requests":[', b",\n", b"]}")
    """The service takes 100,000 requests and 256 MB."""

    def __init__(self, provider: "AnthropicProvider") -> None:
        self._provider, self._batches = provider, provider.client.messages.batches

    def line(self, custom_id: str, request: Request) -> bytes:
        return json.dumps({"custom_id": custom_id, "params": self._provider.parameters_of(request)}).encode()

    async def greet(self, tag: str) -> Greeting:
        with self._provider.service.sorted_failures(anthropic):
            headers = (await self._batches.with_raw_response.list(limit=1)).headers
        account = Account(
            key_digest=self._provider.key_digest(tag),
            organization=headers.get("anthropic-organization-id", ""),
            project=headers.get("anthropic-workspace-id", ""),
        )
        return Greeting(account, service_time(headers))

    async def submit(self, tag: str, body: BinaryIO, num_bytes: int) -> str:
        async def chunks() -> AsyncIterator[bytes]:
            while chunk := body.read(CHUNK_BYTES):
                yield chunk

        with self._provider.service.sorted_failures(anthropic):
            # Not batches.create(), which builds the whole body in memory, several times over.
            batch: MessageBatch = await self._provider.client.post(
                "/v1/messages/batches",
                content=chunks(),
                options={"headers": {"Content-Type": "application/json", "Content-Length": str(num_bytes)}},
                cast_to=MessageBatch,
            )
        return batch.id

    async def find(self, tag: str, num_requests: int, announced_at: float, known: Iterable[str]) -> str:
        undecided: list[str] = []
        with self._provider.service.sorted_failures(anthropic):
            async for batch in self._batches.list(limit=100):  # the newest first
                if batch.created_at.timestamp() < announced_at - CLOCK_SKEW_S:
                    break
                if batch.id in known or _total(batch) != num_requests:
                    continue
                if batch.processing_status != "ended" or batch.archived_at:
                    undecided.append(batch.id)
                    continue
                results = await self._batches.results(batch.id)
                first = await anext(aiter(results), None)
                await results.close()
                if first is not None and first.custom_id.startswith(f"{tag}-"):
                    return batch.id
        if undecided:
            raise Undecided(
                f"Anthropic shows whose requests a batch holds only when it has ended, and {', '.join(undecided)} may "
                "be the one whose submission was interrupted; nothing of it is submitted again before that is known"
            )
        return ""

    async def status(self, batch_id: str) -> BatchState:
        try:
            with self._provider.service.sorted_failures(anthropic):
                batch = await self._batches.retrieve(batch_id)
        except Incomplete as error:
            if isinstance(error.__cause__, anthropic.NotFoundError):
                raise BatchUnknown(
                    f"Anthropic does not know the batch {batch_id}: was it made with the key of another workspace?"
                ) from error
            raise
        counts = batch.request_counts
        return BatchState(
            status=batch.processing_status,
            ended=batch.processing_status == "ended",
            num_requests=_total(batch),
            num_succeeded=counts.succeeded,
            num_failed=counts.errored + counts.expired + counts.canceled,
            error=f"{counts.canceled} of its requests were cancelled at the service" if counts.canceled else "",
        )

    async def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        with self._provider.service.sorted_failures(anthropic):
            batch = await self._batches.retrieve(batch_id)
            if batch.archived_at or not batch.results_url:
                raise ResultsGone("Anthropic keeps results for 29 days, and these are deleted")
            async for line in await self._batches.results(batch_id):
                told = line.to_dict(warnings=False)  # of kinds of errors that are newer than the SDK
                yield self._read(str(told["custom_id"]), told["result"])

    def _read(self, custom_id: str, result: Any) -> BatchResult:
        provider = self._provider
        try:
            if result["type"] == "succeeded":
                return BatchResult(custom_id, provider.read_json(result["message"]))
            if result["type"] == "errored":
                error = result["error"].get("error", {})
                code, message = code_and_message(error)
                raise provider.service.failure(_STATUSES.get(error.get("type"), 500), code, message, {})
            raise Unavailable(f"Anthropic did not get to it: {result['type']}", may_have_cost=False)
        except ValidationError as error:
            return BatchResult(custom_id, error=provider.service.broken(error))
        except XrayVqaError as error:
            return provider.failed_result(custom_id, error)


def _total(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
