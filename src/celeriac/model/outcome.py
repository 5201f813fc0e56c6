"""How an attempt ended: one small value per way. Made by the runner (or, for a dead child, by the agent); read by
plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

__all__ = [
    "Crashed",
    "Discarded",
    "Failure",
    "Ignored",
    "Lost",
    "Outcome",
    "Postponed",
    "Rejected",
    "Repeated",
    "RetryAsked",
    "Revoked",
    "Success",
    "TimedOut",
    "Unknown",
    "Unsigned",
    "Unstarted",
]


class Success(Struct, frozen=True):
    """The task returned ``value``."""

    value: Any


class Failure(Struct, frozen=True):
    """The task raised ``exc``. ``traceback`` is the formatted text."""

    exc: BaseException
    traceback: str = ""


class RetryAsked(Struct, frozen=True):
    """The task called ``self.retry``: ``send`` is the signature of the next attempt, frozen, due time included."""

    exc: BaseException
    traceback: str
    send: Any


class Ignored(Struct, frozen=True):
    """The task raised Ignore; ``replaced``: another one goes on in its place."""

    replaced: bool = False


class Rejected(Struct, frozen=True):
    """The task raised Reject."""

    reason: str
    requeue: bool


class Revoked(Struct, frozen=True):
    """Not run, or ended, on request: ``reason`` is ``revoked``, ``expired`` or ``terminated``.

    ``by`` whom and ``why``, as far as they are known.
    """

    reason: str
    signum: int | None = None
    by: str = ""
    why: str = ""

    def __str__(self) -> str:
        """The reason as the task's result shows it: ``revoked by alice: wrong customer``."""
        who = f"{self.reason} by {self.by}" if self.by else self.reason
        return f"{who}: {self.why}" if self.why else who


class TimedOut(Struct, frozen=True):
    """The hard time limit of ``limit`` seconds ended the child."""

    limit: float


class Crashed(Struct, frozen=True):
    """The child died while this task ran: ``how`` says by what (``signal 9 (SIGKILL)``, ``exit code 1``)."""

    how: str


class Lost(Struct, frozen=True):
    """Not run any more: every earlier delivery was lost, and ``Marks`` say that it is enough (``plan.exhausted``)."""


class Unknown(Struct, frozen=True):
    """No such task is registered here."""


class Discarded(Struct, frozen=True):
    """The message cannot be run: refused content, undecodable body, arguments that do not fit; ``exc`` says why."""

    exc: BaseException
    reason: str


class Unsigned(Struct, frozen=True):
    """The message lacks a valid signature where one is demanded: nothing that it says is believed, not even its id."""

    reason: str


class Repeated(Struct, frozen=True):
    """A redelivered message whose result record shows that it was already done: the record's state and encoded
    result. ``apart``: who stored it may have died before it settled the message."""

    state: str | None = None
    result: Any = None
    apart: bool = False


class Unstarted(Struct, frozen=True):
    """Claimed but not run to its end here: it goes back uncounted.

    ``orphaned``: its child died, so it may have run all the same, and is shown as redelivered. ``suspect``: nobody
    knows what its child died of.
    """

    suspect: bool = False
    orphaned: bool = False


class Postponed(Struct, frozen=True):
    """Something it needs is away (the payload store): it is offered again in so many ``seconds``.

    Uncounted, but when it ``crashed``: it did run, and its process died or was ended.
    """

    seconds: float
    crashed: bool = False


Outcome = (
    Success
    | Failure
    | RetryAsked
    | Ignored
    | Rejected
    | Revoked
    | TimedOut
    | Crashed
    | Lost
    | Unknown
    | Discarded
    | Unsigned
    | Repeated
    | Unstarted
    | Postponed
)


class Embed(Struct, frozen=True):
    """The fourth part of a message body: what follows the task, as signatures on the wire (``celery-wire.md`` §3.1)."""

    callbacks: list[Mapping[str, Any]] | None = None
    errbacks: list[Mapping[str, Any]] | None = None
    chain: list[Mapping[str, Any]] | None = None
    chord: Mapping[str, Any] | None = None
