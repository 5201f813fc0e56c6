"""Where a task goes: from ``task_routes`` and the options of a call to the queue, exchange and routing key.

Knows names and declarations, no connection. Called for each message by the sender, and through ``app.amqp.router``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from celeriac.client.queues import Queue, delivery_mode_of, looks_like_queue
from celeriac.client.registry import Queues
from celeriac.conf.source import import_object
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["ROUTING_SETTINGS", "Address", "MapRoute", "Router", "prepare"]

#: Settings that queues and router are made of: make both anew when one changes.
ROUTING_SETTINGS = frozenset(
    {
        "task_create_missing_queue_exchange_type",
        "task_create_missing_queue_type",
        "task_create_missing_queues",
        "task_default_delivery_mode",
        "task_default_exchange",
        "task_default_exchange_type",
        "task_default_queue",
        "task_default_queue_type",
        "task_default_routing_key",
        "task_queue_max_priority",
        "task_queues",
        "task_routes",
    }
)

#: Options that say where a message goes.
_ADDRESSING = frozenset({"delivery_mode", "exchange", "exchange_type", "queue", "routing_key"})

#: Names remembered with the route found for them; more are looked up each time.
_REMEMBERED = 10_000


class Address(NamedTuple):
    """Where a message goes. With the default exchange ``""`` the routing key is the name of the queue."""

    #: Name of the queue asked for; empty when only an exchange was.
    queue: str
    exchange: str
    routing_key: str
    delivery_mode: int
    #: To be declared before publishing; None: nothing.
    declare: Queue | None


class MapRoute:
    """A router made of a dict of names, globs and compiled patterns to queues or options; or of a list of such pairs.

    An exact name wins over patterns, and among those the first that matches.
    """

    def __init__(self, routes: Any) -> None:
        self.map: dict[str, Mapping[str, Any]] = {}
        self.patterns: list[tuple[re.Pattern[str], Mapping[str, Any]]] = []
        for key, value in routes.items() if isinstance(routes, Mapping) else routes:
            if isinstance(key, re.Pattern):
                self.patterns.append((key, _route_of(key.pattern, value)))
            elif "*" in key:
                self.patterns.append((re.compile(fnmatch.translate(key)), _route_of(key, value)))
            else:
                self.map[key] = _route_of(key, value)

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Mapping[str, Any] | None:
        found = self.map.get(name)
        if found is None:
            found = next((route for pattern, route in self.patterns if pattern.match(name)), None)
        return found


class _NamedRouter:
    """A router given by its dotted name, imported when it is first asked."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._router: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._router is None:
            try:
                self._router = _callable(import_object(self.path))
            except ImportError as error:
                raise ImproperlyConfigured(
                    f"setting 'task_routes' names {self.path!r}, which cannot be imported ({error}): correct the name"
                ) from error
        return self._router(*args, **kwargs)


def prepare(routes: Any) -> list[Callable[..., Any]]:
    """The ``task_routes`` setting as routers, called with ``(name, args, kwargs, options, task=None)``.

    Accepts a dict; a list of (name or pattern, route) pairs; a function; an object or class with ``route_for_task``;
    a dotted name of one; or a list of any of them.

    Raises:
        ImproperlyConfigured: something in it is none of these.
    """
    if routes is None:
        return []
    routers: list[Callable[..., Any]] = []
    pairs: list[tuple[Any, Any]] = []
    for item in routes if isinstance(routes, (list, tuple)) else (routes,):
        if _is_pair(item):
            # Neighbouring pairs are one router, in which exact names come first.
            pairs.append(item)
            if len(pairs) > 1:
                routers.pop()
            routers.append(MapRoute(pairs))
        else:
            pairs = []
            routers.append(_router_of(item))
    return routers


class Router:
    """Finds the address of each task.

    Args:
        routes: the ``task_routes`` setting.
        queues: the queues; anything but Queues is made one.
        create_missing: make queues that are not declared; only for ``queues`` that are not Queues yet.
        default_queue: where tasks go that neither a route nor the call sends elsewhere.
        delivery_mode: 2 or 1, where neither the call nor the exchange says it.
    """

    def __init__(
        self,
        routes: Any = None,
        queues: Any = None,
        create_missing: bool = True,
        *,
        default_queue: str = "celery",
        delivery_mode: int | str = 2,
    ) -> None:
        self.routes = prepare(routes)
        self.queues = queues if isinstance(queues, Queues) else Queues(queues, create_missing=create_missing)
        self.default_queue = default_queue
        self.delivery_mode = delivery_mode_of(delivery_mode)
        #: Whether no route depends on more than the task's name, so that what follows from it can be remembered.
        self.by_name_only = all(isinstance(router, MapRoute) for router in self.routes)
        self._found: dict[str, Mapping[str, Any] | None] = {}

    @classmethod
    def from_settings(cls, conf: Any, queues: Queues | None = None) -> Router:
        """The router that the settings ask for."""
        return cls(
            conf["task_routes"],
            Queues.from_settings(conf) if queues is None else queues,
            default_queue=conf["task_default_queue"],
            delivery_mode=conf["task_default_delivery_mode"],
        )

    def resolve(
        self,
        options: dict[str, Any],
        name: str,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        task: Any = None,
    ) -> Address:
        """Where the task goes; ``options`` are those of the call over those of the task, and are changed.

        Taken out of them are queue, exchange, exchange_type, routing_key and delivery_mode; put into them is what the
        route says and they do not (None counts as not said), such as priority.

        Raises:
            QueueNotFound: the queue is not declared, and may not be made.
        """
        routed = False
        if not self.routes:
            if _ADDRESSING.isdisjoint(options):
                return self._address_of(self.default_queue)
        else:
            route = self._route_for(options, name, args, kwargs, task)
            if route:
                routed = True
                for key, value in route.items():
                    if options.get(key) is None:
                        options[key] = value
        take = options.pop
        queue = take("queue", None)
        exchange = take("exchange", None)
        key = take("routing_key", None)
        kind = take("exchange_type", None)
        mode = take("delivery_mode", None)
        if not exchange and not key and not kind and not mode:
            return self._address_of(queue)
        if queue is None and (not exchange or not routed):
            queue = self.default_queue
        return self._work_out(queue, exchange, key, kind, mode)

    def _address_of(self, queue: Any) -> Address:
        """The address of a queue, of the default queue for None; remembered for names."""
        if not queue:
            queue = self.default_queue
        if not isinstance(queue, str):
            return self._work_out(queue)
        found: Address | None = self.queues.addresses.get(queue)
        if found is None:
            found = self._work_out(queue)
            self.queues.addresses[queue] = found
        return found

    def _work_out(
        self, queue: Any, exchange: Any = None, key: Any = None, kind: Any = None, mode: Any = None
    ) -> Address:
        declared = None if queue is None else self.queues[queue] if isinstance(queue, str) else Queue.of(queue)
        own = None if declared is None else declared.exchange
        mode = delivery_mode_of(mode or (own and own.delivery_mode) or self.delivery_mode)
        kind = kind or (own.type if own is not None else getattr(exchange, "type", "direct"))
        name = "" if declared is None else declared.name
        if declared is not None and (not exchange or not key) and kind == "direct":
            # As Celery: a direct exchange is left out, the message goes straight to the queue.
            return Address(name, "", name, mode, declared)
        if exchange:
            target = exchange if isinstance(exchange, str) else exchange.name
            if not key and kind == "direct":
                # Celery publishes this to nowhere.
                key = self.queues.default_routing_key
            return Address(name, target, key or "", mode, declared)
        default = self.queues.default_exchange
        target = (own and own.name) or (default and default.name) or ""
        key = key or (declared and declared.routing_key) or self.queues.default_routing_key
        return Address(name, target, key, mode, declared)

    def _route_for(
        self, options: Mapping[str, Any], name: str, args: Any, kwargs: Any, task: Any
    ) -> Mapping[str, Any] | None:
        if not self.by_name_only:
            return self.lookup_route(name, args, kwargs, self.expand_destination(dict(options)), task)
        try:
            return self._found[name]
        except KeyError:
            pass
        route = self.lookup_route(name)
        if len(self._found) < _REMEMBERED:
            self._found[name] = route
        return route

    # ------------------------------------------------------------ Celery's names

    def route(
        self,
        options: dict[str, Any],
        name: str,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """The options of the call over those of the route, with ``queue`` a Queue (``celery.app.routes.Router``)."""
        options = self.expand_destination(options)
        route = self.lookup_route(name, args, kwargs, options, task_type)
        if route:
            return _over(self.expand_destination(dict(route)), options)
        if "queue" not in options:
            return _over(self.expand_destination(self.default_queue), options)
        return options

    def expand_destination(self, route: str | MutableMapping[str, Any]) -> dict[str, Any]:
        """A queue's name or a route with one, with the Queue in its place."""
        expanded: dict[str, Any] = {"queue": route} if isinstance(route, str) else dict(route)
        queue = expanded.pop("queue", None)
        if queue:
            expanded["queue"] = self.queues[queue] if isinstance(queue, str) else Queue.of(queue)
        return expanded

    def lookup_route(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> Mapping[str, Any] | None:
        """What the first router says that says anything; None when none does."""
        for router in self.routes:
            route = router(name, args, kwargs or {}, options or {}, task=task_type)
            if route is not None:
                return _route_of(name, route)
        return None


def _over(lower: dict[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    lower.update((key, value) for key, value in upper.items() if value is not None)
    return lower


def _is_pair(item: Any) -> bool:
    """``("feed.*", {...})``, and not a list of two dotted names of routers."""
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        return False
    key, value = item
    if isinstance(key, re.Pattern):
        return True
    return isinstance(key, str) and (isinstance(value, (str, Mapping)) or looks_like_queue(value))


def _route_of(key: str, value: Any) -> Mapping[str, Any]:
    """What a route says, as options."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str) or looks_like_queue(value):
        return {"queue": value}
    raise ImproperlyConfigured(
        f"setting 'task_routes' sends {key!r} to {value!r}: give the name of a queue or a dict of options"
    )


def _router_of(item: Any) -> Callable[..., Any]:
    if isinstance(item, str):
        return _NamedRouter(item)
    if isinstance(item, (Mapping, list, tuple)):
        try:
            return MapRoute(item)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(
                f"setting 'task_routes' holds {item!r}: write a dict, or a list of (name, route) pairs"
            ) from error
    return _callable(item)


def _callable(router: Any) -> Callable[..., Any]:
    """A function as it is; the ``route_for_task`` of an object or class as one."""
    if hasattr(router, "route_for_task"):
        method = (router() if isinstance(router, type) else router).route_for_task
        return lambda name, args, kwargs, options, task=None: method(name, args, kwargs)
    if not callable(router):
        raise ImproperlyConfigured(
            f"setting 'task_routes' holds {router!r}: write a dict, a function or an object with route_for_task"
        )
    result: Callable[..., Any] = router
    return result
