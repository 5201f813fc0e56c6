"""How a delivery is ended, and the records that go with it: what the completer hands to the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from celeriac.model.chord import Closing, NewChord, Part
from celeriac.model.ledger import Lock
from celeriac.model.message import Delivery, Marks, Message

__all__ = [
    "Accept",
    "Completion",
    "DeadLetter",
    "DeadReason",
    "Hold",
    "Release",
    "Settlement",
    "StoredResult",
    "Verdict",
    "last_to_join",
]


class DeadReason(StrEnum):
    """Why a message is in the dead letters."""

    FAILED = "failed"
    CRASHED = "worker lost"
    UNKNOWN_TASK = "unknown task"
    MALFORMED = "malformed"
    REFUSED = "refused"
    REJECTED = "rejected"
    TIME_LIMIT = "time limit"
    LEASE_EXPIRED = "lease expired too often"


class Accept(Struct, frozen=True, gc=False):
    """Done: the message is forgotten."""

    delivery: Delivery


class Hold(Struct, frozen=True, gc=False):
    """Not over yet: the delivery stays leased, and only who holds it may write.

    Without a delivery anybody may: the sweeper's word, and that of a task that was acknowledged before it ran.
    """

    delivery: Delivery | None = None


class Release(Struct, frozen=True, gc=False):
    """Back to ready (to the front, so that it is next), or to the schedule when ``due`` is in the future.

    ``marks`` replaces the message's marks when not None; without it the stored bytes go back unchanged.
    ``back`` puts it behind the waiting messages instead (Celery's requeue).
    """

    delivery: Delivery
    due: float | None = None
    marks: Marks | None = None
    back: bool = False


class DeadLetter(Struct, frozen=True, kw_only=True):
    """To the dead letters, with all an operator needs to judge and to replay it."""

    delivery: Delivery
    reason: DeadReason
    #: One line: what happened.
    detail: str = ""
    exception: str = ""
    traceback: str = ""
    #: Name of the node, and seconds since the epoch.
    worker: str = ""
    at: float = 0.0


#: What ends a delivery; ``Hold`` does not, and is for ``finish`` alone.
Settlement = Accept | Release | DeadLetter


class StoredResult(Struct, frozen=True, gc=False):
    """A result record ready to be written: ``body`` is the encoded record (``celery-wire.md`` §3.5).

    ``expires`` is the life time in seconds, or None for ever. A record that is not ``terminal`` never replaces a
    stored SUCCESS. ``reply_to`` is the queue that the sender of the task has named, for stores that send records there.
    """

    id: str
    body: bytes
    terminal: bool
    expires: float | None = None
    reply_to: str = ""


class Completion(Struct, frozen=True, kw_only=True, gc=False):
    """Everything one plan wants written, in order: *open chords → publish → store → free → join → close → settle*."""

    settlement: Settlement | Hold
    #: Follow-ups: encoded messages with frozen ids.
    publish: Sequence[Message] = ()
    result: StoredResult | None = None
    #: Records of other tasks: those that will never run because of this end.
    others: Sequence[StoredResult] = ()
    #: Chords whose members are among ``publish``.
    opens: Sequence[NewChord] = ()
    #: Chords that this end counts for.
    parts: Sequence[Part] = ()
    #: The chord whose body is among ``publish``; nothing at all is written when its token was lost.
    closes: Closing | None = None
    #: Locks of the task that ends, each freed if that task still holds it.
    frees: Sequence[Lock] = ()

    @property
    def ending(self) -> Settlement:
        """The settlement of a completion that ends a delivery: of any but a ``Hold``."""
        return self.settlement  # type: ignore[return-value]


class Verdict(StrEnum):
    """What became of a completion that was to be written atomically."""

    DONE = "done"
    #: All is written, but the delivery is still leased: its parts completed chords, whose tokens (the delivery's) are
    #: now held. ``ResultStore.gather`` tells which.
    COMPLETES = "completes"
    #: The lease, or the token of the chord to close, was gone: nothing was written.
    FENCED = "fenced"
    #: Nothing was written; it has to be written step by step.
    STEPWISE = "stepwise"


def last_to_join(completions: Sequence[Completion], joining: Sequence[int]) -> dict[int, list[str]]:
    """The chords that each of ``joining`` (indices of ``completions``) was the last to join, when all join in order."""
    last = {part.chord: index for index in joining for part in completions[index].parts}
    chords: dict[int, list[str]] = {index: [] for index in joining}
    for chord, index in last.items():
        chords[index].append(chord)
    return chords
