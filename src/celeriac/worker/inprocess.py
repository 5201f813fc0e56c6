"""A whole node in one process: child and agent on one I/O loop. For ``--pool solo`` and for workers in tests.

Several of them may run in one process, each in a thread of its own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from celeriac.worker.agent import Agent
from celeriac.worker.child import Child
from celeriac.worker.link import LocalLink
from celeriac.worker.options import NodeOptions

if TYPE_CHECKING:
    from celeriac.app.base import Celery

__all__ = ["in_process"]


def in_process(
    app: Celery,
    options: NodeOptions,
    *,
    stop_node: Callable[[], None] | None = None,
    ready: Callable[[], None] | None = None,
) -> Child:
    """A child that is its own agent; ``child.serve()`` runs it on the calling thread, ``child.stop()`` ends it."""
    from celeriac.client import resolver

    owner = secrets.token_hex(6)
    adapter = resolver.adapter_options(app.conf, owner=owner)
    broker_url, backend_url = app.broker_url, app.backend_url

    async def agent(child: Child) -> None:
        stop = stop_node if stop_node is not None else child.stop
        node = Agent(
            app, options, child.runner, broker=child.broker, store=child.store, link=LocalLink(child), stop_node=stop
        )
        async with asyncio.TaskGroup() as group:
            for service in node.services():
                group.create_task(service())

    extras: list[Callable[[Child], Coroutine[Any, Any, None]]] = [agent]
    return Child(
        app,
        options,
        open_broker=lambda: resolver.broker(broker_url, adapter),
        open_store=lambda: resolver.store(backend_url, resolver.store_options(app.conf)) if backend_url else None,
        extras=extras,
        ready=ready,
    )
