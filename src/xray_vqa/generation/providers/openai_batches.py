"""Batches of OpenAI, over the Responses API: a file goes up, files come down. Ours are known by their metadata."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import openai
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
)
from xray_vqa.generation.providers.failures import code_and_message
from xray_vqa.generation.providers.headers import service_time
from xray_vqa.generation.providers.provider import Request, Unavailable

if TYPE_CHECKING:
    from xray_vqa.generation.providers.openai import OpenAIProvider

TAG_NAME = "xray_vqa_batch"
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
ADVICE = {
    "token_limit_exceeded": "wait until other batches of the organization have ended, or submit smaller ones with "
    "--batch-size",
}
"""What helps against an error of a whole batch, by its code."""


class OpenAIBatches:
    """Batches for one provider."""

    form = BatchForm(50_000, 180_000_000, b"", b"\n", b"\n")
    """The service takes 50,000 requests and 200 MB."""

    def __init__(self, provider: "OpenAIProvider") -> None:
        self._provider, self._client = provider, provider.client

    def line(self, custom_id: str, request: Request) -> bytes:
        body = self._provider.parameters_of(request)
        return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/responses", "body": body}).encode()

    async def greet(self, tag: str) -> Greeting:
        with self._provider.service.sorted_failures(openai):
            headers = (await self._client.batches.with_raw_response.list(limit=1)).headers
        account = Account(
            key_digest=self._provider.key_digest(tag),
            organization=headers.get("openai-organization", ""),
            project=headers.get("openai-project", ""),
        )
        return Greeting(account, service_time(headers))

    async def submit(self, tag: str, body: BinaryIO, num_bytes: int) -> str:
        with self._provider.service.sorted_failures(openai):
            file = await self._client.files.create(file=(f"xray-vqa-{tag}.jsonl", body), purpose="batch")
            batch = await self._client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/responses",
                completion_window="24h",
                metadata={TAG_NAME: tag},
            )
        return batch.id

    async def find(self, tag: str, num_requests: int, announced_at: float, known: Iterable[str]) -> str:
        with self._provider.service.sorted_failures(openai):
            async for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(TAG_NAME) == tag:
                    return batch.id
        return ""

    async def _retrieve(self, batch_id: str) -> Any:
        try:
            with self._provider.service.sorted_failures(openai):
                return await self._client.batches.retrieve(batch_id)
        except Incomplete as error:
            if isinstance(error.__cause__, openai.NotFoundError):
                raise BatchUnknown(
                    f"OpenAI does not know the batch {batch_id}: was it made with the key of another project?"
                ) from error
            raise

    async def status(self, batch_id: str) -> BatchState:
        batch = await self._retrieve(batch_id)
        counts = batch.request_counts
        return BatchState(
            status=batch.status,
            ended=batch.status in ENDED,
            num_requests=counts.total if counts else 0,
            num_succeeded=counts.completed if counts else 0,
            num_failed=counts.failed if counts else 0,
            error=_reason(batch),
        )

    async def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        batch = await self._retrieve(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if not file_id:
                continue
            with _file_there(), self._provider.service.sorted_failures(openai):
                async with self._client.files.with_streaming_response.content(file_id) as answer:
                    async for line in answer.iter_lines():
                        if line.strip():
                            told = json.loads(line)
                            yield self._read(str(told["custom_id"]), told)

    def _read(self, custom_id: str, told: Any) -> BatchResult:
        provider, answer = self._provider, told.get("response")
        try:
            if not answer:
                error = told.get("error") or {}
                raise Unavailable(f"OpenAI did not get to it: {error.get('code')}", may_have_cost=False)
            if answer["status_code"] != 200:
                code, message = code_and_message(answer["body"])
                raise provider.service.failure(answer["status_code"], code, message, {})
            return BatchResult(custom_id, provider.read_json(answer["body"]))
        except ValidationError as error:
            return BatchResult(custom_id, error=provider.service.broken(error))
        except XrayVqaError as error:
            return provider.failed_result(custom_id, error)


@contextlib.contextmanager
def _file_there() -> Iterator[None]:
    try:
        yield
    except Incomplete as error:
        if isinstance(error.__cause__, openai.NotFoundError):
            raise ResultsGone("OpenAI keeps the files of a batch for 30 days, and these are deleted") from error
        raise


def _reason(batch: Any) -> str:
    """Return why a batch did not do what it should, with what helps; one that is out of time explains itself."""
    errors = (batch.errors.data if batch.errors else None) or []
    said = [f"{error.code}: {error.message}" for error in errors[:3]]
    said += dict.fromkeys(ADVICE[error.code] for error in errors if error.code in ADVICE)
    if batch.status == "failed":
        return "it was not taken: " + ("; ".join(said) or "no reason given")
    if batch.status == "cancelled":
        return "; ".join(["it was cancelled at the service", *said])
    return "; ".join(said)
