"""Claims deliveries, as many as fit a few milliseconds of work, and hands over those that are to run.

Runs on the I/O loop. What is not to run (malformed, unknown, expired, revoked, not due, done already) is concluded
here; what is limited asks the broker first. Unstarted deliveries are given back as soon as a task turns out to be long.
How much to claim is said by ``appetite.py``; what follows from a delivery is ``plan``'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from celeriac.clock import SYSTEM
from celeriac.exceptions import OperationalError
from celeriac.executors import Executor
from celeriac.model import outcome as o
from celeriac.model.backoff import Fruitless
from celeriac.model.ledger import LOCK
from celeriac.model.message import Delivery
from celeriac.model.settle import Completion, Release
from celeriac.ports import Broker, Clock, ResultStore
from celeriac.worker.appetite import Appetite
from celeriac.worker.closer import Aside
from celeriac.worker.completer import unified
from celeriac.worker.concluding import Concluder, sent_again
from celeriac.worker.early import EarlyAcks
from celeriac.worker.limits import Limits
from celeriac.worker.locks import begin_locked
from celeriac.worker.options import NodeOptions
from celeriac.worker.outage import About, Outage, Word
from celeriac.worker.refusals import Refusals
from celeriac.worker.rule_reader import RuleReader
from celeriac.worker.rules import RuleBook
from celeriac.worker.runner import Runner
from celeriac.worker.sorting import Batch, sort
from celeriac.worker.verdicts import Verdicts

__all__ = ["Fetcher"]

logger = logging.getLogger("celery.worker.consumer")

#: Seconds that an empty claim waits.
WAIT = 10.0
#: The same while a queue is paused: it may be resumed.
PAUSED_LOOK = 0.5
#: Longest pause in seconds after a claim that drained the queue.
REST = 0.002
#: A task that runs longer than this blocks what is claimed behind it: that is given back. Seconds.
STALL = 0.05
#: Most deliveries in a claim that looks for something that may run: what is limited is put aside by so many.
SIFT = 64


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
        limits: Limits,
        rules: RuleBook,
        rand: Callable[[], float],
        claimed: Callable[[float], None],
        finishing: Callable[[], int] = lambda: 0,
        clock: Clock = SYSTEM,
        aside: Aside = asyncio.to_thread,
        word: Word | None = None,
    ) -> None:
        """``claimed(began)`` hears of each claim that brought something, and when it was sent, before that is held;
        ``finishing()`` says how many of ``held`` are run and being written; one with ``word`` tells of outages."""
        self.held: dict[str, Delivery] = {}
        self.queues: list[str] = list(options.queues)
        #: The connection works, as far as the last claim knows.
        self.connected = False
        #: Seconds that an empty claim waits: the lease counts from before, and of a short one enough must be left.
        self.wait = min(WAIT, options.lease / 3)
        #: Since when a claim waits for its answer, in monotonic seconds; 0: none does.
        self.asked = 0.0
        #: The last claim brought as much as was asked for: there is more.
        self.backlog = False
        self._broker = broker
        self._refusals = Refusals(store, runner.signer, rules, clock, apart=unified(broker, store) is None)
        self._runner = runner
        self._options = options
        self._sync = sync
        self._coroutines = coroutines
        self.appetite = Appetite(options, runner, sync, self.held, finishing)
        self._conclude = conclude
        self._concluder = Concluder(runner, conclude, aside)
        self._early = early
        self._limits = limits
        self._rules = rules
        #: The rules are to be read, whatever the claims say.
        self._stale = False
        self._backoff = Outage(About.BROKER, rand=rand, word=word)
        self._reader = RuleReader(broker, rules, runner, self._backoff, clock)
        self._acks = self._acknowledging(clock)
        self._verdicts = Verdicts(broker, rules.signer, clock)
        #: What went wrong beside the loop.
        self._broken: BaseException | None = None
        self._claimed = claimed
        self._clock = clock
        #: Set whenever something was claimed.
        self.admitted = asyncio.Event()
        self._changed = asyncio.Event()
        self._stopping = self._interrupted = False
        self._fruitless = Fruitless()
        self._claiming: asyncio.Task[Sequence[Delivery]] | None = None

    def written(self, deliveries: Sequence[Delivery]) -> None:
        """These were settled under their lease, where the broker gives back by itself."""
        self._verdicts.settled(deliveries)

    def over(self, deliveries: Sequence[Delivery]) -> None:
        """These are held no more, settled or lost."""
        for delivery in deliveries:
            self.held.pop(delivery.token, None)
        self._verdicts.forget(deliveries)

    def _acknowledging(self, clock: Clock) -> EarlyAcks:
        return EarlyAcks(
            self._broker,
            self._runner,
            self._backoff,
            clock,
            held=self.held,
            early=self._early,
            conclude=self._conclude,
            stopping=self._is_stopping,
        )

    # -- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim until ``stop``."""
        broker, backoff = self._broker, self._backoff
        self.connected = True  # whoever starts this has just connected
        while not self._stopping:
            if self._broken is not None:
                raise self._broken
            if self._stale:
                await self._obey()
            room, queues = self.appetite.room(), self._open()
            if room <= 0 or not queues:
                await self._until_changed()
                continue
            began = self._clock.monotonic()
            try:
                deliveries = await self._claim(broker, queues, room)
            except OperationalError as error:
                self._away()
                delay = backoff.next()
                backoff.tell(logger, "Cannot reach the broker, next try in %.2f s: %s", delay, error)
                await self._clock.sleep(delay)
                continue
            if deliveries is None:
                continue
            self._back()
            self.backlog = len(deliveries) >= room
            if not deliveries and self._reader.behind:
                await self._obey()
            if deliveries:
                self._claimed(began)
                await self.admit(deliveries)
                if pause := self._fruitless.pause:
                    await self._clock.sleep(pause)
                elif len(deliveries) < room:
                    await self._rest()
                if len(self.queues) > 1:
                    # The first queue of a claim goes first; each gets its turn.
                    self.queues.append(self.queues.pop(0))

    def _away(self) -> None:
        self.connected = False

    def _back(self) -> None:
        """The broker has answered."""
        self.connected = True
        self._backoff.over(logger, "The broker is back after %d failed tries")

    async def _rest(self) -> None:
        """The queue was drained: the next claim leaves with the outcome of what came, not ahead of it.

        An immediate one would take the server's and the interpreter's time while the task waits to start.
        """
        self._changed.clear()
        timer = asyncio.get_running_loop().call_later(REST, self._changed.set)
        await self._changed.wait()
        timer.cancel()

    def _fail(self, error: BaseException) -> None:
        self._broken = error
        self.requeued()

    async def _claim(self, broker: Broker, queues: Sequence[str], room: int) -> Sequence[Delivery] | None:
        """What came; None when ``_interrupt`` ended the claim."""
        self.asked = self._clock.monotonic()
        wait = min(PAUSED_LOOK, self.wait) if self._rules.paused else self.wait
        if self._backoff.failures:
            wait = 0.0  # the first answer after an outage tells that it is over
        self._claiming = asyncio.ensure_future(broker.claim(queues, limit=room, wait=wait))
        try:
            return await self._claiming
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._interrupted and not (current is not None and current.cancelling()):
                return None
            raise
        finally:
            self._claiming, self._interrupted, self.asked = None, False, 0.0

    def changed(self) -> None:
        """Something ended: look again whether to claim."""
        # What a stalled child gave back ends as well, and frees nothing.
        if self.appetite.stalled:
            self.appetite.stalled = bool(self.held) and _blocked(self._sync, self._clock.monotonic())
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

    def _is_stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        """Claim no more."""
        self._stopping = True
        self._changed.set()
        self._interrupt()

    # -- rules -------------------------------------------------------------------------------------------------

    def _open(self) -> Sequence[str]:
        """The queues that are not paused."""
        paused = self._rules.paused
        return [queue for queue in self.queues if queue not in paused] if paused else self.queues

    async def _until_changed(self) -> None:
        """Until there is room, or other queues; while one is paused, it may be resumed and no claim would tell."""
        self._changed.clear()
        look = asyncio.get_running_loop().call_later(PAUSED_LOOK, self._look_again) if self._rules.paused else None
        await self._changed.wait()
        if look is not None:
            look.cancel()

    def _look_again(self) -> None:
        self._stale = True
        self._changed.set()

    async def _obey(self) -> None:
        """Read the rules, however long it takes: what is claimed must not be admitted by older ones."""
        self._stale = False
        if await self._reader.read(self._is_stopping, self._away):
            self._back()
            self._sift()

    def ruled(self) -> None:
        """The rules changed: look at what is held and at what is claimed."""
        self._sift()
        self.requeued()

    def _sift(self) -> None:
        """Conclude or give back what has not started and is not to run."""
        rules, now = self._rules, self._runner.now()
        for executor in (self._sync, self.appetite.coroutines):
            if executor is not None and (rules.refuses or rules.paused):
                good, paused, refused = rules.sort(executor.recall(), now)
                self.give_back(paused)
                self._concluder(refused)
                if good:
                    executor.feed(good)

    # -- what to do with each ----------------------------------------------------------------------------------

    async def admit(self, deliveries: Sequence[Delivery]) -> None:
        """Sort a claimed batch: hand over, conclude, or give back."""
        # What another claim holds is company too.
        alone = len(deliveries) == 1 and not self.held
        for delivery in deliveries:
            self.held[delivery.token] = delivery
        self.admitted.set()
        if self._reader.behind:
            await self._obey()
        paused = self._rules.paused
        if paused:  # a claim took them just before
            back = [d for d in deliveries if d.queue in paused]
            if back:
                self._conclude([Completion(settlement=Release(d)) for d in back])
                self._limits.forgo(back)
                deliveries = [d for d in deliveries if d.queue not in paused]
        verdicts = self._verdicts
        if verdicts.active:
            deliveries = await verdicts.known(deliveries, self._concluder)
        deliveries = self._one_suspect(deliveries, alone)
        if verdicts.active:
            deliveries = verdicts.later(deliveries, self._concluder, self._sort, self._fail)
        if deliveries:
            await self._sort(deliveries)

    async def _sort(self, deliveries: Sequence[Delivery]) -> None:
        if self._stopping:
            self._conclude([Completion(settlement=Release(delivery)) for delivery in deliveries])
            return
        now = self._runner.now()
        done = await self._refusals.repeated([d for d in deliveries if d.redelivered or d.returned])
        batch = sort(deliveries, self._refusals.of, self._runner.entry, now=now, done=done)
        sync, coroutines, limited = batch.sync, batch.coroutines, batch.limited
        concluded = self._conclude_all(batch)
        if sync or coroutines or not all(isinstance(each.settlement, Release) for each in concluded):
            self._fruitless.reset()
        elif not limited:
            self._fruitless.went_back([delivery.message.id for delivery in deliveries])
        await self._hand_over(sync, coroutines)
        seated = 0
        if limited:
            permitted, seated = await self._permitted_of(limited)
            sync, coroutines = sync + permitted[0], coroutines + permitted[1]
            if sync or coroutines:
                self._fruitless.reset()
            await self._hand_over(*permitted)
        if sync or coroutines:
            self.appetite.sifting = 0
            self.appetite.learn(sync + coroutines, len(coroutines), seated)
        elif limited:
            self.appetite.sifting = min(2 * len(deliveries), SIFT)

    def _conclude_all(self, batch: Batch) -> list[Completion]:
        """End what is not to run; returns how, as far as that is known yet."""
        if batch.concluded:
            self._conclude(batch.concluded)
        if not batch.ended:
            return batch.concluded
        at_once = self._concluder(batch.ended)
        self._limits.forgo([delivery for delivery, _ in batch.ended])
        return batch.concluded + at_once

    async def _permitted_of(self, limited: Sequence[Delivery]) -> tuple[tuple[list[Delivery], list[Delivery]], int]:
        """Those limited tasks that may run now, synchronous ones and coroutines, and how many of them have a seat; the
        others wait in the broker."""
        permitted = await self._limits.permitted(limited, self._backoff, self._is_stopping, self._clock)
        if permitted is None:
            self._conclude([Completion(settlement=Release(delivery)) for delivery in limited])
            return ([], []), 0
        for delivery in permitted.gone:
            self.held.pop(delivery.token, None)
        if permitted.concluded:
            self._conclude(permitted.concluded)
            self._put_off(permitted.concluded)
        entry = self._runner.entry
        coroutines = [d for d in permitted.go if (found := entry(d.message.task)) and found.tracer.is_async]
        tokens = {delivery.token for delivery in coroutines}
        return ([d for d in permitted.go if d.token not in tokens], coroutines), permitted.seated

    def _put_off(self, concluded: Sequence[Completion]) -> None:
        """What limits have put off should not be here again before its time."""
        now, ends = self._runner.now(), [each.settlement for each in concluded]
        waits = {each.delivery.message.id: each.due - now for each in ends if type(each) is Release and each.due}
        self._fruitless.put_off(waits, self._clock.monotonic())

    async def _hand_over(self, sync: list[Delivery], coroutines: list[Delivery]) -> None:
        """Feed the executors what is to run, but for unique tasks that others have replaced."""
        locked = [d for d in (*sync, *coroutines) if LOCK in d.message.headers]  # type: ignore[union-attr]
        if locked:
            backoff, clock, lease = self._backoff, self._clock, self._options.lease
            stays = await begin_locked(self._broker, locked, backoff, self._is_stopping, clock, patience=lease)
            self._concluder([(d, stays[d.token]) for d in locked if d.token in stays])
            sync, coroutines = ([d for d in each if d.token not in stays] for each in (sync, coroutines))
        sync, coroutines = await self._acks.settle(sync), await self._acks.settle(coroutines)
        # The leases of some may have been lost meanwhile.
        if sync := [delivery for delivery in sync if delivery.token in self.held]:
            self._sync.feed(sync)
        if coroutines := [delivery for delivery in coroutines if delivery.token in self.held]:
            executor = self.appetite.coroutines
            if executor is None:
                executor = self.appetite.coroutines = self._coroutines()
            executor.feed(coroutines)

    def _one_suspect(self, deliveries: Sequence[Delivery], alone: bool) -> Sequence[Delivery]:
        """A message that may have killed a node runs alone, so that the next crash has one culprit.

        Suspects that came in company go back; the next claim waits until nothing is held, and takes one message.
        """
        suspects = [delivery for delivery in deliveries if delivery.marks.suspect]
        self.appetite.alone = bool(suspects)
        if not suspects or alone:
            return deliveries
        # Written as everything else is, for as long as it takes: a lease that runs out would count against them.
        self._conclude([Completion(settlement=Release(delivery)) for delivery in suspects])
        return [delivery for delivery in deliveries if not delivery.marks.suspect]

    # -- giving back -------------------------------------------------------------------------------------------

    def relieve(self, now: float) -> None:
        """Give back what waits behind tasks that turned out to be long."""
        for executor in (self._sync, self.appetite.coroutines):
            if executor is None:
                continue
            if _blocked(executor, now):
                if executor is self._sync and not self.appetite.stalled:
                    self.appetite.stalled = True
                    # A claim that waits for more would take what nobody here can start.
                    self._interrupt()
                self.give_back(executor.recall())
            elif executor is self._sync and self.appetite.stalled:
                self.changed()

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return unstarted deliveries to their queues, uncounted."""
        if not deliveries:
            return
        early, conclude = self._early, self._runner.conclude
        self._conclude([sent_again(d) if d.token in early else conclude(d, o.Unstarted()) for d in deliveries])

    def drop_unheld(self) -> None:
        """Take those that are no longer held away from the executors, before they start."""
        for executor in (self._sync, self.appetite.coroutines):
            if executor is not None:
                kept = [delivery for delivery in executor.recall() if delivery.token in self.held]
                if kept:
                    executor.feed(kept)

    def recall_all(self) -> None:
        """Give back everything that has not started."""
        for executor in (self._sync, self.appetite.coroutines):
            if executor is not None:
                self.give_back(executor.recall())


def _blocked(executor: Executor, now: float) -> bool:
    """Every place to run is taken by something that runs longer than STALL."""
    active = executor.active()
    return len(active) >= executor.limit and min(now - started for _, started in active) > STALL
