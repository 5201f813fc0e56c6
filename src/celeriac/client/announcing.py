"""The signal ``after_task_publish`` for a message that was published. Called by the sender and by relays."""

from __future__ import annotations

from typing import Any

from celeriac import signals
from celeriac.client.payloads import payloads_of
from celeriac.codec.body import decode_body
from celeriac.codec.reference import CONTENT_TYPE as REFERENCE
from celeriac.model.message import Message

__all__ = ["EMBED_KEYS", "announce_sent"]

#: What receivers find in the third part of a body.
EMBED_KEYS = ("callbacks", "errbacks", "chain", "chord")


def announce_sent(conf: Any, message: Message) -> None:
    """Decode the body for the receivers, and tell them."""
    if message.content_type == REFERENCE:
        payloads = payloads_of(conf)
        assert payloads is not None
        message = payloads.fetch(message)
    content = frozenset({message.content_type})
    args, kwargs, embed = decode_body(message, accept=content, max_bytes=conf.max_message_bytes)
    signals.after_task_publish.send(
        sender=message.task,
        body=(args, kwargs, {key: getattr(embed, key) for key in EMBED_KEYS}),
        headers=message.headers,
        exchange=message.exchange,
        routing_key=message.routing_key,
    )
