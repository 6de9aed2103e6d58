"""What an answer that is no reply means for the run: wait, try again, leave this image out, or stop.

Both vendors' SDKs raise the same kinds of errors, one for each status. Their own sorting is not fine enough: a spend
limit and an empty account come as 429 like any rush of requests, and whoever sleeps on them sleeps for ever.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xray_vqa.errors import Incomplete, ProviderError, XrayVqaError
from xray_vqa.generation.providers.headers import retry_after_s
from xray_vqa.generation.providers.provider import Throttled, Unavailable

SPENT_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "enforced_spend_limit_reached",
     "contract_spend_limit_reached", "linked_organization_spend_limit_reached",
     "linked_organization_billing_unavailable", "organization_on_hold"}
)  # fmt: skip
"""Money or the account is the matter: anthropic 2.14 types/shared/*_error_details.py, openai's error code guide."""

POLICY_CODES = frozenset(
    {"content_filter", "content_policy_violation", "image_content_policy_violation", "invalid_prompt", "bio_policy",
     "misalignment_policy_violation"}
)  # fmt: skip
"""The service will not word this image: openai 3.57 types/responses/response_error.py; `content_filter` is Azure's."""

_UPSTREAM_TIMEOUTS = frozenset({504, 524})
"""A gateway gave up waiting; the model behind it may have gone on, and been paid."""

_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"})
"""Names of httpx's and httpx2's errors (SDKs changed from one to the other) before a request has left."""

_NEVER_SENDABLE = frozenset({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"})
"""Of an address or a header that cannot be."""


class Refused(ProviderError):
    """The service's rules forbid the request; nothing was billed."""


@dataclass(frozen=True, slots=True)
class Service:
    """Whom an error is about, and what its user can do."""

    name: str
    model: str
    key_variable: str

    def failure(self, status: int, code: str, message: str, headers: Mapping[str, str]) -> XrayVqaError:
        """Return the error that an answer with a status other than 200 means."""
        said = f"{self.name} answered {status}{f' ({code})' if code else ''}: {message[:300]}"
        # The credit message comes as an ordinary 400 without a code of its own, and would fail image after image.
        if status == 402 or code in SPENT_CODES or (status == 400 and "credit balance" in message):
            return Incomplete(
                f"{said}; the account's money or spend limit is used up: raise it, then start the same command again"
            )
        if status == 401:
            return Incomplete(f"{said}; the key is not accepted: check {self.key_variable}")
        if status == 403:
            return Incomplete(f"{said}; the key may not use {self.model}: check its rights and the project's region")
        if status == 404:
            return Incomplete(
                f"{said}; is there a model {self.model!r} at this address? `xray-vqa doctor` asks; another one is "
                "named with --model"
            )
        if status == 429:
            return Throttled(said, retry_after_s=retry_after_s(headers))
        if status in (408, 409) or status >= 500:
            return Unavailable(said, may_have_cost=status in _UPSTREAM_TIMEOUTS)
        return Refused(said) if code in POLICY_CODES else ProviderError(said)

    def broken(self, error: BaseException) -> Unavailable:
        """Return the error for an answer of 200 whose body cannot be read: the work behind it was done."""
        return Unavailable(f"{self.name} sent an answer that cannot be read: {error}", may_have_cost=True)

    @contextlib.contextmanager
    def sorted_failures(self, sdk: Any) -> Iterator[None]:
        """Turn what an SDK raises within into this package's errors.

        Args:
            sdk: The module `anthropic` or `openai`, which share names.
        """
        try:
            yield
        except sdk.APIStatusError as error:
            code, message = code_and_message(error.body)
            raise self.failure(
                error.status_code, code, message or str(error.message), error.response.headers
            ) from error
        except sdk.APIConnectionError as error:
            cause = error.__cause__ or error
            kind = type(cause).__name__
            if kind in _NEVER_SENDABLE:
                raise Incomplete(f"{self.name} cannot be asked: {cause}; check its address (base_url)") from error
            raise Unavailable(
                f"no answer from {self.name}: {kind} {cause}".rstrip(), may_have_cost=kind not in _NEVER_SENT
            ) from error


def code_and_message(body: object) -> tuple[str, str]:
    """Return what an error's body says; the OpenAI SDK has unwrapped `error` already, and proxies send anything."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "", str(error or "")
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, Mapping) else None
    return str(code or error.get("code") or error.get("type") or ""), str(error.get("message") or "")
