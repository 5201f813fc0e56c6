"""Where one measurement takes place: an empty broker and result store, how it is filled, and what is left in it.

What only the adapter knows of its own tables is not asked for: there the marks of the tasks must do.
"""

import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from bench import messages
from bench.messages import Load
from bench.servers import Servers

__all__ = ["Field", "field"]

Produce = Callable[..., Any]
_numbers = itertools.count(1)


class Field(Protocol):
    #: URLs of the queue and of the results.
    broker: str
    backend: str

    def fill(self, load: Load, produce: Produce) -> None:
        """Put so many calls into the queue; ``produce`` runs ``bench.produce`` for the peer."""
        ...

    def waiting(self) -> int:
        """Messages that are ready or in flight; 0 where nobody but the adapter can tell."""
        ...

    def results(self) -> int | None:
        """Stored results; None where nobody but the adapter can tell."""
        ...

    def close(self) -> None: ...


class _Own:
    """Filled by the peer's own bulk call."""

    broker = backend = ""

    def fill(self, load: Load, produce: Produce) -> None:
        produce("fill", **asdict(load))

    def waiting(self) -> int:
        return 0

    def results(self) -> int | None:
        return None

    def close(self) -> None:
        """Nothing to give back."""


class _Sqlite(_Own):
    def __init__(self, servers: Servers, folder: Path) -> None:
        self.broker = self.backend = f"sqlite:///{folder / 'queue.db'}"


class _Redis(_Own):
    """kombu's list, filled by neither peer."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self._redis = servers.redis
        self._redis.call("FLUSHALL")
        self.broker = self.backend = servers.redis_server.url()

    def fill(self, load: Load, produce: Produce) -> None:
        messages.fill(self._redis, load)

    def waiting(self) -> int:
        return sum(self._redis.many([("LLEN", messages.QUEUE), ("HLEN", "unacked")]))

    def results(self) -> int | None:
        return int(self._redis.call("DBSIZE"))


class _Rabbit(_Own):
    """A virtual host of its own; results in Redis. Filled on Celery's exchange by py-amqp, for both peers."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self._server, self._redis = servers.get("rabbitmq"), servers.redis
        self._redis.call("FLUSHALL")
        self._vhost = self._server.new_vhost()
        self.broker, self.backend = self._server.url(self._vhost), servers.redis_server.url()

    def fill(self, load: Load, produce: Produce) -> None:
        produce("declare")  # the queue, as the peer declares it
        words = [".venv-celery/bin/python", "-m", "bench.fill_amqp", self.broker, json.dumps(asdict(load))]
        subprocess.run(words, check=True, capture_output=True, timeout=600)

    def waiting(self) -> int:
        found: tuple[int, int] = self._server.queues(self._vhost).get(messages.QUEUE, (0, 0))
        return sum(found)

    def results(self) -> int | None:
        return int(self._redis.call("DBSIZE"))

    def close(self) -> None:
        self._server.drop_vhost(self._vhost)


class _Postgres(_Own):
    """A database of its own."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self._server = servers.get("postgres")
        self._database = f"bench{next(_numbers)}"
        self._server.execute(f"CREATE DATABASE {self._database}")
        self.broker = self.backend = self._server.url(database=self._database)

    def close(self) -> None:
        self._server.execute(f"DROP DATABASE {self._database} WITH (FORCE)")


class _Cluster(_Own):
    def __init__(self, servers: Servers, folder: Path) -> None:
        server = servers.get("cluster")
        server.flush()
        self.broker = self.backend = server.url()


_FIELDS: dict[str, Callable[[Servers, Path], Field]] = {
    "": _Redis,  # a bare loop asks for nothing
    "redis": _Redis,
    "sqlite": _Sqlite,
    "rabbitmq": _Rabbit,
    "postgres": _Postgres,
    "cluster": _Cluster,
}


def field(broker: str, servers: Servers, folder: Path) -> Field:
    """An empty place on this broker."""
    return _FIELDS[broker](servers, folder)
