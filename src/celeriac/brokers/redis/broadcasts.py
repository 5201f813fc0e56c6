"""Texts of events, requests and replies on Celery's wire (``celery-wire.md`` §3.6, §3.7). Pure; both sides use it."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from celeriac.brokers.redis.layout import SEPARATOR, Layout
from celeriac.codec import envelope, json
from celeriac.exceptions import CeleryError
from celeriac.model.message import Message

__all__ = ["REPLY_LIFE", "bindings", "broadcast_text", "opened", "reply_queues"]

#: Seconds that a reply waits for its caller.
REPLY_LIFE = 300


def broadcast_text(
    exchange: str, routing_key: str, payload: Any, headers: Mapping[str, Any], *, mode: int = 1
) -> bytes:
    """The envelope of an event, a request or a reply. Raises ``EncodeError``."""
    return envelope.encode(
        Message(
            id="",
            task="",
            headers=dict(headers),
            body=json.dumps(payload),
            exchange=exchange,
            routing_key=routing_key,
            delivery_mode=mode,
        )
    )


class _Opened(msgspec.Struct):
    body: str
    properties: dict[str, Any] = {}
    headers: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Opened).decode


def opened(text: bytes) -> tuple[Any, Mapping[str, Any]] | None:
    """Payload and headers in an envelope, or None when it is not to be read."""
    try:
        found = _decode(text)
        encoding = found.properties.get("body_encoding")
        body = binascii.a2b_base64(found.body) if encoding == "base64" else found.body.encode()
        return json.loads(body), found.headers or {}
    except (msgspec.MsgspecError, CeleryError, ValueError, RecursionError):
        return None


def bindings(layout: Layout, members: Iterable[bytes]) -> list[tuple[str, str, str]]:
    """Routing key, pattern and queue of each member of a binding set of kombu's."""
    found = []
    for member in members:
        text = member.decode("utf-8", "replace")
        parts = text.split(layout.separator)
        if len(parts) != 3:
            parts = text.split(SEPARATOR)
        if len(parts) == 3 and parts[2]:
            found.append((parts[0], parts[1], parts[2]))
    return found


def reply_queues(layout: Layout, members: Iterable[bytes], routing_key: str) -> list[str]:
    """Queues bound to a routing key, out of the members of kombu's binding set."""
    return [queue for key, _, queue in bindings(layout, members) if key == routing_key]
