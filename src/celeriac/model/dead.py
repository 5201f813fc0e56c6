"""Dead letters as values: one as it is read back, which ones are wanted, a page of them, and one to be sent again.

Pure. Adapters read and write them (``ports.DeadLetters``); ``app/dead.py`` and the command line ask for them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from msgspec import Struct

from celeriac.model.ledger import Change
from celeriac.model.message import Message

__all__ = ["ALL", "REPLAY", "DeadFilter", "DeadPage", "DeadRecord", "Replay", "Stayed", "dropped"]

#: The header of a message that was sent again: ``{"key", "reason", "died", "at", "times"}`` of the dead letter it was.
REPLAY = "celeriac_replay"


class DeadRecord(Struct, frozen=True, kw_only=True):
    """One dead letter as it is read back. ``at`` is in seconds since the epoch."""

    #: Its name in the broker: ``retry``, ``drop`` and ``get`` of the app's dead letters take it, or the task's id.
    key: str
    id: str
    task: str
    queue: str
    #: A ``DeadReason`` ("failed", "worker lost", ...), and one line that says more.
    reason: str
    detail: str
    #: Class and text.
    exception: str
    traceback: str
    #: The node that gave it up, and when.
    worker: str
    at: float
    #: Processes that died while it ran.
    crashes: int
    #: The message as the broker had it.
    raw: bytes


class DeadFilter(Struct, frozen=True, kw_only=True):
    """Which dead letters are wanted: those that fit every field that is given."""

    #: Name of the task; ``*`` and ``?`` stand for any characters.
    task: str = ""
    queue: str = ""
    #: A ``DeadReason``.
    reason: str = ""
    #: Part of the exception, its class or its text, in any case.
    exception: str = ""
    #: Died at this moment or later, and before that one; seconds since the epoch.
    since: float | None = None
    before: float | None = None
    #: How the key or the task's id begins, for any of these.
    ids: tuple[str, ...] = ()

    def matches(self, record: DeadRecord) -> bool:
        """Whether a dead letter is wanted."""
        return not (
            (self.queue and record.queue != self.queue)
            or (self.task and not fnmatchcase(record.task, self.task))
            or (self.reason and record.reason != self.reason)
            or (self.exception and self.exception.casefold() not in record.exception.casefold())
            or (self.since is not None and record.at < self.since)
            or (self.before is not None and record.at >= self.before)
            or (self.ids and not (record.key.startswith(self.ids) or record.id.startswith(self.ids)))
        )


#: Every dead letter.
ALL = DeadFilter()


class DeadPage(Struct, frozen=True, kw_only=True):
    """Some dead letters, the newest first. ``after`` is where the next page begins; empty at the end."""

    records: tuple[DeadRecord, ...]
    after: str


class Replay(Struct, frozen=True, kw_only=True):
    """A dead letter, by its key, and the message that takes its place among the living.

    ``change`` of the ledger is made in the same step; where it is not allowed, the letter stays: a unique task takes
    its lock again.
    """

    key: str
    message: Message
    change: Change | None = None


class Stayed(Struct, frozen=True):
    """A letter whose message was not published: it is ``gone``, or its change was not allowed, for ``there`` stands
    under the key (None: nothing)."""

    key: str
    gone: bool = True
    there: bytes | None = None


def dropped(number: int) -> str:
    """What a maintainer logs when dead letters went before their time."""
    return (
        f"{number} dead letters were dropped, the oldest first: there are more than dead_letter_limit, or more bytes "
        "than dead_letter_max_bytes; look at them with `celeriac dead list`"
    )
