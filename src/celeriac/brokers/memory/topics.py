"""Fan-out and replies in memory: who listens to which exchange, called under the server's lock. Lossy by contract."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Protocol

__all__ = ["Letter", "Listening", "Topics"]

#: Payload as JSON text, and headers: nobody shares an object with a listener.
Letter = tuple[bytes, bytes]


class Listening(Protocol):
    """Whoever listens to an exchange."""

    def hear(self, letter: Letter) -> None: ...


class Topics:
    """All exchanges of one server."""

    __slots__ = ("_listeners", "_replies")

    def __init__(self) -> None:
        self._listeners: dict[str, dict[int, Listening]] = {}
        self._replies: dict[tuple[str, str], SimpleQueue[Letter]] = {}

    def listen(self, exchange: str, listener: Listening) -> None:
        """From now on it hears what is sent to the exchange."""
        self._listeners.setdefault(exchange, {})[id(listener)] = listener

    def leave(self, exchange: str, listener: Listening) -> None:
        """Undo ``listen``."""
        self._listeners.get(exchange, {}).pop(id(listener), None)

    def emit(self, exchange: str, letter: Letter) -> None:
        """To all who listen now."""
        for listener in self._listeners.get(exchange, {}).values():
            listener.hear(letter)

    def bind(self, exchange: str, routing_key: str) -> SimpleQueue[Letter]:
        """A queue for the replies to one caller."""
        replies: SimpleQueue[Letter] = SimpleQueue()
        self._replies[exchange, routing_key] = replies
        return replies

    def unbind(self, exchange: str, routing_key: str) -> None:
        """Undo ``bind``."""
        self._replies.pop((exchange, routing_key), None)

    def reply(self, exchange: str, routing_key: str, letter: Letter) -> None:
        """To the queue that is bound there; dropped when there is none."""
        replies = self._replies.get((exchange, routing_key))
        if replies is not None:
            replies.put(letter)

    def forget_listeners(self) -> None:
        """Nobody listens any more (after a fork)."""
        self._listeners.clear()
        self._replies.clear()
