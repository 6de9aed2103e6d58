"""How often somebody may ask: counted alone, or in Redis for all replicas, and alone again while Redis is away."""

import asyncio
import shutil
import socket
import subprocess
import time

import pytest

from xray_vqa.config.serve import ServeSettings
from xray_vqa.errors import ConfigError
from xray_vqa.serving.access import rates
from xray_vqa.serving.access.rates import Rates
from xray_vqa.serving.access.roles import Principal

SOMEBODY = Principal("key:a", frozenset())


def rates_of(**settings) -> Rates:
    return Rates(ServeSettings(**settings))


def test_one_principal_waits_and_others_do_not():
    async def scene():
        counted = rates_of(rate_limit_key="3/minute")
        waits = [await counted.wait_of(SOMEBODY) for _ in range(5)]
        assert waits[:3] == [None, None, None]
        assert all(wait is not None and 1 <= wait <= 60 for wait in waits[3:])
        assert await counted.wait_of(Principal("key:b", frozenset())) is None

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False), ("10.0.0.1", "::ffff:10.0.0.1", True), ("unknown", "unknown", True),
        ("2001:db8::1", "2001:db8::ffff:1", True), ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True), ("testclient", "10.0.0.1", False),
    ],
)  # fmt: skip
def test_what_counts_as_one_address_is_what_one_site_gets(one, other, same):
    async def scene():
        counted = rates_of(rate_limit_address="1/minute")
        assert await counted.wait_of_address(one) is None
        assert (await counted.wait_of_address(other) is not None) == same

    asyncio.run(scene())


def test_a_principal_with_an_addresss_name_does_not_share_its_count():
    async def scene():
        counted = rates_of(rate_limit_key="1/minute", rate_limit_address="1/minute")
        assert await counted.wait_of(Principal("10.0.0.1", frozenset())) is None
        assert await counted.wait_of_address("10.0.0.1") is None

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate_limit_key": "often"}, "rate_limit_key is 'often'; write for instance 600/minute"),
        ({"rate_limit_address": "5/fortnight"}, "rate_limit_address"),
        ({"rate_limit_url": "memcached://x"}, "scheme 'memcached'"),
        ({"rate_limit_url": "redis://127.0.0.1:x/0"}, "rate_limit_url cannot be read"),
    ],
)
def test_what_cannot_be_counted_stops_the_start(settings, message):
    with pytest.raises(ConfigError, match=message):
        rates_of(**settings)


@pytest.fixture
def redis(tmp_path):
    """Starts a Redis on one port, as often as it is called; `redis.stop()` ends it."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine")

    class Redis:
        def __init__(self) -> None:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
            self.url = f"redis://127.0.0.1:{self.port}/0"
            self.process: subprocess.Popen | None = None

        def start(self) -> None:
            words = [
                "redis-server",
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                str(tmp_path),
            ]
            self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + 20
            while True:
                try:
                    return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

        def stop(self) -> None:
            if self.process:
                self.process.kill()
                self.process.wait()

    redis = Redis()
    redis.start()
    yield redis
    redis.stop()


def test_replicas_count_together_in_redis_and_alone_while_it_is_away(redis, monkeypatch, caplog):
    monkeypatch.setattr(rates, "_ASK_STORAGE_AGAIN_AFTER_S", 0.2)

    async def scene():
        one, other = (rates_of(rate_limit_key="3/minute", rate_limit_url=redis.url) for _ in range(2))
        assert [await one.wait_of(SOMEBODY), await other.wait_of(SOMEBODY), await one.wait_of(SOMEBODY)] == [None] * 3
        assert await other.wait_of(SOMEBODY) is not None
        redis.stop()
        waits = [await one.wait_of(SOMEBODY) for _ in range(5)]
        assert waits[:3] == [None] * 3
        assert None not in waits[3:]
        assert caplog.text.count("this process counts alone") == 1
        redis.start()
        await asyncio.sleep(0.3)
        assert await other.wait_of(SOMEBODY) is None  # a Redis that keeps nothing begins anew

    asyncio.run(scene())
