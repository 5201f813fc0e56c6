"""What the fleet remembers of an entry: its last slot. A frozen value, as it stands in the ledger; pure.

Whoever sends a slot writes the new state over the old one that it has seen, in the same step: so of all schedulers one
sends it, and the others read from the refusal what has become of the entry.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, Self

import msgspec
from msgspec import Struct

__all__ = ["LIFE", "PAUSED", "State", "newer", "running_key", "short", "slot_key", "state_key", "taking_key"]

#: Seconds for which the state of an entry is kept that is no longer there: longer than the rarest slots are apart.
LIFE: Final = 5 * 366 * 86400.0
#: In place of a fingerprint while the entry is paused: when it goes on, it counts from then.
PAUSED: Final = "paused"


#: Longer names, in bytes, are cut, and told apart by a digest.
_LONGEST: Final = 200


class State(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``slot``: up to which all slots are behind us, in UTC: sent, left out, or before the entry was first seen."""

    slot: datetime
    #: Of the schedule by which it counts (``Entry.fingerprint``), or ``PAUSED``.
    fingerprint: str
    #: Of the task that was sent last; empty: none was.
    id: str = ""
    #: When that was, in seconds since the epoch.
    at: float = 0.0
    #: Tasks sent so far.
    count: int = 0
    #: When the next slot is, as far as whoever wrote this knows.
    next: datetime | None = None
    #: Somebody is just sending the slot, on another server than this, under ``id``; since ``at``.
    sending: bool = False
    #: ``Entry.since`` by which it counts: an edit before that is known to be over.
    since: datetime | None = None

    def encode(self) -> bytes:
        """As it stands in the ledger."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, raw: bytes | None) -> Self | None:
        """None for nothing, and for what is no state."""
        if raw is None:
            return None
        try:
            state = msgspec.json.decode(raw, type=cls)
        except msgspec.MsgspecError:
            return None
        if state.slot.tzinfo is None:
            return None
        return msgspec.structs.replace(state, slot=state.slot.astimezone(UTC))


def newer(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two times of which either may not be there."""
    return max((each for each in (one, other) if each is not None), default=None)


def state_key(name: str) -> str:
    """Where the state of the entry ``name`` stands."""
    return f"beat:last:{short(name)}"


def slot_key(name: str, slot: datetime) -> str:
    """Where it stands which of several messages of one slot is to run."""
    return f"beat:slot:{short(name)}:{slot.isoformat()}"


def running_key(name: str) -> str:
    """Where it stands that a run of the entry goes on, for entries whose runs must not overlap."""
    return f"beat:running:{short(name)}"


def taking_key(task_id: str) -> str:
    """Where it stands that a task was given a lock and is not known to be sent, on two servers."""
    return f"beat:taking:{task_id}"


def short(name: str) -> str:
    """An entry's name, which may be a whole call as text, as part of a key: servers take keys that are not too long."""
    data = name.encode("utf-8", "backslashreplace")
    if len(data) <= _LONGEST:
        return data.decode()
    return f"{data[:_LONGEST].decode('utf-8', 'ignore')}:{sha256(data).hexdigest()[:32]}"
