"""From an app and a command line to a running node, in this order, with Celery's signals:

import the task modules → ``celeryd_init`` → options → logging → ``celeryd_after_setup`` → (the banner) → load what the
children need, so that they share its memory → ask the broker, where that is wanted → ``worker_init`` → fork.

The supervisor opens no connection: what needs one before the first fork (``--purge``, the check for exit code 3) is
done by a process of its own, which ends at once.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict, replace

from celeriac import signals
from celeriac.client import resolver
from celeriac.codec.signing import control_signer_of, signer_of
from celeriac.exceptions import CeleryCommandException, ImproperlyConfigured, OperationalError
from celeriac.supervisor.embedded import verify_beat
from celeriac.supervisor.node import Given, resolve
from celeriac.supervisor.privileges import dangers
from celeriac.worker.adapters import broker_of, check_needs, store_of
from celeriac.worker.options import NodeOptions
from celeriac.worker.outbox import Relays

if TYPE_CHECKING:
    from celeriac.app.base import Celery
    from celeriac.client.registry import Queues

__all__ = ["EX_UNREACHABLE", "Node", "launch", "load_modules", "prepare"]

logger = logging.getLogger("celery.worker")

#: Exit code when the broker cannot be reached at the start and nobody wants to wait for it.
EX_UNREACHABLE = 3
_TIMEOUT = 5.0


class Node:
    """A node before it runs: what receivers of ``celeryd_init`` and ``worker_init`` get as instance and sender."""

    options: NodeOptions

    def __init__(self, app: Celery, hostname: str) -> None:
        self.app = app
        self.hostname = hostname

    @property
    def queues(self) -> Queues:
        """The app's queues; ``select_add`` makes this node take tasks from one more."""
        return self.app.sender.router.queues


def load_modules(app: Celery) -> None:
    """Finalize the app and import all modules with tasks."""
    app.finalize()
    app.loader.init_worker()


def prepare(
    app: Celery,
    given: Given,
    *,
    hostname: str,
    loglevel: Any = None,
    logfile: str | None = None,
    colorize: bool | None = None,
) -> Node:
    """Resolve options and set logging up. Raises ``ImproperlyConfigured`` and ``QueueNotFound``."""
    node = Node(app, hostname)
    signals.celeryd_init.send(sender=hostname, instance=node, conf=app.conf, options=asdict(given))
    node.options = resolve(app.conf, node.queues, given, hostname=hostname)
    if node.app.broker_url.startswith("memory:") and node.options.pool != "solo":
        raise ImproperlyConfigured(
            "memory:// keeps tasks inside one process, so children would never see them: use -P solo, or sqlite:///file"
        )
    conf = app.conf
    app.log.setup(
        loglevel,
        logfile,
        redirect_stdouts=conf.worker_redirect_stdouts,
        redirect_level=conf.worker_redirect_stdouts_level,
        colorize=colorize,
        hostname=hostname,
    )
    for danger in dangers(conf):
        logger.warning(danger)
    signer_of(conf), control_signer_of(conf)  # unusable keys are told now, not by each process
    steps = sorted(name for name, added in app.steps.items() if added)
    if steps:
        logger.warning(
            "app.steps[%r] is ignored: there are no bootsteps here; use the signals worker_init, worker_ready and "
            "worker_shutdown instead",
            ", ".join(steps),
        )
    signals.celeryd_after_setup.send(sender=hostname, instance=node, conf=conf)
    node.options = replace(node.options, queues=tuple(node.queues.consume_from))
    return node


def launch(node: Node, *, ready: Callable[[], None] | None = None) -> int:
    """Run the node until it stops; returns its exit code. Raises ``CeleryCommandException`` or ``ImproperlyConfigured``
    when it must not start."""
    app, options = node.app, node.options
    check_needs(app)
    Relays.of(app)  # raises for an outbox_url that cannot be
    verify_beat(app, options)
    _preload(node)
    if options.purge or not app.conf.broker_connection_retry_on_startup:
        _ask_broker(node)
    signals.worker_init.send(sender=node)
    try:
        if options.pool == "solo":
            from celeriac.supervisor.solo import run_solo

            return run_solo(app, options, ready=ready)
        from celeriac.supervisor.supervisor import Supervisor

        # Collected once here, not copied by every child's first collection.
        gc.collect()
        gc.freeze()
        return Supervisor(app, options, ready=ready).run()
    finally:
        app.loader.shutdown_worker()


def _preload(node: Node) -> None:
    """Import what agent and children will need: memory that is there before a fork is shared."""
    for name in ("celeriac.worker.remote", "celeriac.worker.inprocess", "celeriac.supervisor.process"):
        import_module(name)
    # Made and dropped: adapters import their parts when they are made, and connect when they are opened.
    broker_of(node.app, "")
    store_of(node.app)


def _ask_broker(node: Node) -> None:
    """Purge, or see whether the broker is there, in a process that ends at once."""
    from celeriac.supervisor.process import fork

    reading, writing = os.pipe()
    pid = fork(lambda: _in_between(node, writing))
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answers:
        text = answers.read()
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == EX_UNREACHABLE:
        if node.app.conf.broker_connection_retry_on_startup:
            raise CeleryCommandException(f"--purge is not possible: {text}", 1)
        raise CeleryCommandException(
            f"{text}; broker_connection_retry_on_startup is off, so the worker ends", EX_UNREACHABLE
        )
    if node.options.purge:
        print(f"purge: Erased {text} messages from the queue.\n", flush=True)  # noqa: T201 - Celery prints it too


def _in_between(node: Node, answers: int) -> int:
    options, url = node.options, node.app.broker_url
    publisher = resolver.publisher(url, resolver.adapter_options(node.app.conf, url))
    try:
        if options.purge:
            text, code = str(sum(publisher.purge(name, timeout=_TIMEOUT) for name in options.queues)), 0
        else:
            publisher.depth(options.queues, timeout=_TIMEOUT)
            text, code = "", 0
    except OperationalError as error:
        text, code = str(error), EX_UNREACHABLE
    os.write(answers, text.encode("utf-8", "replace")[:4000])
    publisher.close()
    return code
