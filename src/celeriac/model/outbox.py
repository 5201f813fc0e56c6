"""What lies in an outbox: the table of the application's database in which messages wait for its commit.

Pure values. Made by ``codec/outbox.py``; carried by the writers and stores of ``celeriac.outbox``; judged by the relay.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

__all__ = ["OUTBOX_TABLE", "Fault", "Kind", "Parcel", "Row", "Standing"]

#: The table's name, in the first schema of the connection's search path.
OUTBOX_TABLE = "celeriac_outbox"


class Kind(StrEnum):
    """What a row holds."""

    MESSAGE = "message"
    #: A chord, to be opened before its members can end.
    CHORD = "chord"


class Parcel(Struct, frozen=True, kw_only=True, gc=False):
    """What is written into the application's transaction."""

    #: Random, and never used again: under it brokers with a ledger remember what was published.
    id: str
    kind: Kind
    #: Id of the task, or of the chord's group.
    task_id: str
    #: Name of the task; of a chord: empty.
    task: str = ""
    queue: str = ""
    body: bytes


class Row(Struct, frozen=True, kw_only=True, gc=False):
    """A parcel that was committed and waits for a relay, or for somebody to look at it."""

    parcel: Parcel
    #: Seconds since it was written, by the database's clock.
    age: float
    attempts: int = 0
    error: str = ""
    #: It cannot be published as it is: no relay takes it until somebody says so.
    failed: bool = False


class Fault(Struct, frozen=True, gc=False):
    """Why a row stays."""

    id: str
    error: str
    #: Seconds until a relay may try again; None: not before somebody says so.
    pause: float | None = None


class Standing(Struct, frozen=True, kw_only=True, gc=False):
    """How much waits in an outbox."""

    waiting: int = 0
    failed: int = 0
    #: Age in seconds of the oldest row that waits, 0 when none does.
    oldest: float = 0.0
