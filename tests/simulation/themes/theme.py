"""What a theme is: the base of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.model.message import Delivery
from celeriac.testing.simulation.node import Child
from celeriac.testing.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.journal import Journal
    from tests.simulation.workload import Sent, Workload

__all__ = ["Theme", "Work"]

#: Sends something, or does something else; returns what is to be looked at in the end.
Work = Callable[[], "Sequence[Sent]"]


#: Faults that end or hold up whole processes of workers, and nothing else.
_NOTHING_BETWEEN = frozenset({"child kills", "step kills", "node kills", "agent kills", "deploys"})


class Theme:
    """One feature in one world. Hears all that the journal hears."""

    def __init__(self, world: World, work: Workload, journal: Journal) -> None:
        self.world = world
        self.work = work
        self.journal = journal
        self.random = work.random

    @staticmethod
    def prepare(app: Any) -> None:
        """Tasks and settings."""

    def kinds(self) -> Sequence[tuple[int, Work]]:
        """What to do, and how often in proportion to everything else."""
        return ()

    def tell(self, process: str, method: str, args: tuple[Any, ...], answer: Any) -> None:
        """A call had its effect on a server."""

    def began(self, child: Child, delivery: Delivery) -> None:
        """A body begins."""

    def heal(self) -> None:
        """All faults are over: undo what would be in the way of an end."""

    def problems(self) -> Sequence[str]:
        """What is wrong when all is over."""
        return ()

    # -- for those of this kind --------------------------------------------------------------------------------

    def wrong(self, text: str) -> None:
        """Something that must not happen has happened."""
        self.journal.wrong.append(text)

    @property
    def apart(self) -> bool:
        """The ledger is on a server of its own."""
        return self.world.ledger_server is not self.world.server

    @property
    def window(self) -> bool:
        """The ledger is on a server of its own, and what happens may come between the steps on the two."""
        return self.apart and not self.work.faults <= _NOTHING_BETWEEN

    @property
    def now(self) -> float:
        """Seconds of virtual time."""
        return self.world.timeline.time

    def later(self, seconds: float, action: Callable[[], Any]) -> None:
        """The producer does it after so long, if it can reach the broker then."""
        self.work.later(seconds, action)
