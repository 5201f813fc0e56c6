"""The blocking ``DeadLetters`` of ``memory://``."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.memory.broker_port import add, encoded
from celeriac.brokers.memory.shared import Server
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay
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

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[str]:
        """See ``DeadLetters.replay``."""
        texts = encoded([replay.message for replay in replays])
        gone: list[str] = []
        with self._server.lock:
            for replay, text in zip(replays, texts, strict=True):
                if self._server.queues.dead.remove(replay.key):
                    add(self._server, [text])
                else:
                    gone.append(replay.key)
        return gone

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        with self._server.lock:
            return sum([self._server.queues.dead.remove(key) for key in keys])

    def close(self) -> None:
        """See ``DeadLetters.close``."""
