"""Result records in memory and those who wait for them: plain synchronous state, called under the server's lock.

Records are opaque bytes, but for the state that guards a SUCCESS. ``tick`` is monotonic time in seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from msgspec import Struct

from celeriac.model.settle import StoredResult

__all__ = ["Results", "Watcher"]

#: The state comes first in a record, whatever its serializer.
_STATE_WITHIN = 64


class _Record(Struct, frozen=True):
    body: bytes
    terminal: bool
    until: float | None


class Watcher:
    """A thread that waits for the first of some records."""

    __slots__ = ("event", "id")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.id: str | None = None

    def tell(self, task_id: str) -> None:
        """Wake the thread; the first id told is the one it returns."""
        if self.id is None:
            self.id = task_id
        self.event.set()


class Results:
    """All result records of one server."""

    __slots__ = ("_records", "_watchers")

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._watchers: dict[str, set[Watcher]] = {}

    def put(self, result: StoredResult, tick: float) -> None:
        """Write a record unless it would hide a SUCCESS; wake its waiters."""
        if not result.terminal and self._has_succeeded(result.id, tick):
            return
        until = None if result.expires is None else tick + result.expires
        self._records[result.id] = _Record(result.body, result.terminal, until)
        for watcher in self._watchers.get(result.id, ()):
            watcher.tell(result.id)

    def _has_succeeded(self, task_id: str, tick: float) -> bool:
        record = self._find(task_id, tick)
        return record is not None and record.terminal and b"SUCCESS" in record.body[:_STATE_WITHIN]

    def get(self, task_id: str, tick: float) -> bytes | None:
        """The record, None when there is none or its time is over."""
        record = self._find(task_id, tick)
        return None if record is None else record.body

    def _find(self, task_id: str, tick: float) -> _Record | None:
        record = self._records.get(task_id)
        if record is not None and record.until is not None and record.until <= tick:
            return None
        return record

    def forget(self, ids: Iterable[str]) -> None:
        """Drop records."""
        for task_id in ids:
            self._records.pop(task_id, None)

    def sweep(self, tick: float) -> int:
        """Drop records whose time is over; returns how many."""
        over = [task_id for task_id in self._records if self._find(task_id, tick) is None]
        self.forget(over)
        return len(over)

    def watch(self, ids: Sequence[str], watcher: Watcher, tick: float) -> None:
        """Tell the watcher of the first record that is written, or at once of one that is there and final."""
        for task_id in ids:
            self._watchers.setdefault(task_id, set()).add(watcher)
            record = self._find(task_id, tick)
            if record is not None and record.terminal:
                watcher.tell(task_id)

    def unwatch(self, ids: Sequence[str], watcher: Watcher) -> None:
        """Undo ``watch``."""
        for task_id in set(ids):
            watchers = self._watchers[task_id]
            watchers.discard(watcher)
            if not watchers:
                del self._watchers[task_id]

    def forget_waiters(self) -> None:
        """Nobody waits any more (after a fork)."""
        self._watchers.clear()
