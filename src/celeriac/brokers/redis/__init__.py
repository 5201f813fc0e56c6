"""Redis (and Valkey): kombu's lists on the wire, leases in kombu's ``unacked`` tables, results under Celery's keys.

``redis://``, ``rediss://`` (TLS), ``redis+socket://``, ``unix://``. Reached through ``celeriac.client.resolver`` only.
The blocking side loads no asyncio, the asynchronous side no pool: each function imports what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.ports import AdapterOptions

if TYPE_CHECKING:
    from celeriac.brokers.redis.calling import RedisCaller
    from celeriac.brokers.redis.dead import RedisDeadLetters
    from celeriac.brokers.redis.keeping import RedisLedger
    from celeriac.brokers.redis.publishing import RedisPublisher
    from celeriac.brokers.redis.queues import RedisBroker
    from celeriac.brokers.redis.reading import RedisReader
    from celeriac.brokers.redis.results import RedisStore
    from celeriac.brokers.redis.scratch_port import RedisScratch

__all__ = ["broker", "caller", "dead_letters", "ledger", "publisher", "reader", "scratch", "store"]


def broker(url: str, options: AdapterOptions) -> RedisBroker:
    """The broker of a worker: ``Broker``, ``Unified`` and ``Bus``. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.queues import RedisBroker
    from celeriac.brokers.redis.scripts import read_all

    read_all()
    return RedisBroker(url, options)


def store(url: str, options: AdapterOptions) -> RedisStore:
    """The result store of a worker. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.results import RedisStore

    return RedisStore(url, options)


def publisher(url: str, options: AdapterOptions) -> RedisPublisher:
    """Blocking publishing for producers. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.publishing import RedisPublisher

    return RedisPublisher(url, options)


def reader(url: str, options: AdapterOptions) -> RedisReader:
    """Blocking access to results. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.reading import RedisReader

    return RedisReader(url, options)


def ledger(url: str, options: AdapterOptions) -> RedisLedger:
    """Blocking access to the ledger. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.keeping import RedisLedger

    return RedisLedger(url, options)


def caller(url: str, options: AdapterOptions) -> RedisCaller:
    """The asking side of remote control. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.calling import RedisCaller

    return RedisCaller(url, options)


def dead_letters(url: str, options: AdapterOptions) -> RedisDeadLetters:
    """Blocking access to the dead letters. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.dead import RedisDeadLetters

    return RedisDeadLetters(url, options)


def scratch(url: str, options: AdapterOptions, name: str) -> RedisScratch:
    """A place of its own for tests. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.scratch_port import RedisScratch

    return RedisScratch(url, options, name)
