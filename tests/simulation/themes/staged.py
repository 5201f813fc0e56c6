"""Sends that are all or none, however many messages they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from celeriac import states
from tests.simulation.themes.theme import Theme, Work
from tests.simulation.workload import Sent

if TYPE_CHECKING:
    from tests.simulation.journal import Journal
    from tests.simulation.workload import Workload

__all__ = ["Staged"]


class Staged(Theme):
    """See the module."""

    def __init__(self, world: Any, work: Workload, journal: Journal) -> None:
        super().__init__(world, work, journal)
        self._sends: list[list[str]] = []

    def kinds(self) -> Sequence[tuple[int, Work]]:
        return ((6, self._together),)

    def _together(self) -> Sequence[Sent]:
        app, random = self.world.app, self.random
        count, chunk = random.randint(1, 9), random.randint(1, 3)
        ids = [f"staged-{len(self._sends)}-{number}" for number in range(count)]
        self._sends.append(ids)
        signatures = [
            app.tasks["sim.tracked"].s(number).set(task_id=task_id, countdown=random.choice((None, 1.0)))
            for number, task_id in enumerate(ids)
        ]
        results = app.send_many(signatures, chunk=chunk, together=True)

        def check(result: Any) -> str:
            return "" if result.state in self.work.ends({states.SUCCESS}) else f"{result.state} ({result.result!r})"

        return [Sent(f"one of {count} sent together", result, check) for result in results]

    def problems(self) -> Sequence[str]:
        published = {key[0] for key in self.journal.published}
        halves = [ids for ids in self._sends if 0 < len(published.intersection(ids)) < len(ids)]
        return [f"of {len(ids)} sent together {len(published.intersection(ids))} were published" for ids in halves]
