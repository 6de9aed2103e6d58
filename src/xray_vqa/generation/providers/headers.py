"""What the headers of an answer say about pace: how long to wait, and how much more is taken."""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime

from xray_vqa.generation.providers.provider import Limits

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a service wants to be left alone, None where it does not say."""
    milliseconds = _number(headers, "retry-after-ms")
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = _number(headers, "retry-after")
    return _until(headers, _http_date(headers, "retry-after")) if seconds is None else seconds


def anthropic_limits(headers: Mapping[str, str]) -> Limits:
    """Read `anthropic-ratelimit-<kind>-{remaining,reset}`; a reset is a time in RFC 3339."""
    tokens = [
        (left, kind)
        for kind in ("tokens", "input-tokens", "output-tokens")
        if (left := _number(headers, f"anthropic-ratelimit-{kind}-remaining")) is not None
    ]
    left, kind = min(tokens, default=(None, "tokens"))

    def reset_s(kind: str) -> float | None:
        with suppress(ValueError):
            at = datetime.fromisoformat(headers.get(f"anthropic-ratelimit-{kind}-reset", ""))
            return _until(headers, at.timestamp())
        return None

    return Limits(
        remaining_requests=_number(headers, "anthropic-ratelimit-requests-remaining"),
        requests_reset_s=reset_s("requests"),
        remaining_tokens=left,
        tokens_reset_s=reset_s(kind),
    )


def openai_limits(headers: Mapping[str, str]) -> Limits:
    """Read `x-ratelimit-{remaining,reset}-{requests,tokens}`; a reset is a span like `6m0s` or `20ms`."""

    def reset_s(kind: str) -> float | None:
        parts = _SPAN.findall(headers.get(f"x-ratelimit-reset-{kind}", ""))
        return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None

    return Limits(
        remaining_requests=_number(headers, "x-ratelimit-remaining-requests"),
        requests_reset_s=reset_s("requests"),
        remaining_tokens=_number(headers, "x-ratelimit-remaining-tokens"),
        tokens_reset_s=reset_s("tokens"),
    )


def service_time(headers: Mapping[str, str]) -> float:
    """Return seconds since 1970 by the clock of whoever sent the headers; by ours where they do not tell."""
    now = _http_date(headers, "date")
    return time.time() if now is None else now


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        number = float(headers.get(name, ""))
    except ValueError:
        return None
    return max(0.0, number) if number < float("inf") else None


def _http_date(headers: Mapping[str, str], name: str) -> float | None:
    with suppress(ValueError):
        return parsedate_to_datetime(headers.get(name, "")).timestamp()
    return None


def _until(headers: Mapping[str, str], at: float | None) -> float | None:
    """Return the seconds to a moment by the service's own clock where it tells it: ours may be wrong, or jump."""
    if at is None:
        return None
    return max(0.0, at - service_time(headers))
