"""Who sends a request: the holder of a key of the store, a person with a token, or nobody."""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from xray_vqa.config.serve import ServeSettings
from xray_vqa.errors import ConfigError
from xray_vqa.serving.access.keys import ApiKey, fits, id_of
from xray_vqa.serving.access.roles import Principal, Refused
from xray_vqa.serving.access.tokens import TokenCheck
from xray_vqa.serving.errors import Problem
from xray_vqa.serving.store.audit import AuditUnavailable

logger = logging.getLogger(__name__)

READ_AGAIN_AFTER_S = 5.0
"""A key that is made or revoked counts in every process after this at the latest."""
_UNKNOWN_AFTER_S = 1.0
"""A key that is not known makes us look at once, but no more often than this: ids can be invented."""


class KeyRing:
    """The keys of the store as this process knows them. While the store is away the last ones hold."""

    def __init__(self, read: Callable[[], Mapping[str, ApiKey]]) -> None:
        self._read = read
        self._keys: Mapping[str, ApiKey] = {}
        self._was_read = False
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def keys(self, not_older_than_s: float = READ_AGAIN_AFTER_S) -> Mapping[str, ApiKey]:
        """Return the keys by id, those that are no longer valid too. Raises Problem where they were never read."""
        asked_at = time.monotonic()
        if not self._was_read or asked_at - self._looked_at > not_older_than_s:
            async with self._looking:
                if self._looked_at < asked_at:  # else somebody else has looked while we waited
                    await self._look()
        if not self._was_read:
            raise Problem("keys_unavailable", "the store that holds the keys cannot be read now")
        return self._keys

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key with an id, or None. Raises Problem as `keys`."""
        return (await self.keys()).get(key_id) or (await self.keys(_UNKNOWN_AFTER_S)).get(key_id)

    async def _look(self) -> None:
        try:
            # Keys are never forgotten: a store that was taken away and begun anew must not open the doors.
            self._keys = {**self._keys, **await asyncio.to_thread(self._read)}
            self._was_read = True
        except AuditUnavailable:
            logger.error("the keys cannot be read; %s", "the last ones hold" if self._was_read else "nobody gets in")
        self._looked_at = time.monotonic()


class Identity:
    """Tells who sends a request. Raises ConfigError where sign-in is configured wrongly."""

    def __init__(self, settings: ServeSettings, read_keys: Callable[[], Mapping[str, ApiKey]]) -> None:
        self._settings = settings
        self._read_keys = read_keys
        self.is_local = is_loopback(settings.host) and not settings.trusted_proxies
        """Nobody but this machine's own programs is served, whatever their credentials."""
        self._may_run_open = self.is_local and settings.profile == "trial" and not settings.oidc_issuer
        self._ring = KeyRing(read_keys)
        self._tokens = TokenCheck(settings) if settings.oidc_issuer else None

    def check_start(self) -> None:
        """Raise ConfigError where the production profile would have nobody to let in."""
        with suppress(AuditUnavailable):  # nobody gets in then, and the store may come back
            if self._settings.profile == "production" and self._tokens is None and not self._read_keys():
                raise ConfigError(
                    "the production profile does not start without keys or sign-in: make a key "
                    "(xray-vqa keys create --help) or set XRAY_VQA_OIDC_ISSUER"
                )

    async def runs_open(self) -> bool:
        """Return whether no one is asked who they are: for trials on this machine, until the first key is made."""
        return self._may_run_open and not await self._ring.keys()

    async def look(self) -> None:
        """Read the keys now, and say how the service is guarded. A store that cannot be read is asked again later."""
        with suppress(Problem):
            if await self.runs_open():
                logger.warning(
                    "RUNNING OPEN, for trials: there is no key, so every program of this machine may do everything; "
                    "the first `xray-vqa keys create` ends that"
                )
            elif not await self._ring.keys() and self._tokens is None:
                logger.warning("NOBODY GETS IN: there is no key and no sign-in; make one with `xray-vqa keys create`")

    async def principal(self, authorization: Sequence[str]) -> Principal:
        """Return who the `Authorization` headers name.

        Raises:
            Refused: There is none, or it does not hold.
            Problem: Whether it holds cannot be told now.
        """
        if not authorization:
            raise Refused("no credentials", given=False)
        scheme, _, text = authorization[0].partition(" ")
        if len(authorization) > 1 or scheme.lower() != "bearer":
            raise Refused("not one Authorization header with a Bearer")
        text = text.strip()
        if key_id := id_of(text):
            key = await self._ring.find(key_id)
            if not fits(text, key) or key is None:
                raise Refused("the key is not known")
            state = key.state(datetime.now(UTC))
            if state != "valid":
                raise Refused(f"key {key_id} is {state}")
            return key.principal()
        if self._tokens is None:
            raise Refused("it is no key, and sign-in is not configured")
        return await self._tokens.principal(text)


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is this machine's own alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
