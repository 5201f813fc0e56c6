"""The app that is simulated: tasks that end in every way there is, and take their time."""

from __future__ import annotations

import time
from typing import Any

from celeriac import Celery, group
from celeriac.exceptions import Ignore
from celeriac.testing.simulation.executor import BodyKilled

__all__ = ["LEASE", "duration_of", "make_app", "work"]

#: Seconds; short, so that there are tasks that run longer.
LEASE = 5.0
#: Seconds that a body takes, by the number it is called with.
_DURATIONS = (0.0005, 0.0, 0.0005, 0.001, 0.3, 1.5, 0.02, 7.0)


def duration_of(number: Any) -> float:
    return _DURATIONS[number % len(_DURATIONS)] if isinstance(number, int) else 0.0


def work(number: Any) -> None:
    seconds = duration_of(number)
    if seconds:
        time.sleep(seconds)


def _ordered(args: tuple[Any, ...]) -> list[Any]:
    # The argument from the step before is in front of the number, when there is one.
    *before, number = args
    work(number)
    return [number, *before]


def make_app(*, max_crashes: int) -> Celery:
    """`max_crashes`: where chance kills children, nothing may be taken for a poison pill."""
    app = Celery(
        "simulated",
        broker="memory://unused",
        backend="memory://unused",
        set_as_current=False,
        worker_max_crashes=max_crashes,
        worker_lease=LEASE,
        task_default_queue="celery",
    )
    _tasks_of_workflows(app)
    _single_tasks(app)
    return app


def _tasks_of_workflows(app: Celery) -> None:
    """Those of `tests/workflows/trees.py`."""
    for kind in ("plain", "immutable", "expired"):
        app.task(lambda *args: _ordered(args), name=f"sim.{kind}", shared=False)

    @app.task(name="sim.twice", bind=True, max_retries=3, shared=False)
    def twice(self: Any, *args: Any) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=args[-1] % 3)
        return _ordered(args)

    @app.task(name="sim.replaced", bind=True, shared=False)
    def replaced(self: Any, *args: Any) -> Any:
        first = app.signature("sim.plain", args)
        return self.replace(first | app.signature("sim.plain", (-1,)))

    @app.task(name="sim.spread", bind=True, shared=False)
    def spread(self: Any, *args: Any) -> Any:
        value = _ordered(args)
        members = [app.signature("sim.plain", (value, number), immutable=True) for number in (1, 2)]
        return self.replace(group(members))

    @app.task(name="sim.raises", shared=False)
    def raises(*args: Any) -> None:
        work(args[-1])
        raise ValueError(*args[-1:])

    @app.task(name="sim.ignores", shared=False)
    def ignores(*args: Any) -> None:
        raise Ignore


def _single_tasks(app: Celery) -> None:
    @app.task(name="sim.once", acks_late=False, shared=False)
    def once(number: int) -> int:
        work(number)
        return number

    @app.task(name="sim.silent", ignore_result=True, shared=False)
    def silent(number: int) -> int:
        work(number)
        return number

    @app.task(name="sim.retrying", autoretry_for=(OSError,), max_retries=2, shared=False, bind=True)
    def retrying(self: Any, number: int) -> int:
        work(number)
        if self.request.retries < number % 4:
            raise OSError(number)
        return number

    @app.task(name="sim.poison", shared=False)
    def poison(number: int) -> None:
        raise BodyKilled

    @app.task(name="sim.limited", soft_time_limit=1, time_limit=2, shared=False)
    def limited(number: int) -> int:
        try:
            work(number)
        finally:
            if number % 16 == 7:
                work(7)  # it does not listen to its soft limit
        return number

    @app.task(name="sim.coroutine", shared=False)
    async def coroutine(number: int) -> int:
        import asyncio

        await asyncio.sleep(duration_of(number))
        return number

    @app.task(name="sim.tracked", track_started=True, shared=False)
    def tracked(number: int) -> int:
        work(number)
        return number
