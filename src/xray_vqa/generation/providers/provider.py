"""What every pair writer looks like from outside: a planned image goes in, worded pairs come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ValidationError

from xray_vqa.core.jsonl import first_error
from xray_vqa.core.records import ScanRecord, Strict
from xray_vqa.errors import AnswerUnreadable, ProviderError
from xray_vqa.generation.plan import Slot

Stop = Literal["end", "refusal", "truncated"]


@dataclass(frozen=True, slots=True)
class Request:
    """One image with the questions to word. The truth is in the slots; the provider chooses the words alone."""

    record: ScanRecord
    slots: tuple[Slot, ...]
    image_file: Path
    annotated: tuple[str, ...]
    """The categories that the source labels: what is not there of these is absent."""
    complaint: str = ""
    """What was wrong with the reply before this one; empty at the first try."""
    with_image: bool = True
    """Whether the scan itself is shown, or its facts alone."""
    language: str = "en"
    """To word question and answer in; what slots hold is English in any language."""


class Throttled(ProviderError):
    """The service asks to slow down; nothing was billed. The same request may be sent again."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """What the service wants to be waited; None where it does not say."""


class Unavailable(ProviderError):
    """The service or the way to it failed for now. The same request may be sent again."""

    def __init__(self, message: str, *, may_have_cost: bool) -> None:
        super().__init__(message)
        self.may_have_cost = may_have_cost
        """Whether the service may have done the work without our seeing it: a timeout, a cut connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service said last of how much more it takes; None where it does not say."""

    remaining_requests: float | None = None
    requests_reset_s: float | None = None
    """Seconds until the requests are whole again."""
    remaining_tokens: float | None = None
    """The scarcest kind, where a service counts input and output apart."""
    tokens_reset_s: float | None = None


class Price(Protocol):
    """What a model's tokens cost."""

    def usd(
        self, *, input_tokens: int, cache_read_tokens: int = 0, cache_write_tokens: int = 0, output_tokens: int = 0
    ) -> float:
        """Return dollars; `input_tokens` are those at the full price, as in `Reply`."""
        ...


class Reply(Strict):
    """What came back, as it came: it is journaled before anybody tries to read it, for it may have cost money."""

    text: str
    """JSON of `WordedPairs`; of a refusal whatever reason was given."""
    stop: Stop = "end"
    model: str
    input_tokens: int = 0
    """At the full price: without those that a cache gave or took."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


class WordedPair(Strict):
    """The words for one slot."""

    slot: int
    question: str
    answer: str
    evidence: list[int] | None = None
    """The facts that the answer was said to rest on: indices into the record's `categories`. None where nobody said."""


class WordedPairs(Strict):
    """The form of `Reply.text`."""

    pairs: list[WordedPair]
    disagree: bool = False
    """The writer saw something else in the image than the facts say: a hint at a wrong annotation."""


class Provider(Protocol):
    """Words planned pairs."""

    name: str
    generated_by: str
    """What pairs say of their origin: `template`, `llm`, `scripted`."""
    model: str
    prompt_version: str
    """Of the provider's own templates or prompt; a changed one is written anew."""
    paid: bool
    """Whether a reply can cost money: then each is synced to disk and the user is asked first."""
    concurrency: int
    """Requests that it takes at once."""
    listens: bool
    """Whether a complaint, or leaving the image out, can change its words; templates say the same again."""
    limits: Limits
    """As of the last answer."""

    def parameters(self) -> dict[str, str | int | float]:
        """Return all else that its words depend on."""
        ...

    def estimate_usd(self, requests: Sequence[Request]) -> float:
        """Return what these requests will probably cost."""
        ...

    def most_usd(self, request: Request) -> float:
        """Return what this request can cost at most."""
        ...

    async def generate(self, request: Request) -> Reply:
        """Return the words for one image; one attempt, which the caller repeats where that makes sense.

        Raises:
            Throttled: Too many requests for now.
            Unavailable: The service failed for now.
            ProviderError: This image cannot be worded, now or by another try.
            Incomplete: Nothing can go on (key, quota, spend limit); the same command continues later.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


def read_reply(reply: Reply) -> WordedPairs:
    """Return the words of a reply. Raises AnswerUnreadable where it is refused, cut off or no such JSON."""
    if reply.stop == "refusal":
        raise AnswerUnreadable("the provider refused", text=reply.text)
    if reply.stop == "truncated":
        raise AnswerUnreadable("the reply was cut off", text=reply.text)
    try:
        return WordedPairs.model_validate_json(reply.text)
    except ValidationError as error:
        raise AnswerUnreadable(f"the reply is not the JSON asked for: {first_error(error)}", text=reply.text) from error
