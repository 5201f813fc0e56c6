"""Unique tasks, idempotency keys, and steps that are not run again.

Of equal unique tasks one is on its way at a time; under one key one task is sent, whatever answers are lost; a step
that is recorded never runs again. When all is over no lock is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac import states
from celeriac.exceptions import TaskNotUnique
from celeriac.model.ledger import lock_of, replaced_key, waiting_id
from celeriac.model.message import Delivery, Message
from celeriac.testing.simulation.node import Child
from tests.simulation.tasks import work
from tests.simulation.themes.theme import Theme, Work
from tests.simulation.workload import Sent

if TYPE_CHECKING:
    from tests.simulation.journal import Journal
    from tests.simulation.workload import Workload

__all__ = ["Keys"]

_CONFLICTS = ("return", "replace", "raise")
_UNTIL = ("end", "start")


class Keys(Theme):
    """See the module."""

    def __init__(self, world: Any, work: Workload, journal: Journal) -> None:
        super().__init__(world, work, journal)
        #: Lock → ids of the tasks that were sent with it, and have neither ended nor been replaced.
        self._holders: dict[str, list[str]] = {}
        self._claimed: set[str] = set()
        #: Ids that were replaced before they were claimed.
        self._replaced: set[str] = set()
        #: Key → the ids that were returned for it, and those that were published.
        self._keys: dict[str, tuple[set[str], set[str]]] = {}
        self._steps = _Steps()
        world.app.steps_of_simulation = self._steps

    @staticmethod
    def prepare(app: Any) -> None:
        for conflict in _CONFLICTS:
            for until in _UNTIL:
                app.task(
                    _working, name=f"sim.unique_{conflict}_{until}", shared=False, unique="args", unique_until=until,
                    on_conflict=conflict, autoretry_for=(OSError,), max_retries=1, default_retry_delay=0.5, bind=True,
                )  # fmt: skip

        @app.task(name="sim.keyed", shared=False)
        def keyed(number: int, key: str) -> int:
            work(number)
            return number

        @app.task(name="sim.steps", bind=True, shared=False, autoretry_for=(Exception,), max_retries=None)
        def steps(self: Any, number: int) -> int:
            counts: _Steps = app.steps_of_simulation
            for name in ("first", "second"):
                if self.once(name, counts.run, (self.request.id, name)) != name:
                    raise AssertionError(f"the step {name} brought something else")
                counts.recorded.add((self.request.id, name))
                if self.request.retries < number % 3:
                    work(number)
                    raise self.retry(countdown=0.1)
            work(number)
            return number

    def kinds(self) -> Sequence[tuple[int, Work]]:
        return (10, self._unique), (4, self._keyed), (3, self._stepping)

    # -- work --------------------------------------------------------------------------------------------------

    def _unique(self) -> Sequence[Sent]:
        random = self.random
        name = f"sim.unique_{random.choice((*_CONFLICTS, 'replace'))}_{random.choice(_UNTIL)}"
        ends = {states.SUCCESS, states.REVOKED}
        try:
            return [self.work.call(name, random.choice((3, 3, 5)), ends, countdown=random.choice((None, 2.0)))]
        except TaskNotUnique:
            return ()

    def _keyed(self) -> Sequence[Sent]:
        key = f"key{self.random.randrange(3)}"
        result = self.world.app.tasks["sim.keyed"].apply_async(
            (self.random.randrange(6), key), idempotency_key=key, countdown=self.random.choice((None, 1.0))
        )
        self._keys.setdefault(key, (set(), set()))[0].add(result.id)

        def check(result: Any) -> str:
            return "" if result.state in self.work.ends({states.SUCCESS}) else f"{result.state} ({result.result!r})"

        return [Sent(f"sim.keyed({key})", result, check)]

    def _stepping(self) -> Sequence[Sent]:
        return [self.work.call("sim.steps", self.random.randrange(6), {states.SUCCESS})]

    # -- what must hold ----------------------------------------------------------------------------------------

    def tell(self, process: str, method: str, args: tuple[Any, ...], answer: Any) -> None:
        if method == "claim":
            self._claimed.update(delivery.message.id for delivery in answer)
        elif method == "publish" and process == "producer":
            for message in args[0]:
                self._published(message)

    def _published(self, message: Message) -> None:
        if message.task == "sim.keyed":
            key = message.headers["argsrepr"].split("'")[1]
            self._keys.setdefault(key, (set(), set()))[1].add(message.id)
        lock = lock_of(message)
        if lock is None:
            return
        others = [each for each in self._holders.get(lock.key, ()) if each != message.id]
        left = []
        for task_id in others:
            if self._is_replaced(task_id) or (self.apart and self._lost(lock.key, task_id)):
                if task_id not in self._claimed:
                    self._replaced.add(task_id)
            elif not (self._is_over(task_id) or (lock.until_start and task_id in self._claimed)):
                left.append(task_id)
        if left and not self.window:
            self.wrong(f"{message.task}[{message.id}] was sent while an equal one was on its way: {left}")
        self._holders[lock.key] = [*left, message.id]

    def _is_replaced(self, task_id: str) -> bool:
        server = self.world.ledger_server
        return server.ledger.read(replaced_key(task_id), server.clock.monotonic()) is not None

    def _lost(self, lock: str, task_id: str) -> bool:
        """Another one has taken its lock; that it is replaced is written when that one is sent."""
        server = self.world.ledger_server
        value = server.ledger.read(lock, server.clock.monotonic())
        return value is not None and waiting_id(value)[0] != task_id

    def _is_over(self, task_id: str) -> bool:
        results = self.world.store_server.results
        record = results.get(task_id, self.world.store_server.clock.monotonic())
        ended = record is not None and any(state.encode() in record[:64] for state in states.READY_STATES)
        return ended or self.journal.alive[task_id] <= 0

    def began(self, child: Child, delivery: Delivery) -> None:
        if delivery.message.id in self._replaced and not self.window:
            self.wrong(f"{delivery.message.task}[{delivery.message.id}] runs, though it was replaced before")

    def problems(self) -> Sequence[str]:
        found = [f"{step} ran {count} times after it was recorded" for step, count in self._steps.again.items()]
        for key, (returned, published) in self._keys.items():
            if (len(published) > 1 or not returned <= published) and not self.window:
                found.append(f"under {key} were sent {published} and returned {returned}")
        if self.window:
            return found
        values = self.world.ledger_server.ledger._values
        return [*found, *(f"the lock {key} is left: {values[key]}" for key in values if key.startswith("lock:"))]


class _Steps:
    """What the steps of tasks have done."""

    def __init__(self) -> None:
        self.recorded: set[tuple[str, str]] = set()
        self.again: dict[tuple[str, str], int] = {}

    def run(self, step: tuple[str, str]) -> str:
        if step in self.recorded:
            self.again[step] = self.again.get(step, 0) + 1
        return step[1]


def _working(self: Any, number: int) -> int:
    work(number)
    if number == 3 and self.request.retries == 0:
        raise OSError(number)
    return number
