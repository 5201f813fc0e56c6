"""What a child answers its agent: what it runs and holds, and the orders it obeys. On the child's I/O loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.model.message import Delivery, Malformed

if TYPE_CHECKING:
    from celeriac.worker.child import Child

__all__ = ["answer"]


def answer(child: Child, method: str, arguments: Mapping[str, Any]) -> Any:
    """The answer to one question; unknown ones are an error of the agent's."""
    return _METHODS[method](child, arguments)


def _active(child: Child, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Running tasks, in the shape of Celery's ``inspect active`` (celery-wire §3.7)."""
    skew = time.time() - time.monotonic()
    return [_info(child, delivery, started + skew) for delivery, started in child.running()]


def _reserved(child: Child, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Claimed and not started."""
    running = {delivery.token for delivery, _ in child.running()}
    return [_info(child, d, None) for d in list(child.fetcher.held.values()) if d.token not in running]


def _info(child: Child, delivery: Delivery, started: float | None) -> dict[str, Any]:
    message = delivery.message
    if isinstance(message, Malformed):
        return {"id": message.id, "name": message.task}
    headers = message.headers
    return {
        "id": message.id,
        "name": message.task,
        "args": headers.get("argsrepr"),
        "kwargs": headers.get("kwargsrepr"),
        "type": message.task,
        "hostname": child.options.hostname,
        "time_start": started,
        "acknowledged": delivery.token in child.completer.early,
        "delivery_info": {
            "exchange": message.exchange,
            "routing_key": message.routing_key or message.queue,
            "priority": message.priority,
            "redelivered": delivery.redelivered,
        },
        "worker_pid": os.getpid(),
        "token": delivery.token,
    }


def _stats(child: Child, arguments: Mapping[str, Any]) -> dict[str, Any]:
    runner = child.runner
    return {
        "pid": os.getpid(),
        "total": dict(runner.totals),
        "count": runner.count,
        "held": len(child.fetcher.held),
        "connected": child.fetcher.connected,
    }


def _revoke(child: Child, arguments: Mapping[str, Any]) -> list[str]:
    """Refuse these ids from now on; cancel coroutines among them when asked to terminate.

    Returns the tokens of running ones that were not cancelled: only the end of their process ends them.
    """
    ids = dict.fromkeys(arguments["ids"])
    child.revoked.add(ids)
    found = [delivery.token for delivery, _ in child.running() if delivery.message.id in ids]
    return [token for token in found if not (arguments.get("terminate") and _cancel(child, token))]


def _cancel(child: Child, token: str) -> bool:
    # Before the cancellation: the coroutine's thread looks there when it is over.
    child.runner.terminated.add(token)
    if child.cancel(token):
        return True
    child.runner.terminated.discard(token)
    return False


def _events(child: Child, arguments: Mapping[str, Any]) -> bool:
    before: bool = child.report.events
    child.report.events = bool(arguments["on"])
    return before


def _queues(child: Child, arguments: Mapping[str, Any]) -> list[str]:
    """Consume from exactly these queues."""
    wanted = list(arguments["queues"])
    if sorted(child.fetcher.queues) != sorted(wanted):
        child.fetcher.queues[:] = wanted
        child.fetcher.requeued()
    return wanted


def _time_limit(child: Child, arguments: Mapping[str, Any]) -> None:
    """Tasks of these names have these limits from now on."""
    for name, (soft, hard) in arguments["limits"].items():
        child.runner.set_limits(name, soft, hard)


def _stop(child: Child, arguments: Mapping[str, Any]) -> None:
    child.stop(grace=arguments.get("grace"))


_METHODS: Mapping[str, Callable[[Child, Mapping[str, Any]], Any]] = {
    "active": _active,
    "reserved": _reserved,
    "stats": _stats,
    "revoke": _revoke,
    "events": _events,
    "queues": _queues,
    "stop": _stop,
    "time_limit": _time_limit,
}
