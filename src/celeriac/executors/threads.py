"""Many synchronous tasks at a time, on N threads of one process (``--pool threads``)."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.executors import Done
from celeriac.model.message import Delivery

__all__ = ["ThreadsExecutor"]

_raise_in_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc


class ThreadsExecutor:
    """Runs what it is fed on ``limit`` threads, started as they are needed.

    ``soft_limit(delivery)`` gives a task's soft limit in seconds or None; it is raised in the thread at its next byte
    code, so a blocking call is not interrupted. ``limited(delivery, exc)`` makes the end of a task whose limit was
    raised outside its body, between two frames of ours.
    """

    def __init__(
        self,
        run: Callable[[Delivery], Any],
        done: Done,
        limit: int,
        soft_limit: Callable[[Delivery], float | None],
        limited: Callable[[Delivery, SoftTimeLimitExceeded], Any],
    ) -> None:
        self.limit = limit
        self._run = run
        self._done = done
        self._soft_limit = soft_limit
        self._limited = limited
        self._inbox: SimpleQueue[Delivery | None] = SimpleQueue()
        #: thread id → what it runs and since when; plain dict operations are atomic.
        self._active: dict[int, tuple[Delivery, float]] = {}
        self._warned: set[str] = set()
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
        for delivery in batch:
            put(delivery)
        with self._lock:
            if self._stopping:
                return
            wanted = min(self.limit, len(self._active) + self._inbox.qsize())
            while len(self._threads) < wanted:
                thread = threading.Thread(target=self._work, name=f"task-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        ident, get, run, done, active = threading.get_ident(), self._inbox.get, self._run, self._done, self._active
        monotonic = time.monotonic
        while True:
            delivery = get()
            if delivery is None:
                return
            active[ident] = (delivery, monotonic())
            try:
                finished = run(delivery)
            except SoftTimeLimitExceeded as late:
                finished = self._limited(delivery, late)
            finally:
                active.pop(ident, None)
            done((finished,))

    def recall(self) -> list[Delivery]:
        """Take back what has not started."""
        back: list[Delivery] = []
        while True:
            try:
                delivery = self._inbox.get_nowait()
            except Empty:
                return back
            if delivery is None:
                self._inbox.put(None)
                return back
            back.append(delivery)

    def active(self) -> list[tuple[Delivery, float]]:
        """The running tasks."""
        return list(self._active.values())

    def waiting(self) -> int:
        """Deliveries not started."""
        return self._inbox.qsize()

    def tick(self, now: float) -> None:
        """Raise SoftTimeLimitExceeded, once per task, in threads whose task is past its soft limit."""
        for ident, (delivery, started) in list(self._active.items()):
            limit = self._soft_limit(delivery)
            if limit is None or now < started + limit or delivery.token in self._warned:
                continue
            self._warned.add(delivery.token)
            _raise_in_thread(ctypes.c_ulong(ident), ctypes.py_object(SoftTimeLimitExceeded))
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
