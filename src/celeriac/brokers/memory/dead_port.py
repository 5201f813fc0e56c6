"""The blocking ``DeadLetters`` of ``memory://``."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.memory.broker_port import add, encoded
from celeriac.brokers.memory.shared import Server
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.ports import AdapterOptions

__all__ = ["MemoryDeadLetters"]


class MemoryDeadLetters:
    """See ``celeriac.ports.DeadLetters``."""

    def __init__(self, server: Server, options: AdapterOptions) -> None:
        self._server = server

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """See ``DeadLetters.page``."""
        with self._server.lock:
            return self._server.queues.dead.page(wanted, limit, after)

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """See ``DeadLetters.get``."""
        with self._server.lock:
            return [self._server.queues.dead.get(key) for key in keys]

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters.replay``."""
        texts = encoded([replay.message for replay in replays])
        stayed: list[Stayed] = []
        server = self._server
        with server.lock:
            dead, tick = server.queues.dead, server.clock.monotonic()
            for replay, text in zip(replays, texts, strict=True):
                if dead.get(replay.key) is None:
                    stayed.append(Stayed(replay.key))
                elif replay.change is not None and not server.ledger.change(replay.change, tick):
                    stayed.append(Stayed(replay.key, False, server.ledger.read(replay.change.key, tick)))
                else:
                    dead.remove(replay.key)
                    add(server, [text])
        return stayed

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        with self._server.lock:
            return sum([self._server.queues.dead.remove(key) for key in keys])

    def close(self) -> None:
        """See ``DeadLetters.close``."""
