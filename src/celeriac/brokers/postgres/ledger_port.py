"""The blocking ledger of PostgreSQL: what steps of running tasks are recorded in."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.blocking import Pool
from celeriac.brokers.postgres.rows import change_columns, clean
from celeriac.model.ledger import Change
from celeriac.ports import AdapterOptions

__all__ = ["PostgresLedger"]


class PostgresLedger:
    """See ``celeriac.ports.BlockingLedger``."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)

    def read(self, keys: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """What stands under each key."""
        if not keys:
            return ()
        ((values,),) = self._pool.call("read_ledger", ([clean(key) for key in keys],), timeout)
        return list(values)

    def change(self, changes: Sequence[Change], *, timeout: float) -> Sequence[bool]:
        """Make changes, all in one transaction; for each whether it was made."""
        if not changes:
            return ()
        ((made,),) = self._pool.call("change_ledger", change_columns(changes), timeout)
        return list(made)

    def time(self, *, timeout: float) -> float:
        """The server's time."""
        ((seconds,),) = self._pool.call("moment", (), timeout)
        return float(seconds)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._pool.close()
