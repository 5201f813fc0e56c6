"""``app.amqp``: queues and routes under Celery's names; and the broker's address for people to see."""

from __future__ import annotations

from typing import Any

from celeriac.client.registry import Queues
from celeriac.client.routes import Router
from celeriac.client.sender import Sender

__all__ = ["AMQP", "broker_info"]


class AMQP:
    """What is left of Celery's ``app.amqp``: nothing here speaks AMQP."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    @property
    def router(self) -> Router:
        """Finds the queue of a task."""
        return self._sender.router

    @property
    def queues(self) -> Queues:
        """The queues, by name."""
        return self._sender.router.queues

    @property
    def default_queue(self) -> Any:
        """The queue of tasks without a route."""
        return self.queues[self._sender.router.default_queue]


def broker_info(url: str, conf: Any) -> dict[str, Any]:
    """The parts of a broker's URL without the password, under kombu's names."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url.partition(";")[0])
    return {
        "hostname": parts.hostname,
        "userid": unquote(parts.username) if parts.username else None,
        "virtual_host": unquote(parts.path.removeprefix("/")) or None,
        "port": parts.port,
        "insist": False,
        "ssl": bool(conf.broker_use_ssl),
        "transport": parts.scheme,
        "connect_timeout": conf.seconds("broker_connection_timeout"),
        "transport_options": dict(conf.broker_transport_options or {}),
        "login_method": conf.broker_login_method,
        "uri_prefix": None,
        "credential_provider": None,
        "heartbeat": conf.seconds("broker_heartbeat") or 0,
        "failover_strategy": "round-robin",
        "alternates": [],
    }
