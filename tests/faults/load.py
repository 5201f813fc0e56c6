"""A producer that sends small tasks at a steady rate from a thread of its own, and remembers what it was told.

with Load(place, rng, rate=100) as load:
    ...                       # the fault
place.wait_all(fleet, list(load.numbers), 20.0)
"""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Self

from celeriac.exceptions import OperationalError
from tests.faults.place import Place
from tests.servers import wait_until

__all__ = ["Load"]


class Load:
    """Sends ``work`` of ``milliseconds`` (from, to) so often a second until the block ends."""

    def __init__(
        self, place: Place, rng: random.Random, *, rate: float = 50.0, milliseconds: tuple[float, float] = (5, 15)
    ) -> None:
        self.place = place
        #: What was accepted: id → its result, id → when it was sent.
        self.numbers: dict[str, int] = {}
        self.sent: dict[str, float] = {}
        #: Sends that raised, and those of them after which the task may have been stored all the same.
        self.refused = 0
        self.uncertain = 0
        self.errors: set[str] = set()
        #: Seconds of the slowest send.
        self.slowest = 0.0
        self._rng = rng
        self._rate = rate
        self._milliseconds = milliseconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def until(self, count: int, seconds: float = 10.0) -> None:
        """Wait until so many more were accepted."""
        wanted = len(self.numbers) + count
        wait_until(lambda: len(self.numbers) >= wanted, seconds, lambda: f"{wanted} accepted: {self.errors}")

    def _run(self) -> None:
        number = 0
        began = time.monotonic()
        while not self._over.wait(max(0.0, began + number / self._rate - time.monotonic())):
            number += 1
            at = time.time()
            try:
                name = self.place.send("work", number, self._rng.uniform(*self._milliseconds))
            except OperationalError as error:
                self.refused += 1
                self.uncertain += error.uncertain
                self.errors.add(str(error))
            else:
                self.sent[name] = at
                self.numbers[name] = number
            self.slowest = max(self.slowest, time.time() - at)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(20)
