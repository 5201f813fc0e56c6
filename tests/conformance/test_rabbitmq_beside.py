"""RabbitMQ with a ledger beside it: what has to do with rules, locks and limits."""

from __future__ import annotations

import pytest

from celeriac.brokers import postgres, rabbitmq, redis
from celeriac.brokers.rabbitmq.unkept import UNKEPT_BESIDE
from celeriac.ports import Broker
from celeriac.testing.conformance import Conformance
from celeriac.testing.conformance.dead import Dead
from celeriac.testing.conformance.ledger import Ledgers
from celeriac.testing.conformance.lifecycle import LifeCycle
from celeriac.testing.conformance.limits import Limits
from celeriac.testing.conformance.producers import Producers
from celeriac.testing.conformance.putting_off import PuttingOff
from celeriac.testing.conformance.rules import RulesTheme
from celeriac.testing.conformance.waiting import Waiting
from celeriac.testing.pair import pair
from tests.conformance.test_rabbitmq import RabbitHarness, proxy, vhost_of
from tests.proxy import Proxy
from tests.servers import HOST, RabbitServer, free_port

__all__ = ["proxy"]


class _Pair(RabbitHarness):
    parks = False
    purges_locks = False
    withdraws = False
    exempt = UNKEPT_BESIDE

    def __init__(self, server: RabbitServer, vhost: str, proxy: Proxy, companion: object, ledger: str) -> None:
        super().__init__(server, vhost, proxy)
        nobody = f"{ledger.partition(':')[0]}://user:{self.password}@{HOST}:{free_port()}/0"
        self.adapter = pair(rabbitmq, companion, lambda url: ledger if url == self.url else nobody, {})

    def queues_of(self, broker: Broker) -> Broker:
        inner: Broker = broker._inner  # type: ignore[attr-defined]  # that of the pair
        return inner


class _Themes(Dead, Ledgers, LifeCycle, Limits, Producers, PuttingOff, RulesTheme, Waiting):
    """What has to do with the ledger, or with claims that ask it."""

    exempt = Conformance.exempt


class TestRabbitmqAndRedis(Ledgers, Limits, PuttingOff, RulesTheme):
    exempt = Conformance.exempt

    @pytest.fixture
    def harness(
        self, request: pytest.FixtureRequest, rabbitmq_server: RabbitServer, proxy: Proxy, redis_url: str
    ) -> _Pair:
        return _Pair(rabbitmq_server, vhost_of(request, _Pair.exempt), proxy, redis, redis_url)


@pytest.mark.extended
class TestRabbitmqAndPostgres(_Themes):
    @pytest.fixture
    def harness(
        self, request: pytest.FixtureRequest, rabbitmq_server: RabbitServer, proxy: Proxy, postgres_url: str
    ) -> _Pair:
        return _Pair(rabbitmq_server, vhost_of(request, _Pair.exempt), proxy, postgres, postgres_url)
