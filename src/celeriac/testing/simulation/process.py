"""A simulated process: an event loop without a selector, whose steps the timeline takes one by one.

Its clocks may be off and drift; it can be paused as by SIGSTOP, and killed between any two steps: then nothing of it
runs any more, and nothing is cleaned up. asyncio's order holds inside a process, chance rules between them.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from celeriac.testing.simulation.timeline import Timeline

__all__ = ["Process", "ProcessClock", "spawn"]

#: Seconds by which a timer sleeps at least, as a kernel's do: what rounding leaves must not be slept in tiny steps.
_RESOLUTION = 1e-6
#: Tasks that a process remembers at least before it looks which are done.
_FEW = 32


class ProcessClock:
    """The clocks of one process (the ``Clock`` port). ``wall`` seconds are added to its wall clock, its monotonic clock
    runs ``rate`` times as fast as the timeline."""

    def __init__(self, timeline: Timeline, *, wall: float = 0.0, rate: float = 1.0, boot: float = 0.0) -> None:
        self._timeline = timeline
        self.wall = wall
        self.rate = rate
        self._boot = boot
        self._twins: list[ProcessClock] = []
        #: Seconds that a task's body has worked in the step that is being taken: time has passed for it alone.
        self.ahead = 0.0

    def twin(self) -> ProcessClock:
        """The clocks of another process of the same machine."""
        twin = ProcessClock(self._timeline, wall=self.wall, rate=self.rate, boot=self._boot)
        self._twins.append(twin)
        return twin

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock of this machine."""
        for clock in (self, *self._twins):
            clock.wall += seconds

    def now(self) -> float:
        """Seconds since the epoch, as this process believes."""
        timeline = self._timeline
        return timeline.epoch + timeline.time + self.wall + self.ahead

    def monotonic(self) -> float:
        """Seconds of this process's clock that never jumps."""
        return self._boot + self._timeline.time * self.rate + self.ahead

    async def sleep(self, seconds: float) -> None:
        """Suspend the current coroutine."""
        if seconds <= 0:
            await _breath()
            return
        process = asyncio.get_running_loop()
        future: asyncio.Future[None] = asyncio.Future(loop=process)
        timer = process.call_later(seconds, _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    def moment(self, monotonic: float) -> float:
        """The timeline's moment at which ``monotonic()`` will show this; always one to come."""
        return max((monotonic - self._boot) / self.rate, self._timeline.time + _RESOLUTION)


@types.coroutine
def _breath() -> Generator[None, None, None]:
    """All other steps of the process come first."""
    yield


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Step(asyncio.Handle):
    """A handle that is made fast: a simulation has millions, and none is debugged by asyncio's means."""

    def __init__(self, callback: Any, args: Any, process: Process, context: contextvars.Context | None) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = process
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _Timer(_Step, asyncio.TimerHandle):
    """The same for one that is due later."""

    def __init__(
        self, when: float, callback: Any, args: Any, process: Process, context: contextvars.Context | None
    ) -> None:
        _Step.__init__(self, callback, args, process, context)
        self._when = when
        self._scheduled = False


class Process(asyncio.AbstractEventLoop):
    """One process on a timeline."""

    def __init__(self, timeline: Timeline, name: str, clock: ProcessClock | None = None) -> None:
        self.timeline = timeline
        self.name = name
        self.clock = clock or ProcessClock(timeline)
        self.is_alive = True
        self.is_paused = False
        self.ready: deque[asyncio.Handle] = deque()
        #: The limits of the task body that runs in the step being taken, if one does.
        self.body: Any = None
        #: What went wrong and nobody took.
        self.errors: list[BaseException | str] = []
        #: In the order of their beginnings; those that are done go when there are many.
        self._tasks: list[asyncio.Task[Any]] = []
        self._many = _FEW
        timeline.processes.append(self)

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    def step(self) -> None:
        """Run the next handle."""
        handle: Any = self.ready.popleft()
        if not handle._cancelled:  # asyncio's own loops look there, too
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as a handle does: whoever looks at ``errors`` raises it
                self.call_exception_handler({"exception": error, "message": repr(handle)})

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a coroutine from outside; its error ends up in ``errors``."""
        task = self.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    def pause(self) -> None:
        """SIGSTOP: no step, until ``resume``."""
        self.is_paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self.is_paused = False

    def kill(self) -> None:
        """SIGKILL. From outside of its own steps only."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.ready.clear()
        self.timeline.processes.remove(self)
        for task in list(self._tasks):
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                try:
                    task.get_coro().close()
                except RuntimeError:
                    pass  # it would have waited for something on its way out
        self._tasks.clear()
        self.ready.clear()

    # -- asyncio's side ----------------------------------------------------------------------------------------

    def time(self) -> float:
        """Its monotonic clock."""
        return self.clock.monotonic()

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Behind all other steps of this process."""
        handle = _Step(callback, args, self, context)
        if self.is_alive:
            self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """After ``delay`` seconds of its own clock."""
        return self.call_at(self.clock.monotonic() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """When its own clock shows ``when``."""
        handle = _Timer(when, callback, args, self, context)
        if self.is_alive:
            self.timeline.at(self.clock.moment(when), handle, self)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        """A task of this process."""
        tasks = self._tasks
        if len(tasks) >= self._many:
            tasks[:] = [task for task in tasks if not task.done()]
            self._many = max(_FEW, 2 * len(tasks))
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """A thread's work is a step of its own."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - whoever waits gets it
                future.set_exception(error)

        self.call_soon(work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody took."""
        if self.is_alive:
            self.errors.append(context.get("exception") or context["message"])

    def get_debug(self) -> bool:
        """No."""
        return False

    def is_running(self) -> bool:
        """As long as it lives."""
        return self.is_alive

    def is_closed(self) -> bool:
        """When it is dead."""
        return not self.is_alive

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """The timeline skips it."""


def spawn(timeline: Timeline, name: str, clock: ProcessClock | None = None) -> Process:
    """A new process. Of a loop's many methods it has those that services without sockets use."""
    return Process(timeline, name, clock)  # type: ignore[abstract]
