"""Dead letters in memory: plain synchronous state, called under the server's lock. Times are epoch seconds."""

from __future__ import annotations

from itertools import islice

from celeriac.model.dead import ALL, DeadFilter, DeadPage, DeadRecord

__all__ = ["Dead"]

#: Most letters that one page looks at.
_SCAN = 1000


class Dead:
    """The dead letters of one server."""

    __slots__ = ("_last", "_letters", "_size")

    def __init__(self) -> None:
        #: By number, the newest last, with the moment it was written.
        self._letters: dict[int, tuple[float, DeadRecord]] = {}
        self._last = 0
        self._size = 0

    def new_key(self) -> str:
        """The key of the next letter."""
        return str(self._last + 1)

    def bury(self, record: DeadRecord, now: float) -> None:
        """Add a letter, which has the ``new_key``."""
        self._last += 1
        self._letters[self._last] = (now, record)
        self._size += _bytes(record)

    def trim(self, *, now: float, expires: float, limit: int, max_bytes: int) -> int:
        """Drop letters that are too old, too many or too large, the oldest first; returns how many of them were not too
        old."""
        surplus = 0
        for number, (at, _) in list(self._letters.items()):
            old = at + expires <= now
            if not old and len(self._letters) <= limit and self._size <= max_bytes:
                break
            surplus += not old
            self.remove(str(number))
        return surplus

    def oldest(self) -> float | None:
        """When the oldest letter was written."""
        return next((at for at, _ in self._letters.values()), None)

    def count(self, queue: str) -> int:
        """Letters of a queue."""
        return sum(record.queue == queue for _, record in self._letters.values())

    def newest(self, limit: int, queue: str | None) -> list[DeadRecord]:
        """The newest letters first."""
        wanted = ALL if queue is None else DeadFilter(queue=queue)
        records = (record for _, record in reversed(self._letters.values()))
        return list(islice(filter(wanted.matches, records), limit))

    def page(self, wanted: DeadFilter, limit: int, after: str) -> DeadPage:
        """See ``DeadLetters.page``."""
        numbers = [number for number in reversed(self._letters) if not after or number < int(after)]
        found: list[DeadRecord] = []
        for number in numbers[:_SCAN]:
            record = self._letters[number][1]
            if wanted.matches(record):
                found.append(record)
            if len(found) == limit or number == numbers[min(_SCAN, len(numbers)) - 1]:
                return DeadPage(records=tuple(found), after="" if number == numbers[-1] else str(number))
        return DeadPage(records=(), after="")

    def get(self, key: str) -> DeadRecord | None:
        """The letter of a key."""
        found = self._letters.get(_number(key))
        return None if found is None else found[1]

    def remove(self, key: str) -> bool:
        """Forget a letter; whether it was there."""
        found = self._letters.pop(_number(key), None)
        if found is None:
            return False
        self._size -= _bytes(found[1])
        return True


def _number(key: str) -> int:
    return int(key) if key.isascii() and key.isdigit() else 0


def _bytes(record: DeadRecord) -> int:
    return len(record.raw) + len(record.traceback)
