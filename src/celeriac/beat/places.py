"""Where a scheduler's messages and keys go: the app's publisher, and the ledger on the server of its keys."""

from __future__ import annotations

from typing import Any

from celeriac.client import resolver
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import BlockingLedger, Publisher, RulesDesk

__all__ = ["ledger_of", "publisher_of"]


def publisher_of(app: Any) -> Publisher:
    """The app's publisher. Raises ``ImproperlyConfigured`` where there is no ledger beside it."""
    publisher: Publisher = app.sender.publisher
    if not isinstance(publisher, RulesDesk):
        raise ImproperlyConfigured(_no_ledger(app.sender.url))
    return publisher


def ledger_of(app: Any) -> BlockingLedger:
    """The ledger that ``publish_if`` of the app's publisher writes: of the broker's server, or the one beside it."""
    conf, url = app.conf, app.sender.url
    if resolver.keeps_ledger(url):
        return resolver.ledger(url, resolver.adapter_options(conf, url))
    beside = resolver.ledger_url(conf, url)
    if beside is None:
        raise ImproperlyConfigured(_no_ledger(url))
    return resolver.ledger(beside, resolver.ledger_options(conf, beside))


def _no_ledger(url: str) -> str:
    return (
        f"periodic tasks need a ledger, in which schedulers see what was sent, and {resolver.mask(url)} keeps none: "
        "set ledger_url (or result_backend) to a server that does, such as redis://, or run one single beat with "
        "-S celeriac.beat:PersistentScheduler, which keeps a file"
    )
