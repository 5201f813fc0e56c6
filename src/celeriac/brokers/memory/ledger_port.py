"""The blocking ledger of ``memory://``: what steps of running tasks are recorded in."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.memory.shared import Server
from celeriac.model.ledger import Change
from celeriac.ports import AdapterOptions

__all__ = ["MemoryLedger"]


class MemoryLedger:
    """See ``celeriac.ports.BlockingLedger``."""

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self._server = server

    def read(self, keys: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """See ``BlockingLedger.read``."""
        return self._server.read_ledger(keys)

    def change(self, changes: Sequence[Change], *, timeout: float) -> Sequence[bool]:
        """See ``BlockingLedger.change``."""
        return self._server.change_ledger(changes)

    def close(self) -> None:
        """See ``BlockingLedger.close``."""
