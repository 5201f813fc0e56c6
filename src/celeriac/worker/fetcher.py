"""Claims deliveries, as many as fit a few milliseconds of work, and hands over those that are to run.

Runs on the I/O loop. What is not to run (malformed, unknown, expired, revoked, not due, done already) is concluded
here. Unstarted deliveries are given back as soon as a task turns out to be long. It decides *how much* to claim; what
follows from a delivery is ``plan``'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from celeriac import states
from celeriac.exceptions import DecodeError, OperationalError
from celeriac.executors import Executor
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Malformed
from celeriac.model.settle import Accept, Completion, Release, Settlement
from celeriac.ports import Broker, ResultStore
from celeriac.worker.backoff import Backoff
from celeriac.worker.options import NodeOptions
from celeriac.worker.runner import Runner

__all__ = ["Fetcher"]

logger = logging.getLogger("celery.worker.consumer")

#: Most deliveries in one claim, and most held beyond the slots: while one batch runs, the next is under way and the one
#: before is being settled.
CLAIM_LIMIT = 256
HELD_LIMIT = 768
#: Seconds that an empty claim waits.
WAIT = 10.0
#: Longest pause in seconds after a claim that drained the queue.
REST = 0.002
#: A task that runs longer than this blocks what is claimed behind it: that is given back. Seconds.
STALL = 0.05


class _Record(msgspec.Struct):
    status: str = ""
    retries: int | None = None
    result: Any = None


_decode_record = msgspec.json.Decoder(_Record).decode


class Fetcher:
    """The one who claims. ``held`` maps tokens to everything claimed and not settled yet (shared with Leases)."""

    def __init__(
        self,
        broker: Broker,
        store: ResultStore | None,
        runner: Runner,
        options: NodeOptions,
        *,
        sync: Executor,
        coroutines: Callable[[], Executor],
        conclude: Callable[[Sequence[Completion]], None],
        early: set[str],
        revoked: Collection[str],
        rand: Callable[[], float],
        finishing: Callable[[], int] = lambda: 0,
    ) -> None:
        """``finishing()`` says how many of ``held`` are run and being written."""
        self.held: dict[str, Delivery] = {}
        self.queues: list[str] = list(options.queues)
        #: The connection works: the last claim came back.
        self.connected = False
        #: The last claim brought as much as was asked for: there is more.
        self.backlog = False
        self._broker = broker
        self._store = store
        self._runner = runner
        self._options = options
        self._sync = sync
        self._coroutines = coroutines
        self._async: Executor | None = None
        self._conclude = conclude
        self._early = early
        self._revoked = revoked
        self._backoff = Backoff(rand=rand)
        self._finishing = finishing
        #: Set whenever something was claimed.
        self.admitted = asyncio.Event()
        self._changed = asyncio.Event()
        self._stopping = False
        self._alone = False
        self._average = 0.0
        self._async_share = 0.0
        #: Every synchronous slot is taken by a task that runs longer than STALL.
        self._stalled = False
        self._claiming: asyncio.Task[Sequence[Delivery]] | None = None
        self._interrupted = False

    # -- how much ----------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many deliveries to claim now: none while there is not room for half the target."""
        options = self._options
        held = len(self.held)
        if self._alone:
            return 0 if held else 1
        # A claim leaves together with the outcomes that make room for it, not a round trip later.
        held = max(0, held - self._finishing())
        limit = self._slots()
        if limit <= 0:
            return 0
        average = self._average
        ahead = min(int(limit * options.claim_target / average) if average > 0 else 0, HELD_LIMIT)
        if options.prefetch_limit is not None:
            ahead = min(ahead, max(0, options.prefetch_limit - limit))
        room = min(limit + ahead - held, CLAIM_LIMIT)
        # Half of what is ahead at a time, but a free slot never waits.
        if held >= limit and room < min(ahead // 2, CLAIM_LIMIT):
            return 0
        most = options.max_tasks_per_child
        return room if most is None else min(room, most - self._runner.count - held)

    def _slots(self) -> int:
        """Tasks that can run at once, by the share of coroutines among what comes in."""
        if self._async is None:
            return 0 if self._stalled else self._sync.limit
        if self._stalled:
            # Only coroutines can start: synchronous tasks that come along go back at once.
            return len(self.held) + self._async.limit - len(self._async.active()) - self._async.waiting()
        share = self._async_share
        return max(1, round(self._sync.limit * (1 - share) + self._async.limit * share))

    def _learn(self, deliveries: Sequence[Delivery], coroutines: int) -> None:
        """Expected run time and kind of a claimed batch, as the next claim's guess."""
        runtimes = self._runner.runtimes
        known = [runtimes[d.message.task] for d in deliveries if d.message.task in runtimes]
        if known:
            average = sum(known) / len(known)
            self._average = average if not self._average else 0.5 * (self._average + average)
        self._async_share = 0.5 * (self._async_share + coroutines / len(deliveries))

    # -- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim until ``stop``."""
        broker, backoff = self._broker, self._backoff
        while not self._stopping:
            room = self.room()
            if room <= 0 or not self.queues:
                self._changed.clear()
                await self._changed.wait()
                continue
            began = time.monotonic()
            try:
                deliveries = await self._claim(broker, room)
            except OperationalError as error:
                self.connected = False
                delay = backoff.next()
                if backoff.loud:
                    logger.error("Cannot reach the broker, next try in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                continue
            if deliveries is None:
                continue
            if not self.connected:
                self.connected = True
                if backoff.failures:
                    logger.warning("The broker is back after %d failed tries", backoff.failures)
            backoff.reset()
            self.backlog = len(deliveries) >= room
            if deliveries:
                if not self.held:
                    self._runner.valid_until = began + self._options.lease
                await self.admit(deliveries)
                if len(deliveries) < room:
                    await self._rest()
                if len(self.queues) > 1:
                    # The first queue of a claim goes first; each gets its turn.
                    self.queues.append(self.queues.pop(0))

    async def _rest(self) -> None:
        """The queue was drained: the next claim leaves with the outcome of what came, not ahead of it.

        An immediate one would take the server's and the interpreter's time while the task waits to start.
        """
        self._changed.clear()
        timer = asyncio.get_running_loop().call_later(REST, self._changed.set)
        await self._changed.wait()
        timer.cancel()

    async def _claim(self, broker: Broker, room: int) -> Sequence[Delivery] | None:
        """What came; None when ``_interrupt`` ended the claim."""
        # The lease counts from before the wait: of a short one, enough must be left.
        wait = min(WAIT, self._options.lease / 3)
        self._claiming = asyncio.ensure_future(broker.claim(self.queues, limit=room, wait=wait))
        try:
            return await self._claiming
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._interrupted and not (current is not None and current.cancelling()):
                return None
            raise
        finally:
            self._claiming, self._interrupted = None, False

    def changed(self) -> None:
        """Something ended: look again whether to claim."""
        # What a stalled child gave back ends as well, and frees nothing.
        self._stalled = self._stalled and bool(self.held) and _blocked(self._sync, time.monotonic())
        self._changed.set()

    def requeued(self) -> None:
        """The queues changed: start a new claim."""
        self._changed.set()
        self._interrupt()

    def _interrupt(self) -> None:
        """End a waiting claim; what it may have taken meanwhile comes with the next one."""
        if self._claiming is not None:
            self._interrupted = True
            self._claiming.cancel()

    def stop(self) -> None:
        """Claim no more."""
        self._stopping = True
        self._changed.set()
        self._interrupt()

    # -- what to do with each ----------------------------------------------------------------------------------

    async def admit(self, deliveries: Sequence[Delivery]) -> None:
        """Sort a claimed batch: hand over, conclude, or give back."""
        # What another claim holds is company too.
        alone = len(deliveries) == 1 and not self.held
        for delivery in deliveries:
            self.held[delivery.token] = delivery
        self.admitted.set()
        deliveries = self._one_suspect(deliveries, alone)
        if self._stopping:
            self._conclude([Completion(settlement=Release(delivery)) for delivery in deliveries])
            return
        now, entry, revoked = self._runner.now(), self._runner.entry, self._revoked
        sync: list[Delivery] = []
        coroutines: list[Delivery] = []
        concluded: list[Completion] = []
        done = await self._already_done([d for d in deliveries if d.redelivered])
        for delivery in deliveries:
            message = delivery.message
            outcome = self._refusal(delivery, now, done, revoked)
            if outcome is not None:
                concluded.append(
                    outcome if isinstance(outcome, Completion) else self._runner.conclude(delivery, outcome)
                )
                continue
            found = entry(message.task)
            if found is None:
                concluded.append(self._runner.conclude(delivery, o.Unknown()))
            elif found.tracer.is_async:
                coroutines.append(delivery)
            else:
                sync.append(delivery)
        if concluded:
            self._conclude(concluded)
        sync = await self._acknowledge_early(sync)
        coroutines = await self._acknowledge_early(coroutines)
        if sync or coroutines:
            self._learn(sync + coroutines, len(coroutines))
        if sync:
            self._sync.feed(sync)
        if coroutines:
            if self._async is None:
                self._async = self._coroutines()
            self._async.feed(coroutines)

    def _refusal(
        self, delivery: Delivery, now: float, done: Mapping[str, o.Repeated], revoked: Collection[str]
    ) -> o.Outcome | Completion | None:
        """Why a delivery is not to run, or None. Ordinary messages pass through three comparisons."""
        message = delivery.message
        if isinstance(message, Malformed):
            return o.Discarded(DecodeError(message.reason), message.reason)
        if message.due is not None and message.due > now:
            return Completion(settlement=Release(delivery, due=message.due))
        if message.expires is not None and message.expires <= now:
            return o.Revoked("expired")
        if revoked and message.id in revoked:
            return o.Revoked("revoked")
        if delivery.token in done:
            return done[delivery.token]
        return None

    def _one_suspect(self, deliveries: Sequence[Delivery], alone: bool) -> Sequence[Delivery]:
        """A message that may have killed a node runs alone, so that the next crash has one culprit.

        Suspects that came in company go back; the next claim waits until nothing is held, and takes one message.
        """
        suspects = [delivery for delivery in deliveries if delivery.marks.suspect]
        self._alone = bool(suspects)
        if not suspects or alone:
            return deliveries
        # Written as everything else is, for as long as it takes: a lease that runs out would count against them.
        self._conclude([Completion(settlement=Release(delivery)) for delivery in suspects])
        return [delivery for delivery in deliveries if not delivery.marks.suspect]

    async def _already_done(self, redelivered: Sequence[Delivery]) -> Mapping[str, o.Repeated]:
        """Those redelivered messages, by token, whose record shows a terminal state, or a later attempt."""
        if not redelivered or self._store is None:
            return {}
        try:
            records = await self._store.get([delivery.message.id for delivery in redelivered])
        except OperationalError as error:
            logger.warning("Cannot read the results of %d redelivered tasks: %s", len(redelivered), error)
            return {}
        found = zip(redelivered, records, strict=True)
        return {d.token: o.Repeated(r.status, r.result) for d, raw in found if raw and (r := self._done_record(d, raw))}

    @staticmethod
    def _done_record(delivery: Delivery, raw: bytes) -> _Record | None:
        """The record if it shows that this attempt is over."""
        try:
            record = _decode_record(raw)
        except msgspec.MsgspecError:
            return None
        if record.status in states.READY_STATES:
            return record
        message = delivery.message
        own = message.retries if not isinstance(message, Malformed) else 0
        is_later = record.status == states.RETRY and record.retries is not None and record.retries >= own
        return record if is_later else None

    async def _acknowledge_early(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Tasks with ``acks_late=False`` are settled before they start: at most once. Returns what is to run."""
        early = [d for d in deliveries if not self._acks_late(d)]
        if not early:
            return deliveries
        refused = await self._retry_settle([Accept(delivery) for delivery in early])
        if refused is None:
            self._conclude([Completion(settlement=Release(delivery)) for delivery in early])
            return [d for d in deliveries if self._acks_late(d)]
        lost = {settlement.delivery.token for settlement in refused}
        self._early.update(d.token for d in early if d.token not in lost)
        for token in lost:
            self.held.pop(token, None)
        return [d for d in deliveries if d.token not in lost]

    def _acks_late(self, delivery: Delivery) -> bool:
        found = self._runner.entry(delivery.message.task)
        return found is None or found.options.acks_late

    async def _retry_settle(self, accepts: Sequence[Accept]) -> Sequence[Settlement] | None:
        """The refused ones; None when the child stops before the broker has answered."""
        again = False
        while not self._stopping:
            try:
                refused = await self._broker.settle(accepts)
            except OperationalError as error:
                again, delay = True, self._backoff.next()
                if self._backoff.loud:
                    logger.error("Cannot acknowledge %d tasks, next try in %.1f s: %s", len(accepts), delay, error)
                await asyncio.sleep(delay)
                continue
            if again and time.monotonic() < self._runner.valid_until:
                # Nobody else can have had them: only the answer to an earlier try was lost.
                refused = [settlement for settlement in refused if settlement.delivery.token not in self.held]
            return refused
        return None

    # -- giving back -------------------------------------------------------------------------------------------

    def relieve(self, now: float) -> None:
        """Give back what waits behind tasks that turned out to be long."""
        for executor in (self._sync, self._async):
            if executor is None:
                continue
            if _blocked(executor, now):
                if executor is self._sync and not self._stalled:
                    self._stalled = True
                    # A claim that waits for more would take what nobody here can start.
                    self._interrupt()
                self.give_back(executor.recall())
            elif executor is self._sync and self._stalled:
                self.changed()

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return unstarted deliveries to their queues, uncounted."""
        if not deliveries:
            return
        early, conclude = self._early, self._runner.conclude
        self._conclude([self._again(d) if d.token in early else conclude(d, o.Unstarted()) for d in deliveries])

    @staticmethod
    def _again(delivery: Delivery) -> Completion:
        """Settled early but never started: it is published again."""
        message = delivery.message
        return Completion(settlement=Accept(delivery), publish=() if isinstance(message, Malformed) else (message,))

    def drop_unheld(self) -> None:
        """Take those that are no longer held away from the executors, before they start."""
        for executor in (self._sync, self._async):
            if executor is not None:
                kept = [delivery for delivery in executor.recall() if delivery.token in self.held]
                if kept:
                    executor.feed(kept)

    def recall_all(self) -> None:
        """Give back everything that has not started."""
        for executor in (self._sync, self._async):
            if executor is not None:
                self.give_back(executor.recall())


def _blocked(executor: Executor, now: float) -> bool:
    """Every place to run is taken by something that runs longer than STALL."""
    active = executor.active()
    return len(active) >= executor.limit and min(now - started for _, started in active) > STALL
