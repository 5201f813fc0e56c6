"""One task at a time, on the thread that calls ``serve``: the main thread of a prefork child."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.executors import Done
from celeriac.executors.limits import SoftLimit
from celeriac.model.message import Delivery

__all__ = ["InlineExecutor"]

#: Finished work waits no longer than this for company, in seconds.
_FLUSH_AFTER = 0.002
#: A task expected to take longer than this does not start before finished work is handed over: what is finished and not
#: written runs again when the process dies.
_FLUSH_BEFORE = 0.0005


class InlineExecutor:
    """Runs what it is fed, in order, on the thread that called ``serve``.

    ``run(delivery)`` must not raise; ``expect(task name)`` says how long a task takes, in seconds.
    """

    limit = 1

    def __init__(
        self,
        run: Callable[[Delivery], Any],
        done: Done,
        expect: Callable[[str], float],
        *,
        soft: SoftLimit | None = None,
        trampoline: Callable[..., Any] | None = None,
    ) -> None:
        self.soft = soft
        #: Soft limits raise only below this function.
        self._trampoline = trampoline if trampoline is not None else run
        self._run = run
        self._done = done
        self._expect = expect
        self._inbox: deque[Delivery] = deque()
        self._outbox: deque[Any] = deque()
        self._wake = threading.Lock()
        self._wake.acquire()
        self._stopping = False
        self._current: tuple[Delivery, float] | None = None

    def serve(self) -> None:
        """Run until ``stop``. A BaseException of a task's making (WorkerShutdown) passes through."""
        if self.soft is not None:
            self.soft.install(self._trampoline)
        inbox, wake = self._inbox, self._wake
        while True:
            if inbox:
                self._burst()
            self._flush()
            if self._stopping and not inbox:
                return
            # feed() and stop() release it; a release before this line is kept.
            wake.acquire()

    def _burst(self) -> None:
        inbox, outbox, run, monotonic, expect = self._inbox, self._outbox, self._run, time.monotonic, self._expect
        flushed = monotonic()
        while True:
            try:
                delivery = inbox.popleft()
            except IndexError:
                self._current = None
                return
            started = monotonic()
            if outbox and (started - flushed > _FLUSH_AFTER or expect(delivery.message.task) > _FLUSH_BEFORE):
                self._flush()
                flushed = started
            self._current = (delivery, started)
            outbox.append(run(delivery))

    def _flush(self) -> None:
        """Hand over what is finished; also called by the I/O thread, so by popping only."""
        outbox = self._outbox
        batch = []
        while outbox:
            try:
                batch.append(outbox.popleft())
            except IndexError:
                break
        if batch:
            self._done(batch)

    def feed(self, batch: Sequence[Delivery]) -> None:
        """Take deliveries, in order."""
        self._inbox.extend(batch)
        self._notify()

    def recall(self) -> list[Delivery]:
        """Take back what has not started, oldest first."""
        back: list[Delivery] = []
        while True:
            try:
                back.append(self._inbox.pop())
            except IndexError:
                back.reverse()
                return back

    def active(self) -> list[tuple[Delivery, float]]:
        """The running task, if any."""
        current = self._current
        return [current] if current is not None else []

    def waiting(self) -> int:
        """Deliveries not started."""
        return len(self._inbox)

    def tick(self, now: float) -> None:
        """Hand over finished work behind a long task; knock at its soft limit."""
        self._flush()
        if self.soft is not None:
            self.soft.knock(now)

    def cancel(self, token: str) -> bool:
        """A running synchronous task cannot be ended from inside its process."""
        return False

    def stop(self) -> None:
        """Return from ``serve`` when the inbox is empty."""
        self._stopping = True
        self._notify()

    def _notify(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            pass  # already released: the thread will look anyway
