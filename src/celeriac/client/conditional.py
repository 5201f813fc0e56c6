"""Publishing a message together with changes of the ledger, or neither. Called by whoever sends under a key."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from celeriac.client.resolver import mask
from celeriac.client.sender import Sender
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.ports import RulesDesk

__all__ = ["send_if"]


def send_if(
    sender: Sender,
    message: Message,
    changes: Sequence[Change],
    *,
    again: bool = False,
    retry: bool | None = None,
    retry_policy: Mapping[str, Any] | None = None,
) -> Sequence[bytes | None] | None:
    """Publish one message together with changes of the broker's ledger, or neither: then what stands under the keys
    (``Publisher.publish_if``).

    ``again``: the keys tell when it was published, so it is tried again even when it may have been. Raises as
    ``Sender.send``, ``ValueError`` when an exchange leads to several queues, and ``ImproperlyConfigured`` where there
    is no ledger.
    """
    (message, *others) = sender.outgoing((message,))
    if others:
        raise ValueError(
            f"task {message.task}: a message that goes to several queues (exchange {message.exchange!r}) cannot have "
            "an idempotency_key or be unique"
        )
    publisher = sender.publisher
    if not isinstance(publisher, RulesDesk):
        raise ImproperlyConfigured(
            f"task {message.task} is unique or has an idempotency_key, which needs a ledger, and {mask(sender.url)} "
            "keeps none: set ledger_url (or result_backend) to a server that does, such as redis://"
        )

    def attempt(left: float) -> Sequence[bytes | None] | None:
        return publisher.publish_if(message, changes, timeout=left)

    limit: float = sender.conf.seconds("broker_publish_timeout")
    deadline = time.monotonic() + limit
    try:
        there = attempt(limit)
    except OperationalError as error:
        wanted = sender.conf.task_publish_retry if retry is None else retry
        if not wanted or (error.uncertain and not again):
            raise sender.named(error) from error
        there = sender.again(attempt, error, deadline, retry_policy, uncertain=again)
    if there is None:
        sender.announce((message,))
    return there
