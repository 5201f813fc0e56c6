"""Limits of ``async def`` tasks: the soft one raises SoftTimeLimitExceeded in the coroutine, the hard one ends it.

And what nothing ends: the work on a thread that is done for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.model import outcome as o

__all__ = ["run_timed", "to_its_end"]

T = TypeVar("T")

#: Seconds that a coroutine has to end after its hard limit has cancelled it.
MERCY = 1.0


async def to_its_end(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """What comes of work on a thread, which nothing ends, and whether its caller was to be cancelled meanwhile: without
    its completion a delivery would be held for ever."""
    working, cancelled = asyncio.ensure_future(work), False
    while not working.done():
        try:
            await asyncio.wait({working})
        except asyncio.CancelledError:
            cancelled = True
    return working.result(), cancelled


class _SoftLimit(SoftTimeLimitExceeded, asyncio.CancelledError):
    """What a coroutine sees: ``except SoftTimeLimitExceeded`` works as in any other task, and task groups, ``timeout``
    and ``gather`` clean up as for a cancellation. Users know it by the name of its first base."""


_SoftLimit.__name__ = _SoftLimit.__qualname__ = SoftTimeLimitExceeded.__name__
_SoftLimit.__module__ = SoftTimeLimitExceeded.__module__


async def run_timed(
    arun: Callable[[Any], Awaitable[Any]],
    request: Any,
    *,
    soft: float | None,
    hard: float | None,
    stuck: Callable[[], None] | None = None,
) -> o.Outcome:
    """The outcome of ``arun(request)`` within its limits in seconds.

    At the soft limit SoftTimeLimitExceeded is raised where the coroutine waits, and it may clean up; at the hard limit
    it is cancelled and no longer waited for. ``stuck()`` is called when it has not ended a second later.
    """
    limited = _Limited(arun(request), soft)
    task = asyncio.ensure_future(limited.run())
    try:
        return await _within(limited, task, soft, hard, stuck)
    except asyncio.CancelledError:
        # Ended on request: the coroutine may clean up, as it may without limits.
        task.cancel()
        await asyncio.wait({task}, timeout=hard)
        raise


async def _within(
    limited: _Limited, task: asyncio.Task[o.Outcome], soft: float | None, hard: float | None, stuck: Any
) -> o.Outcome:
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = hard if soft is None or (hard is not None and hard <= soft) else soft
    done, _ = await asyncio.wait({task}, timeout=first)
    soft_hit = not done and first is not hard
    if soft_hit:
        limited.reach(task)
        left = None if hard is None else max(0.0, began + hard - loop.time())
        done, _ = await asyncio.wait({task}, timeout=left)
    if not done:
        task.cancel()
        loop.call_later(MERCY, _look_again, task, stuck)
        assert hard is not None
        return o.TimedOut(hard)
    if task.cancelled():
        return o.Failure(SoftTimeLimitExceeded(soft) if soft_hit else asyncio.CancelledError(), "")
    outcome = task.result()
    if soft_hit and isinstance(outcome, o.Failure) and _is_soft(outcome.exc):
        return o.Failure(SoftTimeLimitExceeded(soft), outcome.traceback)
    return outcome


def _is_soft(error: BaseException) -> bool:
    """It is the soft limit, or the cancellation it began as; task groups of Python 3.11 wrap it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(_SoftLimit)[1] is None
    return isinstance(error, asyncio.CancelledError)


def _look_again(task: asyncio.Task[o.Outcome], stuck: Callable[[], None] | None) -> None:
    if not task.done() and stuck is not None:
        stuck()


class _Limited:
    """A coroutine whose next cancellation is its soft limit, once that is reached."""

    def __init__(self, body: Awaitable[o.Outcome], soft: float | None) -> None:
        self._body = body
        self._soft = soft
        self._reached = False

    def reach(self, task: asyncio.Task[o.Outcome]) -> None:
        """The soft limit is over."""
        self._reached = True
        task.cancel()

    async def run(self) -> o.Outcome:
        return await self  # an asyncio task wants a coroutine

    def __await__(self) -> Generator[Any, Any, o.Outcome]:
        steps = self._body.__await__()
        step: Callable[[Any], Any] = steps.send
        value: Any = None
        while True:
            try:
                waits_for = step(value)
            except StopIteration as end:
                outcome: o.Outcome = end.value
                return outcome
            try:
                value, step = (yield waits_for), steps.send
            except BaseException as error:  # noqa: BLE001 - into the coroutine with it
                value, step = self._translated(error), steps.throw

    def _translated(self, error: BaseException) -> BaseException:
        if not self._reached or not isinstance(error, asyncio.CancelledError):
            return error
        self._reached = False
        current = asyncio.current_task()
        if current is not None:
            current.uncancel()  # so that it may go on, and wait for its cleaning up
        return _SoftLimit(self._soft)
