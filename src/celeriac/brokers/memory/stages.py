"""Messages put aside by producers that have not sent all of them yet. Plain state, called under the server's lock."""

from __future__ import annotations

from typing import TypeVar

from celeriac.ports import STAGE_EXPIRES

__all__ = ["Stages"]

T = TypeVar("T")


class Stages(dict[str, tuple[float, list[T]]]):
    """Name → when it is forgotten (monotonic seconds), and what lies there."""

    def put(self, name: str, items: list[T], tick: float) -> None:
        """Behind what is there."""
        self.forget_old(tick)
        _, there = self.get(name, (0.0, []))
        self[name] = (tick + STAGE_EXPIRES, there + items)

    def take(self, name: str, count: int, tick: float) -> list[T] | None:
        """All of a stage, which is gone then; None when there are not so many."""
        self.forget_old(tick)
        _, there = self.get(name, (0.0, []))
        if len(there) != count:
            return None
        self.pop(name, None)
        return there

    def forget_old(self, tick: float) -> None:
        """Drop the stages of producers that died."""
        for name in [name for name, (until, _) in self.items() if until <= tick]:
            del self[name]
