"""A simulated node: the real services of children and agent, each on a loop of its own, and a supervisor's part.

What differs from a real node: processes are ``Process``, executors run bodies in steps, and the supervisor is a few
methods here: it tells the agent of children that died and replaces them after a while.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from celeriac.client import resolver
from celeriac.codec.signing import control_signer_of
from celeriac.executors import Executor
from celeriac.testing.simulation.executor import CoroutineExecutor, StepExecutor
from celeriac.testing.simulation.process import Process, ProcessClock, spawn
from celeriac.testing.simulation.weather import Line
from celeriac.worker.agent import Agent
from celeriac.worker.burial import Died
from celeriac.worker.connect import connected
from celeriac.worker.inside import answer
from celeriac.worker.options import NodeOptions
from celeriac.worker.remote import remote_services
from celeriac.worker.report import Report
from celeriac.worker.rules import RuleBook
from celeriac.worker.runner import Runner
from celeriac.worker.services import Services

if TYPE_CHECKING:
    from celeriac.model.message import Delivery
    from celeriac.testing.simulation.surroundings import Surroundings

__all__ = ["Child", "Node"]

#: Seconds until the supervisor has told of a dead process, and until it has started another.
NOTICE = 0.005
REPLACE = 0.1


class Servers:
    """The two connections of a process, through the weather."""

    def __init__(self, world: Surroundings, process: Process) -> None:
        self.broker: Any = world.broker_of(process)
        self.store: Any = None
        if world.store_url is not None:
            store = resolver.store(world.store_url, resolver.store_options(world.app.conf))
            self.store = Line(store, world.store_name, world.weather, process, world.tell)


class Child:
    """One child: what ``worker/child.py`` is to a real one."""

    def __init__(self, node: Node, process: Process) -> None:
        world = node.world
        self.node = node
        self.process = process
        #: No process of this machine has such a number.
        self.pid = -node.numbers
        #: Its main thread does not run tasks that nothing could end (``inside.py``).
        self.slot = True
        self.exit_reason = ""
        self.app = world.app
        self.options = node.options
        self.report = Report()
        self.rules = RuleBook(control_signer_of(world.app.conf))
        servers = Servers(world, process)
        self.broker = servers.broker
        rand = world.timeline.random.random
        self.runner = runner = Runner(
            world.app,
            node.options,
            slot=None,
            report=self.report,
            results=servers.store is not None,
            clock=process.clock,
            rand=rand,
        )
        runner.started = lambda record: self._done([record])
        runner.leave = self.stop
        self.sync = StepExecutor(
            process,
            runner.run,
            self._done,
            node.options.concurrency if node.options.pool == "threads" else 1,
            hard=runner.hard_limit,
            overdue=self._overdue,
            died=self._died,
        )
        self.coroutines: CoroutineExecutor | None = None
        self.services = Services(
            servers.broker,
            servers.store,
            runner,
            node.options,
            sync=self.sync,
            coroutines=self._coroutines,
            rules=self.rules,
            clock=process.clock,
            rand=rand,
        )
        self.fetcher, self.completer = self.services.fetcher, self.services.completer
        self._store = servers.store
        self._stop = asyncio.Event()
        #: Virtual time at which what still runs is given back; none before it is told to stop.
        self._deadline = math.inf
        self.sync.begun, self.sync.ran = self._begun, self._ran
        process.start(self._main())

    def _coroutines(self) -> CoroutineExecutor:
        if self.coroutines is None:
            limit = self.options.async_concurrency
            self.coroutines = CoroutineExecutor(self.process, self.runner.arun, self._done, limit, self._died)
            self.coroutines.begun, self.coroutines.ran = self._begun, self._ran
        return self.coroutines

    async def _main(self) -> None:
        clock, services = self.process.clock, self.services
        if await connected(self.broker, self._store, self.options.queues, self._stop, clock=clock, rand=lambda: 0.5):
            work = [self.completer.run(), self.fetcher.run(), services.leases.run()]
            work.append(services.tick(None, lambda now: None))
            running = [self.process.start(each) for each in work]
            await self._stop.wait()
            await services.shut_down(running[1], busy=self._busy, drain=lambda: None, left=self._left)
        self.node.left(self)

    def _busy(self) -> bool:
        executors: list[Executor] = [self.sync, *([self.coroutines] if self.coroutines else [])]
        return any(executor.active() or executor.waiting() for executor in executors)

    def stop(self, *, grace: float | None = None) -> None:
        """SIGTERM."""
        seconds = self.options.grace if grace is None else min(grace, self.options.grace)
        self._deadline = min(self._deadline, self.process.clock.monotonic() + seconds)
        self._stop.set()

    def _left(self) -> float:
        return self._deadline - self.process.clock.monotonic()

    def running(self) -> list[tuple[Delivery, float]]:
        """What runs now, with its start in monotonic seconds."""
        return self.sync.active() + (self.coroutines.active() if self.coroutines else [])

    def cancel(self, token: str) -> bool:
        """End a running task where its executor can."""
        return self.sync.cancel(token) or (self.coroutines is not None and self.coroutines.cancel(token))

    def _done(self, finished: Sequence[Any]) -> None:
        # From a task's thread to the loop: a step later.
        self.process.call_soon(self.services.take, list(finished))

    def _begun(self, delivery: Delivery) -> None:
        # What is fed after its lease became uncertain does not run.
        if self.process.clock.monotonic() < self.runner.valid_until:
            self.node.world.on_begun(self, delivery)

    def _ran(self, delivery: Delivery) -> None:
        self.node.world.on_ran(self, delivery)

    def _died(self, token: str) -> None:
        self.node.world.outside(lambda: self.node.child_died(self, "signal 9 (SIGKILL)", token))

    def _overdue(self, token: str, limit: float) -> None:
        self.node.world.outside(lambda: self.node.child_died(self, "its time limit", token, limit))


class Node:
    """Agent, children and their supervisor."""

    def __init__(self, world: Surroundings, options: NodeOptions, clock: ProcessClock) -> None:
        self.world = world
        self.options = options
        self.is_alive = True
        self.is_stopping = False
        self.children: list[Child] = []
        self.clock = clock
        #: Processes started so far.
        self.numbers = 0
        #: What children that start later must know.
        self._orders: dict[str, Mapping[str, Any]] = {}
        self.agent: Agent | None = None
        self._untold: list[Died] = []
        self.start_agent()
        for _ in range(1 if options.pool == "threads" else options.concurrency):
            self.start_child()

    # -- the supervisor ----------------------------------------------------------------------------------------

    def _process(self, kind: str) -> Process:
        self.numbers += 1
        # One machine: its processes share the wall clock and how fast it goes.
        return spawn(self.world.timeline, f"{self.options.hostname}-{kind}{self.numbers}", self.clock.twin())

    def start_child(self) -> None:
        """Fork another child."""
        if self.is_alive and not self.is_stopping:
            child = Child(self, self._process("child"))
            self.children.append(child)
            for method, arguments in self._orders.items():
                answer(child, method, arguments)  # type: ignore[arg-type]  # it has what is asked for

    def start_agent(self) -> None:
        """Fork the agent."""
        if not self.is_alive:
            return
        world, process = self.world, self._process("agent")
        servers, rand = Servers(world, process), world.timeline.random.random
        results = servers.store is not None
        report = Report()
        clock = process.clock
        runner = Runner(world.app, self.options, slot=None, report=report, results=results, clock=clock, rand=rand)
        self.agent = agent = Agent(
            world.app,
            self.options,
            runner,
            broker=servers.broker,
            store=servers.store,
            link=self,
            stop_node=self.stop,
            clock=clock,
            rand=rand,
            kill=self._kill,
        )
        agent.resume(self._orders)
        self.agent_process = process

        async def main() -> None:
            if await connected(servers.broker, servers.store, self.options.queues, asyncio.Event(), clock=clock):
                for service in (*agent.services(), *remote_services(agent)):
                    process.start(service())
                untold, self._untold = self._untold, []
                for died in untold:
                    process.start(agent.burial.bury(died))

        process.start(main())

    def child_died(self, child: Child, how: str, token: str | None = None, limit: float = 0.0) -> None:
        """A child is gone: kill what is left of it, tell the agent, start another. ``token``: what ran; None: as its
        slot says."""
        if not child.process.is_alive:
            return
        many = self.options.pool == "threads"
        running = child.running()
        if token is None and not many and len(running) == 1:
            token = running[0][0].token
        token = "" if many and not limit else token or ""
        culprit = child.fetcher.held.get(token)
        self.world.deaths += 1
        child.process.kill()
        self.children.remove(child)
        died = Died(
            owner=child.process.name,
            how=how,
            token=token,
            id=culprit.message.id if culprit is not None else "",
            limit=limit,
            many=many and not limit,
            tasks=child.runner.count,
        )
        supervisor = self.world.control
        supervisor.call_later(NOTICE, self._tell, died)
        supervisor.call_later(REPLACE, self.start_child)

    def _tell(self, died: Died) -> None:
        if not self.is_alive:
            return
        if self.agent is not None and self.agent_process.is_alive:
            self.agent_process.start(self.agent.burial.bury(died))
        else:
            self._untold.append(died)

    def agent_died(self) -> None:
        """The agent is gone: start another."""
        self.agent_process.kill()
        self.world.control.call_later(REPLACE, self.start_agent)

    def die(self) -> None:
        """The machine is off: nobody tells anybody."""
        self.is_alive = False
        for process in self.processes():
            process.kill()
        self.children.clear()
        self.world.nodes.remove(self)

    def processes(self) -> list[Process]:
        """Those that live."""
        return [process for process in (self.agent_process, *(c.process for c in self.children)) if process.is_alive]

    def stop(self) -> None:
        """SIGTERM: children finish what runs and leave, the agent follows."""
        self.is_stopping = True
        for child in self.children:
            child.stop()
        if not self.children:
            self._leave()

    def left(self, child: Child) -> None:
        """A child has ended by itself."""
        self.world.outside(lambda: self._left(child))

    def _left(self, child: Child) -> None:
        child.process.kill()
        if child.exit_reason:
            self.world.deaths += 1  # with all that it ran
        if child in self.children:
            self.children.remove(child)
        if self.is_stopping and not self.children:
            self._leave()
        elif not self.is_stopping:
            self.world.control.call_later(REPLACE, self.start_child)

    def _leave(self) -> None:
        if self.is_alive:
            self.die()

    # -- the agent's link --------------------------------------------------------------------------------------

    async def ask(self, method: str, arguments: Mapping[str, Any], *, timeout: float = 0.8) -> list[Any]:
        """See ``Link``."""
        able = [child for child in self.children if not child.process.is_paused]
        answers = [answer(child, method, arguments) for child in able]  # type: ignore[arg-type]
        if method == "obey":
            for child, tasks in zip(able, answers, strict=True):
                for task in tasks:
                    task["pid"] = child.pid
        return answers

    def _kill(self, pid: int, number: int) -> None:
        """A signal of the agent's to one of its children."""
        child = next((each for each in self.children if each.pid == pid), None)
        if child is None:
            raise ProcessLookupError
        if number == signal.SIGKILL:
            self.world.outside(partial(self.child_died, child, "signal 9 (SIGKILL)"))

    def keep(self, method: str, arguments: Mapping[str, Any]) -> None:
        """An order that children started later must obey as well."""
        self._orders[method] = arguments
