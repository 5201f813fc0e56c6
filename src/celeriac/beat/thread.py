"""A thread of its own for everything a scheduler does, so that it is always the same one: some keep connections by
thread. It is no reason for a process to stay. Called by ``service.py``.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["OwnThread"]


class OwnThread:
    """``await thread(function, *arguments)`` from one event loop: calls run in order. Started at the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function`` returns, or raises. Cancelled, it goes on in the thread, and nobody hears of it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.put((future, function, arguments))
        return await future

    def end(self) -> None:
        """Let the thread end behind what it was given."""
        if self._thread is not None:
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, arguments = call
            value, error = None, None
            try:
                value = function(*arguments)
            except BaseException as caught:  # noqa: BLE001 - raised where it is awaited
                error = caught
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del call, future, function, arguments, value, error


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
