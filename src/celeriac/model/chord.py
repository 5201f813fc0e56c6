"""Fan-in: what is known of a chord, and what follows once all its members have ended.

A chord is complete when each member has joined, and a member joins once, by its id and index, whatever ended it
(``celery-wire.md`` §3.5). ``gathered`` is pure: the store says what came in, the answer says what the body is called
with, or why it never will be. The values travel between worker and result stores; stores read none of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from celeriac import states
from celeriac.exceptions import ChordError

__all__ = ["Closing", "Gathered", "NewChord", "Part", "PartValue", "gathered"]


class NewChord(Struct, frozen=True, kw_only=True, gc=False):
    """A chord that is about to be sent: written before its members, so that none joins in vain."""

    #: Id of the header's group.
    id: str
    #: Members that join it.
    size: int
    #: The encoded signature to send when it is complete (``codec/chords.py``).
    body: bytes = b""
    #: Result tuple of the header as JSON, when groups are nested in it: the form of the body's argument.
    shape: bytes = b""
    #: Life time in seconds, renewed by each member that joins; None: for ever.
    expires: float | None = None


class Part(Struct, frozen=True, kw_only=True, gc=False):
    """A member's end, told to its chord."""

    chord: str
    #: The member's id, and its place among the members where it has one.
    id: str
    index: int | None = None
    #: ``[1, id, state, result]``, encoded.
    value: bytes
    #: So many members more it has added: counted when it is, and only then.
    grows: int = 0
    #: The chord's body, for a store that has not seen it yet; empty when the message could not be read. Without it the
    #: store takes the part only if the chord was opened.
    body: bytes = b""
    #: Life time in seconds of a chord that nobody has opened yet.
    expires: float | None = None


class Closing(Struct, frozen=True, gc=False):
    """The word that a chord is done with, by the one who holds its token."""

    chord: str
    token: str


class Gathered(Struct, frozen=True, kw_only=True):
    """A complete chord, lent to the one who holds its token: nobody else sends its body meanwhile."""

    chord: str
    token: str
    #: ``Part.value`` of all members, in the order of their places.
    parts: Sequence[bytes]
    body: bytes = b""
    shape: bytes = b""


class PartValue(Struct, frozen=True, gc=False):
    """A decoded ``Part.value``: ``result`` is a value, or an exception where ``state`` says so."""

    id: str
    state: str
    result: Any


def gathered(parts: Sequence[PartValue], shape: Any = None) -> list[Any] | ChordError:
    """The values of all members, in their order, or the error that the body ends with.

    ``shape`` is the header's result tuple when groups are nested in it: the values are nested likewise. A member that
    did not succeed fails the chord; of several the first in order is named. Raises nothing.
    """
    for part in parts:
        if part.state != states.SUCCESS:
            error = ChordError(f"Dependency {part.id} raised {_text(part.result)}")
            if isinstance(part.result, BaseException):
                error.__cause__ = part.result
            return error
    if shape is None:
        return [part.result for part in parts]
    return _shaped(shape, {part.id: part.result for part in parts})


def _shaped(shape: Any, values: Mapping[str, Any]) -> list[Any] | ChordError:
    try:
        shaped = [_value(member, values) for member in shape[1]]
        # What was added later (``add_to_chord``) is not in it.
        known = frozenset(_ids(shape[1]))
        return [*shaped, *(value for each, value in values.items() if each not in known)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return ChordError(f"the stored form of the header does not fit its members: {error!r}")


def _value(member: Any, values: Mapping[str, Any]) -> Any:
    head, members = member
    if members is not None:
        return [_value(each, values) for each in members]
    return values[head[0] if isinstance(head, (list, tuple)) else head]


def _ids(members: Any) -> Iterator[Any]:
    for head, inner in members:
        if inner is None:
            yield head[0] if isinstance(head, (list, tuple)) else head
        else:
            yield from _ids(inner)


def _text(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise
        return type(value).__name__
