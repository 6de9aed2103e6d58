"""The stand-in for language models keeps what benchmarks rely on: repeatable faults, a true ledger, batches."""

import asyncio
import importlib
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bags import POLICY, make_records
from stand_ins.llm import BAD_DAY, Behaviour, LlmServer, running

from xray_vqa.config.llm import LlmSettings
from xray_vqa.core.taxonomy import CATEGORIES
from xray_vqa.errors import AnswerUnreadable
from xray_vqa.generation.plan import plan_images
from xray_vqa.generation.providers import Reply, Request, Throttled, Unavailable, read_reply
from xray_vqa.generation.providers.prompt import write_prompt

anthropic = pytest.importorskip("anthropic", reason="the extra `generate` is not installed: no anthropic")
openai = pytest.importorskip("openai", reason="the extra `generate` is not installed: no openai")
AnthropicProvider = importlib.import_module("xray_vqa.generation.providers.anthropic").AnthropicProvider
OpenAIProvider = importlib.import_module("xray_vqa.generation.providers.openai").OpenAIProvider

REQUESTS = [
    Request(image.record, image.slots, Path("unused"), CATEGORIES, with_image=False)
    for image in plan_images(make_records(150), CATEGORIES, POLICY)
]


def word_all(server: LlmServer) -> tuple[list[Reply], Counter[str], float]:
    """Word all requests as a caller does: again until the reply can be read. Returns also what may have been billed."""
    settings = LlmSettings(model="claude-haiku-5-5", base_url=server.url, timeout_s=2.0)
    provider = AnthropicProvider(settings, price=server.behaviour.price, api_key="a-key")
    met: Counter[str] = Counter()
    replies: list[Reply] = []

    async def word(request: Request, gate: asyncio.Semaphore) -> None:
        while True:
            async with gate:
                try:
                    reply = await provider.generate(request)
                except (Throttled, Unavailable) as error:
                    met[f"{type(error).__name__} {getattr(error, 'may_have_cost', '')}".strip()] += 1
                    continue
            replies.append(reply)
            try:
                read_reply(reply)
            except AnswerUnreadable:
                met[f"unreadable {reply.stop}"] += 1
                continue
            return

    async def run() -> None:
        gate = asyncio.Semaphore(32)
        await asyncio.gather(*(word(request, gate) for request in REQUESTS))
        await provider.close()

    asyncio.run(run())
    return replies, met, sum(reply.cost_usd for reply in replies)


def test_on_a_bad_day_every_delivered_reply_is_booked_to_the_cent():
    with running(Behaviour(shares=dict.fromkeys(BAD_DAY, 0.05))) as server:
        replies, met, cost_usd = word_all(server)
        sums = server.sums()
    assert len(replies) == sums["delivered_requests"]
    assert cost_usd == pytest.approx(sums["delivered_usd"], rel=1e-9)
    seen = sums["seen"]
    assert seen["answered"] == len(REQUESTS)
    assert set(BAD_DAY) <= set(seen)
    assert met["Throttled"] == seen["throttled"]
    assert met["Unavailable False"] == seen["overloaded"]
    assert met["Unavailable True"] == seen["timeout"] + seen["cut"] == sums["lost_requests"]
    assert met["unreadable refusal"] == seen["refusal"]
    assert met["unreadable truncated"] == seen["truncated"]
    assert met["unreadable end"] == seen["malformed"]


def test_two_runs_meet_the_same_faults():
    seen = []
    quick = [fault for fault in BAD_DAY if fault != "timeout"]
    for _ in range(2):
        with running(Behaviour(shares=dict.fromkeys(quick, 0.05), seed=4)) as server:
            word_all(server)
            seen.append(server.sums()["seen"])
    assert seen[0] == seen[1]


def test_it_runs_as_a_process_of_its_own():
    script = Path(__file__).parents[2] / "stand_ins" / "llm.py"
    process = subprocess.Popen(
        [sys.executable, str(script), "--fault", "spend_limit=1"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/ledger") as answer:
            assert json.load(answer)["billed_requests"] == 0
    finally:
        process.kill()
        process.wait()


def body_of(kind: Any, model: str, request: Request) -> dict[str, Any]:
    provider = kind(LlmSettings(model=model, base_url="http://unused"), price=Behaviour().price, api_key="a-key")
    return provider._parameters(write_prompt(request, request.record.size_wh), None)


def test_a_batch_of_messages_comes_back_in_no_order_at_half_the_price():
    with running() as server, anthropic.Anthropic(base_url=server.url, api_key="a-key") as client:
        server.behaviour.batch_s = 3600
        batch = client.messages.batches.create(
            requests=[
                {"custom_id": f"r{k}", "params": body_of(AnthropicProvider, "claude-haiku-5-5", REQUESTS[k])}
                for k in range(3)
            ]
        )
        assert batch.processing_status == "in_progress"
        server.behaviour.batch_s = 0
        batch = client.messages.batches.retrieve(batch.id)
        assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 3)
        assert [found.id for found in client.messages.batches.list()] == [batch.id]
        results = list(client.messages.batches.results(batch.id))
        assert [result.custom_id for result in results] == ["r2", "r1", "r0"]
        assert all(json.loads(result.result.message.content[0].text)["pairs"] for result in results)
        first = server.ledger[0]
        full = server.behaviour.price.usd(
            input_tokens=first.usage.input_tokens,
            cache_write_tokens=first.usage.cache_write_tokens,
            output_tokens=first.usage.output_tokens,
        )
        assert first.usd == pytest.approx(full / 2)


def test_a_batch_of_responses_goes_by_files_and_names_what_failed():
    with running() as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="a-key") as client:
        server.behaviour.script.extend(["", "throttled", "refusal"])
        lines = [
            {
                "custom_id": f"r{k}",
                "method": "POST",
                "url": "/v1/responses",
                "body": body_of(OpenAIProvider, "gpt-6-luna", REQUESTS[k]),
            }
            for k in range(3)
        ]
        data = "\n".join(map(json.dumps, lines)).encode()
        file = client.files.create(file=("batch.jsonl", data), purpose="batch")
        made = client.batches.create(
            input_file_id=file.id, endpoint="/v1/responses", completion_window="24h", metadata={"run": "1"}
        )
        batch = client.batches.retrieve(made.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 1)
        assert [(found.id, found.metadata) for found in client.batches.list()] == [(made.id, {"run": "1"})]
        done = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
        failed = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
        assert [line["custom_id"] for line in done] == ["r2", "r0"]
        assert done[0]["response"]["body"]["output"][1]["content"][0]["type"] == "refusal"
        assert [(line["custom_id"], line["response"]["status_code"]) for line in failed] == [("r1", 429)]
