"""Drives a scheduler: a look, sleep until the next, another look. For ``celeriac beat`` and the agent of ``worker -B``.

Any scheduler with ``tick`` will do, Celery's interface included: it is told when to write its file, and to close.
Looks are taken on a thread of their own; the loop stays free for signals and the watchdog.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from celeriac import signals
from celeriac.beat.answering import Answering
from celeriac.beat.choose import scheduler_class
from celeriac.beat.making import check
from celeriac.beat.places import ledger_of, publisher_of
from celeriac.beat.scheduler import SharedScheduler
from celeriac.beat.seen import Seen
from celeriac.beat.systemd import notify, watchdog_interval
from celeriac.beat.thread import OwnThread
from celeriac.beat.written import Written
from celeriac.clock import SYSTEM
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.backoff import Backoff
from celeriac.ports import Clock

__all__ = ["BeatService", "verify"]

logger = logging.getLogger("celery.beat")

#: Runs something blocking elsewhere.
Aside = Callable[..., Awaitable[Any]]

#: Seconds that the last look, and the closing, get at the end.
_PATIENCE: Final = 5.0
#: Least and most seconds between two looks of a scheduler that raises.
_FIRST: Final = 1.0
_MOST: Final = 30.0
#: Seconds until the next look of a scheduler that says nothing.
_DEFAULT: Final = 300.0
#: Seconds without a look that are no reason for a scheduler not to answer, where nobody said how many.
_IDLE: Final = 60.0


def verify(app: Any, scheduler: Any = None, schedule_filename: str | None = None) -> Any:
    """The class of the scheduler, when it can be started here: nothing is opened. Raises ``ImproperlyConfigured``."""
    kind = scheduler_class(scheduler or app.conf.beat_scheduler)
    if isinstance(kind, type) and issubclass(kind, SharedScheduler):
        publisher_of(app)
        ledger_of(app).close()
        for entry in Written(app).entries()[1].values():
            check(app, entry)
        if schedule_filename:
            logger.warning(
                "-s/--schedule has no effect: %s keeps its state in the ledger, not in a file", kind.__qualname__
            )
    return kind


class BeatService:
    """One scheduler of an app; what ``beat_init`` is sent by, as in Celery: it has ``app`` and ``scheduler``.

    ``scheduler``: a class or its name, None: the setting's. ``embedded``: it runs inside a worker. ``hostname``: the
    node as which it answers ``ping``; None: it does not. Raises ``ImproperlyConfigured``, as does ``run`` before its
    first look is over.
    """

    def __init__(
        self,
        app: Any,
        scheduler: Any = None,
        *,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        embedded: bool = False,
        hostname: str | None = None,
        clock: Clock = SYSTEM,
        aside: Aside | None = None,
        make: Callable[[], Any] | None = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval
        self.schedule_filename = schedule_filename
        self.embedded = embedded
        self.hostname = hostname
        #: Made in ``run``, on the thread of the looks.
        self.scheduler: Any = None
        self._kind = scheduler
        self._make = make or self._made
        self._clock = clock
        self._thread = OwnThread("beat") if aside is None else None
        self._aside: Aside = aside if self._thread is None else self._thread  # type: ignore[assignment]
        self._backoff = Backoff(rand=random.random, first=_FIRST, maximum=_MOST)
        self._answering = None if hostname is None else Answering(app, hostname, self.stalled, clock=clock)
        #: Since when a look goes on, by the monotonic clock; 0: none does.
        self._since = 0.0
        #: When the last look that did not fail was over, by the same clock (None: none was), and in how many seconds
        #: the scheduler wanted the next.
        self._looked: float | None = None
        self._delay = 0.0

    def _made(self) -> Any:
        kind = scheduler_class(self._kind or self.app.conf.beat_scheduler)
        conf = self.app.conf
        return kind(
            app=self.app,
            schedule_filename=self.schedule_filename or conf.beat_schedule_filename,
            max_interval=self.max_interval or conf.seconds("beat_max_loop_interval") or None,
            lazy=False,
        )

    async def run(self) -> None:
        """Until cancelled; then the scheduler is closed."""
        self.scheduler = await self._aside(self._make)
        if isinstance(self.scheduler, SharedScheduler):
            self.scheduler.embedded = self.embedded
        beside: list[asyncio.Future[None]] = []
        try:
            # On the thread too: receivers may wait there for hours, such as redbeat's, for the lock of another beat.
            await self._aside(partial(signals.beat_init.send, sender=self))
            if self.embedded:
                await self._aside(partial(signals.beat_embedded_init.send, sender=self))
            if self._answering is not None:
                beside.append(asyncio.ensure_future(self._answering.run()))
            delay = await self._look(first=True)
            if not self.embedded:
                notify("READY=1")
                beside.append(asyncio.ensure_future(self._watch()))
            while True:
                await self._clock.sleep(delay)
                await self._sync()
                delay = await self._look()
        except (asyncio.CancelledError, Exception):
            for each in beside:
                each.cancel()
            await self._close()
            await asyncio.gather(*beside, return_exceptions=True)
            raise

    def stats(self) -> dict[str, Any]:
        """See ``Guest``: the scheduler, and what it said of itself in the last ten seconds, where it says something."""
        kind, seen = type(self.scheduler), getattr(self.scheduler, "seen", None)
        told = seen.plain() if isinstance(seen, Seen) else {}
        return {"beat": {"scheduler": f"{kind.__module__}:{kind.__qualname__}", **told}}

    def stalled(self) -> str:
        """Why it does not count as alive, or nothing: its last look is older than ``beat_remote_control_max_tick_age``
        (0: any age will do; None: than twice what the scheduler wanted to sleep, and than a minute)."""
        limit = self.app.conf.seconds("beat_remote_control_max_tick_age")
        if limit is None:
            limit = max(2 * self._delay, _IDLE)
        if limit and self._looked is None:
            return "the scheduler has not looked at its entries yet"
        age = self._clock.monotonic() - (self._looked or 0.0)
        if limit and age > limit:
            return f"the scheduler has not looked at its entries for {age:.0f} s, more than {limit:g} s"
        return ""

    async def _look(self, *, first: bool = False) -> float:
        """One look; the seconds until the next. What a scheduler raises is logged, and it is asked again."""
        self._since = self._clock.monotonic()
        try:
            seconds = await self._aside(self.scheduler.tick)
        except ImproperlyConfigured as error:
            if first:
                raise
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - somebody else's scheduler: it must not end the agent of a worker
            return self._failed(error)
        finally:
            self._since = 0.0
        self._backoff.reset()
        self._looked = self._clock.monotonic()
        self._delay = max(0.0, float(seconds)) if seconds is not None else _DEFAULT
        return self._delay

    def _failed(self, error: Exception) -> float:
        pause = self._backoff.next()
        if self._backoff.loud:
            logger.error("beat: The scheduler has failed, next try in %.1f s", pause, exc_info=error)
        return pause

    async def _sync(self) -> None:
        """Write its file, where it has one and it is time."""
        should = getattr(self.scheduler, "should_sync", None)
        if should is not None and await self._aside(should):
            await self._aside(self.scheduler._do_sync)

    async def _close(self) -> None:
        if not self.embedded:
            notify("STOPPING=1")
        interrupt = getattr(self.scheduler, "interrupt", None)
        if interrupt is not None:
            interrupt()
        close = getattr(self.scheduler, "close", None)
        try:
            async with asyncio.timeout(_PATIENCE):
                if close is not None:
                    await asyncio.shield(asyncio.ensure_future(self._aside(close)))
        except TimeoutError:
            logger.warning("beat: The scheduler does not end in time")
        except Exception:
            logger.exception("beat: The scheduler cannot be closed")
        if self._thread is not None:
            self._thread.end()

    async def _watch(self) -> None:
        """Tell systemd that it lives, as long as no look hangs."""
        interval = watchdog_interval()
        while interval is not None:
            if not self._since or self._clock.monotonic() - self._since < interval:
                notify("WATCHDOG=1")
            await self._clock.sleep(interval / 3)
