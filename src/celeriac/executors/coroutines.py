"""``async def`` tasks, many at a time, on an event loop of their own in a thread of its own.

Apart from the I/O loop so that a task that blocks its loop stops neither renewals nor settling. Started on first use.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from celeriac.executors import Done
from celeriac.executors.limits import block_in_this_thread
from celeriac.model.message import Delivery

__all__ = ["CoroutinesExecutor"]


class CoroutinesExecutor:
    """Runs up to ``limit`` coroutines ``run(delivery)`` at once; ``run`` turns cancellation into an outcome itself."""

    def __init__(self, run: Callable[[Delivery], Awaitable[Any]], done: Done, limit: int) -> None:
        self.limit = limit
        self._run = run
        self._done = done
        self._inbox: deque[Delivery] = deque()
        self._finished: list[Any] = []
        self._tasks: dict[str, tuple[asyncio.Task[None], Delivery, float]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    def feed(self, batch: Sequence[Delivery]) -> None:
        """Take deliveries; the first call starts the thread."""
        self._inbox.extend(batch)
        self._started().call_soon_threadsafe(self._fill)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            ready = threading.Event()
            self._thread = threading.Thread(target=self._serve, args=(ready,), name="async-tasks", daemon=True)
            self._thread.start()
            ready.wait()
        assert self._loop is not None
        return self._loop

    def _serve(self, ready: threading.Event) -> None:
        block_in_this_thread()

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._end = asyncio.Event()
            ready.set()
            await self._end.wait()

        asyncio.run(main())

    def _fill(self) -> None:
        inbox, tasks, loop = self._inbox, self._tasks, self._loop
        assert loop is not None
        while inbox and len(tasks) < self.limit:
            try:
                delivery = inbox.popleft()
            except IndexError:
                return  # recalled meanwhile
            task = loop.create_task(self._one(delivery))
            tasks[delivery.token] = (task, delivery, time.monotonic())

    async def _one(self, delivery: Delivery) -> None:
        try:
            finished = await self._run(delivery)
        finally:
            del self._tasks[delivery.token]
            if self._inbox:
                self._fill()
            elif self._stopping and not self._tasks:
                self._end.set()
        if not self._finished:
            # One hand-over for everything that ends in this turn of the loop.
            asyncio.get_running_loop().call_soon(self._flush)
        self._finished.append(finished)

    def _flush(self) -> None:
        batch, self._finished = self._finished, []
        self._done(batch)

    def recall(self) -> list[Delivery]:
        """Take back what has not started."""
        back: list[Delivery] = []
        while True:
            try:
                back.append(self._inbox.pop())
            except IndexError:
                back.reverse()
                return back

    def active(self) -> list[tuple[Delivery, float]]:
        """The running coroutines."""
        return [(delivery, started) for _, delivery, started in list(self._tasks.values())]

    def waiting(self) -> int:
        """Deliveries not started."""
        return len(self._inbox)

    def tick(self, now: float) -> None:
        """Limits of coroutines are timers of their own loop."""

    def cancel(self, token: str) -> bool:
        """Cancel a running coroutine."""
        entry = self._tasks.get(token)
        if entry is None or self._loop is None:
            return False
        self._loop.call_soon_threadsafe(entry[0].cancel)
        return True

    def stop(self) -> None:
        """End the loop once everything fed is done."""
        self._stopping = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_if_idle)

    def close(self, timeout: float) -> bool:
        """Cancel what still runs and end the thread; says whether it has ended within ``timeout`` seconds."""
        if self._loop is None or self._thread is None:
            return True
        try:
            self._loop.call_soon_threadsafe(self._end.set)
        except RuntimeError:
            pass  # the loop has ended by itself
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _end_if_idle(self) -> None:
        if not self._tasks and not self._inbox:
            self._end.set()
