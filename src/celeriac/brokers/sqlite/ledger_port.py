"""The blocking ledger of SQLite: what steps of running tasks are recorded in."""

from __future__ import annotations

import time
from collections.abc import Sequence

from celeriac.brokers.sqlite import ledger_table
from celeriac.brokers.sqlite.address import Address
from celeriac.brokers.sqlite.blocking import Pool
from celeriac.model.ledger import Change
from celeriac.ports import AdapterOptions

__all__ = ["SQLiteLedger"]


class SQLiteLedger:
    """See ``celeriac.ports.BlockingLedger``."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)

    def read(self, keys: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """What stands under each key."""
        with self._pool.desk() as desk:
            return desk.read(lambda sqlite: ledger_table.read(sqlite, keys, time.time()), timeout)

    def change(self, changes: Sequence[Change], *, timeout: float) -> Sequence[bool]:
        """Make changes, all in one transaction; for each whether it was made."""
        if not changes:
            return ()
        with self._pool.desk() as desk:
            return desk.write(lambda sqlite: ledger_table.change(sqlite, changes, time.time()), timeout)

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        self._pool.close()
