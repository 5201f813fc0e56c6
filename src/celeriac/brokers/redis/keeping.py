"""The blocking ledger on Redis: what steps of running tasks are recorded in."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.redis.blocking import Pool
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.ledger_keys import change_args
from celeriac.brokers.redis.scripts import LEDGER_ALL, LEDGER_CHANGE
from celeriac.brokers.redis.urls import parse
from celeriac.model.ledger import Change
from celeriac.ports import AdapterOptions

__all__ = ["RedisLedger"]


class RedisLedger:
    """See ``celeriac.ports.BlockingLedger``."""

    def __init__(self, url: str, options: AdapterOptions, *, pool: Pool | None = None) -> None:
        """With a ``pool`` it is part of a cluster's, and the pool knows the address."""
        self._pool = pool or Pool(parse(url, options), options.pool_limit)
        self._layout = Layout(self._pool.address, options)

    def read(self, keys: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """See ``BlockingLedger.read``."""
        if not keys:
            return ()
        found: Sequence[bytes | None] = self._pool.call(("MGET", *map(self._layout.ledger, keys)), timeout, repeat=True)
        return found

    def change(self, changes: Sequence[Change], *, timeout: float) -> Sequence[bool]:
        """See ``BlockingLedger.change``."""
        if not changes:
            return ()
        keys, args = change_args(self._layout, changes)
        return [made == 1 for made in self._pool.script(LEDGER_CHANGE, keys, args, timeout)]

    def change_all(self, changes: Sequence[Change], *, timeout: float) -> Sequence[bytes | None] | None:
        """All changes, or none when one is not allowed: then what stands under each key."""
        if not changes:
            return None
        keys, args = change_args(self._layout, changes)
        there: Sequence[bytes | None] | None = self._pool.script(LEDGER_ALL, keys, args, timeout)
        return there

    def time(self, *, timeout: float) -> float:
        """See ``celeriac.ports.Timed``."""
        seconds, microseconds = self._pool.call(("TIME",), timeout, repeat=True)
        return int(seconds) + int(microseconds) / 1e6

    def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        self._pool.close()
