"""Sign-in of people: tokens of the site's identity provider, checked as RFC 8725 asks.

The algorithms, the issuer and the audience come from the settings and never from a token, whose `jku`, `x5u` and `jwk`
headers are not looked at. The provider's keys are kept, so that its outage does not stop a lane for a day.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from jwt.exceptions import PyJWTError

from xray_vqa.config.serve import ServeSettings
from xray_vqa.errors import ConfigError
from xray_vqa.serving.access.roles import Principal, Refused, Role, permissions_of

logger = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 8192
LEEWAY_S = 30
FRESH_FOR_S = 300
"""After it the provider is asked for its keys again."""
KEPT_FOR_S = 24 * 3600
"""While the provider cannot be reached its last keys hold for this long."""
ASK_AGAIN_AFTER_S = 10
"""An unknown key id makes us ask at once, but no more often than this: ids can be invented."""
_FETCH_TIMEOUT_S = 5.0
_MAX_SUBJECT_LENGTH = 120
"""What a record has room for."""


class SigningKeys:
    """The provider's public keys, fetched when they are needed."""

    def __init__(self, issuer: str, jwks_url: str | None, algorithms: Iterable[str]) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._algorithms = frozenset(algorithms)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def find(self, key_id: str) -> jwt.PyJWK:
        """Return the key with an id. Raises Refused where the provider has none, or was not reached for long."""
        if key_id not in self._keys or self._age_s() > FRESH_FOR_S:
            async with self._asking:
                if (key_id not in self._keys or self._age_s() > FRESH_FOR_S) and (
                    time.monotonic() - self._asked_at > ASK_AGAIN_AFTER_S
                ):
                    self._asked_at = time.monotonic()
                    await self._fetch()
        if self._age_s() > KEPT_FOR_S:
            raise Refused("the identity provider's keys could not be fetched")
        if key_id not in self._keys:
            raise Refused("the token is signed with a key that the identity provider does not publish")
        return self._keys[key_id]

    def _age_s(self) -> float:
        return float("inf") if self._fetched_at is None else time.monotonic() - self._fetched_at

    async def _fetch(self) -> None:
        try:
            # Redirects are not followed: the address in the settings is the one that is trusted.
            async with httpx.AsyncClient(timeout=_FETCH_TIMEOUT_S) as client:
                url = self._jwks_url or await self._discover(client)
                keys = _usable_keys(await _json_from(client, url), self._algorithms)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError, PyJWTError) as error:
            logger.error("the identity provider's keys cannot be fetched: %s: %s", type(error).__name__, error)
            return
        self._keys, self._fetched_at = keys, time.monotonic()

    async def _discover(self, client: httpx.AsyncClient) -> str:
        document = await _json_from(client, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise ValueError(f"its configuration names the issuer {document.get('issuer')!r}, not {self._issuer!r}")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_trusted_url(url):
            raise ValueError(f"its configuration names the keys' address {url!r}, which is not https")
        return url


async def _json_from(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    response = (await client.get(url)).raise_for_status()
    value = response.json()
    if not isinstance(value, dict):
        raise ValueError(f"{url} gives no JSON object")
    return value


def _usable_keys(document: Mapping[str, Any], algorithms: frozenset[str]) -> dict[str, jwt.PyJWK]:
    """Return the keys that may sign tokens here, by id. One that cannot be read does not take the others away."""
    found: dict[str, jwt.PyJWK] = {}
    entries = document.get("keys")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or not isinstance(entry.get("kid"), str):
            continue
        try:
            key = jwt.PyJWK.from_dict(entry)
        except (PyJWTError, ValueError, TypeError) as error:
            logger.warning("a key of the identity provider is left out: %s", error)
            continue
        if key.algorithm_name in algorithms:  # a symmetric key is in no list of ours
            found[entry["kid"]] = key
    return found


def is_trusted_url(url: str) -> bool:
    """Return whether what comes from an address is the provider's own: over TLS, or from this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))


class TokenCheck:
    """Turns a token into the person that it names."""

    def __init__(self, settings: ServeSettings) -> None:
        assert settings.oidc_issuer
        assert settings.oidc_audience
        for name in ("oidc_issuer", "oidc_jwks_url"):
            url = getattr(settings, name)
            if url and not is_trusted_url(url):
                raise ConfigError(f"{name} is {url!r}; what signs people in has to be https, or on this machine")
        self._settings = settings
        self._roles = _role_names(settings.oidc_roles)
        self._keys = SigningKeys(settings.oidc_issuer, settings.oidc_jwks_url, settings.oidc_algorithms)
        self._jwt = jwt.PyJWT({"enforce_minimum_key_length": True})

    async def principal(self, token: str) -> Principal:
        """Return who a token names. Raises Refused."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise Refused("the token is longer than any")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._settings.oidc_algorithms:
                raise Refused("the token is signed with an algorithm that is not allowed")
            key = await self._keys.find(str(header.get("kid")))
            claims = self._jwt.decode(
                token,
                key,
                algorithms=list(self._settings.oidc_algorithms),
                issuer=self._settings.oidc_issuer,
                audience=self._settings.oidc_audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        # PyJWT lets what is wrong inside a token (numbers as text, a header that is a list) through as these.
        except (PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise Refused(f"the token does not hold: {type(error).__name__}") from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT_LENGTH or not subject.isprintable():
            raise Refused("the token's subject is no name")
        roles = [self._roles[name] for name in _words_at(claims, self._settings.oidc_role_claim) if name in self._roles]
        return Principal(f"oidc:{subject}", permissions_of(roles), _lanes_at(claims, self._settings.oidc_lane_claim))


def _role_names(given: Mapping[str, str]) -> dict[str, Role]:
    known = {role.value: role for role in Role}
    unknown = sorted(set(given.values()) - set(known))
    if unknown:
        raise ConfigError(f"oidc_roles maps to {unknown}, which are no roles; there are {', '.join(known)}")
    return {name: known[value] for name, value in given.items()} or known


def _words_at(claims: Mapping[str, Any], path: str) -> list[str]:
    """Return a claim that is a word, words with spaces between, or a list of them; `realm_access.roles` goes deep."""
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return [word for word in words if isinstance(word, str)]


def _lanes_at(claims: Mapping[str, Any], name: str) -> frozenset[str] | None:
    """Return the lanes that a token is bound to; None where it says nothing of lanes."""
    return frozenset(_words_at(claims, name)) if name in claims else None
