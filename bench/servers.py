"""The private servers of a run, those of the tests, each started when a measurement first asks for it.

They write to the disk as servers in use do, where that is what they are for: PostgreSQL and RabbitMQ, not Redis.
"""

import importlib
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bench.resp import Redis
from celeriac.client import resolver
from celeriac.exceptions import ImproperlyConfigured
from tests.servers import RedisServer

__all__ = ["BROKERS", "Servers", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Private:
    """A private server of the tests: imported late, for its packages may be missing."""

    module: str
    make: Callable[[Any], Any]
    #: A URL whose scheme must have an adapter.
    url: str
    #: Whether its programs are there.
    installed: Callable[[Any], object] = lambda module: True


_PRIVATE = {
    "rabbitmq": _Private(
        module="tests.servers.rabbitmq",
        make=lambda module: module.RabbitServer(cores=os.cpu_count() or 1),
        url="amqp://localhost//",
        installed=lambda module: module.RabbitServer.installed(),
    ),
    "postgres": _Private(
        module="tests.servers.postgres",
        make=lambda module: module.PostgresServer(durable=True, config={"shared_buffers": "256MB"}),
        url="postgresql://localhost/x",
        installed=lambda module: module.postgres_programs(),
    ),
    "cluster": _Private(
        module="tests.servers.redis_cluster",
        make=lambda module: module.RedisCluster(),
        url="redis+cluster://localhost",
    ),
}
BROKERS = ("redis", "sqlite", *_PRIVATE)


def missing(broker: str) -> str:
    """Why nothing can be measured on this broker here; empty when something can."""
    if not shutil.which("redis-server"):
        return "redis-server is not installed"
    if broker not in _PRIVATE:
        return ""
    private = _PRIVATE[broker]
    try:
        resolver.adapter(private.url)
        found = private.installed(importlib.import_module(private.module))
    except ImproperlyConfigured as error:
        return str(error)
    except ImportError as error:
        return f"no private server: {error}"
    return "" if found else "it is not installed"


class Servers:
    """All servers of a run: Redis at once, the others when asked for. They end with the block."""

    def __init__(self) -> None:
        self._over = ExitStack()
        self._started: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.redis_server = self._over.enter_context(RedisServer())
        self.redis = Redis(self.redis_server.port)
        self._over.callback(self.redis.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.close()

    def get(self, broker: str) -> Any:
        """The private server of this broker, started."""
        if broker not in self._started:
            private = _PRIVATE[broker]
            server = private.make(importlib.import_module(private.module))
            self._started[broker] = self._over.enter_context(server)
        return self._started[broker]
