"""Frames of AMQP 0-9-1: a stream of bytes ⇄ methods with their contents. Pure: no socket, no clock.

Written for the three frames of each delivery and each publish; everything else is rare.
"""

from __future__ import annotations

from struct import Struct as Format
from typing import NamedTuple

from celeriac.brokers.rabbitmq import methods as m

__all__ = ["HEADER", "HEARTBEAT", "Event", "Parser", "ack", "content", "publish"]

#: What a client sends first.
HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
#: A frame's own bytes besides its payload.
OVERHEAD = 8

_frame = Format(">BHI")
_head, _unhead = _frame.pack, _frame.unpack_from
_number = Format(">I").unpack_from
_body_size = Format(">HHQ").unpack_from
_ack = Format(">BHIIQBB").pack
_CONTENTS = frozenset({m.BASIC_DELIVER, m.BASIC_GET_OK, m.BASIC_RETURN})
#: A larger frame than anybody negotiates: the stream is out of step.
_LARGEST = 256 * 1024 * 1024


class Event(NamedTuple):
    """One method that came in, with its content if it has one. ``number`` 0: a heartbeat."""

    channel: int
    number: int
    #: Of the method frame, the number included.
    payload: bytes
    #: Of the content header frame.
    header: bytes = b""
    body: bytes = b""


class _Open:
    """A content that is not complete."""

    __slots__ = ("header", "left", "number", "parts", "payload")

    def __init__(self, number: int, payload: bytes) -> None:
        self.number = number
        self.payload = payload
        self.header = b""
        self.left = -1
        self.parts: list[bytes] = []


class Parser:
    """Cuts a stream. ``feed`` raises ``ValueError`` when it is no AMQP."""

    def __init__(self) -> None:
        self._rest = b""
        self._open: dict[int, _Open] = {}

    def feed(self, data: bytes) -> list[Event]:
        """What is complete now."""
        if self._rest:
            data = self._rest + data
        at, size, events, opened = 0, len(data), [], self._open
        while size - at >= OVERHEAD:
            kind, channel, length = _unhead(data, at)
            end = at + 7 + length
            if length > _LARGEST or kind not in {1, 2, 3, 8}:
                raise ValueError(f"this is not AMQP 0-9-1: {data[at : at + 8]!r}")
            if end >= size:
                break
            if data[end] != 0xCE:
                raise ValueError("a frame of the server does not end where it should")
            payload = data[at + 7 : end]
            at = end + 1
            if kind == 1:
                number = _number(payload, 0)[0]
                if number in _CONTENTS:
                    opened[channel] = _Open(number, payload)
                else:
                    events.append(Event(channel, number, payload))
            elif kind == 8:
                events.append(Event(0, 0, b""))
            else:
                event = self._content(kind, channel, payload)
                if event is not None:
                    events.append(event)
        self._rest = data[at:]
        return events

    def _content(self, kind: int, channel: int, payload: bytes) -> Event | None:
        content = self._open.get(channel)
        if content is None:
            return None  # the rest of a channel that was closed meanwhile
        if kind == 2:
            content.header = payload
            content.left = _body_size(payload, 0)[2]
        else:
            content.parts.append(payload)
            content.left -= len(payload)
        if content.left > 0:
            return None
        del self._open[channel]
        parts = content.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return Event(channel, content.number, content.payload, content.header, body)

    def forget(self, channel: int) -> None:
        """A channel was closed: the rest of its content will not come."""
        self._open.pop(channel, None)


def ack(channel: int, tag: int, multiple: bool = False) -> bytes:
    """basic.ack."""
    return _ack(1, channel, 13, m.BASIC_ACK, tag, multiple, 0xCE)


def publish(
    channel: int,
    exchange: bytes,
    routing_key: bytes,
    header: bytes,
    body: bytes,
    frame_max: int,
    mandatory: bool = True,
) -> bytes:
    """basic.publish with its content; exchange and key as short strings."""
    arguments = b"\x00\x3c\x00\x28\x00\x00" + exchange + routing_key + (b"\x01" if mandatory else b"\x00")
    method = (_head(1, channel, len(arguments)), arguments, b"\xce")
    size = len(body)
    if 0 < size <= frame_max - OVERHEAD:
        return b"".join(
            (*method, _head(2, channel, len(header)), header, b"\xce", _head(3, channel, size), body, b"\xce")
        )
    return b"".join(method) + content(channel, header, body, frame_max)


def content(channel: int, header: bytes, body: bytes, frame_max: int) -> bytes:
    """The content frames of a message."""
    parts = [_head(2, channel, len(header)), header, b"\xce"]
    most = frame_max - OVERHEAD
    for at in range(0, len(body), most):
        part = body[at : at + most]
        parts += (_head(3, channel, len(part)), part, b"\xce")
    return b"".join(parts)
