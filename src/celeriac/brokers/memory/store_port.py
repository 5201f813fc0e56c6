"""The ``ResultStore`` port of ``memory://``. Used by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from celeriac.brokers.memory.shared import Server
from celeriac.exceptions import OperationalError
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions

__all__ = ["MemoryStore"]


class MemoryStore:
    """One worker's view of the result records."""

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self.traits = server.traits
        self._server = server
        self._is_open = False

    async def open(self) -> None:
        """See ``ResultStore.open``."""
        self._is_open = True

    async def close(self) -> None:
        """See ``ResultStore.close``."""
        self._is_open = False

    @contextmanager
    def _locked(self) -> Iterator[Server]:
        if not self._is_open:
            raise OperationalError(f"the result store memory://{self._server.name} is closed: call open() first")
        with self._server.lock:
            yield self._server

    async def put(self, results: Sequence[StoredResult]) -> None:
        """See ``ResultStore.put``."""
        with self._locked() as server:
            tick = server.clock.monotonic()
            for result in results:
                server.results.put(result, tick)

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """See ``ResultStore.get``."""
        with self._locked() as server:
            tick = server.clock.monotonic()
            return [server.results.get(task_id, tick) for task_id in ids]

    async def forget(self, ids: Sequence[str]) -> None:
        """See ``ResultStore.forget``."""
        with self._locked() as server:
            server.results.forget(ids)

    async def sweep(self) -> int:
        """See ``ResultStore.sweep``."""
        with self._locked() as server:
            return server.results.sweep(server.clock.monotonic())
