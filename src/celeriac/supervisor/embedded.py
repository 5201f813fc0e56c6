"""The scheduler of periodic tasks inside a worker (``-B``): a service of its agent. Loads beat where it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from celeriac.worker.guest import Guest
from celeriac.worker.options import NodeOptions

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["embedded", "verify_beat"]


def verify_beat(app: Celery, options: NodeOptions) -> None:
    """Raise ``ImproperlyConfigured`` for a scheduler that could not be started here."""
    if options.beat:
        from celeriac.beat.service import verify

        verify(app, options.scheduler, options.schedule_filename)


def embedded(app: Celery, options: NodeOptions) -> Sequence[Guest]:
    """What sends periodic tasks: one service or none."""
    if not options.beat:
        return ()
    from celeriac.beat.service import BeatService

    return (BeatService(app, options.scheduler, schedule_filename=options.schedule_filename, embedded=True),)
