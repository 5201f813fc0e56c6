"""The adapters a worker process opens: its app's broker to read from, its app's result store. Made on the I/O loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.app.limits import check_limits
from celeriac.client import resolver
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import Limiter

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.ports import Broker, ResultStore

__all__ = ["broker_of", "refuse_limits", "store_of"]


def broker_of(app: Celery, owner: str) -> Broker:
    """The broker adapter under the name ``owner``; not open yet."""
    return resolver.broker(app.broker_url, resolver.adapter_options(app.conf, app.broker_url, owner=owner))


def store_of(app: Celery) -> ResultStore | None:
    """The result store adapter, or None when results are disabled; not open yet."""
    url = app.backend_url
    return resolver.store(url, resolver.store_options(app.conf)) if url else None


def refuse_limits(app: Celery) -> None:
    """Raises ``ImproperlyConfigured`` where a task's limits make no sense, or are more than the broker can do: before a
    worker starts."""
    if check_limits(app) and not isinstance(broker_of(app, ""), Limiter):
        raise ImproperlyConfigured(
            f"{resolver.mask(app.broker_url)} cannot limit tasks across workers: take away rate_limit and "
            "max_concurrency, or use Redis or SQLite"
        )
