"""The queues of an app: those of ``task_queues``, and those that are made when they are first named.

Knows their names and declarations, not their contents. Made by the app; read by ``routes.py`` and by the worker, which
consumes from some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celeriac.client.queues import Exchange, Queue, looks_like_queue
from celeriac.exceptions import ImproperlyConfigured, QueueNotFound

__all__ = ["Queues"]


class Queues(dict[str, Queue]):
    """Name -> queue (``celery.app.amqp.Queues``). Looking up an unknown name makes a queue, or raises QueueNotFound.

    Args:
        queues: the ``task_queues`` setting: queues, ours or kombu's, or a dict of name to queue or options.
        default_exchange: exchange of queues that name none.
        default_routing_key: routing key of queues that have none.
        create_missing: make queues that are not declared.
        create_missing_queue_type: their type, classic or quorum.
        create_missing_queue_exchange_type: type of their exchange; None: what ``autoexchange`` makes.
        autoexchange: makes their exchange from their name.
        max_priority: ``x-max-priority`` of queues that say none.
    """

    def __init__(
        self,
        queues: Any = None,
        default_exchange: Exchange | None = None,
        create_missing: bool = True,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[[str], Exchange | None] | None = None,
        max_priority: int | None = None,
        default_routing_key: str | None = None,
    ) -> None:
        super().__init__()
        if create_missing_queue_type not in {None, "classic", "quorum"}:
            raise ImproperlyConfigured(
                f"setting 'task_create_missing_queue_type' must be classic or quorum, not {create_missing_queue_type!r}"
            )
        self.aliases: dict[str, Queue] = {}
        self.default_exchange = default_exchange
        self.default_routing_key = default_routing_key or ""
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.autoexchange = autoexchange or Exchange
        self.max_priority = max_priority
        #: What router and sender have worked out about names and options; forgotten when a declaration changes.
        self.addresses: dict[Any, Any] = {}
        self._selected: dict[str, Queue] | None = None
        for name, queue in _items(queues):
            if looks_like_queue(queue):
                self.add(queue)
            else:
                self.add(name, **queue)
        # Read by a worker without -Q.
        self._declared = dict(self)

    @classmethod
    def from_settings(cls, conf: Any) -> Queues:
        """The queues that the settings ask for."""
        exchange = Exchange(conf["task_default_exchange"], conf["task_default_exchange_type"])
        queues = conf["task_queues"]
        if not queues and conf["task_default_queue"]:
            quorum = conf["task_default_queue_type"] == "quorum"
            queues = [
                Queue(
                    conf["task_default_queue"],
                    exchange,
                    conf["task_default_routing_key"],
                    queue_arguments={"x-queue-type": "quorum"} if quorum else None,
                )
            ]
        return cls(
            queues,
            default_exchange=exchange,
            default_routing_key=conf["task_default_routing_key"],
            create_missing=conf["task_create_missing_queues"],
            create_missing_queue_type=conf["task_create_missing_queue_type"],
            create_missing_queue_exchange_type=conf["task_create_missing_queue_exchange_type"],
            max_priority=conf["task_queue_max_priority"],
        )

    def __missing__(self, name: str) -> Queue:
        if name in self.aliases:
            return self.aliases[name]
        if not self.create_missing:
            known = ", ".join(sorted(self)) or "none"
            raise QueueNotFound(
                f"Queue {name!r} missing from task_queues ({known}): add it there, or set task_create_missing_queues"
            )
        # Nothing can have been worked out from a queue that was not there.
        return self._put(name, self.new_missing(name))

    def __setitem__(self, name: str, queue: Queue) -> None:
        self._put(name, queue)
        self.addresses.clear()

    def _put(self, name: str, queue: Queue) -> Queue:
        """Keep a queue, with the defaults in place of what it does not say."""
        changes: dict[str, Any] = {}
        if self.default_exchange is not None and (queue.exchange is None or not queue.exchange.name):
            changes["exchange"] = self.default_exchange
        if not queue.routing_key and self.default_routing_key:
            changes["routing_key"] = self.default_routing_key
        arguments = queue.queue_arguments or {}
        if self.max_priority is not None and "x-max-priority" not in arguments:
            changes["queue_arguments"] = {**arguments, "x-max-priority": self.max_priority}
        if changes:
            queue = queue.replace(**changes)
        super().__setitem__(name, queue)
        if queue.alias:
            self.aliases[queue.alias] = queue
        return queue

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.addresses.clear()

    def add(self, queue: Any, **options: Any) -> Queue:
        """Declare a queue: a Queue, ours or kombu's, or a name with options (exchange, routing_key …)."""
        if not looks_like_queue(queue):
            key = options.get("routing_key") or options.get("binding_key") or queue
            queue = Queue.from_dict(queue, **{**options, "routing_key": key})
        ours = Queue.of(queue)
        self[ours.name] = ours
        return self[ours.name]

    def new_missing(self, name: str) -> Queue:
        """The queue that is made for a name that is not declared."""
        kind = self.create_missing_queue_exchange_type
        exchange = Exchange(name, kind) if kind else self.autoexchange(name)
        quorum = self.create_missing_queue_type == "quorum"
        return Queue(name, exchange, name, queue_arguments={"x-queue-type": "quorum"} if quorum else None)

    def bound_to(self, exchange: str, routing_key: str) -> tuple[str, ...]:
        """Names of the declared queues in which a message lands; the default exchange ``""`` leads to the key's queue.

        For brokers that have no exchanges: RabbitMQ may know of bindings that are not declared here.
        """
        if not exchange:
            return (routing_key,)
        return tuple(name for name, queue in list(self.items()) if queue.binds(exchange, routing_key))

    # ------------------------------------------------------------ what a worker consumes from

    @property
    def consume_from(self) -> dict[str, Queue]:
        """Those that a worker consumes from: the declared ones, or those selected."""
        return self._declared if self._selected is None else self._selected

    def select(self, include: Iterable[str] | str) -> None:
        """Consume from these only (``worker -Q``); raises QueueNotFound as a lookup does."""
        if include:
            self._selected = {(queue := self[name]).name: queue for name in _names(include)}

    def deselect(self, exclude: Iterable[str] | str) -> None:
        """Do not consume from these (``worker -X``); unknown ones are ignored."""
        chosen = self.consume_from
        for name in _names(exclude):
            alias = self.aliases.get(name)
            chosen.pop(alias.name if alias is not None else name, None)

    def select_add(self, queue: Any, **options: Any) -> Queue:
        """Declare a queue and consume from it too (remote command ``add_consumer``)."""
        added = self.add(queue, **options)
        self.consume_from[added.name] = added
        return added

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """The queues consumed from, a line for each, for the banner."""
        lines = []
        for name, queue in sorted(self.consume_from.items()):
            exchange = queue.exchange or Exchange("")
            lines.append(f".> {name:<16} exchange={exchange.name}({exchange.type}) key={queue.routing_key}")
        text = f"\n{' ' * indent}".join(lines)
        return f"{' ' * indent}{text}" if lines and indent_first else text


def _items(queues: Any) -> list[tuple[str, Any]]:
    if not queues:
        return []
    if isinstance(queues, Mapping):
        return [(name, queue or {}) for name, queue in queues.items()]
    items: list[tuple[str, Any]] = []
    for queue in queues:
        if isinstance(queue, str):
            items.append((queue, {}))
        elif looks_like_queue(queue):
            items.append((queue.name, queue))
        else:
            raise ImproperlyConfigured(f"setting 'task_queues' holds {queue!r}, which is no queue: write Queue('name')")
    return items


def _names(names: Iterable[str] | str) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
