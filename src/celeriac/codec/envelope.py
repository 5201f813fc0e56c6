"""kombu's envelope: one JSON text per message (``celery-wire.md`` §3.3). Used by every broker that stores text.

``decode`` is the one place where stored bytes become a message, and it cannot raise: what is no task message comes
back as ``Malformed``. It does not look into the body of a protocol-2 message; that is the runner's work.
"""

from __future__ import annotations

import os
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from itertools import count
from time import time
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from celeriac.codec.json import check_depth, dumps, loads, plain
from celeriac.codec.signing import SIGNATURE
from celeriac.exceptions import CeleryError, DecodeError
from celeriac.model.ledger import LOCK
from celeriac.model.message import MARK, NO_MARKS, Delivery, Malformed, Marks, Message

__all__ = ["LOCK_MARK", "carries_lock", "decode", "delivery", "encode", "message_from_parts", "new_id", "remark"]

#: What every stored message contains that carries the lock of a unique task.
LOCK_MARK = f'"{LOCK}"'.encode()
_NO_LIMITS = [None, None]
#: How many headers each message has.
_PROTOCOL_HEADERS = 19
#: base64 and JSON add a third; beyond this no message within the limit can be.
_ENVELOPE_OVERHEAD = 1.5
_OVERHEAD_BYTES = 65536


class _DeliveryInfo(Struct):
    exchange: str | None = ""
    routing_key: str | None = ""


class _Properties(Struct):
    correlation_id: str | None = ""
    reply_to: str | None = ""
    delivery_mode: int | None = 2
    delivery_info: _DeliveryInfo | None = None
    priority: int | None = 0
    body_encoding: str | None = None
    delivery_tag: str | int | None = None


class _Envelope(Struct):
    body: str
    properties: _Properties
    content_encoding: str | None = field(default="utf-8", name="content-encoding")
    content_type: str | None = field(default="application/json", name="content-type")
    headers: dict[str, Any] | None = None


class _UsualEnvelope(Struct):
    """As kombu writes it: msgspec decodes base64 four times as fast as binascii."""

    body: bytes
    properties: _Properties
    content_encoding: str | None = field(default="utf-8", name="content-encoding")
    content_type: str | None = field(default="application/json", name="content-type")
    headers: dict[str, Any] | None = None


class _OutProperties(Struct):
    correlation_id: str
    reply_to: str
    delivery_mode: int
    delivery_info: _DeliveryInfo
    priority: int
    body_encoding: str
    delivery_tag: str


class _OutEnvelope(Struct):
    #: msgspec writes bytes as base64.
    body: bytes
    content_encoding: str = field(name="content-encoding")
    content_type: str = field(name="content-type")
    headers: Mapping[str, Any]
    properties: _OutProperties


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_usual = msgspec.json.Decoder(_UsualEnvelope).decode
_encode = msgspec.json.Encoder().encode
_convert_marks = msgspec.convert


#: Ids for which is drawn at once, and seconds for which they are good: a frozen machine that is copied has none left.
_DRAWN, _FRESH = 32, 0.05


class _Random:
    """What ids are made of, drawn for several at once: each draw lets other threads run, and waits for them."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """A new process draws its own."""
        self._left: list[bytes] = []
        self._until = 0.0

    def __call__(self, size: int) -> bytes:
        """``size`` is 16."""
        left = self._left
        now = time()
        if left and now < self._until:
            try:
                return left.pop()
            except IndexError:  # another thread was faster
                pass
        drawn = os.urandom(size * _DRAWN)
        self._left = [drawn[at : at + size] for at in range(size, len(drawn), size)]
        self._until = now + _FRESH
        return drawn[:size]


_random = _Random()
os.register_at_fork(after_in_child=_random.renew)
#: Where ids come from. Simulations put a seeded source here.
random_bytes: Callable[[int], bytes] = _random


def new_id() -> str:
    """A random id in the shape of a uuid4, at a fifth of its cost (DESIGN §8)."""
    h = random_bytes(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


class _Tags:
    """Delivery tags: unique, and far cheaper than random ones, for nobody has to guess them or not."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """In a new process the count goes on under another prefix."""
        self.prefix = new_id()[:24]
        self.next = count(int.from_bytes(os.urandom(4))).__next__


_tags = _Tags()
os.register_at_fork(after_in_child=_tags.renew)


def encode(message: Message, *, marks: Marks | None = None, redelivered: bool = False) -> bytes:
    """The envelope of a message. Raises ``EncodeError`` for headers that cannot be encoded; the sender's always can."""
    headers = message.headers
    if marks is not None or redelivered:
        headers = dict(plain(headers))
        if marks is not None:
            headers[MARK] = msgspec.to_builtins(marks)
        if redelivered:
            headers["redelivered"] = True
    properties = _OutProperties(
        message.correlation_id or message.id,
        message.reply_to,
        message.delivery_mode,
        _DeliveryInfo(message.exchange, message.routing_key or message.queue),
        message.priority,
        "base64",
        f"{_tags.prefix}{_tags.next():012x}",
    )
    out = _OutEnvelope(message.body, message.content_encoding, message.content_type, headers, properties)
    try:
        return _encode(out)
    except UnicodeEncodeError:  # lone surrogates, in argsrepr for instance: Python's JSON escapes them
        return dumps(msgspec.to_builtins(out))


def decode(raw: bytes, *, queue: str, zone: tzinfo = UTC, max_bytes: int = 32 * 1024 * 1024) -> Message | Malformed:
    """The message in an envelope; ``zone`` is for naive times. Never raises."""
    if len(raw) > max_bytes * _ENVELOPE_OVERHEAD + _OVERHEAD_BYTES:
        return Malformed(reason=f"{len(raw)} bytes are more than max_message_bytes={max_bytes}", raw=raw)
    try:
        envelope, body = _read(raw)
        headers = envelope.headers or {}
        if len(headers) > _PROTOCOL_HEADERS + (SIGNATURE in headers) or headers.get("stamps"):
            # Only what callers put into headers may be nested or tagged; to search each message would cost 2 µs.
            check_depth(raw)
            if b"__type__" in raw:
                envelope, body = _tolerant(raw)
                headers = envelope.headers or {}
    except (msgspec.MsgspecError, ValueError, RecursionError, DecodeError) as error:
        try:
            envelope, body = _tolerant(raw)
            headers = envelope.headers or {}
        except (msgspec.MsgspecError, ValueError, RecursionError, DecodeError):
            return Malformed(reason=f"not an envelope: {error}", raw=raw)
    properties = envelope.properties
    info = properties.delivery_info
    return _message(
        headers,
        body,
        raw,
        queue,
        zone,
        max_bytes,
        envelope.content_type or "application/json",
        envelope.content_encoding or "utf-8",
        (info.exchange or "") if info else "",
        (info.routing_key or "") if info else "",
        properties.priority or 0,
        properties.correlation_id or "",
        properties.reply_to or "",
        properties.delivery_mode or 2,
    )


def _read(raw: bytes) -> tuple[_Envelope | _UsualEnvelope, bytes]:
    """The envelope and the bytes of its body."""
    try:
        usual = _decode_usual(raw)
    except msgspec.ValidationError:
        pass  # a body that is text, or something that is wrong: the other decoder knows
    else:
        if usual.properties.body_encoding == "base64":
            return usual, usual.body
    envelope = _decode(raw)
    return envelope, _body(envelope)


def _tolerant(raw: bytes) -> tuple[_Envelope, bytes]:
    """Envelopes with type tags in headers, and those that only Python's JSON can read: NaN, lone surrogates."""
    envelope = msgspec.convert(loads(raw), _Envelope)
    return envelope, _body(envelope)


def _body(envelope: _Envelope) -> bytes:
    if envelope.properties.body_encoding == "base64":
        return a2b_base64(envelope.body)
    return envelope.body.encode()


def message_from_parts(
    headers: dict[str, Any],
    body: bytes,
    *,
    raw: bytes,
    queue: str,
    zone: tzinfo = UTC,
    max_bytes: int = 32 * 1024 * 1024,
    content_type: str = "application/json",
    content_encoding: str = "utf-8",
    exchange: str = "",
    routing_key: str = "",
    priority: int = 0,
    correlation_id: str = "",
    reply_to: str = "",
    delivery_mode: int = 2,
) -> Message | Malformed:
    """A message from headers and body, as brokers with native headers have them. Never raises."""
    return _message(
        headers, body, raw, queue, zone, max_bytes, content_type, content_encoding,
        exchange, routing_key, priority, correlation_id, reply_to, delivery_mode,
    )  # fmt: skip


def _message(
    headers: dict[str, Any],
    body: bytes,
    raw: bytes,
    queue: str,
    zone: tzinfo,
    max_bytes: int,
    content_type: str,
    content_encoding: str,
    exchange: str,
    routing_key: str,
    priority: int,
    correlation_id: str,
    reply_to: str,
    delivery_mode: int,
) -> Message | Malformed:
    if "task" not in headers:
        from celeriac.codec.protocol1 import upgrade

        upgraded = upgrade(body, content_type)
        if isinstance(upgraded, str):
            return Malformed(reason=upgraded, raw=raw, id=str(headers.get("id") or ""))
        headers, body = upgraded
        content_type, content_encoding = "application/json", "utf-8"
    get = headers.get
    task, task_id = headers["task"], get("id")
    if not (isinstance(task, str) and isinstance(task_id, str) and task and task_id and _is_text(task + task_id)):
        return _malformed(raw, task, task_id, "headers 'task' and 'id' must be texts that are not empty")
    if len(body) > max_bytes:
        return _malformed(raw, task, task_id, f"a body of {len(body)} bytes is more than max_message_bytes={max_bytes}")
    try:
        eta, expires, limits, retries = get("eta"), get("expires"), get("timelimit"), get("retries")
        hard, soft = _limits(limits) if limits and limits != _NO_LIMITS else (None, None)
        return Message(
            id=task_id,
            task=task,
            headers=headers,
            body=body,
            queue=queue,
            content_type=content_type,
            content_encoding=content_encoding,
            exchange=exchange,
            routing_key=routing_key,
            priority=priority,
            correlation_id=correlation_id,
            reply_to=reply_to,
            delivery_mode=delivery_mode,
            due=_epoch(eta, zone) if eta is not None else None,
            expires=_epoch(expires, zone) if expires is not None else None,
            retries=_count(retries) if retries else 0,
            time_limit=hard,
            soft_time_limit=soft,
        )
    except (ValueError, TypeError, OverflowError) as error:
        return _malformed(raw, task, task_id, f"invalid headers: {error}")


def _is_text(text: str) -> bool:
    """False for lone surrogates, which no log, terminal or database takes."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def delivery(raw: bytes, *, token: str, queue: str, zone: tzinfo = UTC, max_bytes: int = 32 * 1024 * 1024) -> Delivery:
    """A delivery from stored text, with what earlier restores wrote into it. Never raises."""
    message = decode(raw, queue=queue, zone=zone, max_bytes=max_bytes)
    if isinstance(message, Malformed):
        return Delivery(message=message, token=token, queue=queue, raw=raw)
    headers = message.headers
    mark = headers.get(MARK)
    return Delivery(
        message=message,
        token=token,
        queue=queue,
        raw=raw,
        redelivered=bool(headers.get("redelivered")),
        marks=_marks(mark) if mark is not None else NO_MARKS,
    )


def carries_lock(raw: bytes) -> bool:
    """Whether a stored message may carry the lock of a unique task: a cheap look, for those that are dropped unread."""
    return LOCK_MARK in raw


def remark(delivery: Delivery, marks: Marks) -> bytes:
    """The stored text of a delivery with other marks, shown as redelivered unless it only waited for its turn;
    unchanged when it is malformed."""
    message = delivery.message
    if isinstance(message, Malformed):
        return delivery.raw
    waited = marks.reserved and marks == replace(delivery.marks, reserved=True)
    try:
        return encode(message, marks=marks, redelivered=delivery.redelivered or not waited)
    except (CeleryError, RecursionError):
        return delivery.raw  # headers nested as nobody does


def _marks(value: Any) -> Marks:
    try:
        return _convert_marks(value, Marks)
    except (msgspec.ValidationError, UnicodeError):
        return NO_MARKS  # somebody else's header of the same name


def _malformed(raw: bytes, task: Any, task_id: Any, reason: str) -> Malformed:
    return Malformed(
        reason=reason,
        raw=raw,
        id=task_id if isinstance(task_id, str) else "",
        task=task if isinstance(task, str) else "",
    )


def _epoch(value: Any, zone: tzinfo) -> float:
    if not isinstance(value, str):
        raise TypeError(f"a time must be ISO 8601 text, not {type(value).__name__}")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return moment.timestamp()


def _limits(value: Any) -> tuple[float | None, float | None]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise TypeError("timelimit must be [hard, soft]")
    for limit in value:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float))):
            raise TypeError("timelimit must hold numbers or null")
        if limit is not None and not limit >= 0:  # NaN as well: it would disorder every timer of an event loop
            raise ValueError("timelimit must not hold negative numbers or NaN")
    return value[0], value[1]


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("retries must be a count")
    return value
