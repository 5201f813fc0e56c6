"""A fleet of workers on the memory broker that a dealer of random numbers drives, one step at a time.

The worker's own parts (fetcher, runner, completer, joiner, the agent's burial and sweep) run here in turns, without
threads, on a clock that stands still until it is moved. Any call to a server may be the last thing a worker does: it
dies before it or after it. Deliveries may outlive the lease of a living worker, who then works for nothing.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from celeriac import Celery
from celeriac.brokers import memory
from celeriac.exceptions import Ignore
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Completion, Verdict
from celeriac.ports import AdapterOptions
from celeriac.testing.clock import VirtualClock
from celeriac.worker.completer import Completer
from celeriac.worker.fetcher import Fetcher
from celeriac.worker.limits import Limits
from celeriac.worker.options import NodeOptions
from celeriac.worker.report import Report
from celeriac.worker.rules import RuleBook
from celeriac.worker.runner import Runner

__all__ = ["Died", "Simulation", "make_app"]

LEASE = 30.0
#: Steps after which a workflow that has not come to rest is stuck.
STEPS = 20_000
_numbers = itertools.count(1)


class Died(BaseException):
    """A worker dies here."""


def make_app(name: str, *, apart: bool) -> Celery:
    """An app with the tasks of `trees.py`; `apart`: messages and results are on two servers."""
    broker = f"memory://{name}"
    backend = f"memory://{name}-results" if apart else broker
    app = Celery(
        name,
        broker=broker,
        backend=backend,
        set_as_current=False,
        worker_max_crashes=1_000_000,
        worker_max_expired_leases=1_000_000,
    )

    def ordered(args: tuple[Any, ...]) -> list[Any]:
        # The argument from the step before is in front of the number, when there is one.
        *before, number = args
        return [number, *before]

    for kind in ("plain", "immutable", "expired"):
        app.task(lambda *args: ordered(args), name=f"sim.{kind}", shared=False)

    @app.task(name="sim.twice", bind=True, max_retries=3, shared=False)
    def twice(self: Any, *args: Any) -> Any:
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return ordered(args)

    @app.task(name="sim.replaced", bind=True, shared=False)
    def replaced(self: Any, *args: Any) -> Any:
        first = app.signature("sim.plain", args)
        return self.replace(first | app.signature("sim.plain", (-1,)))

    @app.task(name="sim.spread", bind=True, shared=False)
    def spread(self: Any, *args: Any) -> Any:
        value = ordered(args)
        from celeriac import group

        members = [app.signature("sim.plain", (value, number), immutable=True) for number in (1, 2)]
        return self.replace(group(members))

    @app.task(name="sim.raises", shared=False)
    def raises(*args: Any) -> None:
        raise ValueError(*args[-1:])

    @app.task(name="sim.ignores", shared=False)
    def ignores(*args: Any) -> None:
        raise Ignore

    return app


class _Slot:
    """The executor: one place to run, filled and emptied by the simulation."""

    limit = 1

    def __init__(self) -> None:
        self.inbox: list[Delivery] = []

    def feed(self, batch: Sequence[Delivery]) -> None:
        self.inbox.extend(batch)

    def recall(self) -> list[Delivery]:
        taken, self.inbox = self.inbox, []
        return taken

    def active(self) -> list[Any]:
        return []

    def waiting(self) -> int:
        return len(self.inbox)


class _Wire:
    """An adapter whose calls may be the last of their worker."""

    def __init__(self, adapter: Any, die: Callable[[], None], wrote: Callable[[str, Any, Any], None]) -> None:
        self._adapter = adapter
        self.traits = adapter.traits
        for name in _CALLS:
            if hasattr(adapter, name):
                setattr(self, name, self._call(name, die, wrote))

    def _call(self, name: str, die: Callable[[], None], wrote: Callable[[str, Any, Any], None]) -> Any:
        real = getattr(self._adapter, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            die()
            answer = await real(*args, **kwargs)
            wrote(name, args, answer)
            die()
            return answer

        return call


_CALLS = (
    "claim", "settle", "finish", "extend", "orphans", "publish", "put", "get", "open_chords", "join", "gather",
    "close_chord", "grow_chord", "overdue",
)  # fmt: skip


class _Worker:
    """One child, taken apart."""

    def __init__(self, simulation: Simulation, mortal: bool = True) -> None:
        self.owner = f"w{next(_numbers)}"
        self.slot = _Slot()
        self.finished: list[Completion] = []
        options = AdapterOptions(owner=self.owner, lease=LEASE)
        app, die = simulation.app, (simulation.perhaps_die if mortal else lambda: None)
        broker, store = memory.broker(app.broker_url, options), memory.store(str(app.backend_url), options)
        drive(broker.open())
        drive(store.open())
        self.broker: Any = _Wire(broker, die, simulation.wrote)
        self.store: Any = _Wire(store, die, simulation.wrote)
        node = NodeOptions(hostname=f"{self.owner}@sim", queues=("celery",), park=0.0)
        self.runner = Runner(app, node, slot=None, report=Report(), results=True)
        rand = simulation.random.random
        self.completer = Completer(
            self.broker, self.store, self._settled, rand=rand, join=self.runner.joiner.conclude, aside=_here
        )
        self.fetcher = Fetcher(
            self.broker,
            self.store,
            self.runner,
            node,
            sync=self.slot,  # type: ignore[arg-type]
            coroutines=lambda: self.slot,  # type: ignore[arg-type,return-value]
            conclude=lambda completions: self.finished.extend(completions),
            early=self.completer.early,
            limits=Limits(self.broker, self.runner),
            rules=RuleBook(),
            claimed=lambda began: None,
            rand=rand,
        )

    def _settled(self, deliveries: Sequence[Delivery]) -> None:
        for each in deliveries:
            self.fetcher.held.pop(each.token, None)


async def _here(work: Callable[..., Any], *args: Any) -> Any:
    return work(*args)


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """The answer of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits, and nothing would wake it")


class Simulation:
    """`run()` until all is done; `deadly` is the chance that a call to a server kills its worker."""

    def __init__(self, rand: random.Random, *, apart: bool = False, deadly: float = 0.02, workers: int = 2) -> None:
        self.random = rand
        self.apart = apart
        #: 0: nobody dies and no time passes, so nothing is given back or swept either: all must end by itself.
        self.deadly = deadly
        name = f"sim-{next(_numbers)}"
        self.app = make_app(name, apart=apart)
        self.clock = VirtualClock(time.time())
        self._urls = dict.fromkeys((self.app.broker_url, str(self.app.backend_url)))
        for url in self._urls:
            memory.server(url, self.clock)
        #: (id, retries, nesting) -> times that it was published by workers.
        self.published: Counter[tuple[str, int, int]] = Counter()
        self.deaths = 0
        self.immortal = False
        self._nothing_came = False
        self.agent = _Worker(self, mortal=False)
        self.workers = [_Worker(self) for _ in range(workers)]

    # -- what the wires tell

    def perhaps_die(self) -> None:
        if not self.immortal and self.random.random() < self.deadly:
            raise Died

    def wrote(self, name: str, args: Any, answer: Any) -> None:
        """Count what workers publish."""
        messages: list[Message] = []
        if name == "finish":
            for completion, verdict in zip(args[0], answer, strict=True):
                if verdict in (Verdict.DONE, Verdict.COMPLETES):
                    messages += completion.publish
        elif name == "publish":
            messages += args[0]
        for message in messages:
            nesting = message.headers.get("replaced_task_nesting") or 0
            self.published[message.id, message.retries, nesting] += 1

    # -- steps

    def run(self) -> None:
        """Until every queue is empty, every lease is over and every chord is closed."""
        for _ in range(STEPS):
            self.random.choice(self._MOVES)(self)
            if self._nothing_came and self._is_at_rest():
                return
        raise AssertionError("it does not come to rest")

    def _claim(self) -> None:
        worker = self.random.choice(self.workers)
        if len(worker.fetcher.held) < 4:
            limit = self.random.randint(1, 4)
            self._alive(worker, lambda: self._claimed(worker, limit))

    def _claimed(self, worker: _Worker, limit: int) -> None:
        deliveries = drive(worker.broker.claim(["celery"], limit=limit, wait=0.0))
        self._nothing_came = not deliveries
        if deliveries:
            drive(worker.fetcher.admit(deliveries))

    def _work(self) -> None:
        worker = self.random.choice(self.workers)
        if worker.slot.inbox:
            delivery = worker.slot.inbox.pop(self.random.randrange(len(worker.slot.inbox)))
            worker.finished.append(worker.runner.run(delivery))  # type: ignore[arg-type]

    def _write(self) -> None:
        worker = self.random.choice(self.workers)
        if worker.finished:
            self.random.shuffle(worker.finished)
            cut = self.random.randint(1, len(worker.finished))
            batch, worker.finished = worker.finished[:cut], worker.finished[cut:]
            self._alive(worker, lambda: drive(worker.completer.write(list(batch))))

    def _alive(self, worker: _Worker, step: Callable[[], Any]) -> None:
        """Take a step; who dies in it is replaced, and what it held goes back now or when its leases end."""
        try:
            step()
        except Died:
            self.deaths += 1
            self.workers[self.workers.index(worker)] = _Worker(self)
            if self.random.random() < 0.5:
                self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        orphans = drive(self.agent.broker.orphans(worker.owner))
        conclude = self.agent.runner.conclude
        self._as_agent([conclude(each, o.Unstarted(orphaned=True)) for each in orphans])

    def _as_agent(self, completions: list[Completion]) -> None:
        if completions:
            drive(self.agent.completer.write(list(completions)))

    def _time_passes(self) -> None:
        """Leases end, of the dead and of the living."""
        if self.deadly and self.random.random() < 0.2:
            self.clock._time += self.random.choice((1.0, 5.0, LEASE))
            drive(self.agent.broker._adapter.maintain())

    def _sweep(self) -> None:
        worker = self.random.choice(self.workers)
        self._alive(worker, lambda: self._swept(worker))

    def _swept(self, worker: _Worker) -> None:
        closer = worker.completer.closer
        assert closer is not None
        for chord in drive(worker.store.overdue(token=f"sweep-{next(_numbers)}")):
            drive(closer.close(drive(closer.send(chord)), token=chord.token))

    _MOVES: Any = (_claim, _claim, _work, _work, _work, _write, _write, _time_passes, _sweep)

    def _is_at_rest(self) -> bool:
        self._nothing_came = False
        if any(worker.fetcher.held or worker.finished for worker in self.workers):
            return False
        depth = drive(self.agent.broker._adapter.depth(["celery"]))["celery"]
        if depth.ready or depth.scheduled or depth.leased:
            return False
        return not self.open_chords()

    def open_chords(self) -> list[str]:
        """Chords that are to be closed.

        Others may be there until they expire: of a member that tells its end once more, long after its chord was closed
        and forgotten; and, with two servers, one whose sender died before its members were sent, and began anew.
        """
        chords = [pair for url in self._urls for pair in memory.server(url).chords._chords.items()]
        return [chord_id for chord_id, chord in chords if chord.is_complete()]

    def close(self) -> None:
        for url in self._urls:
            memory.drop(url)
        self.app.close()


logging.getLogger("celery").addHandler(logging.NullHandler())
