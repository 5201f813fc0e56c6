"""What a child answers its agent: what it runs and holds, and the orders it obeys. On the child's I/O loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.codec.redaction import redacted
from celeriac.model.message import Delivery, Malformed
from celeriac.model.outcome import Revoked
from celeriac.model.rules import Order
from celeriac.worker.rules import from_wire

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
        "args": redacted(str(headers.get("argsrepr") or ""), child.options.redact_names),
        "kwargs": redacted(str(headers.get("kwargsrepr") or ""), child.options.redact_names),
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


def _obey(child: Child, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Learn rules that are new; end running tasks that are revoked and to be terminated, as far as it can be done here.

    Returns those that only the end of their process ends.
    """
    if arguments["rules"]:
        child.rules.hear(from_wire(arguments["rules"]))
        child.fetcher.ruled()
    if not child.rules.refuses:
        return []
    now, left = child.runner.now(), []
    for delivery, _ in child.running():
        order = child.rules.order_for(delivery.message, now)
        if order is not None and order.terminate and not _end(child, delivery, order):
            told = {"token": delivery.token, "pid": os.getpid(), "signal": order.signal}
            left.append({**told, "by": order.by, "why": order.reason})
    return left


def _end(child: Child, delivery: Delivery, order: Order) -> bool:
    """End a running task; orders are repeated, and it is ended once. False: only the end of its process ends it."""
    token, terminated = delivery.token, child.runner.terminated
    if token in terminated:
        return True
    outcome = Revoked("terminated", by=order.by, why=order.reason)
    # Before the cancellation: the coroutine's thread looks there when it is over.
    terminated[token] = outcome
    if child.cancel(token):
        return True
    if child.options.pool == "threads" and child.slot is not None:
        # Nothing ends a thread but the end of its process: the others in it go back uncounted (as for hard limits).
        child.exit_reason = "a task was terminated"
        child.services.end(delivery, outcome)
        child.stop(grace=0.0)
        return True
    del terminated[token]
    if token in child.completer.early:
        # No lease tells of it when its process is gone: it is written now, and its process ended at the next order.
        child.services.end(delivery, outcome)
        return True
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


def _rate_limit(child: Child, arguments: Mapping[str, Any]) -> None:
    """All rates that were set by remote control, starts per second by task."""
    for name, rate in arguments["rates"].items():
        child.runner.limit_rate(name, rate)


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
    "obey": _obey,
    "events": _events,
    "queues": _queues,
    "rate_limit": _rate_limit,
    "stop": _stop,
    "time_limit": _time_limit,
}
