"""The records that came to a process's reply queue, and the threads that wait for one. Opens nothing.

A record that nobody has asked for stays until it is forgotten or has expired; only when all of them take too much
memory the oldest go, with a warning. Of those that were read the last ones stay. Thread-safe.
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

#: Most records that stay after they were read, and most bytes of all.
_READ, _BYTES = 10_000, 256 * 1024 * 1024
#: What a record costs besides its bytes.
_OVERHEAD = 500


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

    def __init__(self, expires: float | None, *, most_read: int = _READ, most_bytes: int = _BYTES) -> None:
        self._expires = expires
        self._most_read = most_read
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        #: Those that nobody has asked for, and those that were read; each the oldest first.
        self._new: OrderedDict[str, _Record] = OrderedDict()
        self._read: OrderedDict[str, _Record] = OrderedDict()
        self._size = 0
        self._waiting: dict[str, list[Waiter]] = {}
        self._told = False

    def take(self, task_id: str, body: bytes, final: bool, success: bool) -> None:
        """A record came. One that is not final never replaces a success."""
        with self._lock:
            old = self._new.get(task_id) or self._read.get(task_id)
            if old is not None:
                if old.success and not final:
                    return
                self._drop(task_id)
            until = monotonic() + self._expires if self._expires else 0.0
            self._new[task_id] = _Record(body, final, success, until)
            self._size += len(body) + _OVERHEAD
            for waiter in self._waiting.get(task_id, ()):
                waiter.hit = waiter.hit or task_id
                waiter.event.set()
            self._make_room()

    def _drop(self, task_id: str) -> None:
        record = self._new.pop(task_id, None) or self._read.pop(task_id, None)
        if record is not None:
            self._size -= len(record.body) + _OVERHEAD

    def _make_room(self) -> None:
        now = monotonic()
        for kept in (self._read, self._new):
            while kept and 0.0 < next(iter(kept.values())).until < now:
                self._drop(next(iter(kept)))
        while len(self._read) > self._most_read or (self._read and self._size > self._most_bytes):
            self._drop(next(iter(self._read)))
        while self._size > self._most_bytes and len(self._new) > 1:
            self._drop(next(iter(self._new)))
            if not self._told:
                self._told = True
                logger.warning(
                    "Results that nobody has asked for take more than %d MiB: the oldest are dropped, and whoever asks "
                    "for them later waits in vain; send with ignore_result what nobody reads, or use a result store",
                    self._most_bytes >> 20,
                )

    def get(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records, None where there is none."""
        now = monotonic()
        found: list[bytes | None] = []
        with self._lock:
            for task_id in ids:
                record = self._new.get(task_id)
                if record is None:
                    record = self._read.get(task_id)
                elif record.final:
                    self._read[task_id] = self._new.pop(task_id)
                found.append(record.body if record is not None and not 0.0 < record.until < now else None)
        return found

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
                record = self._new.get(task_id) or self._read.get(task_id)
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
