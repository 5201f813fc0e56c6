"""What the chord scripts are told, and the finish script of chords: keys and arguments. Pure.

Used by both kinds of connection, and by ``endings.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from celeriac.brokers.redis.layout import TOKEN, Layout
from celeriac.brokers.redis.sockets import Word
from celeriac.model.chord import Gathered, NewChord, Part
from celeriac.ports import CHORD_DONE

__all__ = ["Concerned", "concern", "gathered_from", "grow_keys", "join_args", "life", "member", "open_args", "settings"]


class Concerned:
    """The chords that one run of a script is about, each with its number, its life time and its body."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._numbers: dict[str, int] = {}
        self._heads: list[Word] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, chord: str) -> int:
        """The number of a chord."""
        number = self._numbers.get(chord)
        if number is None:
            number = self._numbers[chord] = len(self._numbers)
            self._heads += (chord, "", b"")
        return number

    def part(self, part: Part) -> int:
        """The number of a member's chord, of which it may know more."""
        number = self.number(part.chord)
        at = 3 * number
        self._heads[at + 1] = life(part.expires)
        if part.body:
            self._heads[at + 2] = part.body
        return number

    def keys(self) -> list[str]:
        """Seven for each."""
        keys: list[str] = []
        for chord in self._numbers:
            keys += self._layout.chord(chord)
        return keys

    def heads(self) -> list[Word]:
        """For each: id, milliseconds to keep it, body."""
        return self._heads


def life(seconds: float | None) -> Word:
    """A life time for SET PX: milliseconds, at least one; "" for ever."""
    return "" if seconds is None else max(1, round(seconds * 1000))


def member(part: Part) -> str:
    """What stands for a member in its chord: Celery's ``<id>:<place>``, whose tail is the score."""
    return f"{part.id}:{'+inf' if part.index is None else part.index}"


def settings(layout: Layout, token_time: float) -> list[Word]:
    """What every chord script is told first."""
    return [life(token_time), life(CHORD_DONE), "1" if layout.chord_ordered else "0", TOKEN]


def open_args(layout: Layout, chords: Iterable[NewChord], token_time: float) -> tuple[list[str], list[Word]]:
    """Keys and arguments of the script that opens chords."""
    keys = [layout.chords, layout.index]
    args = settings(layout, token_time)
    for chord in chords:
        keys += layout.chord(chord.id)
        args += (chord.id, chord.size, life(chord.expires), chord.body, chord.shape)
    return keys, args


def join_args(
    layout: Layout, parts: Iterable[Part], token: str, token_time: float
) -> tuple[list[str], list[Word], list[str]]:
    """Keys and arguments of the join script, and the chords in the order of their numbers."""
    concerned = Concerned(layout)
    members: list[Any] = []
    chords: list[str] = []
    for part in parts:
        number = concerned.part(part)
        if number == len(chords):
            chords.append(part.chord)
        members += (number, member(part), part.value, part.grows, "1" if part.body else "0")
    args = [*settings(layout, token_time), token, len(concerned), *concerned.heads(), *members]
    return [layout.chords, layout.index, *concerned.keys()], args, chords


def concern(layout: Layout, chords: Sequence[str], token_time: float, *words: Word) -> tuple[list[str], list[Word]]:
    """Keys and arguments of a script that is told ``words`` and then the ids of some chords."""
    keys = [layout.chords, layout.index]
    for chord in chords:
        keys += layout.chord(chord)
    return keys, [*settings(layout, token_time), *words, *chords]


def grow_keys(layout: Layout, chord: str) -> list[str]:
    """Keys of the script that lets a chord grow."""
    size, grown, _, _, token, _, _ = layout.chord(chord)
    return [size, grown, token]


def gathered_from(chord: str, token: str, answer: Sequence[Any] | None) -> Gathered | None:
    """The complete chord in the answer of the gather script."""
    if answer is None:
        return None
    values, body, shape = answer
    return Gathered(chord=chord, token=token, parts=list(map(_value, values)), body=body, shape=shape)


def _value(stored: bytes) -> bytes:
    # Blanks behind JSON tell equal values of two places apart (lua/chord.lua).
    return stored.rstrip(b" ") if stored[-1:] == b" " and stored[:1] == b"[" else stored
