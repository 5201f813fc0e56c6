"""One child: the I/O loop with fetcher, completer and leases, and the executors it feeds.

A child fetches for itself. ``serve`` blocks the calling thread and runs synchronous tasks there; the I/O loop lives in
a thread of its own. The same child runs as a forked process of a node, in the main process (``solo``) and in any thread
of a test. It knows its slot, but neither supervisor nor agent.

What shares the loop is wired in ``services.py``, the order of the shutdown too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.app import trace
from celeriac.codec.signing import control_signer_of
from celeriac.executors import Executor
from celeriac.executors.coroutines import CoroutinesExecutor
from celeriac.executors.inline import InlineExecutor
from celeriac.executors.limits import SoftLimit, block_in_this_thread
from celeriac.executors.threads import ThreadsExecutor
from celeriac.model.message import Delivery
from celeriac.model.outcome import TimedOut
from celeriac.model.settle import Completion, StoredResult
from celeriac.ports import Broker, ResultStore, Timekeeper
from celeriac.worker.completer import Completer
from celeriac.worker.connect import connected
from celeriac.worker.departure import Departure
from celeriac.worker.fetcher import Fetcher
from celeriac.worker.loop import new_loop, run
from celeriac.worker.options import NodeOptions
from celeriac.worker.orders import Orders
from celeriac.worker.outage import Word
from celeriac.worker.report import Report
from celeriac.worker.rules import RuleBook
from celeriac.worker.runner import Runner
from celeriac.worker.services import IDLE_TICK, Services
from celeriac.worker.slot import Slot
from celeriac.worker.watchdog import Watchdog, patience

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["Child"]

logger = logging.getLogger("celery.worker")

#: So few outcomes wait so long, in seconds, for company.
_FEW = 16
_GATHER = 0.004
#: Seconds that a child waits for the orders of its agent.
_GREETING = 1.0
#: Seconds that coroutines have to clean up when they are cancelled at the end.
_CANCEL_LIMIT = 1.0
#: Seconds after its hard limit in which a coroutine's own loop has to end it: else that loop is blocked.
_BLOCKED = 1.0


class Child:
    """Fetches and runs tasks of ``app``. ``open_broker`` and ``open_store`` make the adapters, on the I/O loop.

    ``extras`` are further services (coroutine functions of the child) on the same loop: the agent's, in one process.
    ``connecting()`` is called once the loop runs, ``ready()`` once the servers answered; ``abandon()`` when everything
    is given back and tasks still run, which no thread can end: a process leaves there. ``orders`` are those of its
    supervisor, where it has one; an extra sets ``greeted`` when those of its agent are obeyed; ``word`` is shared with
    the other processes of its node.
    """

    def __init__(
        self,
        app: Celery,
        options: NodeOptions,
        *,
        open_broker: Callable[[], Broker],
        open_store: Callable[[], ResultStore | None],
        slot: Slot | None = None,
        extras: Sequence[Callable[[Child], Coroutine[Any, Any, None]]] = (),
        connecting: Callable[[], None] | None = None,
        ready: Callable[[], None] | None = None,
        abandon: Callable[[], None] | None = None,
        orders: Orders | None = None,
        greeted: asyncio.Event | None = None,
        word: Word | None = None,
    ) -> None:
        self.app = app
        self.options = options
        self.slot = slot
        self.rules = RuleBook(control_signer_of(app.conf))
        self.report = Report.of(options)
        self.report.events = options.events
        self.report.emit = self._emit
        #: Set when ``serve`` may be left: read by whoever runs the child.
        self.stopped = threading.Event()
        self.exit_reason = ""
        self.broker: Broker
        self.store: ResultStore | None = None
        self.services: Services
        self.fetcher: Fetcher
        self.completer: Completer
        self.loop: asyncio.AbstractEventLoop | None = None
        self._open_broker = open_broker
        self._open_store = open_store
        self._extras = extras
        self._connecting = connecting
        self._ready = ready
        self._abandon = abandon
        self._outbox: list[Completion | Delivery | StoredResult] = []
        self._events: list[dict[str, Any]] = []
        self._flushing = False
        self._outbox_lock = threading.Lock()
        self._notified = False
        self._coroutines: CoroutinesExecutor | None = None
        self._stop_requested: asyncio.Event
        self._stop_wanted = False
        #: Monotonic time at which what still runs is given back; none while it was only asked to retire.
        self._deadline = math.inf
        self._orders = orders
        self._greeted = greeted
        self._word = word
        self._retiring = False
        #: What made the I/O loop fail.
        self.failed: BaseException | None = None
        self.runner = self._new_runner()
        self.departure = Departure(options, self.runner, orders, self.retire)
        self.runner.after = self.departure.after_task if self.departure.watches else None
        self.runner.stuck = self.departure.leave if orders is not None else None
        self.soft = SoftLimit()
        self.sync = self._sync_executor()

    def _new_runner(self) -> Runner:
        app, options = self.app, self.options
        # Threads would write over each other in the one slot; their limits are enforced here (``_end_overdue``).
        own = self.slot if options.pool != "threads" else None
        runner = Runner(app, options, slot=own, report=self.report, results=app.backend_url is not None)
        runner.started = self._record_started
        runner.leave = self.stop
        return runner

    def _sync_executor(self) -> InlineExecutor | ThreadsExecutor:
        runner = self.runner
        if self.options.pool == "threads":
            count = self.options.concurrency
            return ThreadsExecutor(runner.run, self._done, count, runner.soft_limit, runner.limited, trace.run_body)
        soft = self.soft
        return InlineExecutor(
            lambda delivery: runner.run(delivery, soft),
            self._done,
            runner.expect,
            soft=soft,
            trampoline=trace.run_body,
        )

    # -- any thread --------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run until stopped; synchronous tasks run on the calling thread. Raises what made the I/O loop fail."""
        thread = threading.Thread(target=self._io_thread, name="io", daemon=True)
        thread.start()
        try:
            self.sync.serve()
        finally:
            self.stop(grace=0.0 if not self.stopped.is_set() else None)
            thread.join()
            if self._coroutines is not None:
                self._coroutines.close(_CANCEL_LIMIT)
        if self.failed is not None:
            raise self.failed

    def stop(self, *, grace: float | None = None) -> None:
        """Begin the shutdown; ``grace`` in seconds (default: the node's). From any thread or signal handler.
        Idempotent."""
        seconds = self.options.grace if grace is None else min(grace, self.options.grace)
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        self._begin_stop()

    def retire(self, reason: str) -> None:
        """Claim no more, finish what runs, however long it takes, and leave. From any thread. Idempotent."""
        self.exit_reason = self.exit_reason or reason
        if not self._retiring:
            self._retiring = True
            self._begin_stop()

    def _begin_stop(self) -> None:
        self._stop_wanted = True  # read by the loop when it comes up: before that there is nothing to wake
        loop = self.loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._stop_requested.set)
            except RuntimeError:
                pass  # the loop ended meanwhile

    def _done(self, finished: Sequence[Any]) -> None:
        """Take finished work from a task thread; wakes the loop once per batch."""
        with self._outbox_lock:
            self._outbox.extend(finished)
            if self._notified:
                return
            self._notified = True
        self._call_loop(self._drain_soon)

    def _record_started(self, record: StoredResult) -> None:
        self._done((record,))

    def _emit(self, kind: str, fields: dict[str, Any]) -> None:
        self._events.append({**fields, "type": kind, "timestamp": time.time()})
        if kind == "task-retried":
            # At once: monitors should hear of it before another child tells that the next attempt runs.
            self._call_loop(self._flush_events)
        # Not the length, which another thread may have changed meanwhile: then nobody would ever flush.
        if not self._flushing:
            self._flushing = True
            self._call_loop(self._flush_events_soon)

    def _call_loop(self, callback: Callable[[], object]) -> None:
        loop = self.loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # the loop is closed: the child is stopped, its leases say the rest

    def running(self) -> list[tuple[Delivery, float]]:
        """What runs now, with its start in monotonic seconds."""
        return self.sync.active() + (self._coroutines.active() if self._coroutines else [])

    def cancel(self, token: str) -> bool:
        """End a running task where its executor can."""
        return self.sync.cancel(token) or (self._coroutines is not None and self._coroutines.cancel(token))

    # -- the I/O loop ------------------------------------------------------------------------------------------

    def _io_thread(self) -> None:
        block_in_this_thread()
        try:
            run(self._main())
        except BaseException as error:
            self.failed = error
            logger.critical("The I/O loop of this child failed, it is replaced: %s", cause_of(error), exc_info=error)
        finally:
            # Looked at before the executor is told: what tells its threads is in its inbox.
            busy = self._busy()
            self.stopped.set()
            self.sync.stop()
            if self._abandon is not None and busy:
                self._abandon()

    async def _main(self) -> None:
        self._stop_requested = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        if self._stop_wanted:
            self._stop_requested.set()
        self.broker = self._open_broker()
        self.store = self._open_store()
        self.runner.meet(self.broker)
        if isinstance(self.broker, Timekeeper):
            self.runner.app.sender.now = self.broker.now  # for what tasks send with a countdown, and for retries
        self.services = services = Services(
            self.broker,
            self.store,
            self.runner,
            self.options,
            sync=self.sync,
            coroutines=self._start_coroutines,
            rules=self.rules,
            word=self._word,
        )
        self.completer, self.fetcher = services.completer, services.fetcher
        limit = patience(self.fetcher.wait, self.app.conf)
        watchdog = Watchdog(self.broker, lambda: self.fetcher.asked, services.clock, limit=limit)
        try:
            if self._connecting is not None:
                self._connecting()
            if await self._may_begin():
                async with asyncio.TaskGroup() as group:
                    extras = [group.create_task(extra(self)) for extra in self._extras]
                    await self._be_greeted()
                    work = [self.completer.run(), self.fetcher.run(), services.leases.run()]
                    work += [services.tick(self._pulse, self._watch), watchdog.run()]
                    work += [self.departure.run()] if self._orders is not None else []
                    running = [*(group.create_task(each) for each in work), *extras]
                    if self._ready is not None:
                        self._ready()
                    self.departure.begin()
                    await self._stop_requested.wait()
                    await self._shut_down(running[1])
                    for task in running:
                        task.cancel()
        finally:
            self.runner.app.sender.now = time.time
            await self.broker.close()
            if self.store is not None:
                await self.store.close()

    async def _may_begin(self) -> bool:
        """The servers have answered, and the predecessor has left."""
        beating = asyncio.ensure_future(self._beat())
        try:
            if self._orders is not None:
                await self._orders.listen()
            servers, queues = (self.broker, self.store), self.options.queues
            there = await connected(*servers, queues, self._stop_requested, word=self._word)
            return there and (self._orders is None or await self._orders.may_begin(self._stop_requested))
        finally:
            beating.cancel()

    async def _be_greeted(self) -> None:
        """Wait for the agent's orders, as the first claim is to obey them. An agent that is away or hangs keeps nobody
        from working: the orders are obeyed when it comes."""
        if self._greeted is not None:
            waiting = [asyncio.ensure_future(each.wait()) for each in (self._greeted, self._stop_requested)]
            try:
                await asyncio.wait(waiting, timeout=_GREETING, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waiting:
                    each.cancel()

    async def _beat(self) -> None:
        """The pulse of a child that does not claim yet."""
        while self.slot is not None:
            self.slot.pulse(time.monotonic(), 0)
            await asyncio.sleep(IDLE_TICK)

    async def _shut_down(self, fetching: asyncio.Task[None]) -> None:
        """See ``Services.shut_down`` for the order."""
        await self.services.shut_down(
            fetching,
            busy=self._busy,
            drain=self._drain,
            left=lambda: self._deadline - time.monotonic(),
            meanwhile=self.departure.watcher(self.sync),
        )
        self._flush_events()
        self._pulse(time.monotonic())

    def _pulse(self, now: float) -> None:
        """Leave a sign of life in the slot."""
        if self.slot is not None:
            self.slot.pulse(now, self.runner.count, len(self.fetcher.held), self.fetcher.connected)

    def _busy(self) -> bool:
        executors: list[Executor] = [self.sync, *([self._coroutines] if self._coroutines else [])]
        return bool(self._outbox) or any(executor.active() or executor.waiting() for executor in executors)

    def _watch(self, now: float) -> None:
        """Limits that no signal and no other process enforces."""
        self._end_overdue(now)

    def _end_overdue(self, now: float) -> None:
        """Hard limits that only the end of the process keeps: of threads, and of coroutines whose loop is blocked. The
        overdue one has failed, the others go back uncounted, and the child is replaced where there is a supervisor.

        The supervisor ends the process of any other itself; but of one that was acknowledged early nobody would have
        the message then, so its end is written here, a moment before."""
        threads = self.options.pool == "threads"
        if threads or (self.slot is not None and self.completer.early):
            for delivery, started in self.sync.active():
                if threads or delivery.token in self.completer.early:
                    self._end_if_overdue(delivery, started, now, leaves=threads)
        if self._coroutines is not None:
            # Their bodies alone: what a payload store needs, before and after, is not theirs.
            timed = dict(self.runner.timed)
            for delivery, _ in self._coroutines.active():
                if delivery.token in timed:
                    started = timed[delivery.token] + _BLOCKED
                    self._end_if_overdue(delivery, started, now, leaves=self._orders is not None)

    def _end_if_overdue(self, delivery: Delivery, started: float, now: float, *, leaves: bool) -> None:
        limit, held = self.runner.hard_limit(delivery), delivery.token in self.fetcher.held
        if limit is None or now <= started + limit or not held or self.services.is_ended(delivery):
            return
        self.services.end(delivery, TimedOut(limit))
        if leaves:
            self.exit_reason = f"a task ran longer than its time limit of {limit:g} s"
            self.stop(grace=0.0)

    def _start_coroutines(self) -> Executor:
        if self._coroutines is None:
            limit = self.options.async_concurrency
            self._coroutines = CoroutinesExecutor(self.runner.arun, self._done, limit, new_loop=new_loop())
        return self._coroutines

    def _drain_soon(self) -> None:
        """Drain at once; but where many run at a time and more wait, when some have gathered: each turn of this loop
        takes the interpreter from the tasks."""
        gathered = len(self._outbox)
        if self.fetcher.backlog and gathered < _FEW and len(self.fetcher.held) > 2 * _FEW:
            assert self.loop is not None
            self.loop.call_later(_GATHER, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        """Pass finished work on."""
        with self._outbox_lock:
            batch, self._outbox = self._outbox, []
            self._notified = False
        self.services.take(batch)

    # -- events ------------------------------------------------------------------------------------------------

    def _flush_events_soon(self) -> None:
        assert self.loop is not None
        self.loop.call_later(0.1, self._flush_events)

    def _flush_events(self) -> None:
        self._flushing = False
        events, self._events = self._events, []
        if events and self.loop is not None:
            self._sending = self.loop.create_task(self._send_events(events))

    async def _send_events(self, events: list[dict[str, Any]]) -> None:
        from celeriac.worker.events import send

        await send(self.broker, self.options.hostname, "task.multi", events)


def cause_of(error: BaseException) -> str:
    """The first of a group, on one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())
