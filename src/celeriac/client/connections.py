"""One thing per process, made when first needed and made anew after a fork. Holds publishers, readers, callers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

__all__ = ["PerProcess"]


class _Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)

#: What was inherited by a fork is neither used nor closed: its sockets are the parent's.
_inherited: list[object] = []


class PerProcess(Generic[T]):
    """Holds what ``make`` returned in this process. Thread-safe."""

    __slots__ = ("_lock", "_make", "_pid", "_value")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: T | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def get(self) -> T:
        """The thing of this process. Raises what ``make`` raises."""
        value = self._value
        if value is not None and self._pid == os.getpid():
            return value
        return self._remake()

    def present(self) -> T | None:
        """The thing of this process when it was made."""
        return self._value if self._pid == os.getpid() else None

    def _remake(self) -> T:
        pid = os.getpid()
        if self._pid not in (0, pid):
            self._lock = threading.Lock()  # the other one may have been held when we were forked
        with self._lock:
            if self._pid != pid:
                if self._value is not None:
                    _inherited.append(self._value)
                self._value, self._pid = None, pid
            if self._value is None:
                self._value = self._make()
            return self._value

    @contextmanager
    def standing_in(self, value: T) -> Iterator[None]:
        """Hold ``value`` in this process until the block ends: for simulations."""
        before = (self._value, self._pid)
        self._value, self._pid = value, os.getpid()
        try:
            yield
        finally:
            self._value, self._pid = before

    def close(self) -> None:
        """Close it, if this process has made one; the next ``get`` makes another. Idempotent."""
        value, self._value = self._value, None
        if value is not None:
            if self._pid == os.getpid():
                value.close()
            else:
                _inherited.append(value)
