"""The result store of a worker on Redis: Celery's keys, texts and channels."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.redis.address import parse
from celeriac.brokers.redis.endings import result_args
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.scripts import STORE
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, Traits

__all__ = ["RedisStore"]

_BATCH = 500


class RedisStore:
    """See ``celeriac.ports.ResultStore``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._address = parse(url, options)
        self._layout = Layout(self._address, options)
        self._link = Link(self._address)
        self.traits = Traits(durable=True, native_delay=False, server=self._address.server)

    async def open(self) -> None:
        """Connect. Idempotent."""
        await self._link.open()

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._link.close()

    async def put(self, results: Sequence[StoredResult]) -> None:
        """See ``ResultStore.put``."""
        for at in range(0, len(results), _BATCH):
            keys, args = result_args(self._layout, results[at : at + _BATCH])
            await self._link.script(STORE, keys, args)

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """See ``ResultStore.get``."""
        found: list[bytes | None] = []
        for at in range(0, len(ids), _BATCH):
            found += await self._link.call("MGET", *map(self._layout.result, ids[at : at + _BATCH]))
        return found

    async def forget(self, ids: Sequence[str]) -> None:
        """See ``ResultStore.forget``."""
        for at in range(0, len(ids), _BATCH):
            await self._link.call("UNLINK", *map(self._layout.result, ids[at : at + _BATCH]))

    async def sweep(self) -> int:
        """Nothing to do: Redis drops expired records itself."""
        return 0
