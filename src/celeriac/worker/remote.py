"""Remote control of a worker: the listener of its node, and the commands it obeys (``commands.py``)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.client.listener import Listener
from celeriac.codec.signing import control_signer_of
from celeriac.ports import Bus
from celeriac.worker import commands

if TYPE_CHECKING:
    from celeriac.worker.agent import Agent

__all__ = ["listener_of", "remote_services"]


def remote_services(agent: Agent) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """The listener of a node, unless its broker has no bus or ``worker_enable_remote_control`` is off."""
    if isinstance(agent.broker, Bus) and agent.options.remote_control:
        return [listener_of(agent).run]
    return []


def listener_of(agent: Agent) -> Listener:
    """The listener of a node whose broker is a ``Bus``. Raises ``ImproperlyConfigured`` for a key that is none."""

    async def execute(method: str, arguments: Mapping[str, Any], origin: str) -> Any:
        return await commands.execute(agent, method, arguments, origin=origin)

    bus: Any = agent.broker
    return Listener(
        bus,
        agent.options.hostname,
        execute,
        signer=control_signer_of(agent.app.conf),
        regexes=agent.options.remote_control != "inspect",
        clock=agent.clock,
    )
