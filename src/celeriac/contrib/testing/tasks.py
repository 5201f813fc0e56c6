"""The task by which ``start_worker`` checks that a worker runs tasks (``celery.contrib.testing.tasks``)."""

from __future__ import annotations

from celeriac.app.shared import shared_task

__all__ = ["ping"]


@shared_task(name="celery.ping")
def ping() -> str:
    """Answer ``pong``."""
    return "pong"
