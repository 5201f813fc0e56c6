"""Two servers as one: queues that keep no ledger, and a ledger beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from celeriac.brokers import memory, redis
from celeriac.testing.conformance import Conformance, Harness
from celeriac.testing.pair import pair
from tests.conformance.test_memory import MemoryHarness
from tests.conformance.test_redis import RedisHarness
from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.views import QueueOnly

_numbers = itertools.count()


class _Beside(Harness):
    parks = False
    purges_locks = False
    withdraws = False


class MemoryPair(MemoryHarness, _Beside):
    """Both in memory, on one virtual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger_url = f"memory://ledger-{next(_numbers)}"
        memory.server(self.ledger_url, self.clock)
        self.adapter = pair(QueueOnly(memory), memory, lambda _: self.ledger_url, {}, now=self.clock.now)

    def close(self) -> None:
        super().close()
        memory.drop(self.ledger_url)


class RedisPair(RedisHarness, _Beside):
    """Queues behind the proxy in one database, the ledger in another."""

    def __init__(self, server: RedisServer, proxy: Proxy) -> None:
        super().__init__(server, proxy)
        ledger = {"key_prefix": "ledger:"}
        there = server.url(db=1, port=proxy.port)
        self.adapter = pair(QueueOnly(redis), redis, lambda url: there if url == self.url else url, ledger)


class TestMemoryPair(Conformance):
    @pytest.fixture
    def harness(self) -> Iterator[MemoryPair]:
        harness = MemoryPair()
        yield harness
        harness.close()


class TestRedisPair(Conformance):
    @pytest.fixture
    def harness(self, redis_server: RedisServer, redis_proxy: Proxy) -> RedisPair:
        return RedisPair(redis_server, redis_proxy)
