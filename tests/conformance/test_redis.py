"""Redis and Valkey: private servers, behind a proxy that can cut and silence them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from celeriac.brokers import redis
from celeriac.testing.conformance import Conformance, Harness
from tests.proxy import Proxy
from tests.servers import HOST, RedisServer, free_port
from tests.servers.valkey import ValkeyServer

_PREFIX = "conformance:"


class RedisHarness(Harness):
    """An empty database with a prefix, seen through the proxy."""

    adapter = redis
    options = {"key_prefix": _PREFIX}
    lease = 0.3
    publisher_schedules = False

    def __init__(self, server: RedisServer, proxy: Proxy) -> None:
        super().__init__()
        self.server, self.proxy = server, proxy
        self.url = server.url(port=proxy.port)
        self.unreachable = f"redis://user:{self.password}@127.0.0.1:{free_port()}/0"

    async def inject(self, queue: str, raw: bytes) -> None:
        self.server.command("LPUSH", _PREFIX + queue, raw)

    async def inject_topic(self, exchange: str, raw: bytes) -> None:
        self.server.command("PUBLISH", f"{_PREFIX}/0.{exchange}/worker.heartbeat", raw)

    async def spoil(self, queue: str) -> None:
        self.server.command("SET", _PREFIX + queue, "no list")

    async def heal(self, queue: str) -> None:
        self.server.command("DEL", _PREFIX + queue)

    async def cut(self) -> None:
        await asyncio.to_thread(self.proxy.cut)

    async def silence(self, on: bool) -> None:
        await asyncio.to_thread(self.proxy.blackhole, on)


class TestRedis(Conformance):
    @pytest.fixture
    def harness(self, redis_server: RedisServer, redis_proxy: Proxy) -> RedisHarness:
        return RedisHarness(redis_server, redis_proxy)


@pytest.mark.extended
class TestValkey(Conformance):
    @pytest.fixture
    def harness(self, valkey_server: ValkeyServer) -> Iterator[RedisHarness]:
        valkey_server.command("FLUSHALL")
        with Proxy(HOST, valkey_server.port) as proxy:
            yield RedisHarness(valkey_server, proxy)
