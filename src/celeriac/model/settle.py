"""How a delivery is ended, and the records that go with it: what the completer hands to the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from celeriac.model.message import Delivery, Marks, Message

__all__ = [
    "Accept",
    "Completion",
    "DeadLetter",
    "DeadReason",
    "Release",
    "Settlement",
    "StoredResult",
    "Verdict",
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


Settlement = Accept | Release | DeadLetter


class StoredResult(Struct, frozen=True, gc=False):
    """A result record ready to be written: ``body`` is the encoded record (``celery-wire.md`` §3.5).

    ``expires`` is the life time in seconds, or None for ever. A record that is not ``terminal`` never replaces a
    stored SUCCESS.
    """

    id: str
    body: bytes
    terminal: bool
    expires: float | None = None


class Completion(Struct, frozen=True, kw_only=True, gc=False):
    """Everything one plan wants written, in the order *publish → store → settle*."""

    settlement: Settlement
    #: Follow-ups: encoded messages with frozen ids.
    publish: Sequence[Message] = ()
    result: StoredResult | None = None


class Verdict(StrEnum):
    """What became of a completion that was to be written atomically."""

    DONE = "done"
    #: The lease was gone: nothing was written.
    FENCED = "fenced"
    #: Nothing was written; it has to be written step by step.
    STEPWISE = "stepwise"
