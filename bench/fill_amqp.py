"""Celery protocol 2 messages on a RabbitMQ queue, in Celery's venv: `python -m bench.fill_amqp URL LOAD`.

Published by py-amqp without a client of either peer, so that both find the same messages.
"""

import base64
import json
import sys
from typing import Any
from urllib.parse import unquote, urlsplit

from bench.messages import QUEUE, Load, envelopes


def main(url: str, load: Load) -> None:
    from amqp import Connection, Message

    parts = urlsplit(url)
    connection: Any = Connection(
        host=f"{parts.hostname}:{parts.port}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
    )
    connection.connect()
    channel = connection.channel()
    for found in envelopes(load):
        told = found["properties"]
        message = Message(
            base64.b64decode(found["body"]),
            application_headers=found["headers"],
            content_type=found["content-type"],
            content_encoding=found["content-encoding"],
            correlation_id=told["correlation_id"],
            reply_to=told["reply_to"],
            delivery_mode=2,
            priority=0,
        )
        channel.basic_publish(message, exchange="", routing_key=QUEUE)
    # The server answers when it has read everything before.
    channel.queue_declare(QUEUE, passive=True)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], Load(**json.loads(sys.argv[2])))
