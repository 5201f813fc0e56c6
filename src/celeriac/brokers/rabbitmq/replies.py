"""``rpc://``: results in reply queues, one for each process that sends tasks. Reached through
``celeriac.client.resolver`` only; the addresses are those of the broker, which the options bring (``alternates``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.ports import AdapterOptions

if TYPE_CHECKING:
    from celeriac.brokers.rabbitmq.reply_reader import ReplyReader
    from celeriac.brokers.rabbitmq.reply_store import ReplyStore

__all__ = ["reader", "store"]


def store(url: str, options: AdapterOptions) -> ReplyStore:
    """The result store of a worker."""
    from celeriac.brokers.rabbitmq.reply_store import ReplyStore

    return ReplyStore(options)


def reader(url: str, options: AdapterOptions) -> ReplyReader:
    """Blocking access to the results of what this process has sent."""
    from celeriac.brokers.rabbitmq.reply_reader import ReplyReader

    return ReplyReader(options)
