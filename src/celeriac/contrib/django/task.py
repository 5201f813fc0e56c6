"""Tasks that are sent after the commit: Celery's ``DjangoTask``.

The weaker way: what is sent after the commit is lost with a process that dies in between, or with a broker that is away
then. ``app.transaction(using=…)`` closes that window.
"""

from __future__ import annotations

import functools
from typing import Any, ParamSpec, TypeVar

from celeriac.app.task import Task

__all__ = ["DjangoTask"]

P = ParamSpec("P")
R = TypeVar("R")


class DjangoTask(Task[P, R]):
    """A task that can wait for the commit of Django's transaction."""

    abstract = True

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """``delay`` once the transaction of the default database has committed; at once when none is open."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(self, *args: Any, using: str | None = None, **kwargs: Any) -> None:
        """``apply_async`` once the transaction has committed; at once when none is open. No result: it is not sent yet.

        ``using`` names another database of Django than the default one.
        """
        from django.db import transaction  # type: ignore[import-untyped]

        transaction.on_commit(functools.partial(self.apply_async, *args, **kwargs), using=using)
