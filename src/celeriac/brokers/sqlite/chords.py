"""Chords inside the file: who joined, who sends the body, when to look again. Used within a transaction of the caller.

A chord's row is read once a transaction and written once, however many members join in it. Reads no clock and does not
wait; its statements are in chords.sql. The ports and finishing.py call it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from msgspec import Struct

from celeriac.brokers.sqlite.boot import Moment
from celeriac.brokers.sqlite.queues import Held, unpack
from celeriac.brokers.sqlite.statements import statements
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.ports import CHORD_DONE, CHORD_LOOK

__all__ = ["Ledger", "close", "grow", "is_due", "join", "lent", "look", "open_all", "renew", "sweep"]

SQL = statements("chords.sql")
#: Seconds for which a chord is remembered that only its growth is known of.
_GROWN = 86400.0
#: Chords that one transaction looks at, and rows that it drops, give or take a chord's.
LOOK_CHUNK = 500
DROP_CHUNK = 5000
#: The place of members without an index, and the farthest one of the others.
_NOWHERE = 2**63 - 1
_FARTHEST = 2**62


class _Chord(Struct):
    """A row, in the order of ``SQL["find"]``, and what of it was changed."""

    id: str
    key: int
    size: int | None = None
    grown: int = 0
    joined: int = 0
    done: int = 0
    bare: int = 1
    life: float | None = None
    expires: float | None = None
    token: str | None = None
    leased: int = 0
    until: float = 0.0
    look: float = 0.0
    boot: int = 0
    is_counted: bool = False
    is_changed: bool = False

    def is_complete(self) -> bool:
        return self.size is not None and not self.done and self.joined >= self.size + self.grown


class Ledger:
    """The chords that one transaction touches. What it does is written by ``write``, or before."""

    def __init__(self, sqlite: sqlite3.Connection, moment: Moment) -> None:
        self._sqlite = sqlite
        self._moment = moment
        self._chords: dict[str, _Chord | None] = {}
        #: Deliveries that this transaction is about to end.
        self.ending: set[Held] = set()

    def _find(self, chord_id: str) -> _Chord | None:
        chord_id = _clean(chord_id)
        try:
            return self._chords[chord_id]
        except KeyError:
            pass
        row = self._sqlite.execute(SQL["find"], (chord_id,)).fetchone()
        chord = None if row is None else _Chord(chord_id, *row)
        if chord is not None and chord.expires is not None and chord.expires <= self._moment.now:
            self._empty(chord)
            self._sqlite.execute(SQL["drop"], (chord.key,))
            chord = None
        elif chord is not None and chord.boot != self._moment.boot:
            # Its holder ended with the machine, and times of that clock mean nothing any more.
            chord.token = None
            self._look_at(chord, self._moment.uptime)
        self._chords[chord_id] = chord
        return chord

    def _add(self, chord_id: str, life: float | None) -> _Chord:
        chord_id = _clean(chord_id)
        key = self._sqlite.execute(SQL["add"], (chord_id,)).lastrowid
        chord = self._chords[chord_id] = _Chord(chord_id, key or 0)
        self._renew(chord, life)
        self._look_at(chord, self._moment.uptime + self._moment.wait)
        return chord

    def _empty(self, chord: _Chord) -> None:
        """Forget its members and its body."""
        if chord.joined:
            self._sqlite.execute(SQL["drop_parts"], (chord.key,))
            chord.joined = 0
        self._sqlite.execute(SQL["drop_text"], (chord.key,))
        chord.bare = 1

    def _renew(self, chord: _Chord, life: float | None) -> None:
        chord.life = life
        chord.expires = None if life is None else self._moment.now + life
        chord.is_counted = True

    def _look_at(self, chord: _Chord, when: float) -> None:
        if chord.expires is not None:
            when = min(when, self._moment.uptime + max(0.0, chord.expires - self._moment.now))
        chord.look, chord.boot, chord.is_changed = when, self._moment.boot, True

    # ------------------------------------------------------------ members

    def open(self, new: NewChord) -> None:
        """Begin a chord; members that came before it was ever opened count. One that goes on goes on."""
        chord = self._find(new.id) or self._add(new.id, new.expires)
        if chord.size == new.size and not chord.done:
            body, shape = self._sqlite.execute(SQL["text"], (chord.key,)).fetchone() or (b"", b"")
            if new.body in (b"", body) and new.shape == shape:
                self._renew(chord, new.expires)
                return
        if chord.size is not None or chord.done:
            self._empty(chord)
        chord.size, chord.done, chord.token = new.size, 0, None
        self._renew(chord, new.expires)
        self._look_at(chord, self._moment.uptime + self._moment.wait)
        self._sqlite.execute(SQL["add_text"], (chord.key, new.body, new.shape))
        chord.bare = int(chord.bare and not new.body)

    def join(self, part: Part) -> None:
        """Add a member, once."""
        chord = self._find(part.chord)
        if (chord is None or chord.size is None) and not part.body:
            return
        if chord is None:
            chord = self._add(part.chord, part.expires)
        if chord.done:
            return
        if chord.size is None:
            chord.life = part.expires
        added = self._sqlite.execute(SQL["add_part"], (chord.key, _place(part.index), _clean(part.id), part.value))
        if added.rowcount:
            chord.joined += 1
            chord.grown += part.grows
        if chord.bare and part.body:
            self._sqlite.execute(SQL["add_text"], (chord.key, part.body, b""))
            chord.bare, chord.is_changed = 0, True
        self._renew(chord, chord.life)

    def grow(self, chord_id: str, by: int) -> None:
        """Wait for more members."""
        chord = self._find(chord_id) or self._add(chord_id, _GROWN)
        chord.grown += by
        chord.is_counted = True

    # ------------------------------------------------------------ the token

    def take(self, chord_id: str, token: str) -> bool:
        """Take the token of a complete chord, unless somebody else holds it; renew it when it is held already."""
        chord = self._find(chord_id)
        if chord is None or not chord.is_complete():
            return False
        token = _clean(token)
        if chord.token != token:
            if chord.token is not None and not self._is_over(chord, chord.token):
                return False
            chord.token, chord.leased = token, 0
        chord.leased = int(bool(chord.leased) or self._is_leased(token))
        chord.until = self._moment.uptime + self._moment.wait
        self._look_at(chord, chord.until)
        return True

    def _is_over(self, chord: _Chord, token: str) -> bool:
        return chord.until <= self._moment.uptime or (bool(chord.leased) and not self._is_leased(token))

    def _is_leased(self, token: str) -> bool:
        held = claim, key = unpack(token)
        if held in self.ending or max(claim, key) > _NOWHERE:
            return False
        return self._sqlite.execute(SQL["is_leased"], (claim, key)).fetchone() is not None

    def holds(self, closing: Closing) -> bool:
        """Whether nobody else took the token meanwhile; its time does not matter then."""
        chord = self._find(closing.chord)
        return chord is not None and chord.token is not None and chord.token == _clean(closing.token)

    def close(self, closing: Closing) -> bool:
        """Forget the members for the holder of the token, and refuse late ones for a while."""
        chord = self._find(closing.chord)
        if chord is None or not self.holds(closing):
            return False
        self._empty(chord)
        chord.size, chord.grown, chord.done, chord.token = None, 0, 1, None
        self._renew(chord, CHORD_DONE)
        self._look_at(chord, self._moment.uptime + CHORD_DONE)
        return True

    # ------------------------------------------------------------ looks

    def drop(self, chord_id: str) -> None:
        """Drop a chord whose life time is over."""
        self._find(chord_id)

    def look(self, chord_id: str, token: str) -> bool:
        """Take the token of a complete chord that nobody holds, else say when to look again."""
        chord = self._find(chord_id)
        if chord is None:
            return False
        if self.take(chord_id, token):
            return True
        uptime = self._moment.uptime
        self._look_at(chord, chord.until if chord.is_complete() and chord.until > uptime else uptime + CHORD_LOOK)
        return False

    def write(self) -> None:
        """Write what was changed."""
        for chord in self._chords.values():
            if chord is None:
                continue
            if chord.is_changed:
                held = (chord.token, chord.leased, chord.until, chord.look, chord.boot)
                lives = (chord.grown, chord.joined, chord.done, chord.bare, chord.life, chord.expires)
                self._sqlite.execute(SQL["write"], (chord.size, *lives, *held, chord.key))
            elif chord.is_counted:
                counts = (chord.grown, chord.joined, chord.life, chord.expires, chord.key)
                self._sqlite.execute(SQL["count"], counts)
            chord.is_changed = chord.is_counted = False


def open_all(sqlite: sqlite3.Connection, chords: Iterable[NewChord], moment: Moment) -> None:
    """Begin chords."""
    ledger = Ledger(sqlite, moment)
    for chord in chords:
        ledger.open(chord)
    ledger.write()


def grow(sqlite: sqlite3.Connection, chord: str, by: int, moment: Moment) -> None:
    """Let a chord wait for more members."""
    ledger = Ledger(sqlite, moment)
    ledger.grow(chord, by)
    ledger.write()


def join(sqlite: sqlite3.Connection, parts: Sequence[Part], token: str, moment: Moment) -> list[str]:
    """Add members; the chords that are complete and whose token is taken."""
    ledger = Ledger(sqlite, moment)
    for part in parts:
        ledger.join(part)
    taken = [chord for chord in dict.fromkeys(part.chord for part in parts) if ledger.take(chord, token)]
    ledger.write()
    return taken


def renew(sqlite: sqlite3.Connection, chord: str, token: str, moment: Moment) -> bool:
    """Renew the token's time; False when the chord is not complete or the token does not hold it."""
    ledger = Ledger(sqlite, moment)
    renewed = ledger.holds(Closing(chord, token)) and ledger.take(chord, token)
    ledger.write()
    return renewed


def close(sqlite: sqlite3.Connection, closing: Closing, moment: Moment) -> bool:
    """Let a chord be done; False when the token does not hold it."""
    ledger = Ledger(sqlite, moment)
    closed = ledger.close(closing)
    ledger.write()
    return closed


def lent(sqlite: sqlite3.Connection, chord: str, token: str) -> Gathered | None:
    """A chord whose token was just taken or renewed; reads only, so that nobody waits for it."""
    row = sqlite.execute(SQL["find"], (_clean(chord),)).fetchone()
    if row is None:
        return None
    found = _Chord(chord, *row)
    if found.token != _clean(token) or not found.is_complete():
        return None
    parts = [value for (value,) in sqlite.execute(SQL["parts"], (found.key,))]
    body, shape = sqlite.execute(SQL["text"], (found.key,)).fetchone() or (b"", b"")
    return Gathered(chord=chord, token=token, parts=parts, body=body, shape=shape)


def is_due(sqlite: sqlite3.Connection, moment: Moment) -> bool:
    """Whether there is a chord to look at."""
    return sqlite.execute(SQL["due"], (moment.boot, moment.uptime, 1)).fetchone() is not None


def look(sqlite: sqlite3.Connection, token: str, limit: int, moment: Moment) -> list[str]:
    """Look at chords whose time for it has come, some of them; those up to ``limit`` whose tokens are taken."""
    ledger = Ledger(sqlite, moment)
    taken: list[str] = []
    dropped = 0
    for chord, joined, expires in sqlite.execute(SQL["due"], (moment.boot, moment.uptime, LOOK_CHUNK)).fetchall():
        if len(taken) >= limit or dropped > DROP_CHUNK:
            break
        if expires is not None and expires <= moment.now:
            dropped += 1 + joined
        if ledger.look(chord, token):
            taken.append(chord)
    ledger.write()
    return taken


def sweep(sqlite: sqlite3.Connection, moment: Moment) -> int:
    """Drop chords whose time is over, some of them; returns how many. 0: none is left."""
    ledger = Ledger(sqlite, moment)
    dropped = rows = 0
    over = (moment.boot, moment.uptime, moment.now, LOOK_CHUNK)
    for chord, joined, _ in sqlite.execute(SQL["due_and_over"], over).fetchall():
        if rows > DROP_CHUNK:
            break
        ledger.drop(chord)
        dropped, rows = dropped + 1, rows + 1 + joined
    return dropped


def _place(index: int | None) -> int:
    return _NOWHERE if index is None else max(-_FARTHEST, min(index, _FARTHEST))


def _clean(text: str) -> str:
    """Ids come from foreign messages; lone surrogates do not fit into UTF-8, and one must not spoil a batch."""
    return text.encode("utf-8", "backslashreplace").decode()
