"""Messages and chords as the bytes of an outbox's rows, and back.

A message is the envelope that brokers store; whoever publishes it makes the envelope anew. Called by the sender inside
``app.transaction()`` and by the relay.
"""

from __future__ import annotations

from datetime import UTC, tzinfo

import msgspec
from msgspec.structs import replace

from celeriac.codec.envelope import decode, encode, new_id
from celeriac.codec.json import plain
from celeriac.exceptions import DecodeError
from celeriac.model.chord import NewChord
from celeriac.model.message import Malformed, Message
from celeriac.model.outbox import Kind, Parcel

__all__ = ["chord_in", "chord_parcel", "message_in", "message_parcel"]


def message_parcel(message: Message) -> Parcel:
    """Raises ``EncodeError`` for headers that cannot be encoded."""
    return Parcel(
        id=new_id(),
        kind=Kind.MESSAGE,
        task=message.task,
        task_id=message.id,
        queue=message.queue,
        body=encode(message),
    )


def chord_parcel(chord: NewChord) -> Parcel:
    """The row of a chord that is to be opened."""
    return Parcel(id=new_id(), kind=Kind.CHORD, task_id=chord.id, body=msgspec.json.encode(chord))


def message_in(parcel: Parcel, *, zone: tzinfo = UTC, max_bytes: int) -> Message:
    """The message as the sender had it. Raises ``DecodeError``."""
    message = decode(parcel.body, queue=parcel.queue, zone=zone, max_bytes=max_bytes)
    if isinstance(message, Malformed):
        raise DecodeError(message.reason)
    # Decoding has made dates and the like of tagged headers: they are published as the sender wrote them.
    return replace(message, headers=dict(plain(message.headers)))


def chord_in(parcel: Parcel) -> NewChord:
    """Raises ``DecodeError``."""
    try:
        return msgspec.json.decode(parcel.body, type=NewChord)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a chord: {error}") from error
