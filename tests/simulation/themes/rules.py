"""Revoked tasks and paused queues.

Whoever revokes a task before it was first claimed has its word: it never runs, and ends REVOKED. What is claimed from a
queue after it was paused does not start until it is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac import group, states
from celeriac.model.message import Delivery, Malformed
from celeriac.model.rules import PAUSE, REVOKE, decode_order
from celeriac.testing.simulation.node import Child
from tests.simulation.themes.theme import Theme, Work
from tests.simulation.workload import Sent

if TYPE_CHECKING:
    from tests.simulation.journal import Journal
    from tests.simulation.workload import Workload

__all__ = ["Rules"]

_QUEUE = "celery"
#: Seconds within which an order reaches what waits, runs or was claimed, when nothing is in its way.
_SOON = 3.0
#: The number of a body that takes long, and how long.
_LONG, _TAKES = 7, 7.0


class Rules(Theme):
    """See the module."""

    def __init__(self, world: Any, work: Workload, journal: Journal) -> None:
        super().__init__(world, work, journal)
        self._moment = 0
        self._claimed: set[str] = set()
        #: Token → the moment of its claim.
        self._claims: dict[str, int] = {}
        #: The moment, and the time, at which the queue was paused; None: it is not.
        self._paused: tuple[int, float] | None = None
        #: Ids that must never run → when that was said.
        self.never: dict[str, float] = {}
        #: Ids of running tasks that must be ended.
        self.ended: set[str] = set()
        self._began: dict[str, float] = {}

    def kinds(self) -> Sequence[tuple[int, Work]]:
        return (6, self._revoke), (3, self._terminate), (2, self._revoke_group), (3, self._pause)

    # -- work --------------------------------------------------------------------------------------------------

    def _sent(self, name: str, number: int, **options: Any) -> Sent:
        sent = self.work.call(name, number, {states.REVOKED, states.SUCCESS}, **options)
        task_id = sent.result.id

        def check(result: Any) -> str:
            if task_id in self.never and result.state != states.REVOKED:
                return f"{result.state}, though it was revoked before it was claimed"
            if task_id in self.ended and result.state != states.REVOKED:
                return f"{result.state}, though it was to be terminated"
            return sent.problem()

        return Sent(sent.what, sent.result, check)

    def _revoke(self) -> Sequence[Sent]:
        random = self.random
        ahead = random.choice((None, None, 2.0, 3600.0))
        sent = self._sent(random.choice(("sim.tracked", "sim.coroutine")), random.randrange(16), countdown=ahead)
        result, terminate = sent.result, random.random() < 0.3
        self.later(random.choice((0.0, 0.0, 0.01, 3.0)), lambda: result.revoke(terminate=terminate))
        return [sent]

    def _terminate(self) -> Sequence[Sent]:
        sent = self._sent(self.random.choice(("sim.tracked", "sim.coroutine")), _LONG)
        result = sent.result
        self.later(self.random.uniform(0, 5), lambda: result.revoke(terminate=True))
        return [sent]

    def _revoke_group(self) -> Sequence[Sent]:
        numbers = [self.random.randrange(16) for _ in range(3)]
        tasks = self.world.app.tasks
        ahead = self.random.choice((0, 2))
        result = group([tasks["sim.tracked"].s(number) for number in numbers]).apply_async(countdown=ahead)
        self.later(self.random.choice((0.0, 0.5)), result.revoke)

        def check(member: Any) -> str:
            if member.id in self.never and member.state != states.REVOKED:
                return f"{member.state}, though its group was revoked before it was claimed"
            return "" if member.state in self.work.ends({states.REVOKED, states.SUCCESS}) else member.state

        return [Sent(f"member of a revoked group {member.id}", member, check) for member in result.results]

    def _pause(self) -> Sequence[Sent]:
        control = self.world.app.control
        control.pause_queue(_QUEUE)
        self.later(self.random.uniform(0.01, 8), lambda: control.resume_queue(_QUEUE))
        return ()

    def heal(self) -> None:
        if self._paused is not None:
            self.world.app.control.resume_queue(_QUEUE)

    # -- what must hold ----------------------------------------------------------------------------------------

    def tell(self, process: str, method: str, args: tuple[Any, ...], answer: Any) -> None:
        self._moment += 1
        if method == "claim":
            for delivery in answer:
                self._claimed.add(delivery.message.id)
                self._claims[delivery.token] = self._moment
        elif method == "set_rules":
            for change in args[0]:
                self._rule(change)

    def _rule(self, change: Any) -> None:
        if change.key == PAUSE + _QUEUE:
            self._paused = None if change.value is None else self._paused or (self._moment, self.now)
        elif change.key.startswith(REVOKE):
            task_id = change.key.removeprefix(REVOKE)
            if task_id not in self._claimed:
                self.never.setdefault(task_id, self.now)
            elif self.work.calm and decode_order(change.value).terminate and task_id in self._began:
                left = self._began[task_id] + _TAKES - self.now
                if left > _SOON:
                    self.ended.add(task_id)

    def began(self, child: Child, delivery: Delivery) -> None:
        message = delivery.message
        if isinstance(message, Malformed):
            return
        if message.id in self.never:
            self.wrong(f"{message.task}[{message.id}] ran, though it was revoked before it was claimed")
        if _lasts(delivery):
            self._began.setdefault(message.id, self.now)
        if self._paused is not None and delivery.queue == _QUEUE:
            moment, time = self._paused
            if self._claims.get(delivery.token, 0) > moment:
                self.wrong(f"{message.task}[{message.id}] started, and was claimed after its queue was paused")
            if self.work.calm and self.now - time > _SOON:
                self.wrong(f"{message.task}[{message.id}] started {self.now - time:.1f} s after its queue was paused")

    def problems(self) -> Sequence[str]:
        if not self.work.calm or self.apart:  # queues that nobody can look into
            return ()
        late = []
        for task_id, told in self.never.items():
            over = self.journal.ended_at.get(task_id)
            if over is not None and over - told > _SOON:
                late.append(f"{task_id} was revoked while it waited, and ended {over - told:.1f} s later")
        return late


def _lasts(delivery: Delivery) -> bool:
    message = delivery.message
    return not isinstance(message, Malformed) and message.headers.get("argsrepr") == f"({_LONG},)"
