"""Blocking access to results on a Redis Cluster: a router over buckets.

Announcements reach every node of a cluster, so whoever waits listens at one and reads at those where the records are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from celeriac.brokers.redis.blocking import Connection, monotonic
from celeriac.brokers.redis.cluster.address import parse_cluster
from celeriac.brokers.redis.cluster.pools import NodePools, SlotPool
from celeriac.brokers.redis.cluster.slots import bucket_of, bucket_tags
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.places import Places
from celeriac.brokers.redis.reading import Ear, RedisReader
from celeriac.exceptions import OperationalError
from celeriac.model.chord import NewChord
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions

__all__ = ["ClusterReader"]

T = TypeVar("T")


class _Waiter(RedisReader):
    """The part that waits: one bucket's reader, which hears of all and reads from all."""

    def __init__(self, owner: ClusterReader, options: AdapterOptions, pool: SlotPool) -> None:
        super().__init__("", options, pool=pool)
        self._owner = owner
        self._places = Places(pool.address)

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """See ``Reader.get``; what ``wait`` has just heard needs no round trip."""
        heard = self.just_heard(ids)
        return self._owner.read(ids, timeout=timeout) if heard is None else [heard]

    def _key(self, task_id: str) -> str:
        return self._owner.key(task_id)

    def _ear(self, connection: Connection) -> Ear:
        return _Ear(self._address.reply_timeout, connection, self._records)

    def _id(self, key: str) -> str:
        return key.partition("}:celery-task-meta-")[2]

    def _records(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        try:
            return self._owner.read([self._id(key) for key in keys], timeout=self._address.reply_timeout)
        except OperationalError as error:
            raise ConnectionError(str(error)) from error  # as if the own connection were lost: it is tried again


class _Ear(Ear):
    """Listens at one node; the records are read elsewhere once it listens."""

    def __init__(
        self,
        reply_timeout: float,
        connection: Connection,
        read: Callable[[Sequence[str]], Sequence[bytes | None]],
    ) -> None:
        super().__init__(reply_timeout, connection)
        self._read_records = read

    def _look(self, subscribe: bytes, page: Sequence[str]) -> tuple[tuple[str, bytes] | None, Sequence[bytes | None]]:
        # PING's answer comes when it listens.
        pushed, _ = self._asked(subscribe, ("PING",))
        return pushed, () if pushed is not None else self._read_records(page)


class ClusterReader:
    """See ``celeriac.ports.Reader``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        address = parse_cluster(url, options)
        self._nodes = NodePools(address, options.pool_limit)
        pools = [self._nodes.slot(tag) for tag in bucket_tags()]
        self._layouts = [Layout(pool.address, options) for pool in pools]
        self._buckets = [RedisReader("", options, pool=pool) for pool in pools]
        self._waiter = _Waiter(self, options, pools[0])

    def key(self, task_id: str) -> str:
        """The key, and the channel, of a record."""
        return self._layouts[bucket_of(task_id)].result(task_id)

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """See ``Reader.get``."""
        return self._waiter.get(ids, timeout=timeout)

    def read(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """The records as they are stored, None where there is none."""
        deadline = monotonic() + timeout
        found: dict[str, bytes | None] = {}
        for number, group in _groups(ids, str).items():
            records = self._buckets[number].get(group, timeout=_left(deadline))
            found.update(zip(group, records, strict=True))
        return [found[each] for each in ids]

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """See ``Reader.wait``."""
        return self._waiter.wait(ids, timeout=timeout)

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """See ``ResultStore.put``."""
        deadline = monotonic() + timeout
        for number, group in _groups(results, lambda result: result.id).items():
            self._buckets[number].put(group, timeout=_left(deadline))

    def forget(self, ids: Sequence[str], *, timeout: float) -> None:
        """See ``ResultStore.forget``."""
        deadline = monotonic() + timeout
        for number, group in _groups(ids, str).items():
            self._buckets[number].forget(group, timeout=_left(deadline))

    def open_chords(self, chords: Sequence[NewChord], *, timeout: float) -> None:
        """See ``ResultStore.open_chords``."""
        deadline = monotonic() + timeout
        for number, group in _groups(chords, lambda chord: chord.id).items():
            self._buckets[number].open_chords(group, timeout=_left(deadline))

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """See ``ResultStore.grow_chord``."""
        self._of(chord).grow_chord(chord, by, timeout=timeout)

    def save_group(self, group: str, body: bytes, *, expires: float | None, timeout: float) -> None:
        """See ``Reader.save_group``."""
        self._of(group).save_group(group, body, expires=expires, timeout=timeout)

    def load_group(self, group: str, *, timeout: float) -> bytes | None:
        """See ``Reader.load_group``."""
        return self._of(group).load_group(group, timeout=timeout)

    def drop_group(self, group: str, *, timeout: float) -> None:
        """See ``Reader.drop_group``."""
        self._of(group).drop_group(group, timeout=timeout)

    def close(self) -> None:
        """Close all idle connections; a later call opens new ones."""
        self._waiter.close()
        self._nodes.close()

    def _of(self, name: str) -> RedisReader:
        return self._buckets[bucket_of(name)]


def _groups(items: Sequence[T], name: Callable[[T], str]) -> dict[int, list[T]]:
    groups: dict[int, list[T]] = {}
    for item in items:
        groups.setdefault(bucket_of(name(item)), []).append(item)
    return groups


def _left(deadline: float) -> float:
    return max(deadline - monotonic(), 0.001)
