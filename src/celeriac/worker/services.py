"""The parts of a child that share its I/O loop, wired to each other: fetcher, completer, leases, and who tells whom.

Made by ``Child`` with real clocks and executors, and by ``celeriac.testing.simulation`` with virtual ones: what is
simulated is what runs. Knows no threads, no processes and no slot.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from celeriac.clock import SYSTEM
from celeriac.codec.escape import one_line
from celeriac.exceptions import OperationalError
from celeriac.executors import Executor
from celeriac.model.message import Delivery
from celeriac.model.outcome import Outcome
from celeriac.model.settle import Completion, Release, StoredResult
from celeriac.ports import Broker, Clock, ResultStore
from celeriac.worker.closer import Aside
from celeriac.worker.completer import Completer
from celeriac.worker.fetcher import Fetcher
from celeriac.worker.leases import Leases
from celeriac.worker.limits import Limits
from celeriac.worker.options import NodeOptions
from celeriac.worker.outage import Word
from celeriac.worker.payloads import PayloadDropper
from celeriac.worker.rules import RuleBook
from celeriac.worker.runner import Runner

__all__ = ["IDLE_TICK", "Services"]

logger = logging.getLogger("celery.worker")

#: Seconds between two looks at limits and stalls while something runs, and at idle.
_TICK = 0.05
IDLE_TICK = 1.0
#: Seconds between two looks whether everything has ended, at the shutdown: at first, and at most.
_FIRST_LOOK, _LOOK = 0.001, 0.01


class Services:
    """``sync`` and what ``coroutines()`` returns run deliveries and hand what they finished to ``take``."""

    def __init__(
        self,
        broker: Broker,
        store: ResultStore | None,
        runner: Runner,
        options: NodeOptions,
        *,
        sync: Executor,
        coroutines: Callable[[], Executor],
        rules: RuleBook,
        clock: Clock = SYSTEM,
        rand: Callable[[], float] = random.random,
        aside: Aside = asyncio.to_thread,
        word: Word | None = None,
    ) -> None:
        self.broker = broker
        self.runner = runner
        self.clock = clock
        self._sync = sync
        #: Tokens of what was ended while it ran.
        self._ended: set[str] = set()
        self.limits = limits = Limits(broker, runner, aside)
        self.completer = completer = Completer(
            broker,
            store,
            self._settled,
            rand=rand,
            expected=self._held,
            join=runner.joiner.conclude,
            aside=aside,
            ended=PayloadDropper(runner.payloads, aside) if runner.payloads is not None else None,
            written=self._written if broker.traits.requeues else None,
            clock=clock,
            now=runner.now,
            certain=lambda: clock.monotonic() < runner.valid_until,
            starts=runner.app.backend.starts,
            word=word,
        )
        self.fetcher = Fetcher(
            broker,
            store,
            runner,
            options,
            sync=sync,
            coroutines=coroutines,
            conclude=completer.put,
            early=completer.early,
            rules=rules,
            limits=limits,
            rand=rand,
            claimed=self._claimed,
            finishing=lambda: completer.finishing,
            clock=clock,
            aside=aside,
            word=word,
        )
        self.leases = Leases(broker, self.fetcher.held, clock, lease=options.lease, lost=self._lost, valid=self._valid)

    # -- who tells whom ----------------------------------------------------------------------------------------

    def take(self, batch: Sequence[Completion | Delivery | StoredResult]) -> None:
        """Pass finished work to the completer; a bare delivery did not run because its lease was not certain."""
        if self._ended:
            batch = [
                item for item in batch if not (isinstance(item, Completion) and self.is_ended(item.ending.delivery))
            ]
        stale = [item for item in batch if isinstance(item, Delivery)]
        if stale:
            self.fetcher.give_back(stale)
            self.leases.hurry()
            batch = [item for item in batch if not isinstance(item, Delivery)]
        if batch:
            self.completer.put(batch)  # type: ignore[arg-type]
            self.fetcher.changed()

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        """Write the end of what still runs, and may go on for a moment: how it ends then is nobody's affair."""
        self._ended.add(delivery.token)
        self.completer.put([self.runner.conclude(delivery, outcome)])

    def is_ended(self, delivery: Delivery) -> bool:
        """Its end was written while it ran."""
        return delivery.token in self._ended

    def _claimed(self, began: float) -> None:
        self.leases.claimed(began)

    def _held(self) -> int:
        return len(self.fetcher.held)

    def _written(self, deliveries: Sequence[Delivery]) -> None:
        self.fetcher.written(deliveries)

    def _settled(self, deliveries: Sequence[Delivery]) -> None:
        early = self.completer.early
        self.fetcher.over(deliveries)
        if early:
            early.difference_update(delivery.token for delivery in deliveries)
        self.limits.ended(deliveries)
        self.fetcher.changed()

    def _lost(self, deliveries: Sequence[Delivery]) -> None:
        """Leases that are gone: what runs goes on and will be refused; it is no longer renewed."""
        early = self.completer.early
        for delivery in deliveries:
            # One that was settled while the renewal was under way is no longer held, and nothing is wrong.
            if delivery.token not in early and self.fetcher.held.pop(delivery.token, None) is not None:
                message = delivery.message
                logger.warning("The lease of task %s is gone", one_line(f"{message.task}[{message.id}]"))
        self.limits.ended(deliveries)
        self.fetcher.drop_unheld()
        self.fetcher.changed()

    def _valid(self, until: float) -> None:
        self.runner.valid_until = until

    # -- running -----------------------------------------------------------------------------------------------

    async def tick(self, pulse: Callable[[float], None] | None, watch: Callable[[float], None]) -> None:
        """Look after stalls until cancelled; ``watch`` is called with the monotonic time while something is held,
        ``pulse`` at idle too, once a second."""
        fetcher, loop = self.fetcher, asyncio.get_running_loop()
        while True:
            if not fetcher.held:
                fetcher.admitted.clear()
                idle = loop.call_later(IDLE_TICK, fetcher.admitted.set) if pulse is not None else None
                await fetcher.admitted.wait()
                if idle is not None:
                    idle.cancel()
            if fetcher.held:
                await self.clock.sleep(_TICK)
            now = self.clock.monotonic()
            if pulse is not None:
                pulse(now)
            if fetcher.held:
                self._sync.tick(now)
                fetcher.relieve(now)
                watch(now)

    # -- the end -----------------------------------------------------------------------------------------------

    async def shut_down(
        self,
        fetching: asyncio.Future[None],
        *,
        busy: Callable[[], bool],
        drain: Callable[[], None],
        left: Callable[[], float],
        meanwhile: Callable[[bool], None] = lambda over: None,
    ) -> None:
        """Stop claiming (nothing new) → recall what has not started and give it back (others can start it at once) →
        wait for what runs, up to the grace → give back the rest → write everything.

        ``fetching`` is the fetcher's run, ``busy()`` says whether something runs, ``drain()`` hands over what has
        ended, ``left()`` are the seconds of grace that are left: a second request to stop may have shortened it
        meanwhile. ``meanwhile(over)`` is called at each look at what runs, the last time with True.
        """
        fetcher, held = self.fetcher, self.fetcher.held
        fetcher.stop()
        await asyncio.wait({fetching})
        fetcher.recall_all()
        pause, written = _FIRST_LOOK, False
        while not written:
            while (busy() or self._on_its_way()) and left() > 0:
                meanwhile(False)
                await self.clock.sleep(pause)
                pause = min(_LOOK, 2 * pause)
            meanwhile(True)
            drain()
            # One that is replaced has the time that a server needs to come back: nothing has to run again.
            seconds = None if left() == math.inf else min(max(left(), 1.0), 5.0)
            await self._within(self.completer.drain(), seconds)
            # Some may have been on their way while others were being written.
            written = not self._on_its_way() or left() <= 0
        rest = [delivery for delivery in held.values() if delivery.token not in self.completer.early]
        if rest:
            logger.warning("%s after the grace: back to the queues", _unfinished(len(rest)))
            # Not through the completer, which may be waiting for a result store that is away.
            await self._within(self._release(rest), 2.0)

    def _on_its_way(self) -> bool:
        """Something is held and nobody has its completion: a thread is just putting it down, or taking it up."""
        return bool(self.fetcher.held) and self.completer.idle

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self.broker.settle([Release(delivery) for delivery in deliveries])
        except OperationalError as error:
            logger.warning("Cannot give back %d tasks, their leases will: %s", len(deliveries), error)

    @staticmethod
    async def _within(work: Coroutine[Any, Any, None], seconds: float | None) -> None:
        """Do not wait for ever for a server that is away: the leases give the work back."""
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            logger.warning("Cannot write the last outcomes: their tasks go back when their leases expire")


def _unfinished(count: int) -> str:
    return "1 task is not finished" if count == 1 else f"{count} tasks are not finished"
