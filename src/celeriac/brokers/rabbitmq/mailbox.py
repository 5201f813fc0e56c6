"""The records that came to a process's reply queue, and the threads that wait for one. Opens nothing.

A record stays until it is forgotten, has expired, or is the oldest of too many. Thread-safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Mailbox", "Waiter"]

logger = logging.getLogger("celeriac.brokers.rabbitmq")
monotonic = time.monotonic

#: Most records that are kept, and most bytes of them.
_MOST, _BYTES = 10_000, 256 * 1024 * 1024


class _Record(NamedTuple):
    body: bytes
    final: bool
    success: bool
    #: By the monotonic clock; 0: for ever.
    until: float


class Waiter:
    """One thread that waits. ``event`` is set when ``hit``, the id of a record, is there."""

    __slots__ = ("event", "hit", "ids")

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self.hit: str | None = None
        self.event = threading.Event()

    def wait(self, seconds: float) -> str | None:
        """``hit``, at the latest after so long; may come earlier without one."""
        if self.hit is None and seconds > 0:
            self.event.wait(seconds)
            if self.hit is None:
                self.event.clear()
        return self.hit


class Mailbox:
    """``take`` what came, ``get`` it, be woken by it (``enter``, ``leave``)."""

    def __init__(self, expires: float | None, *, most: int = _MOST, most_bytes: int = _BYTES) -> None:
        self._expires = expires
        self._most = most
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Record] = OrderedDict()
        self._size = 0
        self._waiting: dict[str, list[Waiter]] = {}
        self._told = False

    def take(self, task_id: str, body: bytes, final: bool, success: bool) -> None:
        """A record came. One that is not final never replaces a success."""
        with self._lock:
            old = self._kept.get(task_id)
            if old is not None:
                if old.success and not final:
                    return
                self._drop(task_id)
            until = monotonic() + self._expires if self._expires else 0.0
            self._kept[task_id] = _Record(body, final, success, until)
            self._size += len(body)
            for waiter in self._waiting.get(task_id, ()):
                waiter.hit = waiter.hit or task_id
                waiter.event.set()
            self._make_room()

    def _drop(self, task_id: str) -> None:
        record = self._kept.pop(task_id, None)
        if record is not None:
            self._size -= len(record.body)

    def _make_room(self) -> None:
        now = monotonic()
        while self._kept:
            oldest, record = next(iter(self._kept.items()))
            if record.until and record.until < now:
                self._drop(oldest)
            elif len(self._kept) > 1 and (len(self._kept) > self._most or self._size > self._most_bytes):
                self._drop(oldest)
                if not self._told:
                    self._told = True
                    logger.warning(
                        "More results have come than are kept for those who may ask (%d, or %d MiB): the oldest are "
                        "dropped; forget() what was read, and send with ignore_result what nobody reads",
                        self._most,
                        self._most_bytes >> 20,
                    )
            else:
                return

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records, None where there is none."""
        now = monotonic()
        with self._lock:
            found = [self._kept.get(task_id) for task_id in ids]
        return [record.body if record and not 0.0 < record.until < now else None for record in found]

    def forget(self, ids: Sequence[str]) -> None:
        """Drop records."""
        with self._lock:
            for task_id in ids:
                self._drop(task_id)

    def enter(self, ids: Sequence[str]) -> Waiter:
        """Wait for a record of one of these to come; for a final one that is there, no longer at all."""
        waiter = Waiter(tuple(dict.fromkeys(ids)))
        with self._lock:
            for task_id in waiter.ids:
                record = self._kept.get(task_id)
                if record is not None and record.final and waiter.hit is None:
                    waiter.hit = task_id
                    waiter.event.set()
                self._waiting.setdefault(task_id, []).append(waiter)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer."""
        with self._lock:
            for task_id in waiter.ids:
                others = self._waiting[task_id]
                others.remove(waiter)
                if not others:
                    del self._waiting[task_id]

    def wake(self) -> None:
        """Let everybody look around: the connection has changed."""
        with self._lock:
            for waiters in self._waiting.values():
                for waiter in waiters:
                    waiter.event.set()
