"""The batch desks of the stand-in: Anthropic's Message Batches, OpenAI's files and batches."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from time import time
from typing import Any
from urllib.parse import parse_qs

CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
PAGE = 2
"""Batches in one page of a list, however many are asked for: so that everybody has to turn pages."""


class BatchDesk:
    """Takes batches for a server, which does the work and keeps the ledger."""

    def __init__(self, server: Any, dialects: Mapping[str, Any], project: str = "") -> None:
        self._server, self._dialects, self._project = server, dialects, project
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def answer(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Any] | None:
        """Return status and body; None where the path is none of a desk."""
        match method, path.strip("/").split("/")[1:]:
            case "POST", ["messages", "batches"]:
                return self._take_messages(json.loads(body)["requests"])
            case "GET", ["messages", "batches"]:
                names, more = self._page("msgbatch", query, "after_id")
                found = [self._message_batch(name) for name in names]
                ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
                return 200, {"data": found, "has_more": more, **ends}
            case "GET", ["messages", "batches", name] if name in self.batches:
                return 200, self._message_batch(name)
            case "GET", ["messages", "batches", name, "results"] if name in self.batches:
                return 200, self.batches[name]["results"]
            case "POST", ["files"]:
                return 200, self._keep_file(headers, body)
            case "GET", ["files", name, "content"] if (
                name in self.files and not self._server.behaviour.results_are_gone
            ):
                return 200, self.files[name]
            case "POST", ["batches"]:
                return 200, self._take_file(json.loads(body))
            case "GET", ["batches"]:
                names, more = self._page("batch", query, "after")
                return 200, {"object": "list", "data": [self._batch(name) for name in names], "has_more": more}
            case "GET", ["batches", name] if name in self.batches:
                return 200, self._batch(name)
        return None

    def _page(self, kind: str, query: str, after: str) -> tuple[list[str], bool]:
        names = [name for name in reversed(self.batches) if name.startswith(f"{kind}_")]
        if last := parse_qs(query).get(after):
            names = names[names.index(last[0]) + 1 :]
        return names[:PAGE], len(names) > PAGE

    def _refusal(self) -> str:
        script = self._server.behaviour.batch_script
        return script.popleft() if script else ""

    def _take_messages(self, requests: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        ids = [request["custom_id"] for request in requests]
        if len(set(ids)) < len(ids) or not all(map(CUSTOM_ID.fullmatch, ids)):
            return 400, {"error": {"type": "invalid_request_error", "message": "custom_id"}}
        if said := self._refusal():
            return 429, {"error": {"type": "rate_limit_error", "message": said}}
        dialect, lines = self._dialects["/v1/messages"], []
        counts: Counter[str] = Counter()
        for request in requests:
            fault, billed, answer = self._server.work(dialect.read(request["params"]), 0.5)
            if fault in ("expired", "cancelled"):
                result = {"type": {"expired": "expired", "cancelled": "canceled"}[fault]}
            elif billed is None:
                result = {"type": "errored", "error": self._server.error(fault, "/v1/messages")[1]}
            else:
                billed.delivered = True
                result = {"type": "succeeded", "message": dialect.write(answer)}
            counts[result["type"]] += 1
            lines.append({"custom_id": request["custom_id"], "result": result})
        name = f"msgbatch_{self._project}{len(self.batches)}"
        # Backwards: real results come in no order either.
        self.batches[name] = {"made": time(), "results": jsonl(lines[::-1]), "counts": counts, "total": len(lines)}
        return 200, self._message_batch(name)

    def _has_ended(self, name: str) -> bool:
        return time() >= self.batches[name]["made"] + self._server.behaviour.batch_s

    def _message_batch(self, name: str) -> dict[str, Any]:
        batch, ended = self.batches[name], self._has_ended(name)
        counts = batch["counts"] if ended else {"processing": batch["total"]}
        kinds = ("processing", "succeeded", "errored", "canceled", "expired")
        gone = self._server.behaviour.results_are_gone
        return {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {kind: counts.get(kind, 0) for kind in kinds},
            "created_at": iso(batch["made"]),
            "expires_at": iso(batch["made"] + 86400),
            "ended_at": iso(time()) if ended else None,
            "archived_at": iso(time()) if gone else None,
            "cancel_initiated_at": None,
            "results_url": f"{self._server.url}/v1/messages/batches/{name}/results" if ended and not gone else None,
        }

    def _keep_file(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        boundary = headers["content-type"].partition("boundary=")[2].encode()
        parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + boundary)[1:-1]]
        data = next(value for head, _, value in parts if b'name="file"' in head).removesuffix(b"\r\n")
        return self._file(data, "batch")

    def _file(self, data: bytes, purpose: str) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return {"id": name, "object": "file", "bytes": len(data), "created_at": 1, "filename": f"{name}.jsonl",
                "purpose": purpose, "status": "processed"}  # fmt: skip

    def _take_file(self, body: dict[str, Any]) -> dict[str, Any]:
        dialect = self._dialects[body["endpoint"]]
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        said, status = self._refusal(), "completed"
        for line in [] if said else self.files[body["input_file_id"]].splitlines():
            request = json.loads(line)
            fault, billed, answer = self._server.work(dialect.read(request["body"]), 0.5)
            kept = {"id": "batch_req_1", "custom_id": request["custom_id"], "error": None, "response": None}
            if fault in ("expired", "cancelled"):
                status = fault
            if fault == "cancelled":
                continue
            if fault == "expired":
                failed.append(kept | {"error": {"code": "batch_expired", "message": "not begun in time"}})
            elif billed is None:
                code, error, _ = self._server.error(fault, body["endpoint"])
                failed.append(kept | {"response": {"status_code": code, "request_id": "1", "body": error}})
            else:
                billed.delivered = True
                response = {"status_code": 200, "request_id": "1", "body": dialect.write(answer)}
                done.append(kept | {"response": response})
        name = f"batch_{self._project}{len(self.batches)}"
        self.batches[name] = {
            "made": time(),
            "body": body,
            "refused": said,
            "status": status,
            "output": self._file(jsonl(done[::-1]), "batch_output")["id"] if done else None,
            "errors": self._file(jsonl(failed), "batch_output")["id"] if failed else None,
            "counts": {"total": len(done) + len(failed), "completed": len(done), "failed": len(failed)},
        }
        return self._batch(name)

    def _batch(self, name: str) -> dict[str, Any]:
        batch, ended = self.batches[name], self._has_ended(name)
        shown: dict[str, Any] = {
            "id": name,
            "object": "batch",
            "endpoint": batch["body"]["endpoint"],
            "input_file_id": batch["body"]["input_file_id"],
            "completion_window": "24h",
            "metadata": batch["body"].get("metadata"),
            "created_at": int(batch["made"]),
            "status": batch["status"] if ended else "in_progress",
            "output_file_id": batch["output"] if ended else None,
            "error_file_id": batch["errors"] if ended else None,
            "request_counts": batch["counts"] if ended else {"total": batch["counts"]["total"], "completed": 0,
                                                             "failed": 0},
        }  # fmt: skip
        if batch["refused"]:
            error = {"code": "token_limit_exceeded", "message": batch["refused"]}
            shown |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
        return shown


def jsonl(values: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
