"""A node in one process (``-P solo``): its signals, and its exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from celeriac import signals
from celeriac.app.log import enter_process
from celeriac.supervisor.embedded import embedded
from celeriac.supervisor.stop import means_cold, say
from celeriac.worker.inprocess import in_process
from celeriac.worker.options import NodeOptions

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["run_solo"]


class _Stops:
    """Requests to stop so far."""

    def __init__(self) -> None:
        self.count = 0
        self.cold = False


def run_solo(app: Celery, options: NodeOptions, *, ready: Callable[[], None] | None = None) -> int:
    """Run until told to stop; returns the exit code: 0 after a warm shutdown, 1 after a cold one."""
    stops = _Stops()

    def begun() -> None:
        if stops.count:  # the signal came before there was a loop to stop
            child.stop()
        signals.worker_ready.send(sender=child)
        if ready is not None:
            ready()

    def abandon() -> NoReturn:
        # Everything is given back; the task that still runs on the main thread cannot be ended in another way.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if stops.cold else 0)

    def stop(signum: int, frame: object) -> None:
        stops.count += 1
        stops.cold = stops.cold or stops.count > 1 or means_cold(signum)
        if not options.quiet:
            say(cold=stops.cold, signum=signum)
        if stops.count == 1:
            how, name = "Cold" if stops.cold else "Warm", signal.Signals(signum).name
            code = 1 if stops.cold else 0
            signals.worker_shutting_down.send(sender=options.hostname, sig=name, how=how, exitcode=code)
        child.stop(grace=0.0 if stops.cold else None)

    child = in_process(app, options, ready=begun, abandon=abandon, more=embedded(app, options))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, stop)
    enter_process("MainProcess", tasks=True)
    signals.worker_process_init.send(sender=None)
    child.serve()
    signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
    signals.worker_shutdown.send(sender=child)
    return 1 if stops.cold else 0
