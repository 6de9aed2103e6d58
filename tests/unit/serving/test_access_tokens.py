"""Sign-in: a token counts only as RFC 8725 asks, and an outage of the provider stops nobody for a day."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from stand_ins.identity_provider import AUDIENCE, running

from xray_vqa.config.serve import ServeSettings
from xray_vqa.errors import ConfigError
from xray_vqa.serving.access import tokens
from xray_vqa.serving.access.roles import Permission, Refused, Role, permissions_of
from xray_vqa.serving.access.tokens import TokenCheck

OFFICER = permissions_of([Role.OFFICER])


@pytest.fixture
def provider():
    with running() as provider:
        yield provider


def check_of(provider, **settings) -> TokenCheck:
    return TokenCheck(ServeSettings(oidc_issuer=provider.issuer, oidc_audience=AUDIENCE, **settings))


def principal_of(check: TokenCheck, token: str):
    return asyncio.run(check.principal(token))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test can add to the monotonic clock."""

    class Clock:
        ahead_s = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.ahead_s

    clock = Clock()
    monkeypatch.setattr(tokens, "time", clock)
    return clock


def test_a_token_of_the_provider_names_a_person_with_the_rights_of_its_roles(provider):
    principal = principal_of(check_of(provider), provider.token())
    assert (principal.name, principal.permissions, principal.lanes) == ("oidc:officer-7", OFFICER, None)


@pytest.mark.parametrize("claim", [["officer"], "officer", "offline_access officer", ["x", "officer", 7, None]])
def test_roles_may_be_a_list_or_words(provider, claim):
    assert principal_of(check_of(provider), provider.token(roles=claim)).permissions == OFFICER


@pytest.mark.parametrize("claim", [None, [], "", 7, {"officer": True}, ["root"], [["officer"]], ["OFFICER"]])
def test_a_token_without_a_role_of_ours_may_do_nothing(provider, claim):
    assert principal_of(check_of(provider), provider.token(roles=claim)).permissions == frozenset()


def test_the_providers_names_for_roles_are_mapped_and_then_ours_count_no_more(provider):
    settings = {"oidc_role_claim": "realm_access.roles", "oidc_roles": {"shift-lead": "supervisor"}}
    check = check_of(provider, **settings)
    lead = principal_of(check, provider.token(realm_access={"roles": ["shift-lead"]}))
    assert Permission.OVERRIDE in lead.permissions
    assert principal_of(check, provider.token(realm_access={"roles": ["supervisor"]})).permissions == frozenset()


def test_a_mapping_to_no_role_of_ours_stops_the_start(provider):
    with pytest.raises(ConfigError, match=r"\['root'\], which are no roles; there are lane, officer"):
        check_of(provider, oidc_roles={"a": "root", "b": "officer"})


@pytest.mark.parametrize(
    ("claim", "lanes"), [(None, None), (["A", "B"], {"A", "B"}), ("A B", {"A", "B"}), ([], set()), (7, set())]
)
def test_a_claim_binds_a_person_to_lanes(provider, claim, lanes):
    assert principal_of(check_of(provider), provider.token(lanes=claim)).lanes == lanes


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1}, {"exp": None}, {"exp": "tomorrow"}, {"nbf": 2**40}, {"iat": 2**40}, {"iss": "https://other.example"},
        {"iss": None}, {"aud": "another-service"}, {"aud": None}, {"aud": []}, {"sub": None}, {"sub": ""}, {"sub": 7},
        {"sub": "a\nb"}, {"sub": "x" * 121},
    ],
    ids=str,
)  # fmt: skip
def test_a_claim_that_does_not_hold_refuses_the_token(provider, changes):
    with pytest.raises(Refused):
        principal_of(check_of(provider), provider.token(**changes))


def test_half_a_minute_of_a_wrong_clock_is_borne(provider):
    now = int(time.time())
    assert principal_of(check_of(provider), provider.token(exp=now - 20, nbf=now + 20))
    with pytest.raises(Refused):
        principal_of(check_of(provider), provider.token(exp=now - 60))


def part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_no_signature_is_no_token(provider):
    unsigned = f"{part({'alg': 'none', 'kid': 'first'})}.{part(provider.claims())}."
    with pytest.raises(Refused):
        principal_of(check_of(provider), unsigned)


def test_the_public_key_as_a_shared_secret_is_refused(provider):
    public = (
        provider.keys["first"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    header, claims = part({"alg": "HS256", "kid": "first"}), part(provider.claims())
    signature = hmac.new(public, f"{header}.{claims}".encode(), hashlib.sha256).digest()
    forged = f"{header}.{claims}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(Refused):
        principal_of(check_of(provider), forged)


def test_a_key_that_the_token_brings_along_is_not_looked_at(provider):
    provider.add_key("mine", publish=False)
    own = jwt.algorithms.RSAAlgorithm.to_jwk(provider.keys["mine"].public_key(), as_dict=True)
    for headers in ({"jwk": own}, {"jku": f"{provider.issuer}/mine"}, {"kid": "first", "jwk": own}):
        with pytest.raises(Refused):
            principal_of(check_of(provider), provider.token("mine", headers=headers))
    assert "/mine" not in provider.requests


def test_only_the_algorithms_of_the_settings_count_even_with_a_published_key(provider):
    provider.add_key("curve", "ES256")
    assert principal_of(check_of(provider), provider.token("curve", "ES256"))
    with pytest.raises(Refused):
        principal_of(check_of(provider, oidc_algorithms=("RS256",)), provider.token("curve", "ES256"))
    with pytest.raises(Refused):
        principal_of(check_of(provider, oidc_algorithms=("RS256", "PS256")), provider.token("first", "PS256"))


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "....", "a" * 9000, "é.ü.ß", "e30.e30.e30", "W10.W10.W10"])
def test_what_is_no_token_is_refused_without_asking_the_provider(provider, token):
    with pytest.raises(Refused):
        principal_of(check_of(provider), token)
    assert provider.requests == []


@pytest.mark.parametrize("header", [[], {"alg": ["RS256"], "kid": "first"}, {"alg": "RS256", "kid": ["first"]},
                                    {"alg": "RS256", "kid": "first", "crit": ["x"]}, {"kid": "first"}])  # fmt: skip
def test_a_header_of_another_form_is_refused(provider, header):
    with pytest.raises(Refused):
        principal_of(check_of(provider), f"{part(header)}.{part(provider.claims())}.c2ln")


def test_a_new_key_of_the_provider_counts_at_once_and_invented_ids_do_not_make_us_ask_each_time(provider, clock):
    async def scene():
        check = check_of(provider)
        await check.principal(provider.token())
        assert provider.requests == ["/.well-known/openid-configuration", "/keys"]
        clock.ahead_s += 60
        provider.add_key("second")
        await check.principal(provider.token("second"))
        assert provider.requests.count("/keys") == 2
        for number in range(20):
            with pytest.raises(Refused):
                await check.principal(provider.token(headers={"kid": f"invented-{number}"}))
        assert provider.requests.count("/keys") == 2

    asyncio.run(scene())


def test_a_key_that_the_provider_withdraws_stops_counting_within_minutes(provider, clock):
    async def scene():
        check = check_of(provider)
        await check.principal(provider.token())
        provider.published.clear()
        clock.ahead_s += tokens.FRESH_FOR_S + 1
        with pytest.raises(Refused):
            await check.principal(provider.token())

    asyncio.run(scene())


def test_while_the_provider_is_away_its_last_keys_hold_for_a_day(provider, clock, caplog):
    async def scene():
        check = check_of(provider)
        await check.principal(provider.token())
        provider.is_away = True
        clock.ahead_s += tokens.KEPT_FOR_S - 60
        assert (await check.principal(provider.token())).name == "oidc:officer-7"
        clock.ahead_s += 120
        with pytest.raises(Refused):
            await check.principal(provider.token())
        provider.is_away = False
        clock.ahead_s += tokens.ASK_AGAIN_AFTER_S + 1
        assert await check.principal(provider.token())

    with caplog.at_level(logging.ERROR):
        asyncio.run(scene())
    assert "keys cannot be fetched" in caplog.text


def test_a_provider_that_was_never_there_lets_nobody_in(provider):
    provider.is_away = True
    with pytest.raises(Refused):
        principal_of(check_of(provider), provider.token())


@pytest.mark.parametrize("changes", [{"issuer": "https://other.example"}, {"jwks_uri": "http://other.example/keys"},
                                     {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": 7}])  # fmt: skip
def test_a_discovery_document_that_points_elsewhere_is_not_followed(provider, changes):
    provider.discovery |= changes
    with pytest.raises(Refused):
        principal_of(check_of(provider), provider.token())
    assert "/keys" not in provider.requests


def test_the_keys_address_may_be_given_and_broken_entries_take_no_good_one_away(provider):
    shared = {"kid": "y", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}
    provider.published[:0] = [{"kid": "x", "kty": "RSA"}, shared, 7]
    check = check_of(provider, oidc_jwks_url=f"{provider.issuer}/keys")
    assert principal_of(check, provider.token())
    assert provider.requests == ["/keys"]


@pytest.mark.parametrize("name", ["oidc_issuer", "oidc_jwks_url"])
def test_sign_in_over_plain_http_is_refused_but_on_this_machine(name):
    settings = {"oidc_issuer": "https://id.example", "oidc_audience": AUDIENCE, name: "http://id.example"}
    with pytest.raises(ConfigError, match=f"{name} is 'http://id.example'; .* https"):
        TokenCheck(ServeSettings(**settings))
