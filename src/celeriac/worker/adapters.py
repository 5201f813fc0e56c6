"""The adapters a worker process opens: its app's broker to read from, its app's result store. Made on the I/O loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celeriac.client import resolver

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.ports import Broker, ResultStore

__all__ = ["broker_of", "store_of"]


def broker_of(app: Celery, owner: str) -> Broker:
    """The broker adapter under the name ``owner``; not open yet."""
    return resolver.broker(app.broker_url, resolver.adapter_options(app.conf, owner=owner))


def store_of(app: Celery) -> ResultStore | None:
    """The result store adapter, or None when results are disabled; not open yet."""
    url = app.backend_url
    return resolver.store(url, resolver.store_options(app.conf)) if url else None
