"""Queues as users declare them: Queue, Exchange and Binding, kombu's values under kombu's names.

Values only: nothing here talks to a broker. Gathered by ``registry.py``, addressed by ``routes.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NoReturn, Self

from celeriac.exceptions import CeleryWarning, ImproperlyConfigured

__all__ = ["Binding", "Exchange", "Queue", "delivery_mode_of", "looks_like_queue", "topic_matches"]

_DELIVERY_MODES: dict[int | str, int] = {1: 1, 2: 2, "1": 1, "2": 2, "transient": 1, "persistent": 2}


class _Value:
    """A frozen value with the fields ``_names``."""

    __slots__ = ()

    _names: ClassVar[tuple[str, ...]] = ()

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        kind = type(self).__name__
        raise AttributeError(f"{kind}.{name} cannot be changed, since {kind}s are shared: use replace({name}=…)")

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}

    def as_dict(self, recurse: bool = False) -> dict[str, Any]:
        """The fields that kombu's ``as_dict`` has; with ``recurse`` as plain data (remote command active_queues)."""
        fields = {name: value for name, value in self._fields().items() if name != "on_declared"}
        return {name: _plain(value) for name, value in fields.items()} if recurse else fields

    def replace(self, **changes: Any) -> Self:
        """A copy with other values in some fields."""
        return type(self)(**{**self._fields(), **changes})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Value) or self._names != other._names:
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        # As kombu: not all fields can be hashed.
        return hash((self._names, getattr(self, "name", None)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._fields())


class Exchange(_Value):
    """Where messages are published to (``kombu.Exchange``); type direct, topic, fanout or headers."""

    __slots__ = ("arguments", "auto_delete", "delivery_mode", "durable", "name", "no_declare", "passive", "type")

    _names = __slots__

    name: str
    type: str
    arguments: Mapping[str, Any] | None
    durable: bool
    passive: bool
    auto_delete: bool
    delivery_mode: int | None
    no_declare: bool

    def __init__(
        self,
        name: str | None = "",
        type: str | None = "",  # noqa: A002 - kombu's name
        channel: Any = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        durable: bool | None = True,
        passive: bool | None = False,
        auto_delete: bool | None = False,
        delivery_mode: int | str | None = None,
        no_declare: bool | None = False,
        **unknown: Any,
    ) -> None:
        del channel
        _warn_of(unknown, "Exchange", name)
        self._set(
            name=name or "",
            type=type or "direct",
            arguments=arguments,
            durable=durable is None or bool(durable),
            passive=bool(passive),
            auto_delete=bool(auto_delete),
            delivery_mode=delivery_mode_of(delivery_mode) if delivery_mode else None,
            no_declare=bool(no_declare),
        )

    @classmethod
    def of(cls, other: Any) -> Exchange | None:
        """An exchange, kombu's or its name as one of ours; None stays None."""
        if other is None or isinstance(other, Exchange):
            return other
        return cls(other) if isinstance(other, str) else _like(cls, other)

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r} ({self.type})>"


class Binding(_Value):
    """A further way from an exchange into a queue (``kombu.binding``)."""

    __slots__ = ("arguments", "exchange", "routing_key", "unbind_arguments")

    _names = __slots__

    exchange: Exchange | None
    routing_key: str
    arguments: Mapping[str, Any] | None
    unbind_arguments: Mapping[str, Any] | None

    def __init__(
        self,
        exchange: Any = None,
        routing_key: str | None = "",
        arguments: Mapping[str, Any] | None = None,
        unbind_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._set(
            exchange=Exchange.of(exchange),
            routing_key=routing_key or "",
            arguments=arguments,
            unbind_arguments=unbind_arguments,
        )

    def __repr__(self) -> str:
        return f"<Binding {self.exchange!r} -> {self.routing_key!r}>"


class Queue(_Value):
    """A queue (``kombu.Queue``): ``Queue("feed", Exchange("feeds", type="topic"), routing_key="feed.#")``.

    In place of the exchange there may be a list of ``Binding``. ``expires`` and ``message_ttl`` are seconds. Options
    that are not known are ignored with a warning.
    """

    __slots__ = (
        "alias",
        "auto_delete",
        "binding_arguments",
        "bindings",
        "consumer_arguments",
        "durable",
        "exchange",
        "exclusive",
        "expires",
        "max_length",
        "max_length_bytes",
        "max_priority",
        "message_ttl",
        "name",
        "no_ack",
        "no_declare",
        "on_declared",
        "queue_arguments",
        "routing_key",
    )

    _names = __slots__

    name: str
    exchange: Exchange | None
    routing_key: str
    bindings: tuple[Binding, ...]
    queue_arguments: Mapping[str, Any] | None
    binding_arguments: Mapping[str, Any] | None
    consumer_arguments: Mapping[str, Any] | None
    durable: bool
    exclusive: bool
    auto_delete: bool
    no_ack: bool
    no_declare: bool
    alias: str | None
    expires: float | None
    message_ttl: float | None
    max_length: int | None
    max_length_bytes: int | None
    max_priority: int | None
    on_declared: Callable[..., Any] | None

    def __init__(
        self,
        name: str | None = "",
        exchange: Any = None,
        routing_key: str | None = "",
        channel: Any = None,
        bindings: Iterable[Any] | None = None,
        on_declared: Callable[..., Any] | None = None,
        *,
        durable: bool | None = True,
        exclusive: bool | None = False,
        auto_delete: bool | None = False,
        no_ack: bool | None = False,
        no_declare: bool | None = False,
        alias: str | None = None,
        queue_arguments: Mapping[str, Any] | None = None,
        binding_arguments: Mapping[str, Any] | None = None,
        consumer_arguments: Mapping[str, Any] | None = None,
        expires: float | None = None,
        message_ttl: float | None = None,
        max_length: int | None = None,
        max_length_bytes: int | None = None,
        max_priority: int | None = None,
        **unknown: Any,
    ) -> None:
        del channel
        _warn_of(unknown, "Queue", name)
        bound = [_binding_of(item) for item in bindings or ()]
        if isinstance(exchange, (list, tuple, set, frozenset)):
            bound += [_binding_of(item) for item in exchange]
            exchange = None
        elif exchange is None and not bound:
            exchange = Exchange("")
        self._set(
            name=name or "",
            exchange=Exchange.of(exchange),
            routing_key=routing_key or "",
            bindings=tuple(bound),
            on_declared=on_declared,
            durable=durable is None or bool(durable),
            exclusive=bool(exclusive),
            auto_delete=bool(auto_delete or exclusive),
            no_ack=bool(no_ack),
            no_declare=bool(no_declare),
            alias=alias,
            queue_arguments=queue_arguments,
            binding_arguments=binding_arguments,
            consumer_arguments=consumer_arguments,
            expires=expires,
            message_ttl=message_ttl,
            max_length=max_length,
            max_length_bytes=max_length_bytes,
            max_priority=max_priority,
        )

    @classmethod
    def of(cls, other: Any) -> Queue:
        """A queue, kombu's among others, as one of ours."""
        return other if isinstance(other, Queue) else _like(cls, other)

    @classmethod
    def from_dict(cls, queue: str, **options: Any) -> Queue:
        """A queue from the options of a ``task_queues`` dict: exchange, exchange_type, routing_key, durable …"""

        def either(first: str, second: str) -> Any:
            value = options.get(first)
            return options.get(second) if value is None else value

        exchange = Exchange(
            options.get("exchange"),
            options.get("exchange_type"),
            delivery_mode=options.get("delivery_mode"),
            durable=either("exchange_durable", "durable"),
            auto_delete=either("exchange_auto_delete", "auto_delete"),
            arguments=options.get("exchange_arguments"),
        )
        special = {"name", "exchange", "routing_key", "durable", "auto_delete"}
        return cls(
            queue,
            exchange,
            options.get("binding_key") or options.get("routing_key"),
            durable=either("queue_durable", "durable"),
            auto_delete=either("queue_auto_delete", "auto_delete"),
            **{name: options[name] for name in cls._names if name in options and name not in special},
        )

    def binds(self, exchange: str, routing_key: str) -> bool:
        """Whether a message published to ``exchange`` with that key lands here."""
        return any(
            source is not None and source.name == exchange and _lets_through(source.type, key, routing_key)
            for source, key in (
                (self.exchange, self.routing_key),
                *((binding.exchange, binding.routing_key) for binding in self.bindings),
            )
        )

    def __repr__(self) -> str:
        source = list(self.bindings) if self.bindings else f"{self.exchange!r} -> {self.routing_key!r}"
        return f"<Queue {self.name!r} -> {source}>"


def delivery_mode_of(value: int | str) -> int:
    """1 or 2, also for "transient" and "persistent"."""
    mode = _DELIVERY_MODES.get(value)
    if mode is not None:
        return mode
    raise ImproperlyConfigured(f"delivery mode {value!r} is unknown: use 2 (persistent) or 1 (transient)")


def looks_like_queue(value: Any) -> bool:
    """Whether it is a queue, ours or kombu's."""
    return isinstance(value, Queue) or (
        not isinstance(value, (str, Mapping, type))
        and all(hasattr(value, name) for name in ("name", "exchange", "routing_key", "queue_arguments"))
    )


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic exchange lets the key through: ``*`` stands for a word, ``#`` for any number of words."""

    def match(patterns: list[str], words: list[str]) -> bool:
        if not patterns:
            return not words
        first, rest = patterns[0], patterns[1:]
        if first == "#":
            return any(match(rest, words[start:]) for start in range(len(words) + 1))
        return bool(words) and first in {"*", words[0]} and match(rest, words[1:])

    return match(pattern.split("."), routing_key.split("."))


def _lets_through(kind: str, key: str, routing_key: str) -> bool:
    if kind == "topic":
        return topic_matches(key, routing_key)
    return kind == "fanout" or key == routing_key


def _binding_of(value: Any) -> Binding:
    return value if isinstance(value, Binding) else _like(Binding, value)


def _like(cls: Any, other: Any) -> Any:
    """A value of ours with the fields of a foreign one."""
    return cls(**{name: getattr(other, name) for name in cls._names if hasattr(other, name)})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.as_dict(recurse=True) if isinstance(value, _Value) else value


def _rebuild(cls: Any, fields: dict[str, Any]) -> Any:
    return cls(**fields)


def _warn_of(unknown: Mapping[str, Any], kind: str, name: str | None) -> None:
    if unknown:
        options = ", ".join(sorted(unknown))
        warnings.warn(f"{kind} {name!r} ignores what it does not know: {options}", CeleryWarning, stacklevel=3)
