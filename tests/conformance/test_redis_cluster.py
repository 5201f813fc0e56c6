"""Redis Cluster: three private nodes, each behind a proxy; the nodes tell clients the proxies' ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from celeriac import beside
from celeriac.brokers.redis import cluster
from celeriac.brokers.redis.cluster.slots import HOME, SLOTS, queue_tag, slot_of, tagged
from celeriac.ports import AdapterOptions, Broker
from celeriac.testing.conformance import Conformance, Harness
from tests.proxy import Proxy
from tests.servers import HOST, RedisCluster, free_port, wait_until

_PREFIX = "conformance:"


class _Limiting(ModuleType):
    """The adapter as the resolver puts it together: limits are kept in the cluster's own ledger."""

    def __init__(self) -> None:
        super().__init__(cluster.__name__)
        self.__dict__.update({name: getattr(cluster, name) for name in cluster.__all__ if name != "broker"})

    def broker(self, url: str, options: AdapterOptions) -> Broker:
        return beside.broker(cluster.broker(url, options), None, options)


class RedisClusterHarness(Harness):
    """An empty cluster with a prefix, seen through proxies."""

    adapter = _Limiting()
    parks = False
    options = {"key_prefix": _PREFIX}
    lease = 0.3
    publisher_schedules = False
    one_server = False

    def __init__(self, nodes: RedisCluster, proxies: list[Proxy]) -> None:
        super().__init__()
        self.nodes, self.proxies = nodes, proxies
        self.url = nodes.url(ports={node.port: proxy.port for node, proxy in zip(nodes.nodes, proxies, strict=True)})
        self.unreachable = f"redis+cluster://user:{self.password}@{HOST}:{free_port()}/"

    async def inject(self, queue: str, raw: bytes) -> None:
        self._command("LPUSH", _key(queue), raw)

    async def inject_topic(self, exchange: str, raw: bytes) -> None:
        self.nodes.nodes[0].command("PUBLISH", f"{tagged(_PREFIX, HOME)}/0.{exchange}/worker.heartbeat", raw)

    async def spoil(self, queue: str) -> None:
        self._command("SET", _key(queue), "no list")

    async def heal(self, queue: str) -> None:
        self._command("DEL", _key(queue))

    def _command(self, *words: str | bytes) -> None:
        # Slots are in three equal parts, in the order of the nodes.
        number = slot_of(words[1]) * 3 // SLOTS
        self.nodes.nodes[number].command(*words)

    async def cut(self) -> None:
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.cut)

    async def silence(self, on: bool) -> None:
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.blackhole, on)


def _key(queue: str) -> str:
    return tagged(_PREFIX, queue_tag(queue)) + queue


@pytest.fixture(scope="module")
def proxied(make_cluster: Callable[..., RedisCluster]) -> Iterator[tuple[RedisCluster, list[Proxy]]]:
    nodes = make_cluster()
    with contextlib.ExitStack() as running:
        proxies = [running.enter_context(Proxy(HOST, node.port)) for node in nodes.nodes]
        for node, proxy in zip(nodes.nodes, proxies, strict=True):
            node.command("CONFIG", "SET", "cluster-announce-port", proxy.port)
        ports = {proxy.port for proxy in proxies}
        for node in nodes.nodes:
            wait_until(lambda node=node: {each[2][1] for each in node.command("CLUSTER", "SLOTS")} == ports, 20.0)
        yield nodes, proxies
    nodes.close()


class TestRedisCluster(Conformance):
    @pytest.fixture
    def harness(self, proxied: tuple[RedisCluster, list[Proxy]]) -> Iterator[RedisClusterHarness]:
        nodes, proxies = proxied
        nodes.flush()
        yield RedisClusterHarness(nodes, proxies)
        for proxy in proxies:
            proxy.blackhole(False)
