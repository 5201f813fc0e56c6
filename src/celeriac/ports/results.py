"""Result stores: of workers, and the blocking side of those who wait; and the store of large payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.settle import StoredResult
from celeriac.ports.facts import Traits

__all__ = ["CHORD_DONE", "CHORD_LOOK", "PayloadStore", "Reader", "ResultStore"]


class ResultStore(Protocol):
    """Result records of workers. Records are opaque bytes to it."""

    traits: Traits

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def put(self, results: Sequence[StoredResult]) -> None:
        """Write records and wake their waiters. A record that is not terminal never replaces a stored SUCCESS; it does
        replace any other."""
        ...

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        ...

    async def forget(self, ids: Sequence[str]) -> None:
        """Drop records."""
        ...

    async def sweep(self) -> int:
        """Drop expired records where the server does not do so itself; returns how many."""
        ...

    # -- chords: model/chord.py has the values

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        """Write chords before their members are sent. One that is done, or was another (``size``, ``body``, ``shape``),
        begins anew: whatever was joined or done under that id is forgotten, but not its members' ``grow``. To open the
        same one again changes nothing: the call was repeated, or is late."""
        ...

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """Add members to their chords, each ``(id, index)`` once: a later value of the same member is dropped. A member
        that is added makes its chord wait for ``Part.grows`` more. Parts that come before their chord is opened are
        kept; parts of a chord that is done are dropped, and so are those without a body of a chord that nobody opened.
        The life time of an opened chord is its own; ``Part.expires`` counts before that.

        Returns the ids of the chords that are complete now, were it by earlier calls, and whose token the caller holds
        from now on. Another one gets it when the holder's time is over (``AdapterOptions.chord_token`` seconds), or,
        where deliveries are on the same server, as soon as the delivery of that token is settled or restored. Who
        holds it already gets it again."""
        ...

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """The complete chord, when ``token`` holds it; else None. Renews the token's time."""
        ...

    async def close_chord(self, closing: Closing) -> bool:
        """Forget the chord's members and remember for ``CHORD_DONE`` seconds that it is done, when the token still
        holds it; False when it does not, and nothing changes. For stores that are not the broker's server."""
        ...

    async def grow_chord(self, chord: str, by: int) -> None:
        """The chord waits for so many members more (``Task.add_to_chord``)."""
        ...

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """Complete chords that nobody is about to close, found without any of their members: takes their tokens, as
        ``join`` does (``token`` is new, and none of a delivery). Any number of sweepers at once do no harm; cheap when
        there are none. A chord is looked at for
        the first time ``AdapterOptions.chord_token`` seconds after it was opened or first joined, then that long after
        its token was taken, and every ``CHORD_LOOK`` seconds while it is incomplete."""
        ...


#: Seconds between two looks at an incomplete chord, and for which a closed chord refuses late members.
CHORD_LOOK = 30.0
CHORD_DONE = 300.0


class Reader(Protocol):
    """Blocking access to results for ``.get()`` and ``update_state``: thread-safe, survives forks."""

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        ...

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        """Block until a record of one of the ids is written; returns that id, or None when the time is up. May wake
        early and without a reason: the caller reads the record and decides. Notices terminal records written before the
        call at once; one that is not terminal and was there before must not wake the caller again and again.
        After a lost connection it reconnects and reads again."""
        ...

    def put(self, results: Sequence[StoredResult], *, timeout: float) -> None:
        """As ``ResultStore.put``."""
        ...

    def forget(self, ids: Sequence[str], *, timeout: float) -> None: ...

    def open_chords(self, chords: Sequence[NewChord], *, timeout: float) -> None:
        """As ``ResultStore.open_chords``."""
        ...

    def grow_chord(self, chord: str, by: int, *, timeout: float) -> None:
        """As ``ResultStore.grow_chord``."""
        ...

    def save_group(self, group: str, body: bytes, *, expires: float | None, timeout: float) -> None:
        """Keep a group's result tuple (``GroupResult.save``), under Celery's key where the server has Celery's
        layout; ``expires`` in seconds, None: for ever."""
        ...

    def load_group(self, group: str, *, timeout: float) -> bytes | None:
        """What ``save_group`` has kept."""
        ...

    def drop_group(self, group: str, *, timeout: float) -> None:
        """Forget what ``save_group`` has kept."""
        ...

    def close(self) -> None:
        """Give the connections back. Idempotent; a later call connects anew."""
        ...


class PayloadStore(Protocol):
    """Where large payloads are kept, under names ``<day>/<hex digits>``: blocking, thread-safe, survives forks.

    Raises ``OperationalError`` while the place cannot be reached."""

    def write(self, name: str, data: bytes) -> None:
        """Durable when it returns; a reader sees all of it or nothing."""
        ...

    def read(self, name: str, size: int) -> bytes:
        """At most ``size`` + 1 bytes. ``PayloadLost`` when the store is there and it is not in it."""
        ...

    def drop(self, name: str) -> None:
        """Forget one; one that is gone is no error."""
        ...

    def sweep(self, before: str) -> int:
        """Forget everything whose day (``YYYY-MM-DD``) is before this one; returns how many."""
        ...
