"""The adapters a worker process opens: its app's broker to read from, its app's result store. Made on the I/O loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from celeriac.app.limits import check_limits
from celeriac.client import resolver
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import Ledger, Limiter

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.ports import Broker, ResultStore
    from celeriac.worker.lifelines import Lifeline

__all__ = ["broker_of", "check_needs", "store_of"]

logger = logging.getLogger("celery.worker")

_NEXT = "set ledger_url (or result_backend) to a server that keeps one, such as redis://"


def broker_of(app: Celery, owner: str, lifeline: Lifeline | None = None) -> Broker:
    """The broker adapter under the name ``owner``; not open yet."""
    options = resolver.adapter_options(app.conf, app.broker_url, owner=owner, queues=app.amqp.queues)
    if lifeline is not None:
        options = replace(options, lifeline=lifeline.hold)
    return resolver.broker(app.broker_url, options)


def store_of(app: Celery) -> ResultStore | None:
    """The result store adapter, or None when results are disabled; not open yet."""
    url = app.backend_url
    return resolver.store(url, resolver.store_options(app.conf)) if url else None


def check_needs(app: Celery) -> None:
    """Before a worker starts: raises ``ImproperlyConfigured`` where a task asks for more than its servers can do, or
    its limits make no sense; and warns of what nobody will see to."""
    limited = check_limits(app)
    unique = sorted(name for name, task in app.tasks.items() if task.unique_rule is not None)
    broker = broker_of(app, "")
    url = resolver.mask(app.broker_url)
    if limited and not isinstance(broker, Limiter):
        raise ImproperlyConfigured(
            f"{url} cannot limit tasks across workers, so rate_limit and max_concurrency need a ledger: {_NEXT}"
        )
    if unique and not isinstance(broker, Ledger):
        raise ImproperlyConfigured(f"task {unique[0]} is unique, which needs a ledger, and {url} keeps none: {_NEXT}")
    if broker.traits.requeues and not isinstance(broker, Ledger):
        logger.warning(
            "%s keeps no ledger: a task that kills its process is not counted and runs again and again, queues cannot "
            "be paused, and workers that start later know nothing of revoked tasks: %s",
            url,
            _NEXT,
        )
