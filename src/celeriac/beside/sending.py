"""Keys of a ledger that are taken around a sending on another server: held for a short time first, then for theirs.

Whoever finds a key taken is told who has it only when that one's message is known to be sent: as long as it is being
sent, others wait. So no call returns the id of a task that was never sent. Blocking; safe in threads.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence

from celeriac.exceptions import CeleryError, OperationalError
from celeriac.model.ledger import ANY, Change, Lock, lock_of, purge_key, queued_key, sending_key, waiting_id
from celeriac.model.message import Message
from celeriac.ports import BlockingLedger

__all__ = ["MARGIN", "UNSENT", "Sending", "hold", "purged"]

#: Seconds beyond the time for a sending for which keys are held until it is known: a producer that is killed meanwhile
#: blocks them for no longer than both together.
MARGIN = 5.0
#: What says that nothing was sent, besides ``OperationalError``: it cannot be encoded. After an interruption (a signal,
#: a soft limit) nobody knows.
UNSENT = (TypeError, ValueError, CeleryError)
#: Seconds between two looks at a key of somebody who is just sending.
_LOOK = 0.02
#: Least time for a question, in seconds.
_LEAST = 0.05


class Sending:
    """One message whose keys are held: ``changes``, what stood there ``before``, and ``notes`` about its lock.

    A change whose value was there before is that of an earlier try whose end nobody knows.
    """

    def __init__(self, changes: Sequence[Change], before: Sequence[bytes | None], notes: Sequence[Change] = ()) -> None:
        self._changes = changes
        self._before = before
        self._notes = notes

    def take(self, ledger: BlockingLedger, timeout: float, left: float) -> bool:
        """Take the keys, which looked free, for the time of a sending; gives back those that were when not all are."""
        wanted = [(each, value) for each, value in zip(self._changes, self._before, strict=True) if _is_kept(each)]
        short = [Change(each.key, each.value, each.expected, timeout + MARGIN) for each, _ in wanted]
        # A mark lasts longer than what it is about.
        marks = [Change(_mark_of(each.value or b""), b"", ANY, timeout + 2 * MARGIN) for each, _ in wanted]
        made = ledger.change([*marks, *self._notes, *short], timeout=left)[len(marks) + len(self._notes) :]
        if all(made):
            return True
        done = [pair for pair, was in zip(wanted, made, strict=True) if was]
        part = Sending([each for each, _ in done], [value for _, value in done], self._notes)
        # The marks of all, taken or not: one that stays would make others wait for what nobody sends.
        away = [] if part.is_again else _unmarked(self._changes)
        ledger.change([*part.undone(), *away], timeout=left)
        return False

    @property
    def is_again(self) -> bool:
        """An earlier try has taken some of the keys, and nobody knows whether it has sent the message."""
        return any(each.expected == each.value for each in self._changes)

    def sent(self) -> list[Change]:
        """It is on its way: the keys are taken for as long as they are wanted. What a worker has written there since
        stays."""
        kept = [
            each if each.expected is ANY else Change(each.key, each.value, each.value, each.expires)
            for each in self._changes
        ]
        return [*kept, *_unmarked(self._changes)]

    def undone(self) -> list[Change]:
        """It was not sent: what stood under the keys stands there again, for as long as the new value would have.

        What stands there since an earlier try keeps its short time and its mark: that one may have been sent, or not.
        """
        back = [
            Change(each.key, there, each.value, None if there is None else each.expires)
            for each, there in zip(self._changes, self._before, strict=True)
            if _is_kept(each) and each.expected != each.value
        ]
        if self.is_again:
            return back
        return [*back, *(Change(note.key, None) for note in self._notes), *_unmarked(self._changes)]


def hold(
    ledger: BlockingLedger, message: Message, changes: Sequence[Change], *, timeout: float
) -> tuple[Sending | None, Sequence[bytes | None]]:
    """Take the keys of a message, all or none: the sending, or None, and what stands, or stood, under them.

    Waits while somebody else holds one for a message that is being sent; takes over the lock of one that was purged.
    Raises ``OperationalError`` when that takes longer than ``timeout`` seconds: with nothing taken, or, when the ledger
    did not answer, for the time of a sending.
    """
    deadline = time.monotonic() + timeout

    def left() -> float:
        return max(_LEAST, deadline - time.monotonic())

    lock = lock_of(message)
    keys = [each.key for each in changes]

    def look() -> tuple[list[bytes | None], bytes | None]:
        *values, purge = ledger.read([*keys, purge_key(message.queue)], timeout=left())
        return values, purge

    there, purge = look()
    while True:
        taken = [value for change, value in zip(changes, there, strict=True) if not _fits(change, value)]
        if taken:
            # In this order: a mark that is gone while its key still stands was taken away because the message is sent.
            marks = _marks_of(taken)
            answer = ledger.read([*marks, *keys], timeout=left())
            before, there = there, list(answer[len(marks) :])
            if there != before:
                continue
            waits = any(each is not None for each in answer[: len(marks)])
            mine = _continued(changes, there) if waits else _without_purged(ledger, lock, changes, there, left())
            if mine is None and not waits:
                return None, there
            if mine is None:
                if time.monotonic() >= deadline:
                    raise OperationalError("an equal task is just being sent, and nobody knows yet whether that works")
                time.sleep(_LOOK)
                there, purge = look()
                continue
            changes = mine
        sending = Sending(changes, there, _notes(lock, message.queue, purge, changes))
        if sending.take(ledger, timeout, left()):
            return sending, there
        there, purge = look()


def _notes(lock: Lock | None, queue: str, purge: bytes | None, changes: Sequence[Change]) -> list[Change]:
    """Where the holder of a lock was put: for those who come after a purge."""
    life = next((each.expires for each in changes if lock is not None and each.key == lock.key), None)
    if lock is None or life is None:
        return []
    place = json.dumps([queue, None if purge is None else purge.decode("latin-1")]).encode()
    return [Change(queued_key(lock.holder), place, expires=life)]


def _without_purged(
    ledger: BlockingLedger, lock: Lock | None, changes: Sequence[Change], there: Sequence[bytes | None], left: float
) -> list[Change] | None:
    """The changes when all that is in the way is the lock of a task that waited and was purged, else None."""
    wrong = [(each, value) for each, value in zip(changes, there, strict=True) if not _fits(each, value)]
    if lock is None or len(wrong) != 1 or wrong[0][0].key != lock.key or wrong[0][1] is None:
        return None
    holder, waits = waiting_id(wrong[0][1])
    (note,) = ledger.read([queued_key(holder)], timeout=left) if waits else (None,)
    if note is None:
        return None
    queue, before = json.loads(note)
    (now,) = ledger.read([purge_key(queue)], timeout=left)
    if (None if now is None else now.decode("latin-1")) == before:
        return None
    over = wrong[0][1]
    return [Change(c.key, c.value, over, c.expires) if c.key == lock.key else c for c in changes]


def _continued(changes: Sequence[Change], there: Sequence[bytes | None]) -> list[Change] | None:
    """The changes of a try whose end nobody knows, when it is all that is in the way."""
    again = []
    for change, value in zip(changes, there, strict=True):
        if not _fits(change, value):
            if value != change.value:
                return None
            change = Change(change.key, change.value, value, change.expires)
        again.append(change)
    return again


def _is_kept(change: Change) -> bool:
    """It takes a key, and is not one of those that are written whatever stands there."""
    return change.expected is not ANY


def _fits(change: Change, value: bytes | None) -> bool:
    return change.expected is ANY or change.expected == value


def _unmarked(changes: Sequence[Change]) -> list[Change]:
    marks = dict.fromkeys(_mark_of(each.value or b"") for each in changes if each.expected is not ANY)
    return [Change(mark, None) for mark in marks]


def _marks_of(taken: Sequence[bytes | None]) -> list[str]:
    """The marks of those who hold these values. Whoever was started by a worker was sent, whatever its mark says."""
    held = [waiting_id(value) for value in taken if value is not None]
    started = {task_id for task_id, waits in held if not waits}
    return [sending_key(task_id) for task_id, _ in held if task_id not in started]


def _mark_of(value: bytes) -> str:
    """Where it stands that whoever holds this value is just sending."""
    return sending_key(waiting_id(value)[0])


def purged(queue: str) -> Change:
    """What is written after a purge: locks of those that waited in the queue before stand for nobody any more."""
    return Change(purge_key(queue), secrets.token_hex(8).encode())
