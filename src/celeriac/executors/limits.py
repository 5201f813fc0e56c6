"""Time limits on the main thread: a signal that raises inside the task, and only there.

The I/O thread calls ``SoftLimit.knock`` while the deadline is past; the permanent handler raises SoftTimeLimitExceeded
once, when the interrupted frame lies below the task's trampoline and not inside code that would swallow the exception
or leak a lock (logging, locks, ``__del__``): then it waits for the next knock. Where no supervisor keeps hard limits
(``-P solo``), TimeLimitExceeded is raised in the same way.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType

from celeriac.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

__all__ = ["SIGNAL", "SoftLimit", "block_in_this_thread", "may_raise"]

SIGNAL = signal.SIGUSR1
#: Modules in which a raise swallows itself or leaves a lock locked.
_UNSAFE = frozenset({"logging", "logging.handlers", "threading", "weakref", "queue", "importlib._bootstrap"})


class SoftLimit:
    """The soft limit of the one task that runs on this thread."""

    def __init__(self) -> None:
        #: Monotonic seconds; None: no limit.
        self.deadline: float | None = None
        self._limit: float | None = None
        self._hard = 0.0
        self._hard_deadline: float | None = None
        self._thread = threading.get_ident()
        self._trampoline: CodeType | None = None
        self._installed = False

    def install(self, trampoline: Callable[..., object]) -> None:
        """Install the handler; main thread only. ``trampoline`` is the function below which tasks run."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._trampoline = trampoline.__code__
        self._thread = threading.get_ident()
        signal.signal(SIGNAL, self._handle)
        self._installed = True

    def arm(self, limit: float | None, started: float, hard: float | None = None) -> None:
        """The task that starts now may run for ``limit`` seconds, and in all for ``hard``; None: without end."""
        self._limit = limit
        if hard is not None:
            self._hard, self._hard_deadline = hard, started + hard
        self.deadline = self._hard_deadline if limit is None else started + limit

    def disarm(self) -> None:
        """The task is over."""
        self.deadline = self._hard_deadline = None

    def knock(self, now: float) -> None:
        """Signal the task's thread when its time is up. From the I/O thread."""
        deadline = self.deadline
        if self._installed and deadline is not None and now >= deadline:
            signal.pthread_kill(self._thread, SIGNAL)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        deadline, now = self.deadline, time.monotonic()
        if deadline is None or now < deadline or not self._may_raise(frame):
            return
        hard, self.deadline = self._hard_deadline, self._hard_deadline
        if hard is not None and now >= hard:
            self.disarm()
            raise TimeLimitExceeded(self._hard)
        raise SoftTimeLimitExceeded(self._limit)

    def _may_raise(self, frame: FrameType | None) -> bool:
        return may_raise(frame, self._trampoline)


def may_raise(frame: FrameType | None, trampoline: CodeType | None) -> bool:
    """A raise in this frame lands in a task: it lies below the trampoline, and not in code that would swallow it, or
    leave a lock locked."""
    while frame is not None:
        code = frame.f_code
        if code is trampoline:
            return True
        if code.co_name == "__del__" or frame.f_globals.get("__name__") in _UNSAFE:
            return False
        frame = frame.f_back
    return False


def block_in_this_thread() -> None:
    """Keep the signal away from a thread that does not run tasks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
