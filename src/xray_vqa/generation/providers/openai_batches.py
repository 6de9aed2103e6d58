"""Batches of OpenAI, over the Responses API: a file goes up, files come down. Ours are known by their metadata."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

import openai
from pydantic import ValidationError

from xray_vqa.errors import Incomplete, XrayVqaError
from xray_vqa.generation.providers.batch_service import BatchForm, BatchResult, BatchState
from xray_vqa.generation.providers.failures import code_and_message
from xray_vqa.generation.providers.provider import Request, Unavailable

if TYPE_CHECKING:
    from xray_vqa.generation.providers.openai import OpenAIProvider

TAG_NAME = "xray_vqa_batch"
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class OpenAIBatches:
    """Batches for one provider."""

    form = BatchForm(50_000, 180_000_000, b"", b"\n", b"\n")
    """The service takes 50,000 requests and 200 MB."""

    def __init__(self, provider: "OpenAIProvider") -> None:
        self._provider, self._client = provider, provider.client

    def line(self, custom_id: str, request: Request) -> bytes:
        body = self._provider.parameters_of(request)
        return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/responses", "body": body}).encode()

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
                raise Incomplete(
                    f"OpenAI does not know the batch {batch_id}: was it made with the key of another project? Set that "
                    "key and start the same command again"
                ) from error
            raise

    async def status(self, batch_id: str) -> BatchState:
        batch = await self._retrieve(batch_id)
        counts, errors = batch.request_counts, (batch.errors.data if batch.errors else None) or []
        return BatchState(
            status=batch.status,
            ended=batch.status in ENDED,
            num_requests=counts.total if counts else 0,
            num_succeeded=counts.completed if counts else 0,
            num_failed=counts.failed if counts else 0,
            error="; ".join(f"{error.code}: {error.message}" for error in errors[:3])
            or ("no reason given" if batch.status == "failed" else ""),
        )

    async def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        batch = await self._retrieve(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if not file_id:
                continue
            with self._provider.service.sorted_failures(openai):
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
