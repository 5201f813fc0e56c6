"""Many synchronous tasks at a time, on N threads of one process (``--pool threads``)."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.executors import Done
from celeriac.executors.limits import may_raise
from celeriac.model.message import Delivery

__all__ = ["ThreadsExecutor"]

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


class _TakenBack(BaseException):
    """Raised and caught in one place."""


class ThreadsExecutor:
    """Runs what it is fed on ``limit`` threads, started as they are needed.

    ``soft_limit(delivery)`` gives a task's soft limit in seconds or None; it is raised in the thread at its next byte
    code, so a blocking call is not interrupted, and only below ``trampoline`` (None: anywhere). The thread may have
    left the body by then: ``limited(delivery, exc)`` makes the end of a task whose limit was raised between two frames
    of ours.
    """

    def __init__(
        self,
        run: Callable[[Delivery], Any],
        done: Done,
        limit: int,
        soft_limit: Callable[[Delivery], float | None],
        limited: Callable[[Delivery, SoftTimeLimitExceeded], Any],
        trampoline: Callable[..., object] | None = None,
    ) -> None:
        self.limit = limit
        self._run = run
        self._done = done
        self._soft_limit = soft_limit
        self._limited = limited
        self._trampoline = trampoline.__code__ if trampoline is not None else None
        #: Threads in which a limit may be on its way.
        self._struck: set[int] = set()
        self._strikes = threading.Lock()
        self._inbox: SimpleQueue[Delivery | None] = SimpleQueue()
        #: thread id → what it runs and since when; plain dict operations are atomic.
        self._active: dict[int, tuple[Delivery, float]] = {}
        self._warned: set[str] = set()
        #: Deliveries that were fed and not recalled, and thread id → how many of them it has ended. What a thread has
        #: taken and not yet put down in ``_active`` is in neither inbox nor ``_active``.
        self._fed = 0
        self._ended: dict[int, int] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._stopped = threading.Event()

    def serve(self) -> None:
        """Block until ``stop`` and the end of all threads."""
        self._stopped.wait()
        for thread in self._threads:
            thread.join()

    def feed(self, batch: Sequence[Delivery]) -> None:
        """Take deliveries; starts threads while there are fewer than needed and allowed."""
        put = self._inbox.put
        self._fed += len(batch)
        for delivery in batch:
            put(delivery)
        with self._lock:
            if self._stopping:
                return
            wanted = min(self.limit, self._fed - sum(list(self._ended.values())))
            while len(self._threads) < wanted:
                thread = threading.Thread(target=self._work, name=f"task-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        ident, get, run, done, active = threading.get_ident(), self._inbox.get, self._run, self._done, self._active
        monotonic, ended = time.monotonic, self._ended
        ended[ident] = 0
        while True:
            delivery = get()
            if delivery is None:
                return
            active[ident] = (delivery, monotonic())
            try:
                finished = run(delivery)
            except SoftTimeLimitExceeded as late:
                finished = self._limited(delivery, late)
            while True:
                try:
                    active.pop(ident, None)
                    if ident in self._struck:
                        self._unstrike(ident)
                    break
                except SoftTimeLimitExceeded:
                    pass  # it came too late, and must not hit what this thread does next
            ended[ident] += 1
            done((finished,))

    def _strike(self, ident: int, entry: tuple[Delivery, float]) -> None:
        """Raise in that thread, unless it has ended this task meanwhile (``_work`` looks in the reverse order)."""
        with self._strikes:
            self._struck.add(ident)
            if self._active.get(ident) is entry:
                _raise_in_thread(ctypes.c_ulong(ident), ctypes.py_object(SoftTimeLimitExceeded))
            else:
                self._struck.discard(ident)

    def _unstrike(self, ident: int) -> None:
        """Take back what was not raised yet; in its own thread.

        Something is raised in its place: one that is taken back by NULL leaves CPython 3.11 looking for it for ever,
        and the next function that is traced (debuggers, coverage) never begins.
        """
        try:
            with self._strikes:
                self._struck.discard(ident)
                _raise_in_thread(ctypes.c_ulong(ident), ctypes.py_object(_TakenBack))
            while True:
                pass
        except _TakenBack:
            pass

    def recall(self) -> list[Delivery]:
        """Take back what has not started."""
        back: list[Delivery] = []
        while True:
            try:
                delivery = self._inbox.get_nowait()
            except Empty:
                break
            if delivery is None:
                self._inbox.put(None)
                break
            back.append(delivery)
        self._fed -= len(back)
        return back

    def active(self) -> list[tuple[Delivery, float]]:
        """The running tasks."""
        return list(self._active.values())

    def waiting(self) -> int:
        """Deliveries not started."""
        return self._inbox.qsize()

    def tick(self, now: float) -> None:
        """Raise SoftTimeLimitExceeded, once per task, in threads whose task is past its soft limit."""
        for ident, entry in list(self._active.items()):
            delivery, started = entry
            limit = self._soft_limit(delivery)
            if limit is None or now < started + limit or delivery.token in self._warned:
                continue
            frame = sys._current_frames().get(ident)
            if self._trampoline is None or may_raise(frame, self._trampoline):
                self._warned.add(delivery.token)
                self._strike(ident, entry)
        if len(self._warned) > 10_000:
            self._warned.clear()

    def cancel(self, token: str) -> bool:
        """A thread cannot be ended."""
        return False

    def stop(self) -> None:
        """Let the threads end after what was fed."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            for _ in self._threads:
                self._inbox.put(None)
        self._stopped.set()
