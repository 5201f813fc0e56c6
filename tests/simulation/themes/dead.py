"""Dead letters that are sent again while all goes on, and tasks that die because their leases ran out too often.

What is sent again ends once more, however often a look or an answer is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac import states
from celeriac.app.dead import DeadLetterNotFound, DeadLetterRefused
from celeriac.exceptions import OperationalError
from celeriac.model.message import Delivery
from celeriac.testing.simulation.node import Child
from tests.simulation.themes.theme import Theme, Work
from tests.simulation.workload import Sent

__all__ = ["DeadLetters"]

#: Leases of one task that may run out.
_CAP = 2


class DeadLetters(Theme):
    """See the module."""

    _dropped = 0

    @staticmethod
    def prepare(app: Any) -> None:
        app.conf.worker_max_expired_leases = _CAP

    def kinds(self) -> Sequence[tuple[int, Work]]:
        return (4, self._replay), (1, self._replay_all), (1, self._drop), (2, self._failing), (2, self._long)

    def _failing(self) -> Sequence[Sent]:
        return [self.work.failing()]

    def _long(self) -> Sequence[Sent]:
        return [self.work.call("sim.tracked", 7, {states.SUCCESS}) for _ in range(2)]

    def _replay(self) -> Sequence[Sent]:
        letters = self.world.app.dead_letters
        found = letters.list(limit=20)
        if found:
            letter = self.random.choice(found)
            try:
                letters.retry(letter, countdown=self.random.choice((None, 2.0)))
            except OperationalError:
                self.work.half_open.add(self.journal.root(letter.id))
            except (DeadLetterNotFound, DeadLetterRefused):
                pass  # an earlier answer was lost; what is malformed stays there
        return ()

    def _replay_all(self) -> Sequence[Sent]:
        letters = self.world.app.dead_letters
        found = [letter.id for letter in letters.list(limit=20)]
        try:
            letters.retry_all(limit=5)
        except OperationalError:
            self.work.half_open.update(map(self.journal.root, found))
        return ()

    def _drop(self) -> Sequence[Sent]:
        letters = self.world.app.dead_letters
        found = letters.list(limit=20)
        if found:
            before = self._count()
            try:
                letters.drop(self.random.choice(found))
            finally:
                self._dropped += before - self._count()
        return ()

    def _count(self) -> int:
        return len(self.world.server.queues.dead.newest(1_000_000, None))

    def problems(self) -> Sequence[str]:
        journal, count = self.journal, self._count()
        if count == journal.died - journal.replayed - self._dropped:
            return ()
        said = f"{journal.died} tasks died, {journal.replayed} were sent again, {self._dropped} dropped"
        return [f"{said}, and there are {count} dead letters"]

    def began(self, child: Child, delivery: Delivery) -> None:
        if delivery.marks.expired_leases >= _CAP:
            self.wrong(f"{delivery.message.id} runs after {delivery.marks.expired_leases} of its leases ran out")
