"""From the URL of an outbox to its store. Called by relays and by the command line."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from celeriac.conf.masking import mask_url
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.outbox import Kind, Parcel, Row
from celeriac.ports import OutboxStore

__all__ = ["row_of", "store_of"]

_MODULES = {
    "postgresql": "celeriac.outbox.postgresql",
    "postgres": "celeriac.outbox.postgresql",
    "sqlite": "celeriac.outbox.sqlite",
}


def store_of(url: str) -> OutboxStore:
    """The store; connects at its first use. Raises ``ImproperlyConfigured`` for other URLs."""
    scheme, separator, _ = url.partition("://")
    module = _MODULES.get(scheme.lower()) if separator else None
    if module is None:
        known = " and ".join(f"{name}://" for name in ("postgresql", "sqlite"))
        raise ImproperlyConfigured(f"outbox_url is {mask_url(url)!r}: outboxes are on {known}")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            f"an outbox on {scheme}:// needs the package {error.name}: pip install 'celeriac[postgres]'"
        ) from error
    return cast("OutboxStore", found.store(url))


def row_of(columns: Any) -> Row:
    """A row from the columns that the statements of both databases select."""
    parcel_id, kind, task, task_id, queue, body, age, attempts, error, failed = columns
    parcel = Parcel(id=parcel_id, kind=Kind(kind), task=task, task_id=task_id, queue=queue, body=bytes(body))
    return Row(parcel=parcel, age=age, attempts=attempts, error=error, failed=bool(failed))
