"""What services say of pace in their headers, and what a failed request means."""

import pytest

from xray_vqa.config.loading import read_key
from xray_vqa.errors import ConfigError, Incomplete, ProviderError
from xray_vqa.generation.providers.failures import Refused, Service
from xray_vqa.generation.providers.headers import anthropic_limits, openai_limits, retry_after_s
from xray_vqa.generation.providers.provider import Limits, Throttled, Unavailable

DATE = {"date": "Wed, 25 Nov 2026 18:00:00 GMT"}
SERVICE = Service("Anthropic", "claude-haiku-5-5", "ANTHROPIC_API_KEY")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 25 Nov 2026 18:01:30 GMT"} | DATE, 90.0),
        ({"retry-after": "Wed, 25 Nov 2026 17:00:00 GMT"} | DATE, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], expected: float | None):
    assert retry_after_s(headers) == expected


def test_limits_of_anthropic_take_the_scarcest_tokens():
    headers = {
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-25T18:00:01Z",
        "anthropic-ratelimit-input-tokens-remaining": "90000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-25T18:00:30Z",
        "anthropic-ratelimit-output-tokens-remaining": "0",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-25T18:01:00Z",
    }
    assert anthropic_limits(headers | DATE) == Limits(49, 1.0, 0, 60.0)


def test_limits_of_openai_are_spans():
    headers = {
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "6m1.5s",
    }
    assert openai_limits(headers) == Limits(499, 0.12, 29000, 361.5)


def test_what_is_not_said_is_not_known():
    assert anthropic_limits({}) == openai_limits({"x-ratelimit-reset-tokens": "later"}) == Limits()


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (429, "rate_limit_error", "", Throttled),
        (429, "ramp_limit_exceeded", "", Throttled),
        (429, "enforced_spend_limit_reached", "", Incomplete),
        (429, "contract_spend_limit_reached", "", Incomplete),
        (429, "insufficient_quota", "", Incomplete),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", Incomplete),
        (401, "authentication_error", "", Incomplete),
        (402, "billing_error", "", Incomplete),
        (403, "permission_error", "", Incomplete),
        (404, "not_found_error", "", Incomplete),
        (408, "", "", Unavailable),
        (409, "", "", Unavailable),
        (500, "api_error", "", Unavailable),
        (503, "", "", Unavailable),
        (529, "overloaded_error", "", Unavailable),
        (400, "image_content_policy_violation", "", Refused),
        (400, "content_filter", "", Refused),
        (400, "image_too_large", "", ProviderError),
        (413, "request_too_large", "", ProviderError),
        (422, "", "", ProviderError),
    ],
)
def test_what_a_status_means_for_the_run(status: int, code: str, message: str, kind: type[Exception]):
    failure = SERVICE.failure(status, code, message, {})
    assert type(failure) is kind
    assert str(status) in str(failure)


@pytest.mark.parametrize(("status", "may_have_cost"), [(500, False), (503, False), (529, False), (504, True)])
def test_a_gateway_that_gave_up_waiting_may_have_cost(status: int, may_have_cost: bool):
    failure = SERVICE.failure(status, "", "", {})
    assert isinstance(failure, Unavailable)
    assert failure.may_have_cost is may_have_cost


def test_a_key_is_taken_without_its_line_end(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-1\n")
    assert read_key(None, "ANTHROPIC_API_KEY") == "sk-ant-1"
    assert read_key("given", "ANTHROPIC_API_KEY") == "given"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk\u2013ant")
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY holds characters that no key has"):
        read_key(None, "ANTHROPIC_API_KEY")
