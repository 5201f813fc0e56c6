"""The ledger in memory: plain synchronous state, called under the server's lock. ``tick`` is monotonic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celeriac.model.ledger import ANY, Change, Lock

__all__ = ["LedgerTable"]


class LedgerTable:
    """All keys of one server."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        #: Value, and until when it is kept.
        self._values: dict[str, tuple[bytes, float | None]] = {}

    def read(self, key: str, tick: float) -> bytes | None:
        """What stands under a key."""
        found = self._values.get(key)
        if found is None:
            return None
        value, until = found
        return value if until is None or until > tick else None

    def allows(self, change: Change, tick: float) -> bool:
        """Whether the key holds what is expected."""
        return change.expected is ANY or self.read(change.key, tick) == change.expected

    def make(self, change: Change, tick: float) -> None:
        """Write a change that is allowed."""
        if change.value is None:
            self._values.pop(change.key, None)
        else:
            self._values[change.key] = change.value, None if change.expires is None else tick + change.expires

    def change(self, change: Change, tick: float) -> bool:
        """Make a change if it is allowed; says whether."""
        if not self.allows(change, tick):
            return False
        self.make(change, tick)
        return True

    def change_all(self, changes: Sequence[Change], tick: float) -> list[bytes | None] | None:
        """Make all changes, or none of them and say what stands under the keys."""
        if all(self.allows(change, tick) for change in changes):
            for change in changes:
                self.make(change, tick)
            return None
        return [self.read(change.key, tick) for change in changes]

    def free(self, locks: Iterable[Lock], tick: float) -> None:
        """Drop locks that their tasks still hold."""
        for lock in locks:
            for change in lock.ends():
                self.change(change, tick)

    def sweep(self, tick: float) -> None:
        """Forget what is over."""
        if self._values:
            for key in [key for key, (_, until) in self._values.items() if until is not None and until <= tick]:
                del self._values[key]
