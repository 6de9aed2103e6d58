"""What a service that takes requests by the batch looks like from outside: half the price, within a day."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from xray_vqa.core.records import Strict
from xray_vqa.errors import Incomplete, ProviderError, XrayVqaError
from xray_vqa.generation.providers.provider import Price, Reply, Request

BATCH_SHARE = 0.5
"""Of the price, what both vendors charge for all tokens of a batch, cached ones included."""


@dataclass(frozen=True, slots=True)
class BatchPrice:
    """What a model's tokens cost in a batch."""

    single: Price

    def usd(
        self, *, input_tokens: int, cache_read_tokens: int = 0, cache_write_tokens: int = 0, output_tokens: int = 0
    ) -> float:
        """Return dollars; `input_tokens` are those that no cache gave or took."""
        return BATCH_SHARE * self.single.usd(
            input_tokens=input_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            output_tokens=output_tokens,
        )


@dataclass(frozen=True, slots=True)
class BatchForm:
    """How large a batch may be, and what stands around its requests when it is sent."""

    max_requests: int
    max_bytes: int
    head: bytes
    between: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class BatchState:
    """How far a batch is."""

    status: str
    """The service's word."""
    ended: bool
    num_requests: int
    num_succeeded: int
    """Those that are billed."""
    num_failed: int
    error: str = ""
    """Why the service did not do all of it, where a person should know before it is submitted again."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one request; either a reply or an error as `Provider.generate` raises it."""

    custom_id: str
    reply: Reply | None = None
    error: XrayVqaError | None = None


class Account(Strict):
    """Whose batches a service lists, told without the key."""

    key_digest: str
    """Of key and address, salted with the tag of a batch."""
    organization: str = ""
    """As the service names it; empty where it does not."""
    project: str = ""
    """Of the organization; Anthropic's workspace."""

    def shares_batches_with(self, other: "Account") -> bool:
        """Return whether both are sure to see the same batches."""
        if self.key_digest == other.key_digest:
            return True
        return bool(self.project) and (self.organization, self.project) == (other.organization, other.project)

    def __str__(self) -> str:
        named = [f"{kind} {name}" for kind, name in self if kind != "key_digest" and name]
        return " and ".join(named) or "an account that the service does not name"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a service says before anything is submitted."""

    account: Account
    at: float
    """Seconds since 1970 by the service's clock, for ours may be wrong or jump; ours where it does not tell."""


class Undecided(ProviderError):
    """Whether a service has a batch cannot be told yet."""


class BatchUnknown(Incomplete):
    """The service does not know a batch by the name that it gave to it."""


class ResultsGone(ProviderError):
    """The service no longer has the results of a batch."""


class BatchService(Protocol):
    """Sends one provider's requests by the batch."""

    form: BatchForm

    def line(self, custom_id: str, request: Request) -> bytes:
        """Return one request as JSON. Reads the image: not for the event loop. Raises ProviderError."""
        ...

    async def greet(self, tag: str) -> Greeting:
        """Return whose batches the service would show us, and its time. Costs nothing.

        Args:
            tag: salt of the key's digest.
        """
        ...

    async def submit(self, tag: str, body: BinaryIO, num_bytes: int) -> str:
        """Send what stands in a file, and return the service's name for the batch.

        Raises:
            Throttled: Not now; the service has nothing.
            Unavailable: The service may have it.
            ProviderError, Incomplete: The service does not take it.
        """
        ...

    async def find(self, tag: str, num_requests: int, announced_at: float, known: Iterable[str]) -> str:
        """Return the name of the batch that was submitted under a tag; empty where the service has none.

        Args:
            tag: custom ids begin with it.
            num_requests: in the batch.
            announced_at: seconds since 1970 by the service's clock, shortly before it was submitted.
            known: names that belong to other batches.

        Raises:
            Undecided: It cannot be told before others have ended.
        """
        ...

    async def status(self, batch_id: str) -> BatchState:
        """Return how far a batch is. Raises BatchUnknown."""
        ...

    def results(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """Give the results of a batch that has ended, in any order, one at a time. Raises ResultsGone."""
        ...
