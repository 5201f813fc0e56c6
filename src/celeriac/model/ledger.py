"""The ledger: small values under keys, changed by compare-and-set; and the locks of unique tasks, which live there.

A lock belongs to a task: its value is the task's id. The message carries the lock's key in a header of ours, so that
whoever ends the task can free it in the same step. Pure. Made by the sender and by ``plan``; adapters store it.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Literal

from msgspec import Struct

from celeriac.model.message import Malformed, Message

__all__ = [
    "ANY",
    "LOCK",
    "LOCK_LIFE",
    "Change",
    "Expected",
    "Lock",
    "lock_of",
    "purge_key",
    "queued_key",
    "replaced_key",
    "sending_key",
    "waiting_id",
]

#: Header of a message that holds a lock: ``{"key": …, "for": seconds, "until": "end" | "start" | "kept"}``, and
#: ``"sole": true`` where nobody but the holder may run. Celery ignores it, and keeps it through retries like any header
#: it does not know.
LOCK = "celeriac_lock"
#: Seconds for which a lock is kept beyond the time at which its task is due, when nobody said how long.
LOCK_LIFE = 86400.0
#: Behind the id, in the value of a lock whose task has been taken by a worker.
_STARTED = b" started"


class Expected(Enum):
    """See ``ANY``."""

    ANY = "any"


#: Expected by a change that is made whatever is there.
ANY: Final = Expected.ANY


class Change(Struct, frozen=True, gc=False):
    """What is to stand under a key: ``value``, or nothing when that is None.

    Made only when the key holds ``expected``: these bytes, nothing (None), or whatever it may be (``ANY``).
    ``expires`` is the life time in seconds from now, None for ever.
    """

    key: str
    value: bytes | None
    expected: bytes | Literal[Expected.ANY] | None = ANY
    expires: float | None = None


class Lock(Struct, frozen=True, gc=False):
    """A lock, and the id of the task that holds it."""

    key: str
    holder: str
    #: Seconds for which it is kept from now on.
    life: float = LOCK_LIFE
    #: Until the task starts, not until it ends.
    until_start: bool = False
    #: Not freed when the task ends, but when its life is over: it tells of the past.
    kept: bool = False
    #: A message whose task does not hold it is not run, as long as another holds it.
    sole: bool = False

    @property
    def waiting(self) -> bytes:
        """What stands under the key while the task waits to be taken."""
        return self.holder.encode("utf-8", "surrogatepass")

    @property
    def started(self) -> bytes:
        """What stands there from then on: a task that has started is not replaced."""
        return self.waiting + _STARTED

    def begins(self) -> Change:
        """What a worker writes that takes the task; not made when it took it before, or the lock was lost."""
        if self.until_start:
            return Change(self.key, None, self.waiting)
        return Change(self.key, self.started, self.waiting, self.life)

    def ends(self) -> tuple[Change, Change]:
        """What frees it, if its task still holds it."""
        return Change(self.key, None, self.waiting), Change(self.key, None, self.started)

    def header(self) -> dict[str, Any]:
        """How a message carries it."""
        until = "kept" if self.kept else "start" if self.until_start else "end"
        header: dict[str, Any] = {"key": self.key, "for": self.life, "until": until}
        return {**header, "sole": True} if self.sole else header


def lock_of(message: Message | Malformed) -> Lock | None:
    """The lock that a message carries, if any; what is no lock is none."""
    if isinstance(message, Malformed):
        return None
    carried = message.headers.get(LOCK)
    if not isinstance(carried, dict):
        return None
    key, life = carried.get("key"), carried.get("for")
    if not isinstance(key, str) or not key:
        return None
    if not isinstance(life, (int, float)) or not 0 < life < 1e10:
        life = LOCK_LIFE
    until = carried.get("until")
    return Lock(key, message.id, float(life), until == "start", until == "kept", carried.get("sole") is True)


def waiting_id(value: bytes) -> tuple[str, bool]:
    """Whose value of a lock this is, and whether that task still waits to be taken."""
    waits = not value.endswith(_STARTED)
    return (value if waits else value[: -len(_STARTED)]).decode("utf-8", "surrogatepass"), waits


def replaced_key(task_id: str) -> str:
    """The key under which a task that was replaced before it started finds the id of the one in its place."""
    return f"replaced:{task_id}"


def sending_key(task_id: str) -> str:
    """The key under which something stands as long as nobody knows whether a task that has taken a lock was sent: where
    the ledger is on another server than the messages."""
    return f"sending:{task_id}"


def purge_key(queue: str) -> str:
    """The key under which another value stands after each purge of a queue, where the ledger is on another server."""
    return f"purge:{queue}"


def queued_key(task_id: str) -> str:
    """The key under which stands in which queue a task with a lock was put, and after which purge; there, too."""
    return f"queued:{task_id}"
