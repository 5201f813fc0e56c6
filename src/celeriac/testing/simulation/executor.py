"""Where simulated bodies run: in steps of their process, the time they take passing on its clocks alone.

A body runs in one step. What it sleeps (``time.sleep`` is virtual) counts as its run time: its outcome is handed over
only when that has passed, and is gone when its process is killed meanwhile. Coroutines run on the process's loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.model.message import Delivery
from celeriac.testing.simulation.process import Process

__all__ = ["BodyKilled", "CoroutineExecutor", "Soft", "StepExecutor"]


class BodyKilled(BaseException):
    """Raised inside a body: its process dies there."""


class Soft:
    """The soft limit of the body that runs in this step (the ``soft`` of ``Runner.run``)."""

    def __init__(self) -> None:
        self.left: float | None = None
        self._limit = 0.0

    def arm(self, limit: float | None, started: float, hard: float | None = None) -> None:
        """The body may work for ``limit`` seconds; hard limits end the process, which is not this one's to do."""
        self.left = limit
        self._limit = limit or 0.0

    def disarm(self) -> None:
        """The body is over."""
        self.left = None

    def work(self, seconds: float) -> float:
        """How long the body sleeps before it is interrupted, if it is: then raise ``exceeded()``."""
        if self.left is None:
            return seconds
        self.left -= seconds
        return seconds if self.left > 0 else seconds + self.left

    def exceeded(self) -> SoftTimeLimitExceeded | None:
        """What ends the body when its time is up."""
        if self.left is None or self.left > 0:
            return None
        self.left = None
        return SoftTimeLimitExceeded(self._limit)


def _nothing(delivery: Delivery) -> None:
    """Nobody wants to know."""


class _Places:
    """``limit`` places to run, and what waits for one. Nothing here needs a tick or a stop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: Called with a delivery whose body has begun, and with one whose body has run: nothing of it is written yet.
        self.begun: Callable[[Delivery], None] = _nothing
        self.ran: Callable[[Delivery], None] = _nothing
        self._inbox: deque[Delivery] = deque()

    def recall(self) -> list[Delivery]:
        """Give back every delivery that has not started."""
        back = list(self._inbox)
        self._inbox.clear()
        return back

    def waiting(self) -> int:
        """How many deliveries have not started."""
        return len(self._inbox)

    def tick(self, now: float) -> None:
        """Limits are timers here."""

    def stop(self) -> None:
        """Nothing to leave."""


class StepExecutor(_Places):
    """``limit`` places for synchronous tasks. ``run(delivery, soft)`` is the runner's.

    ``hard(delivery)`` tells the hard limit in seconds, ``overdue(token, limit)`` is called when it is reached,
    ``died(token)`` when a body kills its process.
    """

    def __init__(
        self,
        process: Process,
        run: Callable[[Delivery, Any], Any],
        done: Callable[[Sequence[Any]], None],
        limit: int,
        *,
        hard: Callable[[Delivery], float | None],
        overdue: Callable[[str, float], None],
        died: Callable[[str], None],
    ) -> None:
        super().__init__(limit)
        self._process = process
        self._run = run
        self._done = done
        self._hard = hard
        self._overdue = overdue
        self._died = died
        self._active: dict[str, tuple[Delivery, float]] = {}
        self._is_woken = False

    def feed(self, batch: Sequence[Delivery]) -> None:
        """Take deliveries to run, in order."""
        self._inbox.extend(batch)
        self._wake()

    def _wake(self) -> None:
        if not self._is_woken and self._inbox and len(self._active) < self.limit:
            self._is_woken = True
            self._process.call_soon(self._next)

    def _next(self) -> None:
        self._is_woken = False
        if self._inbox and len(self._active) < self.limit:
            self._begin(self._inbox.popleft())
        self._wake()

    def _begin(self, delivery: Delivery) -> None:
        clock, token = self._process.clock, delivery.token
        started = clock.monotonic()
        self._active[token] = (delivery, started)
        self._process.body = soft = Soft()
        try:
            finished = self._run(delivery, soft)
        except BodyKilled:
            self.begun(delivery)
            self._died(token)
            return
        finally:
            took, clock.ahead, self._process.body = clock.ahead, 0.0, None
        if finished is not delivery:
            self.begun(delivery)
            self.ran(delivery)
        limit = self._hard(delivery)
        if limit is not None and took > limit:
            self._process.call_later(limit, self._overdue, token, limit)
        elif took:
            self._process.call_later(took, self._end, token, finished)
        else:
            self._end(token, finished)

    def _end(self, token: str, finished: Any) -> None:
        del self._active[token]
        self._done([finished])
        self._wake()

    def active(self) -> list[tuple[Delivery, float]]:
        """What runs now, with its start."""
        return list(self._active.values())

    def cancel(self, token: str) -> bool:
        """A running synchronous task cannot be ended from inside its process."""
        return False


class CoroutineExecutor(_Places):
    """``limit`` ``async def`` tasks at once, on the loop of their process."""

    def __init__(
        self,
        process: Process,
        run: Callable[[Delivery], Coroutine[Any, Any, Any]],
        done: Callable[[Sequence[Any]], None],
        limit: int,
        died: Callable[[str], None],
    ) -> None:
        super().__init__(limit)
        self._process = process
        self._run = run
        self._done = done
        self._died = died
        self._tasks: dict[str, tuple[Any, Delivery, float]] = {}

    def feed(self, batch: Sequence[Delivery]) -> None:
        """Take deliveries to run, in order."""
        self._inbox.extend(batch)
        self._fill()

    def _fill(self) -> None:
        while self._inbox and len(self._tasks) < self.limit:
            delivery = self._inbox.popleft()
            self.begun(delivery)
            task = self._process.start(self._line(delivery))
            self._tasks[delivery.token] = (task, delivery, self._process.clock.monotonic())

    async def _line(self, delivery: Delivery) -> None:
        try:
            finished = await self._run(delivery)
        except BodyKilled:
            self._died(delivery.token)
            return
        del self._tasks[delivery.token]
        if finished is not delivery:
            self.ran(delivery)
        self._done([finished])
        self._fill()

    def active(self) -> list[tuple[Delivery, float]]:
        """What runs now, with its start."""
        return [(delivery, started) for _, delivery, started in self._tasks.values()]

    def cancel(self, token: str) -> bool:
        """Cancel a running coroutine."""
        entry = self._tasks.get(token)
        return entry is not None and bool(entry[0].cancel())
