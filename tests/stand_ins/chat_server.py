"""Stands in for a server that speaks Chat Completions about images, over real sockets and with a real model behind it.

It renders messages by the tokenizer's own chat template, resizes pictures by the model's own processor, and runs each
prompt as one plain sequence through transformers: nothing of the prompt tree is in it. Like vLLM it takes
`continue_final_message`, `logprob_token_ids`, `allowed_token_ids` and `return_token_ids`. It can have bad days.
"""

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from xray_vqa.modeling.decoding import TreeDecoder
from xray_vqa.modeling.loading import LoadedModel, load_model

Fault = Literal[
    "",
    "hang",  # accepts the request and says nothing
    "error",  # 500
    "busy",  # 429
    "nonsense",  # an answer whose body is no JSON
    "empty",  # an answer without choices
    "cut",  # the connection ends in the middle of the answer
    "drop",  # the connection ends before the answer
    "no_yes",  # yes is not among the likeliest tokens
    "no_logprobs",
    "certain",  # a log-probability above zero
    "other_model",  # answers under another name
    "resizes",  # makes the picture smaller than it was sent
    "ends_the_turn",  # a chat template that closes the user's turn behind the branch
    "words",  # says words where digits are asked for
]
_EXTRAS = ("logprob_token_ids", "allowed_token_ids", "regex", "return_token_ids")

SOME = ("Knife", "Gun", "Scissors")
"""The categories that `answering_model` has learnt to be asked about."""


def picture(seed: int, size: tuple[int, int] = (118, 90)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(size)


def answering_model(model_dir: Path) -> LoadedModel:
    """A random model that has learnt one thing: behind a colon comes yes or no."""
    loaded = load_model(str(model_dir), device="cpu")
    encoder, weights = loaded.encoder, loaded.base.lm_head.weight
    states = list[torch.Tensor]()
    watched = loaded.base.lm_head.register_forward_hook(lambda layer, inputs, output: states.append(inputs[0]))
    frame = torch.from_numpy(np.array(loaded.processor.resize(picture(0))))
    probes = [encoder.probe(name) for name in SOME]
    for _ in range(3):  # both words stand in the prompt too, so that they change what they are measured by
        TreeDecoder(loaded).open([frame], [probes])
        direction = states[-1].mean(dim=0)
        with torch.no_grad():
            weights[encoder.yes_id] = direction * 6 / direction.square().sum()
            weights[encoder.no_id] = weights[encoder.yes_id] + torch.randn(256, generator=torch.manual_seed(1)) * 0.03
    watched.remove()
    return loaded


@dataclass
class ChatServer:
    """A model, how it behaves just now, and what it was asked."""

    loaded: LoadedModel
    models: tuple[str, ...] = ("served",)
    fault: Fault = ""
    once: bool = False
    """Whether the fault is over after one request."""
    plain: bool = False
    """Takes only what OpenAI's own interface has, and `continue_final_message`; refuses the rest with 400."""
    keeps_pictures: bool = True
    """Whether a picture's name does for one that was sent before."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    key: str = ""
    address: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what hangs."""

    def take_fault(self) -> Fault:
        with self.lock:
            fault = self.fault
            if self.once:
                self.fault = ""
            return fault

    def answer(self, body: dict[str, Any], fault: Fault) -> dict[str, Any]:
        """What the model says to a request; one at a time."""
        tokenizer, processor = self.loaded.encoder.tokenizer, self.loaded.processor
        messages, picture = _split(body["messages"], self.pictures)
        if fault == "resizes":
            picture = picture.resize((picture.width // 2, picture.height // 2))
        frame = torch.from_numpy(np.array(processor.resize(picture)))
        is_open = body.get("continue_final_message", False) and fault != "ends_the_turn"
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=is_open,
        )
        rows, columns = processor.grid_hw((frame.shape[1], frame.shape[0]))
        pad = "<|image_pad|>"
        ids = tokenizer(text.replace(pad, pad * (rows * columns)), add_special_tokens=False)["input_ids"]
        said, positions = list[int](), list[dict[str, Any]]()
        finish = "length"
        for _ in range(body["max_tokens"]):
            with self.lock:
                scores = next_token(self.loaded, ids + said, frame)
            if allowed := body.get("allowed_token_ids"):
                token = max(allowed, key=lambda each: scores[each])
            else:
                token = int(scores.argmax())
            if token == tokenizer.eos_token_id:
                finish = "stop"
                break
            said.append(token)
            named = body.get("logprob_token_ids") or scores.topk(body.get("top_logprobs", 0)).indices.tolist()
            positions.append({"token": tokenizer.decode([token]), "top_logprobs": self._listed(named, scores, fault)})
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "another" if fault == "other_model" else body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "message": {
                        "role": "assistant",
                        "content": "no digits here" if fault == "words" else tokenizer.decode(said),
                    },
                    "logprobs": {"content": positions} if body.get("logprobs") and fault != "no_logprobs" else None,
                }
            ],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": len(said), "total_tokens": len(ids) + len(said)},
            **({"prompt_token_ids": ids} if body.get("return_token_ids") else {}),
        }

    def _listed(self, named: list[int], scores: torch.Tensor, fault: Fault) -> list[dict[str, Any]]:
        encoder = self.loaded.encoder
        entries = []
        for token in named:
            if fault == "no_yes" and token == encoder.yes_id:
                continue
            text = encoder.tokenizer.decode([token])
            logprob = 3.0 if fault == "certain" else float(scores[token])
            entries.append({"token": text, "logprob": logprob, "bytes": list(text.encode())})
        return entries


@torch.inference_mode()
def next_token(loaded: LoadedModel, ids: list[int], frame: torch.Tensor) -> torch.Tensor:
    """The log-probabilities of the token behind some ids with an image in them, (vocabulary,)."""
    patches, grid = loaded.processor.patches_of([frame])
    input_ids = torch.tensor([ids])
    kinds = (input_ids == loaded.encoder.image_pad_id).int()
    positions = loaded.base.model.get_rope_index(input_ids, mm_token_type_ids=kinds, image_grid_thw=grid)[0]
    states = loaded.base.model(
        input_ids=input_ids, position_ids=positions, pixel_values=patches, image_grid_thw=grid
    ).last_hidden_state
    return loaded.base.lm_head(states[0, -1]).float().log_softmax(dim=-1)


def _split(messages: list[dict[str, Any]], known: dict[str, Image.Image]) -> tuple[list[dict[str, Any]], Image.Image]:
    """The messages as a template takes them, and their one picture."""
    rendered, pictures = [], []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            parts = []
            for part in content:
                if part["type"] == "image_url":
                    if part["image_url"] is None:
                        picture = known[part["uuid"]]
                    else:
                        data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                        picture = Image.open(io.BytesIO(data)).convert("RGB")
                        known[part.get("uuid", "")] = picture
                    pictures.append(picture)
                    parts.append({"type": "image"})
                else:
                    parts.append(part)
            content = parts
        rendered.append({**message, "content": content})
    (picture,) = pictures
    return rendered, picture


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            """Tests say themselves what went wrong."""

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append(body)
                server.under_way += 1
                server.most_under_way = max(server.most_under_way, server.under_way)
            try:
                self._answer(body, server.take_fault())
            finally:
                with server.lock:
                    server.under_way -= 1

        def _answer(self, body: dict[str, Any], fault: Fault) -> None:
            if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
                return self._send(401, {"error": {"message": "wrong key"}})
            if fault == "hang":
                server.released.wait(60)
                self.close_connection = True
                return None
            if fault in ("error", "busy"):
                return self._send(500 if fault == "error" else 429, {"error": {"message": fault}})
            if fault == "nonsense":
                return self._send_bytes(200, b"<html>Bad gateway</html>")
            if fault == "empty":
                return self._send(200, {"id": "1", "object": "chat.completion", "choices": []})
            if body["model"] not in server.models:
                return self._send(404, {"error": {"message": f"no model {body['model']}"}})
            named_alone = body["messages"][1]["content"][0]["image_url"] is None
            if named_alone and not server.keeps_pictures:
                return self._send(400, {"error": {"message": "Cache miss for image at index 0 but data is not given"}})
            if server.plain and (found := [name for name in _EXTRAS if name in body]):
                return self._send(400, {"error": {"message": f"unknown parameter {found[0]}"}})
            if fault == "drop":
                self.close_connection = True
                return None
            data = json.dumps(server.answer(body, fault)).encode()
            if fault == "cut":
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None
            return self._send_bytes(200, data)

        def _send(self, status: int, body: dict[str, Any]) -> None:
            self._send_bytes(status, json.dumps(body).encode())

        def _send_bytes(self, status: int, data: bytes) -> None:
            with suppress(ConnectionError):  # who asked has given up
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    return Handler


@contextmanager
def running_chat_server(loaded: LoadedModel, **how: Any) -> Iterator[ChatServer]:
    """A server on a free port of this machine."""
    server = ChatServer(loaded, **how)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    http.block_on_close = False
    server.address = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        http.server_close()
        thread.join()
