"""The methods of AMQP 0-9-1 that are spoken here: numbers, arguments, bytes. Pure.

A method is a number (class << 16 | method) and its arguments in order; ``_ARGUMENTS`` says how each is written:
``o`` octet, ``h`` short, ``l`` long, ``q`` long long, ``s`` short string, ``S`` long string, ``t`` table, ``b`` bit.
"""

from __future__ import annotations

from struct import error as damaged
from struct import pack, unpack_from
from typing import Any, Final

from celeriac.brokers.rabbitmq.fields import decode_table, encode_table, short

__all__ = ["arguments", "method", "name_of"]

CONNECTION_START: Final = 0x0A000A
CONNECTION_START_OK: Final = 0x0A000B
CONNECTION_TUNE: Final = 0x0A001E
CONNECTION_TUNE_OK: Final = 0x0A001F
CONNECTION_OPEN: Final = 0x0A0028
CONNECTION_OPEN_OK: Final = 0x0A0029
CONNECTION_CLOSE: Final = 0x0A0032
CONNECTION_CLOSE_OK: Final = 0x0A0033
CONNECTION_BLOCKED: Final = 0x0A003C
CONNECTION_UNBLOCKED: Final = 0x0A003D
CHANNEL_OPEN: Final = 0x14000A
CHANNEL_OPEN_OK: Final = 0x14000B
CHANNEL_FLOW: Final = 0x140014
CHANNEL_FLOW_OK: Final = 0x140015
CHANNEL_CLOSE: Final = 0x140028
CHANNEL_CLOSE_OK: Final = 0x140029
EXCHANGE_DECLARE: Final = 0x28000A
EXCHANGE_DECLARE_OK: Final = 0x28000B
EXCHANGE_DELETE: Final = 0x280014
EXCHANGE_DELETE_OK: Final = 0x280015
EXCHANGE_BIND: Final = 0x28001E
EXCHANGE_BIND_OK: Final = 0x28001F
QUEUE_DECLARE: Final = 0x32000A
QUEUE_DECLARE_OK: Final = 0x32000B
QUEUE_BIND: Final = 0x320014
QUEUE_BIND_OK: Final = 0x320015
QUEUE_PURGE: Final = 0x32001E
QUEUE_PURGE_OK: Final = 0x32001F
QUEUE_DELETE: Final = 0x320028
QUEUE_DELETE_OK: Final = 0x320029
BASIC_QOS: Final = 0x3C000A
BASIC_QOS_OK: Final = 0x3C000B
BASIC_CONSUME: Final = 0x3C0014
BASIC_CONSUME_OK: Final = 0x3C0015
BASIC_CANCEL: Final = 0x3C001E
BASIC_CANCEL_OK: Final = 0x3C001F
BASIC_PUBLISH: Final = 0x3C0028
BASIC_RETURN: Final = 0x3C0032
BASIC_DELIVER: Final = 0x3C003C
BASIC_GET: Final = 0x3C0046
BASIC_GET_OK: Final = 0x3C0047
BASIC_GET_EMPTY: Final = 0x3C0048
BASIC_ACK: Final = 0x3C0050
BASIC_NACK: Final = 0x3C0078
CONFIRM_SELECT: Final = 0x55000A
CONFIRM_SELECT_OK: Final = 0x55000B

_ARGUMENTS = {
    CONNECTION_START: "ootSS",
    CONNECTION_START_OK: "tsSs",
    CONNECTION_TUNE: "hlh",
    CONNECTION_TUNE_OK: "hlh",
    CONNECTION_OPEN: "ssb",
    CONNECTION_OPEN_OK: "s",
    CONNECTION_CLOSE: "hshh",
    CONNECTION_CLOSE_OK: "",
    CONNECTION_BLOCKED: "s",
    CONNECTION_UNBLOCKED: "",
    CHANNEL_OPEN: "s",
    CHANNEL_OPEN_OK: "S",
    CHANNEL_FLOW: "b",
    CHANNEL_FLOW_OK: "b",
    CHANNEL_CLOSE: "hshh",
    CHANNEL_CLOSE_OK: "",
    EXCHANGE_DECLARE: "hssbbbbbt",
    EXCHANGE_DECLARE_OK: "",
    EXCHANGE_DELETE: "hsbb",
    EXCHANGE_DELETE_OK: "",
    EXCHANGE_BIND: "hsssbt",
    EXCHANGE_BIND_OK: "",
    QUEUE_DECLARE: "hsbbbbbt",
    QUEUE_DECLARE_OK: "sll",
    QUEUE_BIND: "hsssbt",
    QUEUE_BIND_OK: "",
    QUEUE_PURGE: "hsb",
    QUEUE_PURGE_OK: "l",
    QUEUE_DELETE: "hsbbb",
    QUEUE_DELETE_OK: "l",
    BASIC_QOS: "lhb",
    BASIC_QOS_OK: "",
    BASIC_CONSUME: "hssbbbbt",
    BASIC_CONSUME_OK: "s",
    BASIC_CANCEL: "sb",
    BASIC_CANCEL_OK: "s",
    BASIC_PUBLISH: "hssbb",
    BASIC_RETURN: "hsss",
    BASIC_DELIVER: "sqbss",
    BASIC_GET: "hsb",
    BASIC_GET_OK: "qbssl",
    BASIC_GET_EMPTY: "s",
    BASIC_ACK: "qb",
    BASIC_NACK: "qbb",
    CONFIRM_SELECT: "b",
    CONFIRM_SELECT_OK: "",
}
_NAMES = {number: name for name, number in list(globals().items()) if name.isupper() and isinstance(number, int)}
_FIXED = {"o": (">B", 1), "h": (">H", 2), "l": (">I", 4), "q": (">Q", 8)}


def name_of(number: int) -> str:
    """``QUEUE_DECLARE`` as ``queue.declare``; a number that nobody speaks as it is."""
    return _NAMES.get(number, f"{number >> 16}_{number & 0xFFFF}").lower().replace("_", ".", 1)


def method(channel: int, number: int, *values: Any) -> bytes:
    """A whole method frame."""
    parts = [pack(">I", number)]
    bits, width = 0, 0
    for kind, value in zip(_ARGUMENTS[number], values, strict=True):
        if kind == "b":
            bits |= bool(value) << width
            width += 1
            continue
        if width:
            parts.append(bytes((bits,)))
            bits, width = 0, 0
        if kind == "s":
            parts.append(short(value))
        elif kind == "S":
            parts.append(pack(">I", len(value)) + value)
        elif kind == "t":
            parts.append(encode_table(value))
        else:
            parts.append(pack(_FIXED[kind][0], value))
    if width:
        parts.append(bytes((bits,)))
    payload = b"".join(parts)
    return pack(">BHI", 1, channel, len(payload)) + payload + b"\xce"


def _readable(data: bytes) -> str:
    """A short string. Routing keys are written by strangers, and no server looks whether they are text."""
    try:
        return str(data, "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return str(data, "utf-8", "backslashreplace")


def arguments(number: int, payload: bytes) -> list[Any]:
    """The arguments in the payload of a method frame, behind its number. Raises ``ValueError``."""
    kinds = _ARGUMENTS.get(number)
    if kinds is None:
        raise ValueError(f"the server speaks {name_of(number)}, which is unknown here")
    values: list[Any] = []
    at, bit = 4, 0
    try:
        for kind in kinds:
            if kind == "b":
                values.append(bool(payload[at] >> bit & 1))
                bit += 1
                continue
            if bit:
                at, bit = at + 1, 0
            if kind == "s":
                end = at + 1 + payload[at]
                values.append(_readable(payload[at + 1 : end]))
                at = end
            elif kind == "S":
                end = at + 4 + unpack_from(">I", payload, at)[0]
                values.append(payload[at + 4 : end])
                at = end
            elif kind == "t":
                table, at = decode_table(payload, at)
                values.append(table)
            else:
                form, size = _FIXED[kind]
                values.append(unpack_from(form, payload, at)[0])
                at += size
    except (damaged, IndexError, UnicodeError) as error:
        raise ValueError(f"{name_of(number)} of the server is damaged: {error}") from error
    return values
