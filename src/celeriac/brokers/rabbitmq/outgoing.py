"""A message on its way out: where to, the queue that has to be there for it, content header and body. Pure."""

from __future__ import annotations

from celeriac.brokers.rabbitmq.fields import name
from celeriac.brokers.rabbitmq.frames import publish
from celeriac.brokers.rabbitmq.messages import header_of
from celeriac.model.message import Message

__all__ = ["FRAME_BYTES", "HEADER_BYTES", "Outgoing", "outgoing"]

#: A content header is one frame, and RabbitMQ's are 128 KiB; some is left for what is added on the way.
HEADER_BYTES = 120_000
#: What a frame of RabbitMQ's holds.
FRAME_BYTES = 131_064


class Outgoing:
    """One basic.publish. ``queue`` is empty when nothing has to be declared for it; ``reply_to`` is the message's. When
    no queue takes it that is an error if it is ``mandatory``, else it is dropped."""

    __slots__ = ("body", "exchange", "header", "key", "mandatory", "queue", "reply_to")

    def __init__(
        self,
        exchange: str,
        key: str,
        queue: str,
        header: bytes,
        body: bytes,
        *,
        reply_to: str = "",
        mandatory: bool = True,
    ) -> None:
        self.exchange = exchange
        self.key = key
        self.queue = queue
        self.header = header
        self.body = body
        self.reply_to = reply_to
        self.mandatory = mandatory

    def frames(self, frame_max: int, channel: int = 1) -> bytes:
        """As bytes on a channel."""
        return publish(channel, name(self.exchange), name(self.key), self.header, self.body, frame_max, self.mandatory)


def outgoing(message: Message) -> Outgoing:
    """A message as Celery addresses it. Raises ``TypeError`` or ``ValueError`` for headers and names that AMQP cannot
    hold."""
    header = header_of(message)
    if len(header) > HEADER_BYTES:
        raise ValueError(f"the headers of {message.task} have {len(header)} bytes, RabbitMQ takes {HEADER_BYTES}")
    reply_to = message.reply_to
    name(message.queue)
    if message.exchange:
        key = message.routing_key
        name(message.exchange)
        name(key)
        return Outgoing(message.exchange, key, message.queue, header, message.body, reply_to=reply_to)
    return Outgoing("", message.queue, message.queue, header, message.body, reply_to=reply_to)
