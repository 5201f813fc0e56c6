"""Messages as AMQP carries them: properties, headers, raw body; and what RabbitMQ tells of earlier deliveries.

The same as Celery's (``celery-wire.md`` §3.4). ``of_content`` cannot raise: what is no task message is ``Malformed``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any

import msgspec
from msgspec.structs import replace

from celeriac.brokers.rabbitmq.fields import Properties, decode_header, encode_header
from celeriac.codec.envelope import message_from_parts
from celeriac.codec.json import dumps, loads, plain
from celeriac.exceptions import CeleryError
from celeriac.model.message import MARK, NO_MARKS, Delivery, Malformed, Marks, Message

__all__ = ["HELD", "changed", "due_of", "header_of", "kept_of", "of_content", "properties_of"]

#: Beginning of the names of the queues in which long tasks are kept (``keeping.py``).
HELD = "celeriac.held."
_PROTOCOL_HEADERS = 19
#: Headers that RabbitMQ adds on the way.
_OF_THE_SERVER = frozenset(
    {"x-delivery-count", "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
     "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason", "x-acquired-count"}
)  # fmt: skip
#: Field of our mark: when a copy that was put off is due, seconds since the epoch.
_DUE = "due"
#: The same: whose copy it is (``keeping.py``).
_KEPT = "kept"
#: Deliveries from a quorum queue that were given back so often go back as copies: servers drop them in the end.
GIVEN_BACK = 3


def properties_of(message: Message, *, marks: Marks | None = None, redelivered: bool = False) -> Properties:
    """The properties of a message, never ``expiration``."""
    headers: Mapping[str, Any] = message.headers
    if len(headers) > _PROTOCOL_HEADERS or headers.get("stamps"):
        headers = plain(headers)  # what callers put there may need the type tags of JSON
    if marks is not None or redelivered:
        headers = dict(headers)
        if marks is not None:
            headers[MARK] = msgspec.to_builtins(marks)
        if redelivered:
            headers["redelivered"] = True
    return Properties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        delivery_mode=message.delivery_mode,
        priority=message.priority,
        correlation_id=_fitting(message.correlation_id or message.id),
        reply_to=message.reply_to,
    )


def _fitting(text: str) -> str:
    """AMQP allows 255 bytes here; the header ``id`` says the same."""
    return text if len(text) < 64 or len(text.encode("utf-8", "surrogatepass")) <= 255 else ""


def header_of(message: Message, *, marks: Marks | None = None, redelivered: bool = False) -> bytes:
    """The content header of a message. Raises ``TypeError`` or ``ValueError`` (``EncodeError``) for bad headers."""
    return encode_header(properties_of(message, marks=marks, redelivered=redelivered), len(message.body))


def changed(
    header: bytes,
    body: bytes,
    *,
    marks: Marks | None = None,
    due: float | None = None,
    redelivered: bool = False,
    kept: str | None = None,
) -> bytes:
    """The content header of a copy: as it came, but for the marks, the moment at which it is due here, and without an
    expiration. ``ValueError`` when it is damaged."""
    properties = decode_header(header)
    headers = dict(properties.headers)
    for name in _OF_THE_SERVER & headers.keys():
        del headers[name]
    old = headers.pop(MARK, None)
    mark = msgspec.to_builtins(marks) if marks is not None else dict(old) if isinstance(old, dict) else {}
    mark.pop(_DUE, None)
    if due is not None:
        mark[_DUE] = due
    mark.pop(_KEPT, None)
    if kept is not None:
        mark[_KEPT] = kept
    if mark:
        headers[MARK] = mark
    if redelivered:
        headers["redelivered"] = True
    return encode_header(replace(properties, headers=headers), len(body))


#: What a quorum queue has given back so many times may be what kills those who take it.
_OFTEN = 3


def of_content(
    header: bytes,
    body: bytes,
    *,
    token: str,
    queue: str,
    redelivered: bool,
    exchange: str = "",
    routing_key: str = "",
    zone: tzinfo = UTC,
    max_bytes: int = 32 * 1024 * 1024,
) -> Delivery:
    """The delivery in a content. ``redelivered`` is the server's word: an earlier delivery was lost or given back."""
    try:
        properties = decode_header(header)
        headers = properties.headers
        if b"__type__" in header:
            headers = loads(dumps(headers))
    except (ValueError, RecursionError, CeleryError) as error:
        return Delivery(message=Malformed(reason=str(error), raw=body), token=token, queue=queue, raw=body)
    deaths = returned = None
    if not _OF_THE_SERVER.isdisjoint(headers):
        deaths, returned = headers.get("x-delivery-count"), _was_held(headers.get("x-death"))
        # No signature covers them, and nobody looks for them.
        headers = {name: value for name, value in headers.items() if name not in _OF_THE_SERVER}
    message = message_from_parts(
        headers,  # type: ignore[arg-type]  # a dict of ours
        body,
        raw=body,
        queue=queue,
        zone=zone,
        max_bytes=max_bytes,
        content_type=properties.content_type or "application/json",
        content_encoding=properties.content_encoding or "utf-8",
        exchange=exchange,
        routing_key=routing_key,
        priority=properties.priority or 0,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        delivery_mode=properties.delivery_mode,
    )
    mark = headers.get(MARK)
    marks = NO_MARKS if mark is None else _marks(mark)
    if redelivered or returned:
        count = deaths if isinstance(deaths, int) else int(bool(returned))
        # Redelivered alone says little: workers in good health give back what they cannot start soon.
        suspect = marks.suspect or bool(returned) or count >= _OFTEN
        marks = replace(marks, suspect=suspect, expired_leases=max(marks.expired_leases, count))
    return Delivery(
        message=message,
        token=token,
        queue=queue,
        raw=body,
        redelivered=redelivered or bool(returned) or bool(headers.get("redelivered")),
        marks=marks,
    )


def due_of(delivery: Delivery) -> float:
    """The moment before which it is not to start, 0 if there is none: its ETA, or what it was put off to."""
    message = delivery.message
    if isinstance(message, Malformed):
        return 0.0
    due = message.due or 0.0
    mark = message.headers.get(MARK)
    put_off = mark.get(_DUE) if isinstance(mark, dict) else None
    return max(due, put_off) if isinstance(put_off, (int, float)) else due


def kept_of(properties: Properties) -> str:
    """The token of the delivery that a copy takes the place of; empty: it is none."""
    mark = properties.headers.get(MARK)
    kept = mark.get(_KEPT) if isinstance(mark, dict) else None
    return kept if isinstance(kept, str) else ""


def given_back_often(header: bytes) -> bool:
    """The server counts, and would drop it in the end. Of a damaged one there can be no copy."""
    if b"x-delivery-count" not in header:
        return False
    try:
        count = decode_header(header).headers.get("x-delivery-count")
    except ValueError:
        return False
    return isinstance(count, int) and count >= GIVEN_BACK


def _was_held(deaths: Any) -> bool:
    """It came back from the queue of a node that is gone."""
    if not isinstance(deaths, list):
        return False
    return any(isinstance(each, dict) and str(each.get("queue", "")).startswith(HELD) for each in deaths)


def _marks(value: Any) -> Marks:
    try:
        return msgspec.convert(value, Marks)
    except (msgspec.ValidationError, UnicodeError):
        return NO_MARKS  # somebody else's header of the same name
