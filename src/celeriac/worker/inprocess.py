"""A whole node in one process: child and agent on one I/O loop. For ``--pool solo`` and for workers in tests.

Several of them may run in one process, each in a thread of its own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.worker.adapters import broker_of, check_needs, store_of
from celeriac.worker.agent import Agent
from celeriac.worker.child import Child
from celeriac.worker.guest import Guest
from celeriac.worker.link import LocalLink
from celeriac.worker.options import NodeOptions
from celeriac.worker.remote import remote_services

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["in_process"]


def in_process(
    app: Celery,
    options: NodeOptions,
    *,
    stop_node: Callable[[], None] | None = None,
    ready: Callable[[], None] | None = None,
    abandon: Callable[[], None] | None = None,
    more: Sequence[Guest] = (),
) -> Child:
    """A child that is its own agent; ``child.serve()`` runs it on the calling thread, ``child.stop()`` ends it.

    ``abandon`` is called when everything is given back and tasks still run: see ``Child``. Raises
    ``ImproperlyConfigured`` where a task's limits make no sense or the broker cannot keep them.
    """
    check_needs(app)
    owner = secrets.token_hex(6)

    async def agent(child: Child) -> None:
        stop = stop_node if stop_node is not None else child.stop
        node = Agent(
            app,
            options,
            child.runner,
            broker=child.broker,
            store=child.store,
            link=LocalLink(child),
            stop_node=stop,
            more=more,
        )
        async with asyncio.TaskGroup() as group:
            for service in (*node.services(), *remote_services(node)):
                group.create_task(service())

    extras: list[Callable[[Child], Coroutine[Any, Any, None]]] = [agent]
    return Child(
        app,
        options,
        open_broker=lambda: broker_of(app, owner),
        open_store=lambda: store_of(app),
        extras=extras,
        ready=ready,
        abandon=abandon,
    )
