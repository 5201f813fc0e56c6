"""The result store of a worker on a Redis Cluster: a router over buckets of results and chords.

Each bucket is a Redis store whose keys share one tag. Which bucket a result or a chord has is decided by its id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from celeriac.brokers.redis.cluster.address import parse_cluster, server_of
from celeriac.brokers.redis.cluster.nodes import Nodes, SlotLink
from celeriac.brokers.redis.cluster.slots import BUCKETS, bucket_of, bucket_tags
from celeriac.brokers.redis.cluster.together import together
from celeriac.brokers.redis.results import RedisStore
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, Traits

__all__ = ["ClusterStore"]

T = TypeVar("T")
R = TypeVar("R")


class _Bucket(RedisStore):
    """Results and chords of one tag."""

    def __init__(self, link: SlotLink, options: AdapterOptions) -> None:
        super().__init__("", options, link=link)


class ClusterStore:
    """See ``celeriac.ports.ResultStore``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        address = parse_cluster(url, options)
        self._nodes = Nodes(address)
        self._buckets = [_Bucket(self._nodes.slot(tag), options) for tag in bucket_tags()]
        self._first = 0
        self.traits = Traits(durable=True, native_delay=False, server=server_of(address, "results"))

    async def open(self) -> None:
        """Connect. Idempotent."""
        await self._nodes.open()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        self._nodes.close()

    async def put(self, results: Sequence[StoredResult]) -> None:
        """See ``ResultStore.put``. What can be written is, before a failure is raised."""
        await self._each(results, lambda result: result.id, lambda bucket, group: bucket.put(group))

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """See ``ResultStore.get``."""

        async def read(bucket: RedisStore, group: Sequence[str]) -> list[tuple[str, bytes | None]]:
            return list(zip(group, await bucket.get(group), strict=True))

        pages = await self._each(ids, str, read)
        found = dict(pair for page in pages for pair in page)
        return [found[each] for each in ids]

    async def forget(self, ids: Sequence[str]) -> None:
        """See ``ResultStore.forget``."""
        await self._each(ids, str, lambda bucket, group: bucket.forget(group))

    async def sweep(self) -> int:
        """Nothing to do: Redis drops expired records itself."""
        return 0

    # -- chords

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        """See ``ResultStore.open_chords``."""
        await self._each(chords, lambda chord: chord.id, lambda bucket, group: bucket.open_chords(group))

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """See ``ResultStore.join``."""
        found = await self._each(parts, lambda part: part.chord, lambda bucket, group: bucket.join(group, token=token))
        return [chord for page in found for chord in page]

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """See ``ResultStore.gather``."""
        return await self._buckets[bucket_of(chord)].gather(chord, token=token)

    async def close_chord(self, closing: Closing) -> bool:
        """See ``ResultStore.close_chord``."""
        return await self._buckets[bucket_of(closing.chord)].close_chord(closing)

    async def grow_chord(self, chord: str, by: int) -> None:
        """See ``ResultStore.grow_chord``."""
        await self._buckets[bucket_of(chord)].grow_chord(chord, by)

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """See ``ResultStore.overdue``. Each bucket is the first in its turn."""
        found: list[Gathered] = []
        self._first = (self._first + 1) % BUCKETS
        for bucket in (*self._buckets[self._first :], *self._buckets[: self._first]):
            if len(found) >= limit:
                break
            found += await bucket.overdue(token=token, limit=limit - len(found))
        return found

    # -- inside

    async def _each(
        self, items: Sequence[T], name: Callable[[T], str], act: Callable[[RedisStore, Sequence[T]], Awaitable[R]]
    ) -> list[R]:
        """Act on each bucket, at the same time."""
        groups: dict[int, list[T]] = {}
        for item in items:
            groups.setdefault(bucket_of(name(item)), []).append(item)
        if len(groups) == 1:
            ((number, group),) = groups.items()
            return [await act(self._buckets[number], group)]
        return await together(act(self._buckets[number], group) for number, group in groups.items())
