"""Limits of ``async def`` tasks: the soft one cancels and becomes SoftTimeLimitExceeded, the hard one ends the wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from celeriac.exceptions import SoftTimeLimitExceeded
from celeriac.model import outcome as o

__all__ = ["run_timed"]


async def run_timed(
    arun: Callable[[Any], Awaitable[Any]], request: Any, *, soft: float | None, hard: float | None
) -> o.Outcome:
    """The outcome of ``arun(request)`` within its limits in seconds.

    At the soft limit the coroutine sees CancelledError and may clean up; at the hard limit it is cancelled again and no
    longer waited for.
    """
    task = asyncio.ensure_future(arun(request))
    try:
        return await _limited(task, soft, hard)
    except asyncio.CancelledError:
        # Ended on request: the coroutine may clean up, as it may without limits.
        task.cancel()
        await asyncio.wait({task}, timeout=hard)
        raise


async def _limited(task: asyncio.Future[o.Outcome], soft: float | None, hard: float | None) -> o.Outcome:
    loop = asyncio.get_running_loop()
    began = loop.time()
    done, _ = await asyncio.wait({task}, timeout=soft if soft is not None else hard)
    soft_hit = not done and soft is not None
    if soft_hit:
        task.cancel()
        left = None if hard is None else max(0.0, began + hard - loop.time())
        done, _ = await asyncio.wait({task}, timeout=left)
    if not done:
        task.cancel()
        assert hard is not None
        return o.TimedOut(hard)
    if task.cancelled():
        return o.Failure(SoftTimeLimitExceeded(soft) if soft_hit else asyncio.CancelledError(), "")
    outcome = task.result()
    if soft_hit and isinstance(outcome, o.Failure) and isinstance(outcome.exc, asyncio.CancelledError):
        return o.Failure(SoftTimeLimitExceeded(soft), outcome.traceback)
    return outcome
