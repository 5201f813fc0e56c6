"""The ``ResultStore`` port of ``memory://``. Used by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from celeriac.brokers.memory.shared import Server
from celeriac.exceptions import OperationalError
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions

__all__ = ["MemoryStore"]


class MemoryStore:
    """One worker's view of result records and chords."""

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self.traits = server.traits
        self._server = server
        self._wait = options.chord_token
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
            tick = server.clock.monotonic()
            return server.results.sweep(tick) + server.chords.sweep(tick)

    # -- chords ------------------------------------------------------------------------------------------------------

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        """See ``ResultStore.open_chords``."""
        with self._locked() as server:
            tick = server.clock.monotonic()
            for chord in chords:
                server.chords.open(chord, tick, self._wait)

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """See ``ResultStore.join``."""
        with self._locked() as server:
            tick = server.clock.monotonic()
            for part in parts:
                server.chords.join(part, tick, self._wait)
            joined = dict.fromkeys(part.chord for part in parts)
            return [chord for chord in joined if server.chords.take(chord, token, tick, self._wait)]

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """See ``ResultStore.gather``."""
        with self._locked() as server:
            return server.chords.gather(chord, token, server.clock.monotonic(), self._wait)

    async def close_chord(self, closing: Closing) -> bool:
        """See ``ResultStore.close_chord``."""
        with self._locked() as server:
            return server.chords.close(closing, server.clock.monotonic())

    async def grow_chord(self, chord: str, by: int) -> None:
        """See ``ResultStore.grow_chord``."""
        with self._locked() as server:
            server.chords.grow(chord, by, server.clock.monotonic())

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """See ``ResultStore.overdue``."""
        with self._locked() as server:
            return server.chords.overdue(token, limit, server.clock.monotonic(), self._wait)
