"""STARTED records on their way: what a task stores of itself meanwhile must not be replaced by them.

A task runs while its worker writes that it has started, so that nobody waits for a server before each task. Used by the
backend (in the task's thread) and by the completer (in the worker's I/O loop).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from celeriac.model.settle import StoredResult

__all__ = ["Starts"]


class Starts:
    """The newest record of each task whose STARTED is not known to be written. Thread-safe."""

    def __init__(self) -> None:
        self._newest: dict[str, StoredResult] = {}
        self._lock = threading.Lock()

    def begin(self, record: StoredResult) -> None:
        """STARTED is handed to be written."""
        self._newest[record.id] = record

    def overtake(self, record: StoredResult) -> None:
        """A task is about to store this of itself, or of another."""
        if record.id in self._newest:
            with self._lock:
                if record.id in self._newest:
                    self._newest[record.id] = record

    def wanted(self, records: Sequence[StoredResult]) -> list[StoredResult]:
        """Before they are written: those that nothing has overtaken."""
        return [record for record in records if self._stands(record)]

    def newer(self, records: Sequence[StoredResult]) -> list[StoredResult]:
        """When they are written: what was stored meanwhile and may be below them now, to be written once more."""
        with self._lock:
            again = [self._newest[each.id] for each in records if self._newest.get(each.id, each) is not each]
            for each in records:
                if self._newest.get(each.id) is each:
                    del self._newest[each.id]
        return again

    def forget(self, records: Sequence[StoredResult]) -> None:
        """They are not written."""
        with self._lock:
            for each in records:
                self._newest.pop(each.id, None)

    def _stands(self, record: StoredResult) -> bool:
        with self._lock:
            if self._newest.get(record.id, record) is record:
                return True
            del self._newest[record.id]
            return False
