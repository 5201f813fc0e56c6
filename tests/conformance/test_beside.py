"""Two servers as one: queues that keep no ledger, and a ledger beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from celeriac.brokers import memory, postgres, redis
from celeriac.testing.conformance import Conformance, Harness
from celeriac.testing.conformance.dead import Dead
from celeriac.testing.conformance.ledger import Ledgers
from celeriac.testing.conformance.limits import Limits
from celeriac.testing.conformance.producers import Producers
from celeriac.testing.conformance.putting_off import PuttingOff
from celeriac.testing.conformance.rules import RulesTheme
from celeriac.testing.pair import pair
from tests.conformance.test_memory import MemoryHarness
from tests.conformance.test_redis import RedisHarness
from tests.proxy import Proxy
from tests.servers import RedisServer, free_port
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


class RedisAndPostgres(RedisHarness, _Beside):
    """Queues on Redis, the ledger in a schema of PostgreSQL."""

    lease = 0.6
    late = 0.7

    def __init__(self, server: RedisServer, proxy: Proxy, ledger: str) -> None:
        super().__init__(server, proxy)
        nobody = f"postgresql://user:{self.password}@127.0.0.1:{free_port()}/postgres"
        there = {"key_prefix": ""}
        self.adapter = pair(QueueOnly(redis), postgres, lambda url: ledger if url == self.url else nobody, there)


class TestMemoryPair(Conformance):
    @pytest.fixture
    def harness(self) -> Iterator[MemoryPair]:
        harness = MemoryPair()
        yield harness
        harness.close()


@pytest.mark.extended
class TestRedisPair(Conformance):
    @pytest.fixture
    def harness(self, redis_server: RedisServer, redis_proxy: Proxy) -> RedisPair:
        return RedisPair(redis_server, redis_proxy)


@pytest.mark.extended
class TestRedisAndPostgres(Dead, Ledgers, Limits, Producers, PuttingOff, RulesTheme):
    """What has to do with the ledger."""

    @pytest.fixture
    def harness(self, redis_server: RedisServer, redis_proxy: Proxy, postgres_url: str) -> RedisAndPostgres:
        return RedisAndPostgres(redis_server, redis_proxy, postgres_url)
