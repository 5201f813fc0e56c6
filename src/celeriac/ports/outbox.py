"""Outboxes: the application's own database, as senders and relays use it. Blocking, from one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from celeriac.model.outbox import Fault, Parcel, Row, Standing

__all__ = ["OutboxStore", "OutboxWriter"]


class OutboxWriter(Protocol):
    """The application's own connection, inside its transaction. What the driver raises comes as it is: it is the
    application's."""

    def write(self, parcels: Sequence[Parcel]) -> None:
        """Insert rows in this order, and commit nothing. Raises ``ImproperlyConfigured`` when the table is missing, and
        when the connection would commit each statement by itself."""
        ...


class OutboxStore(Protocol):
    """An outbox as its relays see it, on a connection of their own. Raises ``OperationalError`` when the database
    cannot be reached, ``ImproperlyConfigured`` when the table is missing; never a driver's error, never a password."""

    def take(self, limit: int) -> Sequence[Row]:
        """Up to ``limit`` rows that wait, in the order in which they were written, held for this relay alone until
        ``settle`` or ``put_back``, or until this process dies. None: nothing waits, or others hold it."""
        ...

    def settle(self, done: Sequence[str], faults: Sequence[Fault]) -> None:
        """End what was taken: those done leave the table, the others stay with their faults or as they were."""
        ...

    def put_back(self) -> None:
        """Give back what was taken, as it was. Never raises."""
        ...

    def wait(self, seconds: float) -> bool:
        """Until rows may have been committed, or the time is over; whether the database has told of some. A store that
        cannot tell returns False at once."""
        ...

    def standing(self) -> Standing:
        """How much waits."""
        ...

    def list(self, *, failed: bool | None, limit: int) -> Sequence[Row]:
        """Rows, the oldest first; those that failed, those that did not, or all."""
        ...

    def retry(self, ids: Sequence[str] | None) -> int:
        """Let relays try these rows again, or all that failed; returns how many."""
        ...

    def drop(self, ids: Sequence[str] | None) -> int:
        """Forget these rows, or all that failed; returns how many there were."""
        ...

    def create(self) -> None:
        """Make the table, where there is none. Idempotent."""
        ...

    def close(self) -> None:
        """Give the connections back. Idempotent; a later call connects anew."""
        ...
