"""Stands in for language models: Anthropic's and OpenAI's HTTP interfaces, their bad days, and their bills.

It speaks enough of Messages, Responses, Chat Completions, models, files and batches for the vendors' own SDKs. The
slots of a request are worded as the template provider words them, so every undisturbed reply is true. What goes wrong
is drawn from the request's content and how often it came, so two runs meet the same faults. Every request that a
service would charge for stands in the ledger, delivered or not; `GET /ledger` sums it up. As a process of its own:

    python tests/stand_ins/llm.py --port 0 --latency 0.5 --faults 0.05       prints its address
"""

import argparse
import asyncio
import hashlib
import json
import math
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any, Literal, get_args

from xray_vqa.core.records import ScanRecord
from xray_vqa.core.taxonomy import CATEGORIES, UNLISTED
from xray_vqa.generation.plan import Slot
from xray_vqa.generation.providers.template import word_slots

sys.path.append(str(Path(__file__).parents[1]))  # as a process of its own it knows only its folder

from stand_ins.llm_batches import BatchDesk, iso

Fault = Literal[
    "throttled",  # 429 with Retry-After
    "overloaded",  # 529 by Anthropic's, 503 by OpenAI's interface
    "timeout",  # done and billed, and never answered
    "truncated",  # cut off by the cap on output tokens
    "refusal",
    "malformed",  # a whole answer whose text is no JSON
    "broken",  # an answer whose body is no JSON
    "cut",  # the connection ends in the middle of the answer
    "policy",  # 400: the service's rules forbid the request
    "spend_limit",
    "unauthorized",
    "expired",  # in a batch: not begun within a day
    "cancelled",  # in a batch: by a person, before it was begun
    "too_large",  # 413: the image is over the limit
    "unknown_model",
]
UNBILLED = frozenset(
    {"throttled", "overloaded", "policy", "spend_limit", "unauthorized", "expired", "cancelled", "too_large",
     "unknown_model"}
)  # fmt: skip
BAD_DAY: tuple[Fault, ...] = ("throttled", "overloaded", "timeout", "truncated", "refusal", "malformed", "cut")
"""What `--faults` gives a share each."""

MODELS = ("claude-haiku-5-5", "gpt-6-luna", "local-model")
WRONG_KEY = "wrong-key"


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """Dollars a million tokens; the default is what small models cost in November 2026."""

    input: float = 0.10
    cache_read: float = 0.01
    cache_write: float = 0.125
    output: float = 0.50

    def usd(
        self, *, input_tokens: int, cache_read_tokens: int = 0, cache_write_tokens: int = 0, output_tokens: int = 0
    ) -> float:
        return (
            input_tokens * self.input
            + cache_read_tokens * self.cache_read
            + cache_write_tokens * self.cache_write
            + output_tokens * self.output
        ) / 1e6


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    """At the full price."""
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int


@dataclass(slots=True)
class Billed:
    """One line of the ledger."""

    content: str
    """Digest of the scan, its facts and its slots: the same for each attempt."""
    attempt: int
    fault: str
    usage: Usage
    usd: float
    delivered: bool = False


@dataclass
class Behaviour:
    """How the services answer; tests change it while the server runs."""

    latency_s: float = 0.0
    shares: Mapping[Fault, float] = field(default_factory=dict)
    """How often each fault happens, of all requests."""
    script: deque[Fault | Literal[""]] = field(default_factory=deque)
    """What happens to the next requests, before the shares apply."""
    bodies: deque[bytes] = field(default_factory=deque)
    """What the next requests get in place of an answer, with status 200 and off the books."""
    seed: int = 0
    retry_after_s: float = 1.0
    price: TokenPrice = TokenPrice()
    models: tuple[str, ...] = MODELS
    batch_s: float = 0.0
    """How long a batch is in progress."""
    batch_script: deque[str] = field(default_factory=deque)
    """What becomes of the next batches as a whole: "" as usual, or a message with which it is refused."""
    lose_batch_replies: int = 0
    """So many batches are taken, and nobody is told."""
    results_are_gone: bool = False
    """Batches have ended too long ago."""
    projects: Mapping[str, str] = field(default_factory=dict)
    """Of keys, where they are not all of one; each sees the batches of its own alone."""
    names_projects: bool = True
    """Whether answers say whose the key is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request of any dialect comes down to."""

    model: str
    system: str
    prompt: str
    image: str
    """What stands for it: its media type and digest; empty without one."""


@dataclass(frozen=True, slots=True)
class Answer:
    model: str
    text: str
    stop: Literal["end", "refusal", "truncated"]
    usage: Usage


def image_of(media_type: str, data: str) -> str:
    if media_type not in ("image/jpeg", "image/png"):
        raise ValueError(f"{media_type} is no image")
    return f"{media_type} {hashlib.sha256(data.encode()).hexdigest()[:16]}"


# --- the dialects


def read_messages(body: dict[str, Any]) -> Asked:
    if {"temperature", "top_p", "top_k"} & body.keys():
        raise ValueError("temperature, top_p and top_k are no parameters of this model")
    if body["output_config"]["format"]["type"] != "json_schema" or body["max_tokens"] < 1:
        raise ValueError("output_config.format and max_tokens are needed")
    text, image = "", ""
    for block in body["messages"][0]["content"]:
        if block["type"] == "image":
            if text:
                raise ValueError("the image comes first")
            image = image_of(block["source"]["media_type"], block["source"]["data"])
        else:
            text += block["text"]
    return Asked(body["model"], body["system"][0]["text"], text, image)


def write_messages(answer: Answer) -> dict[str, Any]:
    refused = answer.stop == "refusal"
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [] if refused else [{"type": "text", "text": answer.text}],
        "stop_reason": {"end": "end_turn", "refusal": "refusal", "truncated": "max_tokens"}[answer.stop],
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": "general_harms", "explanation": None} if refused else None,
        "usage": {
            "input_tokens": answer.usage.input_tokens,
            "cache_read_input_tokens": answer.usage.cache_read_tokens,
            "cache_creation_input_tokens": answer.usage.cache_write_tokens,
            "output_tokens": answer.usage.output_tokens,
        },
    }


def read_responses(body: dict[str, Any]) -> Asked:
    if body["text"]["format"]["type"] != "json_schema" or not body["text"]["format"]["strict"]:
        raise ValueError("text.format is needed")
    text, image = "", ""
    for part in body["input"][0]["content"]:
        if part["type"] == "input_image":
            image = image_of(*part["image_url"].removeprefix("data:").split(";base64,"))
        else:
            text += part["text"]
    return Asked(body["model"], body["instructions"], text, image)


def write_responses(answer: Answer) -> dict[str, Any]:
    part = (
        {"type": "refusal", "refusal": "I cannot help with that."}
        if answer.stop == "refusal"
        else {"type": "output_text", "text": answer.text, "annotations": []}
    )
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    usage = answer.usage
    all_input = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "incomplete" if answer.stop == "truncated" else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if answer.stop == "truncated" else None,
        "error": None,
        "model": answer.model,
        "output": [{"id": "rs_1", "type": "reasoning", "summary": []}, message],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": all_input,
            "input_tokens_details": {
                "cached_tokens": usage.cache_read_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
            },
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": all_input + usage.output_tokens,
        },
    }


def read_completions(body: dict[str, Any]) -> Asked:
    if body["response_format"]["type"] != "json_schema":
        raise ValueError("response_format is needed")
    system, user = body["messages"]
    text, image = "", ""
    for part in user["content"]:
        if part["type"] == "image_url":
            image = image_of(*part["image_url"]["url"].removeprefix("data:").split(";base64,"))
        else:
            text += part["text"]
    return Asked(body["model"], system["content"], text, image)


def write_completions(answer: Answer) -> dict[str, Any]:
    reason = {"end": "stop", "refusal": "content_filter", "truncated": "length"}[answer.stop]
    text = None if answer.stop == "refusal" else answer.text
    usage = answer.usage
    all_input = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "id": "chatcmpl_1",
        "object": "chat.completion",
        "created": 1,
        "model": answer.model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": all_input,
            "prompt_tokens_details": {
                "cached_tokens": usage.cache_read_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
            },
            "completion_tokens": usage.output_tokens,
            "total_tokens": all_input + usage.output_tokens,
        },
    }


@dataclass(frozen=True, slots=True)
class Dialect:
    read: Callable[[dict[str, Any]], Asked]
    write: Callable[[Answer], dict[str, Any]]


DIALECTS = {
    "/v1/messages": Dialect(read_messages, write_messages),
    "/v1/responses": Dialect(read_responses, write_responses),
    "/v1/chat/completions": Dialect(read_completions, write_completions),
}


# --- the model


def word(prompt: str) -> str:
    """Return the JSON that a perfect model answers."""
    told = json.loads(prompt)
    slots = [
        Slot(
            slot["type"],
            slot["answer"],
            tuple(slot["evidence"]),
            slot.get("target", ""),
            tuple(slot.get("options", ())),
            slot.get("region", ""),
            topic=slot.get("topic", ""),
            goods=tuple(slot.get("goods", ())),
        )
        for slot in told["slots"]
    ]
    record = ScanRecord(
        image_id=0,
        image_filename="",
        image_path=hashlib.sha256(json.dumps([told["facts"], told["slots"]]).encode()).hexdigest(),
        width=told["scan"]["width"],
        height=told["scan"]["height"],
        categories=[fact["class"] if fact["class"] in CATEGORIES else UNLISTED for fact in told["facts"]],
        bboxes=[None] * len(told["facts"]),
    )
    pairs = [
        {"slot": pair.slot, "question": pair.question, "answer": pair.answer, "evidence": list(slot.evidence)}
        for pair, slot in zip(word_slots(record, slots), slots, strict=True)
    ]
    return json.dumps({"pairs": pairs, "disagree": False})


def tokens(text: str) -> int:
    return math.ceil(len(text) / 4)


class Cut(Exception):
    """The connection ends here."""


class LlmServer:
    """The services at one address, and their ledger."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.ledger: list[Billed] = []
        self.seen: Counter[str] = Counter()
        """Requests by what became of them."""
        self.requests: deque[tuple[str, dict[str, str], Any]] = deque(maxlen=200)
        """Path, headers and body of the last ones."""
        self.url = ""
        self._attempts: Counter[str] = Counter()
        self._cached: set[tuple[str, str]] = set()
        self.desk = BatchDesk(self, DIALECTS)
        """Of the project of all keys that `behaviour.projects` does not have."""
        self._desks = {"": self.desk}

    # --- connections

    async def serve(self, port: int, ready: Callable[[], None]) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, limit=2**20, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready()
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.split("\r\n")
                method, path, _ = line.split(" ")
                headers = {key.lower(): value.strip() for key, _, value in (one.partition(":") for one in rest if one)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(method, path, headers, body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, Cut):
            pass
        finally:
            with suppress(ConnectionError):
                writer.close()

    async def _answer(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        path, _, query = path.partition("?")
        if path == "/ledger":
            await send(writer, 200, self.sums())
            return
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not key or key == WRONG_KEY:
            self.seen["unauthorized"] += 1
            await send(writer, *self.error("unauthorized", path))
        elif path in DIALECTS and method == "POST":
            await self._word(path, headers, json.loads(body), reader, writer)
        else:
            if method == "POST" and path.endswith("/batches"):
                self.seen["submission"] += 1
                await asyncio.sleep(self.behaviour.latency_s)
            project = self.behaviour.projects.get(key, "")
            status, value = self._other(method, path, query, headers, body, project)
            if method == "POST" and path.endswith("/batches") and self.behaviour.lose_batch_replies:
                self.behaviour.lose_batch_replies -= 1
                raise Cut
            await send(writer, status, value, self._names(headers, project))

    # --- single requests

    async def _word(
        self,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.requests.append((path, headers, body))
        if self.behaviour.bodies:
            await send(writer, 200, self.behaviour.bodies.popleft())
            return
        dialect = DIALECTS[path]
        try:
            asked = dialect.read(body)
        except (KeyError, ValueError, TypeError) as error:
            self.seen["bad request"] += 1
            await send(writer, 400, {"error": {"type": "invalid_request_error", "message": f"{error!r}"}})
            return
        fault, billed, answer = self.work(asked)
        self.seen[fault or "answered"] += 1
        if billed is None:
            await send(writer, *self.error(fault, path))
            return
        await asyncio.sleep(self.behaviour.latency_s)
        if fault == "timeout":
            await reader.read(1)  # until the client hangs up
            raise Cut
        data = json.dumps(dialect.write(answer)).encode()
        if fault == "broken":
            data = data[: len(data) // 2]
        if fault == "cut":
            writer.write(head_of(200, len(data)) + data[: len(data) // 2])
            await writer.drain()
            raise Cut
        if reader.at_eof():
            raise Cut
        await send(writer, 200, data, limits_of(path))
        billed.delivered = fault != "broken"

    def work(self, asked: Asked, share_of_price: float = 1.0) -> tuple[str, Billed | None, Answer]:
        """Do what a request asks and book it; no line of the ledger where the service refuses before the work."""
        told = json.loads(asked.prompt)
        content = hashlib.sha256(json.dumps([told["facts"], told["slots"], asked.image]).encode()).hexdigest()
        self._attempts[content] += 1
        attempt = self._attempts[content]
        fault = self._fault(content, attempt) if asked.model in self.behaviour.models else "unknown_model"
        text, stop = word(asked.prompt), "end"
        if fault == "truncated":
            text, stop = text[: len(text) // 2], "truncated"
        elif fault == "refusal":
            text, stop = "", "refusal"
        elif fault == "malformed":
            text = "Here are the pairs: " + text[:-1]
        usage = self._usage(asked, told, text)
        answer = Answer(asked.model, text, stop, usage)
        if fault in UNBILLED:
            return fault, None, answer
        if asked.system:
            self._cached.add((asked.model, asked.system))
        usd = self.behaviour.price.usd(**asdict(usage)) * share_of_price
        billed = Billed(content, attempt, fault, usage, usd)
        self.ledger.append(billed)
        return fault, billed, answer

    def _fault(self, content: str, attempt: int) -> str:
        if self.behaviour.script:
            return self.behaviour.script.popleft()
        digest = hashlib.sha256(f"{self.behaviour.seed} {content} {attempt}".encode()).digest()
        drawn = int.from_bytes(digest[:8]) / 2**64
        for fault, share in self.behaviour.shares.items():
            if drawn < share:
                return fault
            drawn -= share
        return ""

    def _usage(self, asked: Asked, told: dict[str, Any], text: str) -> Usage:
        scan, prefix = told["scan"], tokens(asked.system)
        image = math.ceil(scan["width"] / 28) * math.ceil(scan["height"] / 28) if asked.image else 0
        cached = (asked.model, asked.system) in self._cached
        return Usage(
            input_tokens=tokens(asked.prompt) + image,
            cache_read_tokens=prefix if cached else 0,
            cache_write_tokens=0 if cached else prefix,
            output_tokens=tokens(text) + 10,
        )

    def error(self, fault: str, path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        anthropic = path.startswith("/v1/messages")
        error: dict[str, Any] = {"message": f"the stand-in says: {fault}"}
        headers: dict[str, str] = {}
        match fault:
            case "throttled":
                status, headers = 429, {"retry-after": f"{self.behaviour.retry_after_s:g}"}
                error |= {"type": "rate_limit_error"} if anthropic else {"code": "rate_limit_exceeded"}
            case "spend_limit":
                status = 429
                if anthropic:
                    error |= {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}
                else:
                    error |= {"type": "insufficient_quota", "code": "insufficient_quota"}
            case "overloaded":
                status = 529 if anthropic else 503
                error |= {"type": "overloaded_error" if anthropic else "server_error"}
            case "policy":
                status = 400
                error |= {"type": "invalid_request_error", "code": "content_policy_violation"}
            case "too_large":
                status = 413
                error |= {"type": "request_too_large", "code": "request_too_large"}
            case "unknown_model":
                status = 404
                error |= {"type": "not_found_error", "code": "model_not_found"}
            case _:
                status = 401
                error |= {"type": "authentication_error", "code": "invalid_api_key"}
        return status, {"type": "error", "error": error}, headers

    # --- models, files, batches

    def _names(self, headers: Mapping[str, str], project: str) -> dict[str, str]:
        if not self.behaviour.names_projects:
            return {}
        if "anthropic-version" in headers:
            return {"anthropic-organization-id": "acme", "anthropic-workspace-id": project or "first"}
        return {"openai-organization": "acme", "openai-project": project or "first"}

    def _other(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, project: str
    ) -> tuple[int, Any]:
        desk = self._desks.setdefault(project, BatchDesk(self, DIALECTS, project))
        if found := desk.answer(method, path, query, headers, body):
            return found
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["models"]:
                return 200, self._models("anthropic-version" in headers)
            case _:
                return 404, {"error": {"type": "not_found_error", "message": f"{method} {path}"}}

    def _models(self, anthropic: bool) -> dict[str, Any]:
        if not anthropic:
            kinds = {"object": "model", "created": 1, "owned_by": "stand-in"}
            return {"object": "list", "data": [{"id": name, **kinds} for name in self.behaviour.models]}
        kinds = {"type": "model", "created_at": "2026-09-01T00:00:00Z", "lifecycle": "active", "retires_at": None}
        data = [{"id": name, "display_name": name, **kinds} for name in self.behaviour.models]
        return {"data": data, "has_more": False, "first_id": None, "last_id": None}

    # --- the bill

    def sums(self) -> dict[str, Any]:
        """Return what was billed: replies that arrived, and work whose reply never did."""
        delivered = [line for line in self.ledger if line.delivered]
        lost = [line for line in self.ledger if not line.delivered]
        return {
            "billed_requests": len(self.ledger),
            "delivered_requests": len(delivered),
            "delivered_usd": math.fsum(line.usd for line in delivered),
            "lost_requests": len(lost),
            "lost_usd": math.fsum(line.usd for line in lost),
            "seen": dict(self.seen),
        }


def limits_of(path: str) -> dict[str, str]:
    """Return the headers of a service that takes 4,000 requests more for 30 seconds."""
    if path.startswith("/v1/messages"):
        reset = iso(int(time()) + 30)
        return {
            f"anthropic-ratelimit-{kind}-{name}": value
            for kind, left in (("requests", "4000"), ("input-tokens", "900000"), ("output-tokens", "80000"))
            for name, value in (("remaining", left), ("reset", reset))
        }
    return {
        "x-ratelimit-remaining-requests": "4000",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-remaining-tokens": "80000",
        "x-ratelimit-reset-tokens": "1m30s",
    }


def head_of(status: int, length: int, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {status} -",
        "content-type: application/json",
        f"content-length: {length}",
        f"date: {formatdate(time(), usegmt=True)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def send(writer: asyncio.StreamWriter, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
    """Send JSON, or bytes as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    writer.write(head_of(status, len(data), headers) + data)
    await writer.drain()


@contextmanager
def running(behaviour: Behaviour | None = None) -> Iterator[LlmServer]:
    """Run the server in a thread of its own; its `url` is the base address for Anthropic, `url`/v1 for OpenAI."""
    server, ready = LlmServer(behaviour), threading.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        for other in asyncio.all_tasks(loop):
            other.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    task = loop.create_task(server.serve(0, ready.set))
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any free one, which is printed")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before each reply")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE", help=f"of each of {', '.join(BAD_DAY)}")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME=SHARE", help=f"of one of {', '.join(get_args(Fault))}"
    )
    parser.add_argument("--retry-after", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--price", default="0.1,0.01,0.125,0.5", help="dollars a million: input, cache read, cache write, output"
    )
    parser.add_argument("--models", default=",".join(MODELS), metavar="NAMES")
    args = parser.parse_args()
    shares = dict.fromkeys(BAD_DAY, args.faults) if args.faults else {}
    shares |= {name: float(share) for name, _, share in (one.partition("=") for one in args.fault)}
    unknown = sorted(set(shares) - set(get_args(Fault)))
    if unknown:
        parser.error(f"no such faults: {', '.join(unknown)}")
    server = LlmServer(
        Behaviour(
            latency_s=args.latency,
            shares=shares,
            seed=args.seed,
            retry_after_s=args.retry_after,
            price=TokenPrice(*(float(one) for one in args.price.split(","))),
            models=tuple(args.models.split(",")),
        )
    )
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve(args.port, lambda: print(server.url, flush=True)))


if __name__ == "__main__":
    main()
