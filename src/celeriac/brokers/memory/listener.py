"""What ``Bus.listen`` returns for ``memory://``: letters heard by one coroutine, whichever thread sent them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.brokers.memory.shared import Server
from celeriac.brokers.memory.topics import Letter
from celeriac.brokers.memory.waiter import Waiter
from celeriac.codec.json import loads
from celeriac.exceptions import DecodeError

__all__ = ["Listener"]

#: A listener that does not keep up loses the oldest letters.
_MOST = 10_000


class Listener:
    """An asynchronous iterator of (payload, headers); ends when it, or its broker, is closed."""

    def __init__(self, server: Server, exchange: str, on_close: Callable[[Listener], None]) -> None:
        self._server = server
        self._exchange = exchange
        self._on_close = on_close
        self._letters: deque[Letter] = deque(maxlen=_MOST)
        self._is_open = True
        self._waiter: Waiter | None = None

    def hear(self, letter: Letter) -> None:
        """Take a letter; called from any thread, under the server's lock."""
        self._letters.append(letter)
        if self._waiter is not None:
            self._waiter.wake()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> tuple[Any, Mapping[str, Any]]:
        while True:
            with self._server.lock:
                while self._letters:
                    try:
                        payload, headers = map(loads, self._letters.popleft())
                    except DecodeError:
                        continue
                    if isinstance(headers, dict):
                        return payload, headers
                if not self._is_open:
                    raise StopAsyncIteration
                waiter = self._waiter = Waiter()
            await waiter.woken()

    async def aclose(self) -> None:
        """Stop listening. Idempotent."""
        with self._server.lock:
            self._server.topics.leave(self._exchange, self)
            self._is_open = False
            if self._waiter is not None:
                self._waiter.wake()
        self._on_close(self)
