"""Virtual time and the seeded scheduler: which process takes its next step, and when nobody can, how far time jumps.

Knows nothing of tasks and brokers. The same seed gives the same order of steps in every run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container
from heapq import heappop, heappush
from random import Random
from typing import Any

__all__ = ["Stuck", "Timeline"]

#: Steps that may be taken at one moment before it is taken for an endless loop.
STEPS_AT_ONCE = 100_000


class Stuck(AssertionError):
    """Steps follow each other and time does not pass."""


class Timeline:
    """Time in seconds since the simulation began; ``epoch`` is what the wall clock of a perfect machine showed then."""

    def __init__(self, random: Random, *, epoch: float = 1_800_000_000.0) -> None:
        self.random = random
        self.epoch = epoch
        self.time = 0.0
        #: Steps taken so far.
        self.steps = 0
        #: Those that live, each a ``Process``.
        self.processes: list[Any] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Any]] = []
        self._numbers = 0
        self._at_once = 0
        #: Called after each step, between any two: faults strike here.
        self.after_step: Callable[[], None] | None = None
        self._outside: deque[Callable[[], None]] = deque()
        #: The process whose step is being taken.
        self.current: Any = None
        #: The one that asyncio takes for the running loop.
        self._running: Any = None

    def at(self, when: float, handle: asyncio.TimerHandle, process: Any) -> None:
        """Run ``handle`` at a moment of this timeline, never at the present one."""
        self._numbers += 1
        heappush(self._timers, (when, self._numbers, handle, process))

    def outside(self, action: Callable[[], None]) -> None:
        """Do something that no process may do in a step of its own: after the present one."""
        if self.current is None:
            action()
        else:
            self._outside.append(action)

    def next_timer(self, processes: Container[Any]) -> float | None:
        """When the first timer of these processes is due."""
        moments = [when for when, _, handle, process in self._timers if process in processes and not handle.cancelled()]
        return min(moments, default=None)

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Take steps until nothing is left to do before the moment ``until``, which is then reached; or until
        ``done()``, asked after each step. Returns whether it was ``done``. Raises ``Stuck``, and what a process's
        loop was told of errors nobody took."""
        outside, loop, running = self.current, asyncio._get_running_loop(), self._running
        self._running = None
        try:
            while True:
                if done is not None and done():
                    return True
                if not self._step() and not self._jump(until):
                    self.time = max(self.time, until)
                    return done is not None and done()
        finally:
            self.current, self._running = outside, running
            asyncio._set_running_loop(loop)

    def _step(self) -> bool:
        """One step of one process; False when none can take any."""
        able = [process for process in self.processes if process.ready and not process.is_paused]
        if not able:
            return False
        process = able[0] if len(able) == 1 else able[int(self.random.random() * len(able))]
        self.steps += 1
        self._at_once += 1
        if self._at_once > STEPS_AT_ONCE:
            raise Stuck(f"{process.name} takes steps for ever at {self.time:.6f} s: {process.ready[0]!r}")
        self.current = process
        if process is not self._running:
            self._running = process
            asyncio._set_running_loop(process)
        process.step()
        self.current = None
        while self._outside:
            self._outside.popleft()()
        if self.after_step is not None:
            self.after_step()
        return True

    def _jump(self, until: float) -> bool:
        """To the next timer before ``until``; False when there is none."""
        timers = self._timers
        while timers and (timers[0][2].cancelled() or not timers[0][3].is_alive):
            heappop(timers)
        if not timers or timers[0][0] > until:
            return False
        self._at_once = 0
        self.time = max(self.time, timers[0][0])
        while timers and timers[0][0] <= self.time:
            _, _, handle, process = heappop(timers)
            if process.is_alive and not handle.cancelled():
                process.ready.append(handle)
        return True
