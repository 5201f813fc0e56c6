"""Chords in memory: who joined, who sends the body, when to look again. Plain state, called under the server's lock.

``tick`` is monotonic time in seconds, ``wait`` how long a token holds. Parts and bodies are opaque bytes.
"""

from __future__ import annotations

from collections.abc import Container
from heapq import heappop, heappush

from msgspec import Struct

from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.ports import CHORD_DONE, CHORD_LOOK

__all__ = ["Chords"]

#: Seconds for which a chord is remembered that only its growth is known of.
_GROWN = 86400.0


class _Holder(Struct, frozen=True):
    """Who sends the body. ``leased``: the token was that of a delivery, so it is over with the lease."""

    token: str
    until: float
    leased: bool


class _Chord(Struct):
    #: None: nobody has opened it.
    size: int | None = None
    grown: int = 0
    body: bytes = b""
    shape: bytes = b""
    #: Life time, and when it is over.
    life: float | None = None
    until: float | None = None
    #: By id and index, in the order in which they joined.
    parts: dict[tuple[str, int | None], bytes] = {}
    is_done: bool = False
    holder: _Holder | None = None
    #: When the next look is due.
    look: float = 0.0

    def is_complete(self) -> bool:
        return self.size is not None and not self.is_done and len(self.parts) >= self.size + self.grown

    def is_opened_as(self, new: NewChord) -> bool:
        """This call was made before."""
        same = (self.size, self.shape) == (new.size, new.shape) and new.body in (b"", self.body)
        return same and not self.is_done

    def renew(self, tick: float) -> None:
        self.until = None if self.life is None else tick + self.life


class Chords:
    """All chords of one server; ``leases`` holds the tokens of the deliveries that are lent."""

    __slots__ = ("_chords", "_leases", "_looks")

    def __init__(self, leases: Container[str]) -> None:
        self._leases = leases
        self._chords: dict[str, _Chord] = {}
        #: Heap of (when, id); an entry that does not fit its chord any more is skipped.
        self._looks: list[tuple[float, str]] = []

    def _find(self, chord_id: str, tick: float) -> _Chord | None:
        chord = self._chords.get(chord_id)
        if chord is not None and chord.until is not None and chord.until <= tick:
            del self._chords[chord_id]
            return None
        return chord

    def _add(self, chord_id: str, life: float | None, tick: float, look: float) -> _Chord:
        chord = self._chords[chord_id] = _Chord(life=life)
        chord.renew(tick)
        self._look_at(chord_id, chord, tick + look)
        return chord

    def _look_at(self, chord_id: str, chord: _Chord, when: float) -> None:
        if chord.until is not None:
            when = min(when, chord.until)
        chord.look = when
        heappush(self._looks, (when, chord_id))

    # -- members -----------------------------------------------------------------------------------------------------

    def open(self, new: NewChord, tick: float, wait: float) -> None:
        """Begin a chord; members that came before it was ever opened count. One that goes on goes on."""
        before = self._find(new.id, tick)
        if before is not None and before.is_opened_as(new):
            before.life = new.expires
            before.renew(tick)
            return
        chord = _Chord(size=new.size, body=new.body, shape=new.shape, life=new.expires)
        if before is not None:
            chord.grown = before.grown
            if before.size is None and not before.is_done:
                chord.parts, chord.body = before.parts, new.body or before.body
        chord.renew(tick)
        self._chords[new.id] = chord
        self._look_at(new.id, chord, tick + wait)

    def join(self, part: Part, tick: float, wait: float) -> None:
        """Add a member, once."""
        chord = self._find(part.chord, tick)
        if (chord is None or chord.size is None) and not part.body:
            return
        if chord is None:
            chord = self._add(part.chord, part.expires, tick, wait)
        if chord.is_done:
            return
        if chord.size is None:
            chord.life = part.expires
        if not chord.body:
            chord.body = part.body
        member = (part.id, part.index)
        if member not in chord.parts:
            chord.parts[member] = part.value
            chord.grown += part.grows
        chord.renew(tick)

    def grow(self, chord_id: str, by: int, tick: float) -> None:
        """Wait for more members."""
        chord = self._find(chord_id, tick) or self._add(chord_id, _GROWN, tick, CHORD_LOOK)
        chord.grown += by

    # -- the token ---------------------------------------------------------------------------------------------------

    def take(self, chord_id: str, token: str, tick: float, wait: float) -> bool:
        """Take the token of a complete chord, unless somebody else holds it; renew it when it is held already."""
        chord = self._find(chord_id, tick)
        if chord is None or not chord.is_complete():
            return False
        holder = chord.holder
        held = holder is not None and holder.token == token
        if holder is not None and not held and not self._is_over(holder, tick):
            return False
        leased = token in self._leases or (held and holder is not None and holder.leased)
        chord.holder = _Holder(token, tick + wait, leased)
        self._look_at(chord_id, chord, tick + wait)
        return True

    def _is_over(self, holder: _Holder, tick: float) -> bool:
        return holder.until <= tick or (holder.leased and holder.token not in self._leases)

    def holds(self, closing: Closing, tick: float) -> bool:
        """Whether nobody else took the token meanwhile; its time does not matter then."""
        chord = self._find(closing.chord, tick)
        return chord is not None and chord.holder is not None and chord.holder.token == closing.token

    def gather(self, chord_id: str, token: str, tick: float, wait: float) -> Gathered | None:
        """The complete chord for the holder of its token, whose time is renewed."""
        if not self.holds(Closing(chord_id, token), tick) or not self.take(chord_id, token, tick, wait):
            return None
        chord = self._chords[chord_id]
        # Without an index last, those of one index in the order in which they joined.
        members = sorted(chord.parts.items(), key=lambda member: (member[0][1] is None, member[0][1] or 0))
        parts = [value for _, value in members]
        return Gathered(chord=chord_id, token=token, parts=parts, body=chord.body, shape=chord.shape)

    def close(self, closing: Closing, tick: float) -> bool:
        """Forget the members for the holder of the token, and refuse late ones for a while."""
        if not self.holds(closing, tick):
            return False
        chord = self._chords[closing.chord] = _Chord(is_done=True, life=CHORD_DONE)
        chord.renew(tick)
        self._look_at(closing.chord, chord, tick + CHORD_DONE)
        return True

    def pending(self) -> list[str]:
        """Ids of complete chords whose body is not sent yet."""
        return [chord_id for chord_id, chord in self._chords.items() if chord.is_complete()]

    # -- looks -------------------------------------------------------------------------------------------------------

    def overdue(self, token: str, limit: int, tick: float, wait: float) -> list[Gathered]:
        """Take up to ``limit`` complete chords that nobody holds, of those whose look is due."""
        found: list[Gathered] = []
        while len(found) < limit and self._looks and self._looks[0][0] <= tick:
            when, chord_id = heappop(self._looks)
            chord = self._find(chord_id, tick)
            if chord is None or chord.look != when:
                continue
            if self.take(chord_id, token, tick, wait):
                gathered = self.gather(chord_id, token, tick, wait)
                found += [gathered] if gathered is not None else []
            elif chord.is_complete() and chord.holder is not None:
                self._look_at(chord_id, chord, chord.holder.until)
            else:
                self._look_at(chord_id, chord, tick + CHORD_LOOK)
        return found

    def sweep(self, tick: float) -> int:
        """Drop chords whose time is over; returns how many."""
        over = sum(self._find(chord_id, tick) is None for chord_id in tuple(self._chords))
        if over:
            self._looks = sorted((chord.look, chord_id) for chord_id, chord in self._chords.items())
        return over
