"""Redis Cluster: ``redis+cluster://h1:7000,h2:7001/`` and ``rediss+cluster://`` (TLS). ADR 0016 has the layout.

Reached through ``celeriac.client.resolver`` only. Routers over the parts of ``celeriac.brokers.redis``, whose scripts
run as they are: all keys of one script carry one tag. Celery has no transport for clusters, so there are no mixed
fleets here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.ports import AdapterOptions

if TYPE_CHECKING:
    from celeriac.brokers.redis.calling import RedisCaller
    from celeriac.brokers.redis.cluster.dead import ClusterDeadLetters
    from celeriac.brokers.redis.cluster.pools import SlotPool
    from celeriac.brokers.redis.cluster.publishing import ClusterPublisher
    from celeriac.brokers.redis.cluster.queues import ClusterBroker
    from celeriac.brokers.redis.cluster.reading import ClusterReader
    from celeriac.brokers.redis.cluster.results import ClusterStore
    from celeriac.brokers.redis.cluster.scratch_port import ClusterScratch
    from celeriac.brokers.redis.keeping import RedisLedger

__all__ = ["broker", "caller", "dead_letters", "ledger", "publisher", "reader", "scratch", "store"]


def broker(url: str, options: AdapterOptions) -> ClusterBroker:
    """The broker of a worker. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.cluster.queues import ClusterBroker
    from celeriac.brokers.redis.scripts import read_all

    read_all()
    return ClusterBroker(url, options)


def store(url: str, options: AdapterOptions) -> ClusterStore:
    """The result store of a worker. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.cluster.results import ClusterStore

    return ClusterStore(url, options)


def publisher(url: str, options: AdapterOptions) -> ClusterPublisher:
    """Blocking publishing for producers. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.cluster.publishing import ClusterPublisher

    return ClusterPublisher(url, options)


def reader(url: str, options: AdapterOptions) -> ClusterReader:
    """Blocking access to results. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.cluster.reading import ClusterReader

    return ClusterReader(url, options)


def dead_letters(url: str, options: AdapterOptions) -> ClusterDeadLetters:
    """Blocking access to the dead letters. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.cluster.dead import ClusterDeadLetters

    return ClusterDeadLetters(url, options)


def ledger(url: str, options: AdapterOptions) -> RedisLedger:
    """Blocking access to the ledger. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.keeping import RedisLedger

    return RedisLedger(url, options, pool=_home(url, options))


def caller(url: str, options: AdapterOptions) -> RedisCaller:
    """The asking side of remote control. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.calling import RedisCaller

    return RedisCaller(url, options, pool=_home(url, options))


def scratch(url: str, options: AdapterOptions, name: str) -> ClusterScratch:
    """A place of its own for tests. Raises ``ImproperlyConfigured`` on a bad URL."""
    from celeriac.brokers.redis.cluster.scratch_port import ClusterScratch

    return ClusterScratch(url, options, name)


def _home(url: str, options: AdapterOptions) -> SlotPool:
    from celeriac.brokers.redis.cluster.address import parse_cluster
    from celeriac.brokers.redis.cluster.pools import NodePools
    from celeriac.brokers.redis.cluster.slots import HOME

    return NodePools(parse_cluster(url, options), max(options.pool_limit, 1)).slot(HOME)
