"""Strikes: an exception at every point of a call at which CPython lets the handler of a signal raise one.

It does so when a Python function begins, when one in C has returned, when a loop goes round, and inside of C code that
waits, which has not done its work then; nowhere else. So ``with lock:`` is safe, and ``acquire()`` before a ``try`` is
not. The test's own functions, called by the code under test, count as C code that waits. Deterministic: the same call
has the same points. (A line without any call cannot be interrupted; to strike there too would tell of locks that
nobody can leave locked.)
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import celeriac
from celeriac.exceptions import SoftTimeLimitExceeded

__all__ = ["LIMIT", "STRIKES", "each_strike", "struck"]

#: What signals raise, the wider one first; and how many points a call may have before it is taken for endless.
STRIKES: tuple[type[BaseException], ...] = (KeyboardInterrupt, SoftTimeLimitExceeded)
LIMIT = 5000
_OURS = str(Path(celeriac.__file__).parent)
_ALSO = contextlib.__file__
#: Functions in C that a signal interrupts before they have done anything.
_WAITING = frozenset({"acquire", "poll", "send", "sendall", "recv", "connect", "sleep"})
#: What is raised in there comes nowhere: called when something is no longer used.
_UNHEARD = frozenset({"__del__", "_remove"})
_Trace = Callable[[FrameType, str, Any], Any]


class _Striker:
    def __init__(self, at: int, error: type[BaseException]) -> None:
        self._left = at
        self._error = error
        #: Of the test's functions, those that are raising.
        self._raising: set[FrameType] = set()
        self.where = ""

    def _point(self, frame: FrameType, what: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_qualname} {what}"
            raise self._error(self.where)

    def trace(self, frame: FrameType, event: str, arg: Any) -> _Trace | None:
        if self._left <= 0 or event != "call" or frame.f_code.co_name in _UNHEARD:
            return None
        if _is_ours(frame):
            self._point(frame, "begins")
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return self._inside
        if frame.f_back is not None and _is_ours(frame.f_back):
            self._point(frame.f_back, f"before {frame.f_code.co_name}()")
            frame.f_trace_lines = False
            return self._outside
        return None

    def _inside(self, frame: FrameType, event: str, arg: Any) -> _Trace:
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if "JUMP_BACKWARD" in name and "NO_INTERRUPT" not in name:
                self._point(frame, "goes round")
        return self._inside

    def _outside(self, frame: FrameType, event: str, arg: Any) -> _Trace:
        if event == "exception":
            self._raising.add(frame)
        elif event == "return" and frame.f_back is not None and frame not in self._raising:
            self._point(frame.f_back, f"after {frame.f_code.co_name}()")
        return self._outside

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if self._left <= 0 or not event.startswith("c_") or not _is_ours(frame):
            return
        name = getattr(arg, "__name__", "")
        if event == "c_return" or (event == "c_call" and name in _WAITING):
            self._point(frame, f"{'after' if event == 'c_return' else 'in'} {name}()")


def _is_ours(frame: FrameType | None) -> bool:
    if frame is None or not frame.f_code.co_filename.startswith((_OURS, _ALSO)):
        return False
    while frame is not None:
        if frame.f_code.co_name in _UNHEARD:
            return False
        frame = frame.f_back
    return True


def struck(call: Callable[[], object], error: type[BaseException], at: int) -> tuple[str, BaseException | None]:
    """Call it, with ``error`` raised at its point number ``at``, from 1. Where that was, "" when it has fewer, and what
    the call raised."""
    striker = _Striker(at, error)
    raised: BaseException | None = None
    _look_for_nothing()
    gc.disable()  # it comes when it likes, and calls whom it likes
    sys.settrace(striker.trace)
    sys.setprofile(striker.profile)
    try:
        call()
    except BaseException as any_one:  # noqa: BLE001 - it is what the test is about
        raised = any_one.with_traceback(None)  # which would keep alive what was in use
    finally:
        sys.setprofile(None)
        sys.settrace(None)
        gc.enable()
    return striker.where, raised


def _look_for_nothing() -> None:
    """An exception that somebody wanted raised in another thread (``PyThreadState_SetAsyncExc``), and took back, makes
    CPython 3.11 look for it for ever, and functions that are traced never begin. One that is raised ends that."""
    try:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(_Found))
        while True:
            pass
    except _Found:
        pass


class _Found(BaseException):
    pass


def each_strike(run: Callable[[int], str]) -> list[str]:
    """``run(1)``, ``run(2)`` and so on, each of which strikes at that point and tells where it was; up to the one that
    has no such point."""
    points = []
    for at in range(1, LIMIT):
        where = run(at)
        if not where:
            return points
        points.append(where)
    raise AssertionError("it never ends")
