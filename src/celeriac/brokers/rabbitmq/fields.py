"""Field tables and content headers of AMQP 0-9-1: bytes ⇄ plain values. Pure.

Types are written as py-amqp (Celery's) writes them, and all that RabbitMQ may send are read. Whatever is read comes
from strangers: reading raises ``ValueError`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from struct import Struct as Format
from struct import error as damaged
from struct import unpack_from
from typing import Any

from msgspec import Struct

__all__ = ["Properties", "decode_header", "decode_table", "encode_header", "encode_table", "name", "short"]

#: Tables within tables, at most.
MAX_DEPTH = 64

_long = Format(">I").pack
_int32, _int64, _double = Format(">ci").pack, Format(">cq").pack, Format(">cd").pack
_text = Format(">cI").pack
_size, _octet_size = Format(">I").unpack_from, Format(">HHQH").unpack_from
_header = Format(">HHQH").pack
#: Content headers belong to class basic.
BASIC = 60

#: Flags of the properties, in their order on the wire.
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID, _TIMESTAMP = 0x0400, 0x0200, 0x0100, 0x0080, 0x0040
_TYPE, _USER_ID, _APP_ID, _CLUSTER_ID = 0x0020, 0x0010, 0x0008, 0x0004


class Properties(Struct, frozen=True, kw_only=True, gc=False):
    """The properties of a message that mean something here. ``expiration`` (milliseconds) is read from nobody, and
    written for results alone: RabbitMQ would drop a task and nobody would know."""

    content_type: str = ""
    content_encoding: str = ""
    headers: Mapping[str, Any] = {}
    delivery_mode: int = 2
    priority: int | None = None
    correlation_id: str = ""
    reply_to: str = ""
    expiration: str = ""
    message_id: str = ""
    #: Seconds since the epoch, or None.
    timestamp: int | None = None
    type: str = ""
    app_id: str = ""


# ---------------------------------------------------------------- writing


def short(text: str) -> bytes:
    """A short string. Raises ``ValueError`` beyond 255 bytes."""
    data = _utf8(text)
    if len(data) > 255:
        raise ValueError(f"{text[:40]!r}… has {len(data)} bytes, AMQP allows 255 here")
    return _OCTET[len(data)] + data


_OCTET = [bytes((size,)) for size in range(256)]


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


#: Names of headers, queues and types of content repeat with every message.
_names: dict[str, bytes] = {}
_NAMES_KEPT = 1000


def name(text: str) -> bytes:
    """As ``short``, for what is written again and again."""
    known = _names.get(text)
    if known is None:
        if type(text) is not str:
            raise TypeError(f"a header's name must be text, not {type(text).__name__}")
        known = short(text)
        if len(_names) < _NAMES_KEPT:
            _names[text] = known
    return known


#: The same for headers without a value.
_nulls: dict[str, bytes] = {}


def _null(text: str) -> bytes:
    item = name(text) + b"V"
    if len(_nulls) < _NAMES_KEPT:
        _nulls[text] = item
    return item


#: The time limits of most tasks.
_NO_LIMITS = [None, None]
#: The type and the length of short texts.
_TEXT = [_text(b"S", size) for size in range(256)]


def encode_table(table: Mapping[str, Any], depth: int = 0) -> bytes:
    """A table with its length. Raises ``TypeError`` or ``ValueError`` for what AMQP cannot hold."""
    parts: list[bytes] = []
    add = parts.append
    get, nulls = _names.get, _nulls
    for key, value in table.items():
        if value is None:
            add(nulls.get(key) or _null(key))
            continue
        add(get(key) or name(key))
        kind = type(value)
        if kind is str:
            data = _utf8(value)
            size = len(data)
            add(_TEXT[size] if size < 256 else _text(b"S", size))
            add(data)
        elif kind is dict and not value:
            add(b"F\0\0\0\0")
        elif kind is list and value == _NO_LIMITS:
            add(b"A\0\0\0\2VV")
        else:
            _write(value, add, depth)
    body = b"".join(parts)
    return _long(len(body)) + body


def _write(value: Any, add: Any, depth: int) -> None:
    if value is None:
        add(b"V")
    elif isinstance(value, bool):
        add(b"t\1" if value else b"t\0")
    elif isinstance(value, str):
        data = _utf8(value)
        add(_text(b"S", len(data)) + data)
    elif isinstance(value, int):
        if -0x80000000 <= value < 0x80000000:
            add(_int32(b"I", value))
        elif -0x8000000000000000 <= value < 0x8000000000000000:
            add(_int64(b"l", value))
        else:
            raise ValueError("a header holds an integer of more than 64 bits, which AMQP cannot hold")
    elif isinstance(value, float):
        add(_double(b"d", value))
    elif isinstance(value, (bytes, bytearray)):
        add(_text(b"x", len(value)) + bytes(value))
    elif isinstance(value, Decimal):
        add(_decimal(value))
    elif depth >= MAX_DEPTH:
        raise ValueError(f"headers are nested deeper than {MAX_DEPTH}")
    elif isinstance(value, (list, tuple)):
        add(b"A" + _array(value, depth + 1))
    elif isinstance(value, Mapping):
        add(b"F" + encode_table(value, depth + 1))
    else:
        raise TypeError(f"a header holds a {type(value).__name__}, which AMQP cannot hold")


def _decimal(value: Decimal) -> bytes:
    """Strangers write them; a message that is put off has to keep its headers."""
    sign, digits, exponent = value.as_tuple()
    number = int(Decimal((sign, digits, 0))) if isinstance(exponent, int) else 0
    if not isinstance(exponent, int) or not (-255 <= exponent <= 0 and -0x80000000 <= number < 0x80000000):
        raise ValueError(f"a header holds the decimal {value}, which AMQP cannot hold")
    return b"D" + Format(">Bi").pack(-exponent, number)


def _array(items: Sequence[Any], depth: int) -> bytes:
    parts: list[bytes] = []
    for item in items:
        _write(item, parts.append, depth)
    body = b"".join(parts)
    return _long(len(body)) + body


def encode_header(properties: Properties, size: int) -> bytes:
    """The payload of the content header of a body of ``size`` bytes."""
    p = properties
    flags = _HEADERS | _DELIVERY_MODE
    parts: list[bytes] = []
    add = parts.append
    if p.content_type:
        flags |= _CONTENT_TYPE
        add(name(p.content_type))
    if p.content_encoding:
        flags |= _CONTENT_ENCODING
        add(name(p.content_encoding))
    add(encode_table(p.headers))
    add(b"\1" if p.delivery_mode == 1 else b"\2")
    if p.priority is not None:
        flags |= _PRIORITY
        add(_OCTET[min(max(p.priority, 0), 255)])
    for flag, value in (
        (_CORRELATION_ID, p.correlation_id),
        (_REPLY_TO, p.reply_to),
        (_EXPIRATION, p.expiration),
        (_MESSAGE_ID, p.message_id),
    ):
        if value:
            flags |= flag
            add(short(value))
    if p.timestamp is not None:
        flags |= _TIMESTAMP
        add(Format(">Q").pack(p.timestamp))
    for flag, value in ((_TYPE, p.type), (_APP_ID, p.app_id)):
        if value:
            flags |= flag
            add(short(value))
    return _header(BASIC, 0, size, flags) + b"".join(parts)


# ---------------------------------------------------------------- reading


def decode_header(payload: bytes) -> Properties:
    """The properties in the payload of a content header."""
    try:
        return _properties(payload)
    except (damaged, IndexError, UnicodeError, OverflowError) as error:
        raise ValueError(f"the content header is damaged: {error}") from error


def _properties(data: bytes) -> Properties:
    flags = _octet_size(data, 0)[3]
    if flags & 1:
        raise ValueError("the content header has more flags than there are properties")
    at = 14
    content_type = content_encoding = correlation_id = reply_to = message_id = kind = app_id = ""
    headers: dict[str, Any] = {}
    mode, priority, timestamp = 1, None, None
    if flags & _CONTENT_TYPE:
        content_type, at = _short(data, at)
    if flags & _CONTENT_ENCODING:
        content_encoding, at = _short(data, at)
    if flags & _HEADERS:
        headers, at = _table(data, at, 0)
    if flags & _DELIVERY_MODE:
        mode, at = data[at], at + 1
    if flags & _PRIORITY:
        priority, at = data[at], at + 1
    if flags & _CORRELATION_ID:
        correlation_id, at = _short(data, at)
    if flags & _REPLY_TO:
        reply_to, at = _short(data, at)
    if flags & _EXPIRATION:
        _, at = _short(data, at)
    if flags & _MESSAGE_ID:
        message_id, at = _short(data, at)
    if flags & _TIMESTAMP:
        timestamp, at = unpack_from(">Q", data, at)[0], at + 8
    if flags & _TYPE:
        kind, at = _short(data, at)
    if flags & _USER_ID:
        _, at = _short(data, at)
    if flags & _APP_ID:
        app_id, at = _short(data, at)
    return Properties(
        content_type=content_type,
        content_encoding=content_encoding,
        headers=headers,
        delivery_mode=mode,
        priority=priority,
        correlation_id=correlation_id,
        reply_to=reply_to,
        message_id=message_id,
        timestamp=timestamp,
        type=kind,
        app_id=app_id,
    )


def decode_table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """The table that begins there, and where it ends."""
    try:
        return _table(data, at, 0)
    except (damaged, IndexError, UnicodeError, OverflowError) as error:
        raise ValueError(f"a field table is damaged: {error}") from error


def _short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end > len(data):
        raise IndexError("a short string ends beyond its frame")
    return str(data[at + 1 : end], "utf-8", "surrogatepass"), end


#: The names as they are read, so that each is decoded once.
_read_names: dict[bytes, str] = {}


def _table(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"headers are nested deeper than {MAX_DEPTH}")
    end = at + 4 + _size(data, at)[0]
    if end > len(data):
        raise IndexError("a table ends beyond its frame")
    at += 4
    table: dict[str, Any] = {}
    known = _read_names
    while at < end:
        stop = at + 1 + data[at]
        word = data[at + 1 : stop]
        key = known.get(word)
        if key is None:
            key = str(word, "utf-8", "surrogatepass")
            if len(known) < _NAMES_KEPT:
                known[word] = key
        kind = data[stop]
        at = stop + 1
        if kind == 0x53:  # S
            at += 4
            stop = at + _size(data, at - 4)[0]
            if stop > end:
                raise IndexError("a text ends beyond its table")
            table[key] = str(data[at:stop], "utf-8", "surrogatepass")
            at = stop
        elif kind == 0x56:  # V
            table[key] = None
        else:
            table[key], at = _value(data, at, kind, depth)
    if at != end:
        raise ValueError("a table is longer than its fields")
    return table, at


#: Type → format and size of numbers.
_NUMBERS = {
    0x62: (">b", 1),
    0x42: (">B", 1),
    0x73: (">h", 2),
    0x55: (">h", 2),
    0x75: (">H", 2),
    0x49: (">i", 4),
    0x69: (">I", 4),
    0x6C: (">q", 8),
    0x4C: (">q", 8),
    0x66: (">f", 4),
    0x64: (">d", 8),
    0x54: (">Q", 8),
}


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    number = _NUMBERS.get(kind)
    if number is not None:
        return unpack_from(number[0], data, at)[0], at + number[1]
    if kind == 0x74:  # t
        return data[at] != 0, at + 1
    if kind == 0x56:  # V
        return None, at
    if kind in {0x53, 0x78}:  # S, x
        start = at + 4
        stop = start + _size(data, at)[0]
        if stop > len(data):
            raise IndexError("a text ends beyond its frame")
        word = data[start:stop]
        return (word if kind == 0x78 else str(word, "utf-8", "surrogatepass")), stop
    if kind == 0x46:  # F
        return _table(data, at, depth + 1)
    if kind == 0x41:  # A
        return _read_array(data, at, depth + 1)
    if kind == 0x44:  # D
        scale, digits = unpack_from(">Bi", data, at)
        return Decimal(digits).scaleb(-scale), at + 5
    raise ValueError(f"a field is of the unknown type {chr(kind)!r}")


def _read_array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"headers are nested deeper than {MAX_DEPTH}")
    end = at + 4 + _size(data, at)[0]
    if end > len(data):
        raise IndexError("an array ends beyond its frame")
    at += 4
    items: list[Any] = []
    while at < end:
        item, at = _value(data, at + 1, data[at], depth)
        items.append(item)
    if at != end:
        raise ValueError("an array is longer than its items")
    return items, at
