"""Dead letters on two servers: the letters on one, the locks that they need to be sent again on the other. Blocking."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from msgspec.structs import replace

from celeriac.beside.sending import UNSENT, Sending, hold
from celeriac.exceptions import OperationalError
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.ports import BlockingLedger, DeadLetters

__all__ = ["BesideDeadLetters"]

logger = logging.getLogger("celeriac.beside")

#: Least time in seconds for the last step.
_LAST = 1.0
#: Least time in seconds for any step.
_LEAST = 0.05


class BesideDeadLetters:
    """See ``celeriac.ports.DeadLetters``."""

    def __init__(self, inner: DeadLetters, ledger: BlockingLedger) -> None:
        self._inner = inner
        self._ledger = ledger

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """See ``DeadLetters.page``."""
        return self._inner.page(wanted, limit=limit, after=after, timeout=timeout)

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """See ``DeadLetters.get``."""
        return self._inner.get(keys, timeout=timeout)

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters.replay``. Locks first, for a short time; then the letters, each with its message; then the
        locks for theirs. Who is killed in between has sent nothing twice, and blocks a lock for a short time."""
        deadline = time.monotonic() + timeout
        stayed: dict[str, Stayed] = {}
        left = list(replays)
        while left:
            # In their order. Whoever wants a lock that one before wants too hears what became of that one.
            keys = [each.change.key if each.change is not None else None for each in left]
            count = next((at for at, key in enumerate(keys) if key is not None and key in keys[:at]), len(left))
            try:
                stayed |= {each.key: each for each in self._step(left[:count], deadline)}
            except OperationalError as error:
                error.uncertain = error.uncertain or len(left) < len(replays)  # those before are sent
                raise
            left = left[count:]
        return [stayed[each.key] for each in replays if each.key in stayed]

    def _step(self, replays: Sequence[Replay], deadline: float) -> list[Stayed]:
        """Letters that want different locks."""
        stayed: list[Stayed] = []
        held: dict[str, Sending] = {}
        going: list[Replay] = []
        try:
            for each in replays:
                if each.change is not None:
                    sending, there = self._hold(each.message, each.change, deadline)
                    if sending is None:
                        stayed.append(Stayed(each.key, gone=False, there=there[0]))
                        continue
                    held[each.key] = sending
                going.append(replace(each, change=None))
            gone = self._inner.replay(going, timeout=max(_LEAST, deadline - time.monotonic())) if going else ()
        except OperationalError as error:
            if not error.uncertain:
                self._write([change for each in held.values() for change in each.undone()])
            raise
        except UNSENT:
            self._write([change for each in held.values() for change in each.undone()])
            raise
        back = {each.key for each in gone}
        ends = [each.undone() if key in back else each.sent() for key, each in held.items()]
        self._write([change for end in ends for change in end])
        return [*stayed, *gone]

    def _hold(self, message: Message, change: Change, deadline: float) -> tuple[Sending | None, Sequence[bytes | None]]:
        try:
            return hold(self._ledger, message, [change], timeout=max(_LEAST, deadline - time.monotonic()))
        except OperationalError as error:
            error.uncertain = False  # nothing is sent
            raise

    def _write(self, changes: Sequence[Change]) -> None:
        if changes:
            try:
                self._ledger.change(changes, timeout=_LAST)
            except OperationalError as error:
                logger.warning("Cannot write the locks of dead letters that were sent again: %s", error)

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        return self._inner.drop(keys, timeout=timeout)

    def close(self) -> None:
        """See ``DeadLetters.close``."""
        self._inner.close()
        self._ledger.close()
