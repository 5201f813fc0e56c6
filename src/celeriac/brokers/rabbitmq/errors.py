"""Turns what sockets and RabbitMQ say into ``OperationalError``: the server, the cause, the next step, on one line."""

from __future__ import annotations

from celeriac.brokers.rabbitmq.address import Address
from celeriac.exceptions import OperationalError

__all__ = ["Closed", "alarmed", "full", "lost", "refused", "unroutable"]

_NEXT_STEP = {
    "ACCESS_REFUSED": "check user and password in the URL, and the permissions in docs/how-to/rabbitmq.md",
    "NOT_ALLOWED": "check the virtual host in the URL, and that the user may use it",
    "NOT_FOUND": "it was deleted meanwhile: it is declared anew at the next try",
    "PRECONDITION_FAILED": "see docs/how-to/rabbitmq.md",
    "RESOURCE_LOCKED": "another connection has it for itself: try again",
    "CONNECTION_FORCED": "the server is stopping, or an operator has closed the connection",
}


class Closed(Exception):
    """The server has closed a channel or the connection: code and text as it gave them."""

    def __init__(self, code: int, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        #: The method that it refused.
        self.number = number


def lost(address: Address, error: BaseException | str, *, uncertain: bool = False) -> OperationalError:
    """The server cannot be reached or fell silent."""
    cause = str(error) or type(error).__name__
    told = OperationalError(
        f"cannot reach RabbitMQ at {address.masked}: {cause}; check that it runs and that the URL is right"
    )
    told.uncertain = uncertain
    return told


def refused(address: Address, error: Closed) -> OperationalError:
    """The server answered with an error."""
    step = _NEXT_STEP.get(error.text.partition(" ")[0], "see the server's log")
    return OperationalError(f"RabbitMQ at {address.masked} refused: {error.text.rstrip('.')}; {step}")


def alarmed(address: Address, reason: str, *, uncertain: bool) -> OperationalError:
    """The server takes no messages: its memory or its disk is full."""
    told = OperationalError(
        f"RabbitMQ at {address.masked} takes no messages ({reason}): let workers drain the queues, or give it room"
    )
    told.uncertain = uncertain
    return told


def full(address: Address, count: int) -> OperationalError:
    """Messages that the server has answered with a refusal; it may have taken others of the same call."""
    told = OperationalError(
        f"RabbitMQ at {address.masked} refused {count} messages: a queue is full (x-max-length with reject-publish), "
        "or it failed inside; see the server's log"
    )
    told.uncertain = True
    return told


def unroutable(address: Address, exchange: str, routing_key: str, *, uncertain: bool = False) -> OperationalError:
    """A message that no queue takes."""
    where = f"exchange {exchange!r} with routing key {routing_key!r}" if exchange else f"queue {routing_key!r}"
    told = OperationalError(
        f"RabbitMQ at {address.masked} has no queue for {where}: declare it in task_queues, or correct the route"
    )
    told.uncertain = uncertain
    return told
