"""The agent of a node: everything a node does besides tasks.

Heartbeats, remote control, maintenance of the broker (due, expired), and the deliveries of children that died. A
process of its own in a prefork or threads node, services on the child's loop where there is one process. It asks the
children through a ``Link`` and the supervisor through nothing but signals.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celeriac import __version__
from celeriac.clock import SYSTEM
from celeriac.codec.envelope import new_id
from celeriac.codec.escape import one_line
from celeriac.exceptions import OperationalError
from celeriac.model.autoscale import Bounds
from celeriac.model.backoff import Backoff
from celeriac.ports import Broker, Bus, Clock, ResultStore
from celeriac.worker.autoscale import Autoscale
from celeriac.worker.burial import Burial
from celeriac.worker.closer import Aside
from celeriac.worker.completer import Completer
from celeriac.worker.concluding import Concluder
from celeriac.worker.enforcer import Enforcer
from celeriac.worker.events import send
from celeriac.worker.guest import Guest
from celeriac.worker.lifelines import Lifelines
from celeriac.worker.limits import Limits
from celeriac.worker.link import Link
from celeriac.worker.memory import NodeMemory
from celeriac.worker.obituary import Obituary
from celeriac.worker.options import NodeOptions
from celeriac.worker.outage import About, Outage
from celeriac.worker.outbox import Relays
from celeriac.worker.payloads import PayloadDropper
from celeriac.worker.rules import from_wire
from celeriac.worker.runner import Runner
from celeriac.worker.verdicts import Verdicts
from celeriac.worker.watchdog import Watchdog, patience

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["Agent"]

logger = logging.getLogger("celery.worker")

#: Seconds between heartbeat events, between two sweeps of the result store, and between two looks after chords.
HEARTBEAT = 2.0
SWEEP = 300.0
CHORDS = 5.0
#: Most seconds between two rounds of maintenance where tasks wait for seats: a child may die before it wakes the next.
SEATS = 1.0
#: Seconds that the broker's answer to the maintenance may well take.
ANSWER = 10.0


class Agent:
    """Services of one node on one event loop; ``broker`` and ``store`` belong to its owner."""

    def __init__(
        self,
        app: Celery,
        options: NodeOptions,
        runner: Runner,
        *,
        broker: Broker,
        store: ResultStore | None,
        link: Link,
        stop_node: Callable[[], None],
        memory: NodeMemory | None = None,
        clock: Clock = SYSTEM,
        rand: Callable[[], float] = random.random,
        aside: Aside = asyncio.to_thread,
        kill: Callable[[int, int], None] | None = None,
        more: Sequence[Guest] = (),
        lifelines: Lifelines | None = None,
    ) -> None:
        """``memory`` is what it shares with a supervisor; None in a node of one process. ``kill(pid, signal number)``
        ends a child whose task is to be terminated (default: ``os.kill``)."""
        runner.meet(broker)
        self.app = app
        self.options = options
        self.runner = runner
        self.broker = broker
        self.store = store
        self.link = link
        self.stop_node = stop_node
        self.guests = more
        self.memory = memory
        self.clock = clock
        self._rand = rand
        self.started = clock.now()
        self.queues = list(options.queues)
        self.events = options.events
        self.limits = Limits(broker, runner, aside)
        self._payloads = PayloadDropper(runner.payloads, aside) if runner.payloads is not None else None
        self.completer = self._completing(aside)
        self.enforcer = self._enforcing(aside, kill)
        self.burial = Burial(
            broker,
            self.enforcer,
            Verdicts(broker, self.enforcer.book.signer, clock),
            Concluder(runner, self.completer.put, aside),
            Obituary(store, runner, self.completer.put),
            clock=clock,
            backoff=Backoff(rand=rand),
            cut=lifelines.cut if lifelines is not None else lambda owner: None,
        )
        self.relays = Relays.of(app)
        self._backoff = Outage(About.BROKER, rand=rand, word=memory.word if memory is not None else None)
        #: Since when the maintenance waits for an answer; 0: it does not.
        self._asked = 0.0
        #: The number of children, where they can be more or fewer.
        self.pool = self._scaling(memory) if memory is not None and options.pool == "prefork" else None
        self._sending: set[asyncio.Task[None]] = set()
        if runner.report.emit is None:  # the runner is the agent's own: nobody else tells what it concludes
            runner.report.events, runner.report.emit = options.events, self._emit

    def _completing(self, aside: Aside) -> Completer:
        return Completer(
            self.broker,
            self.store,
            self.limits.buried,
            rand=self._rand,
            join=self.runner.joiner.conclude,
            ended=self._payloads,
            aside=aside,
            clock=self.clock,
            word=self.memory.word if self.memory is not None else None,
        )

    def _enforcing(self, aside: Aside, kill: Callable[[int, int], None] | None) -> Enforcer:
        return Enforcer(
            self.broker,
            self.options,
            self.runner,
            self.link,
            queues=lambda: self.queues,
            conclude=self.completer.put,
            aside=aside,
            tell=self.tell,
            terminated=None if self.memory is None else self.memory.terminated,
            kill=kill,
            rand=self._rand,
            clock=self.clock,
        )

    def services(self) -> Sequence[Callable[[], Any]]:
        """The coroutine functions that make up the agent, but for remote control."""
        wanted: list[Callable[[], Any]] = [
            self.completer.run,
            self.maintain,
            self.sweep,
            self.chords,
            self.enforcer.run,
        ]
        if self.memory is not None:  # else the child watches over the same connection
            limit = patience(ANSWER, self.app.conf)
            wanted.append(Watchdog(self.broker, lambda: self._asked, self.clock, limit=limit).run)
        if self.relays is not None:
            wanted.append(self.relays.run)
        if self.pool is not None:
            wanted.append(self.pool.run)
        if isinstance(self.broker, Bus) and self.options.heartbeats:
            wanted.append(self.heartbeat)
        return [*wanted, *(guest.run for guest in self.guests)]

    def _scaling(self, memory: NodeMemory) -> Autoscale:
        options, bounds = self.options, None
        if options.autoscale is not None:
            most, fewest = options.autoscale
            bounds = Bounds(most=most, fewest=fewest, keepalive=options.autoscale_keepalive)
        return Autoscale(
            self.broker, memory, self.clock, bounds=bounds, queues=self._open_queues, buried=lambda: self.burial.tasks
        )

    def _open_queues(self) -> Sequence[str]:
        """Those that are not paused: what waits in a paused one waits for no child."""
        paused = self.enforcer.book.paused
        return [queue for queue in self.queues if queue not in paused]

    def resume(self, orders: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on where an agent ended before this one: ``orders`` are those that its children obey, by method."""
        runner = self.runner
        for name, rate in orders.get("rate_limit", {}).get("rates", {}).items():
            runner.limit_rate(name, rate)
        for name, (soft, hard) in orders.get("time_limit", {}).get("limits", {}).items():
            runner.set_limits(name, soft, hard)
        self.queues = list(orders.get("queues", {}).get("queues", self.queues))
        self.events = runner.report.events = bool(orders.get("events", {}).get("on", self.events))
        self.enforcer.book.hear(from_wire(orders.get("obey", {}).get("rules", ())))

    def unready(self) -> str:
        """Why this node cannot be relied on to run tasks now, or nothing."""
        if self._backoff.failures:
            return "its agent cannot reach the broker"
        return self.memory.unready() if self.memory is not None else ""

    # -- maintenance -------------------------------------------------------------------------------------------

    async def maintain(self) -> None:
        """Due → ready and expired → ready, on a timer, also when idle: every node does it, no lock decides who."""
        while True:
            try:
                self._asked = self.clock.monotonic()
                pause = await self.broker.maintain()
                self._backoff.over(logger, "The broker is back after %d failed tries")
            except OperationalError as error:
                pause = self._backoff.next()
                if self.memory is not None:  # else the child, on the same connection, says so
                    self._backoff.tell(logger, "Cannot reach the broker, next try in %.2f s: %s", pause, error)
            self._asked = 0.0
            await self.clock.sleep(max(0.01, min(pause, SEATS) if self.limits.seated else pause))

    async def sweep(self) -> None:
        """Drop expired results where the server does not do so itself, and payloads that nobody came for."""
        while True:
            await self.clock.sleep(SWEEP * (0.5 + self._rand()))
            if self._payloads is not None:
                await self._payloads.sweep()
            if self.store is not None:
                try:
                    await self.store.sweep()
                except OperationalError as error:
                    logger.debug("Cannot sweep expired results: %s", error)

    async def chords(self) -> None:
        """Send the bodies of complete chords whose last member was told by somebody who died then; every node does."""
        store, closer = self.store, self.completer.closer
        if store is None or closer is None:
            return
        while True:
            await self.clock.sleep(CHORDS * (0.5 + self._rand()))
            try:
                for chord in await store.overdue(token=new_id()):
                    logger.warning("Chord %s was complete and nobody sent its body: sending it", one_line(chord.chord))
                    await closer.close(await closer.send(chord), token=chord.token)
            except OperationalError as error:
                logger.debug("Cannot look after chords: %s", error)

    def _emit(self, kind: str, fields: dict[str, Any]) -> None:
        event = {**fields, "type": kind, "timestamp": self.clock.now()}
        sending = asyncio.create_task(send(self.broker, self.options.hostname, "task.multi", [event]))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    # -- heartbeats --------------------------------------------------------------------------------------------

    async def heartbeat(self) -> None:
        """``worker-online``, ``worker-heartbeat`` every two seconds, ``worker-offline``."""
        try:
            await self._beat("online")
            while True:
                await self.clock.sleep(HEARTBEAT)
                await self._beat("heartbeat")
        finally:
            await self._beat("offline")

    async def _beat(self, kind: str) -> None:
        answers = await self.link.ask("stats", {}) if self.events else []
        event = {
            "type": f"worker-{kind}",
            "freq": HEARTBEAT,
            "active": sum(answer["held"] for answer in answers),
            "processed": self.burial.tasks + sum(answer["count"] for answer in answers),
            "loadavg": list(os.getloadavg()),
            "sw_ident": "celeriac",
            "sw_ver": __version__,
            "sw_sys": "Linux",
        }
        await send(self.broker, self.options.hostname, f"worker.{kind}", event)

    def tell(self, method: str, arguments: Mapping[str, Any]) -> None:
        """An order that children of later obey too."""
        keep = getattr(self.link, "keep", None)
        if keep is not None:
            keep(method, arguments)
