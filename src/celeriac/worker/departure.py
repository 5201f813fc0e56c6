"""When a child leaves to be replaced: it has run all its tasks, grown too large, or can no longer be trusted.

A child that foresees its end asks for a successor and goes on; one that has to leave waits for one that stands by. So
the node has no child less meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from celeriac.executors import Executor
from celeriac.worker.options import NodeOptions
from celeriac.worker.orders import Orders
from celeriac.worker.runner import Runner
from celeriac.worker.slot import EXPECTING, LEAVING, LEFT

__all__ = ["Departure"]

#: A child that will have run all its tasks within so many seconds asks for a successor.
_SOON = 0.5
#: Seconds for which a child that has to leave waits for a successor.
_SUCCESSION = 5.0
#: Seconds between two looks at the memory.
_LOOK = 0.1


class Departure:
    """Of one child. ``retire(reason)`` makes it claim no more and leave when all is done; ``orders`` is None where
    there is no supervisor, and so no successor."""

    def __init__(
        self, options: NodeOptions, runner: Runner, orders: Orders | None, retire: Callable[[str], None]
    ) -> None:
        self._options = options
        self._runner = runner
        self._orders = orders
        self._retire = retire
        self._over = False
        self._announced = False
        self._must = ""
        self._asked = asyncio.Event()
        self._last_end = 0.0
        self._memory_checked = 0.0
        #: Whether anything has to be looked at after a task.
        self.watches = options.max_tasks_per_child is not None or options.max_memory_per_child is not None

    def begin(self) -> None:
        """The child claims from now on."""
        if self._options.max_tasks_per_child == 1:
            self._announce()

    def after_task(self) -> None:
        """Limits of the child, on the task's thread."""
        if self._over:
            return
        options, now = self._options, time.monotonic()
        if options.max_tasks_per_child is not None:
            left = options.max_tasks_per_child - self._runner.count
            if left <= 0:
                self._over = True
                self._retire(f"it ran {self._runner.count} tasks")
            elif not self._announced and (left == 1 or left * (now - self._last_end) < _SOON):
                self._announce()
            self._last_end = now
        if options.max_memory_per_child is not None and now - self._memory_checked > _LOOK:
            self._memory_checked = now
            used = _resident_kib()
            if used > options.max_memory_per_child:
                self._over = True
                self.leave(f"it uses {used} KiB of memory")

    @property
    def all_run(self) -> bool:
        """It has run as many tasks as it may, so none can be about to start."""
        most = self._options.max_tasks_per_child
        return most is not None and self._runner.count >= most

    def _announce(self) -> None:
        self._announced = True
        if self._orders is not None:
            self._orders.say(EXPECTING)

    def leave(self, reason: str) -> None:
        """Retire as soon as a successor stands by. From any thread; the first reason counts."""
        if self._orders is None:
            self._retire(reason)
        elif not self._must:
            self._must = reason
            self._orders.say(LEAVING)

    async def run(self) -> None:
        """Retire when the supervisor says so; or at last, when it has to and no successor came."""
        assert self._orders is not None
        told = asyncio.ensure_future(self._orders.retired())
        try:
            waited = 0
            while not told.done() and waited * _LOOK < _SUCCESSION:
                await asyncio.wait({told}, timeout=_LOOK if self._must else _SUCCESSION)
                waited += bool(self._must)
        finally:
            told.cancel()
        self._retire(self._must or "its node needs fewer children")

    def watcher(self, sync: Executor) -> Callable[[bool], None]:
        """What looks, at the shutdown, whether the successor may go: as soon as no synchronous task runs here; beside
        many threads, at once."""
        was_idle, told = False, False

        def look(over: bool) -> None:
            nonlocal was_idle, told
            # A delivery on its way from the inbox into its run is in neither: look twice, unless all have been run.
            idle = not sync.active() and not sync.waiting()
            if not told and (over or sync.limit > 1 or (idle and (was_idle or self.all_run))):
                told = True
                self.left()
            was_idle = idle

        return look

    def left(self) -> None:
        """Nothing runs here that the successor has to wait for."""
        if self._orders is not None:
            self._orders.say(LEFT)


def _resident_kib() -> int:
    """Resident memory of this process now (not its peak), in KiB."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4
