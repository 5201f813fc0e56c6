"""RabbitMQ: a private node, behind a proxy that can cut and silence it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from celeriac.brokers import rabbitmq
from celeriac.brokers.rabbitmq.address import parse
from celeriac.brokers.rabbitmq.blocking import Connection, monotonic
from celeriac.brokers.rabbitmq.fields import Properties, encode_header, short
from celeriac.brokers.rabbitmq.frames import publish
from celeriac.brokers.rabbitmq.layout import declare_queue
from celeriac.brokers.rabbitmq.unkept import UNKEPT, UNKEPT_BESIDE
from celeriac.ports import AdapterOptions, Broker
from celeriac.testing.conformance import Conformance, Harness
from tests.proxy import Proxy
from tests.servers import HOST, RabbitServer, free_port


class RabbitHarness(Harness):
    """An empty virtual host, seen through the proxy."""

    adapter = rabbitmq
    lease = 0.3
    late = 1.0
    publisher_schedules = False
    exempt = UNKEPT

    def __init__(self, server: RabbitServer, vhost: str, proxy: Proxy) -> None:
        super().__init__()
        self.server, self.vhost, self.proxy = server, vhost, proxy
        self.url = server.url(vhost, port=proxy.port)
        self.unreachable = f"amqp://user:{self.password}@{HOST}:{free_port()}/{vhost}"

    async def open_broker(self, **fields: Any) -> Broker:
        """With its second connection, and the queue of most tests: what is due in a moment must not be late by them."""
        broker = self.broker(**fields)
        await broker.open()
        await broker.declare(["q"])
        await self.queues_of(broker)._outbox.wire()  # type: ignore[attr-defined]  # it is RabbitMQ's
        return broker

    def queues_of(self, broker: Broker) -> Broker:
        """RabbitMQ's own adapter."""
        return broker

    def _put(self, exchange: str, key: str, raw: bytes, queue: str = "") -> None:
        (address,) = parse(self.server.url(self.vhost), AdapterOptions())
        deadline = monotonic() + 5
        connection = Connection(address, deadline)
        try:
            if queue:
                connection.run(declare_queue(queue, True, False, False, {}), deadline)
            header = encode_header(Properties(content_type="application/json"), len(raw))
            connection.publish([publish(1, short(exchange), short(key), header, raw, 131072)], deadline)
        finally:
            connection.close()

    async def inject(self, queue: str, raw: bytes) -> None:
        await asyncio.to_thread(self._put, "", queue, raw, queue)

    async def inject_topic(self, exchange: str, raw: bytes) -> None:
        await asyncio.to_thread(self._put, exchange, "worker.heartbeat", raw)

    async def cut(self) -> None:
        await asyncio.to_thread(self.proxy.cut)

    async def silence(self, on: bool) -> None:
        await asyncio.to_thread(self.proxy.blackhole, on)


@pytest.fixture(scope="module")
def proxy(rabbitmq_server: RabbitServer) -> Iterator[Proxy]:
    with Proxy(HOST, rabbitmq_server.port) as proxy:
        yield proxy


def test_what_is_exempt_exists() -> None:
    names = {name.partition("[")[0] for name in (*UNKEPT, *UNKEPT_BESIDE)}
    assert names <= set(dir(Conformance)), names - set(dir(Conformance))


def vhost_of(request: pytest.FixtureRequest, exempt: Mapping[str, str]) -> str:
    """An empty virtual host; none for a test that is about to be skipped: they take a moment."""
    name = request.node.name
    if name in exempt or name.partition("[")[0] in exempt:
        return "/"
    return str(request.getfixturevalue("rabbitmq_vhost"))


class TestRabbitmq(Conformance):
    @pytest.fixture
    def harness(self, request: pytest.FixtureRequest, rabbitmq_server: RabbitServer, proxy: Proxy) -> RabbitHarness:
        return RabbitHarness(rabbitmq_server, vhost_of(request, UNKEPT), proxy)
