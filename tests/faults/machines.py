"""A fleet of several machines: a broker's host, two for workers, a producer's, and that of the tests themselves.

The thread of the test is on a host of its own while the block lasts: it sees the broker whoever is cut off. A server
of ``tests.servers`` is one entry in ``SERVERS``; it is not told that it is called from other machines.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celeriac.ports import Depth
from tests.faults.fleet import Fleet, Node
from tests.faults.load import Load
from tests.faults.network import Host, Network
from tests.faults.place import LEASE, QUEUE, Place, RabbitPlace
from tests.faults.project import OFF
from tests.faults.relay import Line
from tests.servers import HOST, PostgresServer, RabbitServer, RedisServer, postgres_programs

__all__ = ["SERVERS", "Machines", "machines_with", "may_be_denied", "wrong_clock"]

#: By the name of the fixture's parameter: whether it is installed, and a server that keeps its data.
SERVERS: Mapping[str, tuple[Callable[[], object], Callable[[], Any]]] = {
    "redis": (lambda: shutil.which("redis-server"), lambda: RedisServer(appendonly=True)),
    "postgres": (postgres_programs, lambda: PostgresServer(durable=True)),
    "rabbitmq": (RabbitServer.installed, lambda: _RabbitAndRedis()),
}

_FAKETIME = ("usr/lib/*/faketime/libfaketime.so.1", "usr/lib/faketime/libfaketime.so.1")
_CAP_SYS_ADMIN = 21
#: RabbitMQ's, in seconds.
_HEARTBEAT = 2


def may_be_denied() -> bool:
    """Whether machines of their own may well be missing here: nobody has to be root."""
    effective = next(line for line in Path("/proc/self/status").read_text("ascii").splitlines() if "CapEff" in line)
    return os.geteuid() != 0 or not int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1


def wrong_clock(seconds: int) -> Mapping[str, str] | None:
    """The environment of a process whose wall clock is off by so much; None where libfaketime is missing."""
    found = [path for pattern in _FAKETIME for path in Path("/").glob(pattern)]
    if not found:
        return None
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": f"{seconds:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # Its answer to an old error of glibc: waits of threads end when they time out, not when they are woken.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        OFF: str(seconds),
    }


class _RabbitAndRedis:
    """RabbitMQ, and a Redis for results and ledger on the same host."""

    def __init__(self) -> None:
        self.node = RabbitServer()
        self.redis = RedisServer(appendonly=True)

    def start(self) -> None:
        self.redis.start()
        self.node.start()

    def close(self) -> None:
        self.node.close()
        self.redis.close()


class _RabbitFromAfar(RabbitPlace):
    """Its node is asked for its queues on its own host. Unplugged workers are found by heartbeats."""

    def __init__(self, server: _RabbitAndRedis, folder: Path, host: Host) -> None:
        self.host = host
        results = server.redis.url().replace(HOST, host.address)
        url = server.node.url("/").replace(HOST, host.address)
        super().__init__(server.node, "/", folder, results, broker_url=url, broker_heartbeat=_HEARTBEAT)
        self.url = url

    def through(self, **conf: Any) -> Place:
        return Place(self.url, self.folder, **{**self.conf, **conf})

    def depth(self, queue: str = QUEUE) -> Depth:
        with self.host.visit():
            return super().depth(queue)


class Machines:
    """``place`` is the broker as the tests see it, ``workers`` are two hosts."""

    def __init__(self, network: Network, place: Place, broker: Host) -> None:
        self.network = network
        self.place = place
        self.broker = broker
        #: Seconds in which what ran on a lost host has to run elsewhere: the lease and five more, or two heartbeats.
        self.takeover = (2 * _HEARTBEAT if isinstance(place, RabbitPlace) else LEASE) + 5.0
        # No two machines were started at the same time, so their monotonic clocks tell different times.
        self.workers = [network.host("a", monotonic=86_400), network.host("b", monotonic=7 * 86_400)]
        self.producer = network.host("producer", monotonic=3_600)

    def start(self, fleet: Fleet, host: Host, *arguments: str, environment: Mapping[str, str] | None = None) -> Node:
        """A node on that host."""
        name = f"w{len(fleet.nodes)}@{host.name}"
        # Set there, not before: what libfaketime leaves behind when it is killed goes with the host's /dev/shm.
        further = [f"{key}={value}" for key, value in (environment or {}).items()]
        return fleet.start(*arguments, name=name, guard=(*host.enter, "env", *further))

    @contextmanager
    def load(self, rng: random.Random, **options: Any) -> Iterator[Load]:
        """A producer on its own host."""
        load = Load(self.place.through(), rng, **options)
        with self.producer.visit():  # its thread stays there
            load.__enter__()
        try:
            yield load
        finally:
            load.__exit__(None, None, None)

    def far(self, line: Line) -> Host:
        """One more host for workers, behind that line."""
        return self.network.host("far", line=line)


@contextmanager
def machines_with(server: Any, folder: Path) -> Iterator[Machines]:
    """The machines, with this server running on the broker's."""
    with Network() as network:
        broker, tests = network.host("broker"), network.host("tests")
        with broker.visit():
            server.start()
        try:
            with tests.visit():
                if isinstance(server, _RabbitAndRedis):
                    place: Place = _RabbitFromAfar(server, folder, broker)
                else:
                    place = Place(server.url().replace(HOST, broker.address), folder)
                yield Machines(network, place, broker)
        finally:
            with broker.visit():
                server.close()
