"""``async def`` tasks, many at a time, on an event loop of their own in a thread of its own.

Apart from the I/O loop so that a task that blocks its loop stops neither renewals nor settling. Started on first use.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import copy_context
from typing import Any

from celeriac.executors import Done
from celeriac.executors.limits import block_in_this_thread
from celeriac.model.message import Delivery

__all__ = ["CoroutinesExecutor"]


class CoroutinesExecutor:
    """Runs up to ``limit`` coroutines ``run(delivery)`` at once; ``run`` turns cancellation into an outcome itself.

    ``new_loop`` makes the loop; None: asyncio's default.
    """

    def __init__(
        self,
        run: Callable[[Delivery], Coroutine[Any, Any, Any]],
        done: Done,
        limit: int,
        *,
        new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self.limit = limit
        self._new_loop = new_loop
        self._run = run
        self._done = done
        self._inbox: deque[Delivery] = deque()
        self._finished: list[Any] = []
        #: token → the line that runs it, and since when.
        self._tasks: dict[str, tuple[asyncio.Task[None], Delivery, float]] = {}
        self._lines: set[asyncio.Task[None]] = set()
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

        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            runner.run(main())

    def _fill(self) -> None:
        """Start lines while there is work for more of them."""
        loop = self._loop
        assert loop is not None
        for _ in range(min(len(self._inbox), self.limit - len(self._lines))):
            self._lines.add(loop.create_task(self._line()))

    async def _line(self) -> None:
        """Run one delivery after the other. An asyncio task for each would wait a turn of the loop to start: at 10,000
        a second that leaves a tenth of the slots idle."""
        line = asyncio.current_task()
        assert line is not None
        try:
            while (delivery := self._next()) is not None:
                body = _Apart(self._run(delivery))
                self._tasks[delivery.token] = (line, delivery, time.monotonic())
                try:
                    finished = await body
                finally:
                    del self._tasks[delivery.token]
                while line.uncancel():
                    pass  # a request to end that delivery, not the next
                self._finish(finished)
                if not body.suspended:
                    await asyncio.sleep(0)  # the others want their turn
        finally:
            self._lines.discard(line)
            self._end_if_idle()

    def _next(self) -> Delivery | None:
        try:
            return self._inbox.popleft()
        except IndexError:
            return None  # all done, or recalled meanwhile

    def _finish(self, finished: Any) -> None:
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
        if token not in self._tasks or self._loop is None:
            return False
        self._loop.call_soon_threadsafe(self._cancel, token)
        return True

    def _cancel(self, token: str) -> None:
        """Looked up here, where the lines run: the line may have gone on to another delivery meanwhile."""
        entry = self._tasks.get(token)
        if entry is not None:
            entry[0].cancel()

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
        if self._stopping and not self._tasks and not self._inbox:
            self._end.set()


class _Apart:
    """Awaits a coroutine in a context of its own: what a task puts into context variables stays with that task."""

    __slots__ = ("_context", "_coroutine", "suspended")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._context = copy_context()
        #: It waited for something at least once.
        self.suspended = False

    def __await__(self) -> Generator[Any, Any, Any]:
        run, send, throw = self._context.run, self._coroutine.send, self._coroutine.throw
        step: Callable[[Any], Any] = send
        value: Any = None
        while True:
            try:
                waits_for = run(step, value)
            except StopIteration as end:
                return end.value
            self.suspended = True
            try:
                value, step = (yield waits_for), send
            except BaseException as error:  # noqa: BLE001 - into the coroutine with it
                value, step = error, throw
