"""A provider that follows a script: for tests and rehearsals of what real ones do on a bad day.

It words slots as the template provider does and, where the script says so, fails, refuses, stalls or lies.
"""

import asyncio
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from xray_vqa.core.jsonl import first_error, read_json
from xray_vqa.core.records import Strict
from xray_vqa.errors import ConfigError, Incomplete, ProviderError
from xray_vqa.generation.providers.provider import Limits, Reply, Request, Throttled, Unavailable
from xray_vqa.generation.providers.template import word_slots

Fault = Literal[
    "",
    "error",
    "incomplete",
    "throttled",
    "unavailable",
    "lost",
    "refusal",
    "truncated",
    "garbage",
    "missing",
    "wrong",
    "leak",
]


class Step(Strict):
    """One call. `delay_s` is waited first, then the fault happens."""

    fault: Fault = ""
    """`error`: this image fails; `incomplete`: the run cannot go on; `throttled`, `unavailable`: for now; `lost`: done
    and perhaps billed, but the reply never came; `missing`: one pair short; `wrong`: the first
    answer is not the planned one; `leak`: the first question speaks of annotations; `refusal`, `truncated` and
    `garbage`: replies that cannot be read."""
    delay_s: float = 0.0
    cost_usd: float = 0.0
    retry_after_s: float | None = None
    """For `throttled`: what is asked to be waited."""


class ScriptedProvider:
    """Follows the steps of a script in turn, and the last one for ever."""

    name = "scripted"
    generated_by = "scripted"
    model = "scripted"
    prompt_version = "scripted-1"
    listens = True
    limits = Limits()

    def __init__(self, script: Iterable[Step], *, seed: int = 0, concurrency: int = 1) -> None:
        self._script = list(script)
        if not self._script:
            raise ConfigError("a script needs at least one step")
        self._steps = itertools.chain(self._script, itertools.repeat(self._script[-1]))
        self._seed = seed
        self.concurrency = concurrency
        self.paid = any(step.cost_usd for step in self._script)
        self.calls = 0

    @classmethod
    def from_file(cls, path: Path, *, seed: int = 0) -> "ScriptedProvider":
        """Read a script from a JSON list of steps. Raises ConfigError."""
        try:
            return cls(TypeAdapter(list[Step]).validate_python(read_json(path)), seed=seed)
        except ValidationError as error:
            raise ConfigError(f"{path}: no script: {first_error(error)}") from error

    def parameters(self) -> dict[str, str | int | float]:
        return {"seed": self._seed}

    def estimate_usd(self, requests: Sequence[Request]) -> float:
        steps = itertools.chain(self._script, itertools.repeat(self._script[-1]))
        return sum(step.cost_usd for step, _ in zip(steps, requests, strict=False))

    def most_usd(self, request: Request) -> float:
        return max(step.cost_usd for step in self._script)

    async def generate(self, request: Request) -> Reply:
        step = next(self._steps)
        self.calls += 1
        if step.delay_s:
            await asyncio.sleep(step.delay_s)
        if step.fault == "error":
            raise ProviderError("the script says that this image fails")
        if step.fault == "incomplete":
            raise Incomplete("the script says that nothing goes on; start the same command again")
        if step.fault == "throttled":
            raise Throttled("the script says that this comes too fast", retry_after_s=step.retry_after_s)
        if step.fault in ("unavailable", "lost"):
            raise Unavailable("the script says that nobody answers", may_have_cost=step.fault == "lost")
        stop = step.fault if step.fault in ("refusal", "truncated") else "end"
        return Reply(text=self._text(request, step.fault), stop=stop, model=self.model, cost_usd=step.cost_usd)

    async def close(self) -> None:
        pass

    def _text(self, request: Request, fault: Fault) -> str:
        pairs: list[dict[str, Any]] = [
            pair.model_dump() for pair in word_slots(request.record, request.slots, self._seed, request.language)
        ]
        if fault == "wrong":
            pairs[0]["answer"] = (
                "No, there is none." if pairs[0]["answer"].startswith("Yes") else "Yes, eleven of them."
            )
        if fault == "leak":
            pairs[0]["question"] = f"According to the annotation: {pairs[0]['question']}"
        text = json.dumps({"pairs": pairs[1:] if fault == "missing" else pairs})
        match fault:
            case "refusal":
                return ""
            case "truncated":
                return text[: len(text) // 2]
            case "garbage":
                return "I would rather describe the weather."
            case _:
                return text
