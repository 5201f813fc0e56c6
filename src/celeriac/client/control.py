"""``app.control``: remote control of workers, as Celery's ``app.control`` does it (``celery-wire.md`` §3.7).

Builds requests and reads replies; the ``Caller`` port carries them. What the commands do is the worker's affair.
Used by the command line, by ``AsyncResult.revoke`` and by users.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from celeriac.client import orders, resolver
from celeriac.client.connections import PerProcess
from celeriac.client.requests import signed, written_by
from celeriac.codec.signing import control_signer_of
from celeriac.exceptions import DuplicateNodenameWarning
from celeriac.model.rules import Order
from celeriac.ports import Caller

__all__ = ["Control", "Inspect"]

#: Seconds in which a queue has to be purged.
_PURGE_TIMEOUT = 10.0
_TERM = "SIGTERM"

#: One node's name and its answer.
Reply = Mapping[str, Any]
Destination = Sequence[str] | str | None


class Control:
    """Commands to workers. Nobody tells whether a command without ``reply=True`` was heard.

    All take ``destination`` (names of nodes; None: all), ``reply``, ``timeout`` (seconds to collect replies),
    ``limit`` (most replies), ``pattern`` and ``matcher`` (``glob`` or ``pcre``) as ``broadcast`` does.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self._caller: PerProcess[Caller] = PerProcess(self._open)

    def _open(self) -> Caller:
        conf = self.app.conf
        url = resolver.write_url(conf, self.app.default_url())
        return resolver.caller(url, resolver.adapter_options(conf, url))

    def close(self) -> None:
        """Give the connections back. Idempotent."""
        self._caller.close()

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Destination = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Reply], Any] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> list[Reply] | None:
        """Send ``command`` with ``arguments`` and, with ``reply``, return what came back: ``[{node: answer}, …]``.

        ``callback`` is called with each reply. ``connection`` and ``channel`` are ignored. Signed when there is a
        ``control_key``. Raises ``OperationalError``
        when the broker cannot be reached.
        """
        nodes = _names(destination)
        request: dict[str, Any] = {
            "method": command,
            "arguments": {**(arguments or {}), **extra_kwargs},
            "destination": nodes,
            "pattern": pattern,
            "matcher": matcher,
            "origin": written_by(),
        }
        signer = control_signer_of(self.app.conf)
        if signer is not None:
            request = signed(request, signer, reply=reply)
        if limit is None and nodes:
            limit = len(nodes)
        seconds = 1.0 if timeout is None else timeout
        replies = self._caller.get().call(request, timeout=seconds, limit=limit, reply=reply)
        if not reply:
            return None
        if callback is not None:
            for answer in replies:
                callback(answer)
        return list(replies)

    def inspect(self, destination: Destination = None, timeout: float = 1.0, **kwargs: Any) -> Inspect:
        """Questions to workers; see ``Inspect``."""
        return Inspect(destination, timeout, app=self.app, control=self, **kwargs)

    # ------------------------------------------------------------ tasks

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Destination = None,
        terminate: bool = False,
        signal: str | None = _TERM,
        *,
        by: str | None = None,
        reason: str = "",
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Do not run the task, or tasks; with ``terminate`` end it, if it runs, by ``signal``.

        Written to the broker, so that workers that start later obey too, for ``task_revoke_expires`` seconds; workers
        that run are told at once. ``destination`` says which of them are told: the order is for all. The result shows
        ``by`` whom (default: user and host) and the ``reason``. Raises ``OperationalError`` when it cannot be written.
        """
        ids = task_id if isinstance(task_id, str) else list(task_id)
        how = {"by": by, "reason": reason, "terminate": terminate, "signal": str(signal or _TERM)}
        orders.revoke(self.app, [ids] if isinstance(ids, str) else ids, **how)
        arguments = {"task_id": ids, "terminate": terminate, "signal": signal or _TERM}
        return self.broadcast("revoke", arguments, destination, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Destination = None,
        terminate: bool = False,
        signal: str | None = _TERM,
        *,
        by: str | None = None,
        reason: str = "",
        **kwargs: Any,
    ) -> list[Reply] | None:
        """As ``revoke``, for tasks that carry one of these stamps: ``{"customer": ["17", "18"]}``.

        Tasks that wait are refused when their turn comes.
        """
        how = {"by": by, "reason": reason, "terminate": terminate, "signal": str(signal or _TERM)}
        orders.revoke_stamped(self.app, headers, **how)
        arguments = {"headers": dict(headers), "terminate": terminate, "signal": signal or _TERM}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **kwargs)

    def terminate(
        self, task_id: str | Iterable[str], destination: Destination = None, signal: str | None = _TERM, **kwargs: Any
    ) -> list[Reply] | None:
        """``revoke`` with ``terminate=True``."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **kwargs)

    # ------------------------------------------------------------ queues

    def pause_queue(self, *queues: str, by: str | None = None, reason: str = "") -> None:
        """Let no worker take tasks from these queues until ``resume_queue``.

        Tasks that run are finished, and tasks can be sent. Written to the broker: workers that start later obey too.
        Celery workers do not. Raises ``OperationalError`` when it cannot be written.
        """
        orders.pause(self.app, queues, by=by, reason=reason)

    def resume_queue(self, *queues: str) -> None:
        """Let workers take tasks from these queues again; they do within a second. Queues that are not paused stay as
        they are. Raises ``OperationalError`` when it cannot be written."""
        orders.resume(self.app, queues)

    def paused_queues(self) -> dict[str, Order]:
        """The paused queues by name; of each ``by`` whom, the ``reason``, and when (``at``, seconds since the epoch).
        Raises ``OperationalError``."""
        return orders.paused(self.app)

    # ------------------------------------------------------------ limits

    def rate_limit(
        self, task_name: str, rate_limit: int | str, destination: Destination = None, **kwargs: Any
    ) -> list[Reply] | None:
        """Start at most so many tasks of that name in all workers together: ``10`` a second, ``"10/m"``, ``"10/h"``; 0:
        any. Workers that start later do not know it. Celery's workers count each for itself."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments, destination, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Destination = None,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Set the time limits of tasks of that name, in seconds."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **kwargs)

    def purge(self, connection: Any = None) -> int:
        """Drop all messages that wait in the app's queues; returns how many. They cannot be brought back."""
        sender = self.app.sender
        queues = sender.router.queues.consume_from
        return sum(sender.publisher.purge(queue, timeout=_PURGE_TIMEOUT) for queue in queues)

    discard_all = purge

    # ------------------------------------------------------------ workers

    def ping(self, destination: Destination = None, timeout: float = 1.0, **kwargs: Any) -> list[Reply]:
        """``[{node: {"ok": "pong"}}, …]``."""
        return self.broadcast("ping", {}, destination, reply=True, timeout=timeout, **kwargs) or []

    def shutdown(self, destination: Destination = None, **kwargs: Any) -> list[Reply] | None:
        """Warm shutdown."""
        return self.broadcast("shutdown", {}, destination, **kwargs)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Destination = None,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Consume from one more queue."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **kwargs)

    def cancel_consumer(self, queue: str, destination: Destination = None, **kwargs: Any) -> list[Reply] | None:
        """Stop consuming from a queue."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **kwargs)

    def pool_grow(self, n: int = 1, destination: Destination = None, **kwargs: Any) -> list[Reply] | None:
        """Add ``n`` children."""
        return self.broadcast("pool_grow", {"n": n}, destination, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Destination = None, **kwargs: Any) -> list[Reply] | None:
        """Remove ``n`` children."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **kwargs)

    def autoscale(
        self,
        max: int,  # noqa: A002 - Celery's name
        min: int,  # noqa: A002 - Celery's name
        destination: Destination = None,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Keep between ``min`` and ``max`` children."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **kwargs)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Destination = None,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Replace all children; ``reloader`` cannot be sent and is ignored."""
        arguments = {"modules": list(modules or ()), "reload": reload}
        return self.broadcast("pool_restart", arguments, destination, **kwargs)

    def enable_events(self, destination: Destination = None, **kwargs: Any) -> list[Reply] | None:
        """Send task events from now on."""
        return self.broadcast("enable_events", {}, destination, **kwargs)

    def disable_events(self, destination: Destination = None, **kwargs: Any) -> list[Reply] | None:
        """Send no task events any more."""
        return self.broadcast("disable_events", {}, destination, **kwargs)

    def heartbeat(self, destination: Destination = None, **kwargs: Any) -> list[Reply] | None:
        """Send a heartbeat event now."""
        return self.broadcast("heartbeat", {}, destination, **kwargs)


class Inspect:
    """Questions to workers. Each method returns ``{node: answer}``, None when nobody answered; the answer alone when
    ``destination`` is one name.

    Any other method of Celery's inspect is asked under its name: ``inspect().memsample()``.
    """

    def __init__(
        self,
        destination: Destination = None,
        timeout: float = 1.0,
        callback: Callable[[Reply], Any] | None = None,
        connection: Any = None,
        app: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        *,
        control: Control | None = None,
    ) -> None:
        self.app = app
        self.control: Control = control if control is not None else app.control
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def request(self, command: str, **arguments: Any) -> Any:
        """Ask ``command``; arguments that are None are left out."""
        replies = self.control.broadcast(
            command,
            {key: value for key, value in arguments.items() if value is not None},
            self.destination,
            reply=True,
            timeout=self.timeout,
            limit=self.limit,
            callback=self.callback,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        if not replies:
            return None
        by_node = _by_node(replies)
        return by_node.get(self.destination) if isinstance(self.destination, str) else by_node

    def __getattr__(self, command: str) -> Callable[..., Any]:
        if command.startswith("_"):
            raise AttributeError(command)
        return partial(self.request, command)

    def ping(self, destination: Destination = None) -> Any:
        """``{"ok": "pong"}`` of each node."""
        if destination is not None:
            self.destination = destination
        return self.request("ping")

    def active(self, safe: bool | None = None) -> Any:
        """Tasks that run."""
        return self.request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Tasks that wait for their time."""
        return self.request("scheduled", safe=safe)

    def reserved(self, safe: bool | None = None) -> Any:
        """Tasks that were claimed and not started."""
        return self.request("reserved", safe=safe)

    def stats(self) -> Any:
        """Counters, pool, broker, resources."""
        return self.request("stats")

    def revoked(self) -> Any:
        """Ids of revoked tasks."""
        return self.request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Names of the tasks that a node knows, with these attributes of theirs."""
        return self.request("registered", taskinfoitems=list(taskinfoitems) or None)

    registered_tasks = registered

    def active_queues(self) -> Any:
        """Queues that a node consumes from."""
        return self.request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """What a node knows of these tasks."""
        wanted = ids[0] if len(ids) == 1 and isinstance(ids[0], (list, tuple)) else ids
        return self.request("query_task", ids=list(wanted))

    def conf(self, with_defaults: bool = False) -> Any:
        """The settings of a node, without secrets."""
        return self.request("conf", with_defaults=with_defaults)

    def clock(self) -> Any:
        """The logical clock."""
        return self.request("clock")

    def report(self) -> Any:
        """Versions and settings, as text."""
        return self.request("report")

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """What a starting node asks: revoked ids and clock."""
        return self.request("hello", from_node=from_node, revoked=revoked)


def _names(destination: Destination) -> list[str] | None:
    if not destination:
        return None
    return [destination] if isinstance(destination, str) else list(destination)


def _by_node(replies: Sequence[Reply]) -> dict[str, Any]:
    """One dict of all replies; warns of nodes that share a name."""
    merged: dict[str, Any] = {}
    twice = set()
    for reply in replies:
        twice |= merged.keys() & reply.keys()
        merged.update(reply)
    if twice:
        warnings.warn(
            DuplicateNodenameWarning(f"Received multiple replies from node {', '.join(sorted(twice))}: use -n"),
            stacklevel=4,
        )
    return merged
