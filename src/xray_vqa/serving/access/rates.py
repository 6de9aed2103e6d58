"""How often somebody may ask: by key or person, and by address for those who have said nothing of who they are.

Requests with valid credentials never count against an address. So nobody locks a lane out by guessing from behind the
same proxy, and what guessing costs the server stays bounded.
"""

import ipaddress
import logging
import math
import time

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string

from xray_vqa.config.loading import require
from xray_vqa.config.serve import ServeSettings
from xray_vqa.errors import ConfigError
from xray_vqa.serving.access.roles import Principal

logger = logging.getLogger(__name__)

_ASK_STORAGE_AGAIN_AFTER_S = 10.0


class Rates:
    """Counts requests, in this process or for all replicas in Redis. While Redis is away each process counts alone.

    Raises:
        ConfigError: A rate or the address cannot be read, or the `redis` extra is missing.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._per_principal = _rate_of("rate_limit_key", settings.rate_limit_key)
        self._per_address = _rate_of("rate_limit_address", settings.rate_limit_address)
        self._alone = SlidingWindowCounterRateLimiter(MemoryStorage())
        shared = _storage_of(settings.rate_limit_url)
        self._shared = SlidingWindowCounterRateLimiter(shared) if shared else None
        self._away_until = float("-inf")

    async def wait_of(self, principal: Principal) -> int | None:
        """Count a request of somebody. Returns the seconds to wait where it is one too many, else None."""
        return await self._hit(self._per_principal, principal.name)

    async def wait_of_address(self, address: str) -> int | None:
        """Count a request without valid credentials from an address; returns as `wait_of`."""
        return await self._hit(self._per_address, f"address:{_network_of(address)}")

    async def _hit(self, rate: RateLimitItem, name: str) -> int | None:
        if self._shared and time.monotonic() >= self._away_until:
            try:
                return await _hit(self._shared, rate, name)
            except StorageError as error:
                self._away_until = time.monotonic() + _ASK_STORAGE_AGAIN_AFTER_S
                logger.error("the store of rate limits is away, this process counts alone: %s", error.storage_error)
        return await _hit(self._alone, rate, name)


async def _hit(limiter: SlidingWindowCounterRateLimiter, rate: RateLimitItem, name: str) -> int | None:
    if await limiter.hit(rate, name):
        return None
    reset_at = (await limiter.get_window_stats(rate, name)).reset_time
    return max(1, math.ceil(reset_at - time.time()))


def _rate_of(name: str, text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}; write for instance 600/minute") from error


def _storage_of(url: str) -> Storage | None:
    """Return the storage that several processes share, or None for the memory of this one."""
    if url == "memory://":
        return None
    scheme = url.partition("://")[0]
    if scheme not in ("redis", "rediss"):
        raise ConfigError(f"rate_limit_url has the scheme {scheme!r}; it is memory://, redis://... or rediss://...")
    require("redis", extra="redis")
    try:
        storage = storage_from_string(
            f"async+{url}", wrap_exceptions=True, implementation="redispy",
            socket_timeout=1.0, socket_connect_timeout=1.0, key_prefix="xray-vqa",
        )  # fmt: skip
    except (ConfigurationError, ValueError) as error:
        raise ConfigError("rate_limit_url cannot be read; write for instance redis://127.0.0.1:6379/0") from error
    assert isinstance(storage, Storage)
    return storage


def _network_of(address: str) -> str:
    """Return what one client has to itself: an IPv4 address, or the 64 bits that a site gives out of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
