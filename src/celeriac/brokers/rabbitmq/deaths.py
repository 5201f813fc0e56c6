"""Dead letters as RabbitMQ keeps them: the message as it was, in ``celeriac.dead``, with headers that say why.

``x-celeriac-dead`` is a table of texts and numbers; the message's own headers stay beside it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from celeriac.brokers.rabbitmq.fields import decode_header, encode_header
from celeriac.brokers.rabbitmq.holding import Entry
from celeriac.brokers.rabbitmq.layout import DEAD
from celeriac.brokers.rabbitmq.messages import changed, of_content
from celeriac.brokers.rabbitmq.outgoing import HEADER_BYTES, Outgoing
from celeriac.codec import envelope
from celeriac.codec.envelope import new_id
from celeriac.exceptions import CeleryError
from celeriac.model.dead import DeadRecord
from celeriac.model.message import Malformed
from celeriac.model.settle import DeadLetter

__all__ = ["key_of", "outgoing_dead", "record_of"]

FACTS = "x-celeriac-dead"
#: Characters of a traceback that are kept, its end, and of other texts.
_TRACEBACK, _DETAIL = 60_000, 4_000


def outgoing_dead(entry: Entry, letter: DeadLetter, now: float) -> Outgoing:
    """The dead letter of a delivery. One whose headers are damaged loses them; its bytes stay."""
    delivery = entry.delivery
    message = delivery.message
    facts: dict[str, Any] = {
        "key": new_id(),
        "reason": str(letter.reason),
        "detail": letter.detail[:_DETAIL],
        "exception": letter.exception[:_DETAIL],
        "traceback": "",
        "worker": letter.worker,
        "at": float(letter.at or now),
        "queue": delivery.queue,
        "id": message.id,
        "task": message.task,
        "crashes": delivery.marks.crashes,
        "attempts": 0 if isinstance(message, Malformed) else message.retries + 1,
        "malformed": isinstance(message, Malformed),
    }
    try:
        properties = decode_header(changed(entry.header, entry.body))
    except (ValueError, TypeError):
        properties = decode_header(encode_header(_bare(), len(entry.body)))
    header = b""
    # A content header is one frame: what does not fit is left out, the traceback first.
    for kept, headers in ((_TRACEBACK, properties.headers), (_DETAIL, properties.headers), (_DETAIL, {})):
        facts["traceback"] = letter.traceback[-kept:]
        known = headers or {name: properties.headers.get(name) for name in ("task", "id", "root_id", "parent_id")}
        told = replace(properties, headers={**known, FACTS: facts}, delivery_mode=2)
        header = encode_header(told, len(entry.body))
        if len(header) <= HEADER_BYTES:
            break
    return Outgoing("", DEAD, "", header, entry.body)


def _bare() -> Any:
    from celeriac.brokers.rabbitmq.fields import Properties

    return Properties(content_type="application/octet-stream")


def key_of(header: bytes) -> str:
    """The key of a dead letter, empty when it is none of ours."""
    try:
        facts = decode_header(header).headers.get(FACTS)
    except ValueError:
        return ""
    return str(facts.get("key", "")) if isinstance(facts, dict) else ""


def record_of(header: bytes, body: bytes) -> DeadRecord:
    """A dead letter as it is read back. ``raw`` is the message in kombu's envelope, or the bytes that were none."""
    try:
        properties = decode_header(header)
    except ValueError:
        facts: Mapping[str, Any] = {}
    else:
        found = properties.headers.get(FACTS)
        facts = found if isinstance(found, dict) else {}

    def text(name: str) -> str:
        return str(facts.get(name) or "")

    at, crashes = facts.get("at"), facts.get("crashes")
    return DeadRecord(
        key=text("key"),
        id=text("id"),
        task=text("task"),
        queue=text("queue"),
        reason=text("reason"),
        detail=text("detail"),
        exception=text("exception"),
        traceback=text("traceback"),
        worker=text("worker"),
        at=float(at) if isinstance(at, (int, float)) else 0.0,
        crashes=crashes if isinstance(crashes, int) else 0,
        raw=_raw(header, body, text("queue"), text("key"), bool(facts.get("malformed"))),
    )


def _raw(header: bytes, body: bytes, queue: str, key: str, malformed: bool) -> bytes:
    if malformed:
        return body
    delivery = of_content(header, body, token="", queue=queue, redelivered=False, routing_key=queue)
    message = delivery.message
    if isinstance(message, Malformed):
        return body
    headers = {name: value for name, value in message.headers.items() if name != FACTS}
    try:
        text = envelope.encode(replace(message, headers=headers))
    except (CeleryError, TypeError, ValueError):
        return body
    # The envelope wants a tag of its own: that of the letter, so that it looks the same whenever it is read.
    front, tag, rest = text.rpartition(b'"delivery_tag":"')
    return front + tag + key.encode() + rest[rest.index(b'"') :]
