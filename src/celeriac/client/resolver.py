"""From a URL to its adapter: the only place that names adapter modules, and imports them when first used.

Reads settings, opens nothing. Called by the sender, by results and control (``publisher``, ``reader``, ``caller``), by
steps of tasks (``ledger``), and by workers (``broker``, ``store``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from math import inf
from typing import Any, Protocol, cast

from msgspec import structs

from celeriac import beside
from celeriac.client.declarations import declarations
from celeriac.client.registry import Queues
from celeriac.conf.masking import mask_url
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import (
    AdapterOptions,
    BlockingLedger,
    Broker,
    Caller,
    DeadLetters,
    Limiter,
    Publisher,
    Reader,
    ReplyQueue,
    ResultStore,
)

__all__ = [
    "AdapterModule",
    "Conf",
    "adapter",
    "adapter_options",
    "broker",
    "caller",
    "dead_letters",
    "default_url",
    "keeps_ledger",
    "ledger",
    "ledger_options",
    "ledger_url",
    "mask",
    "migrate",
    "publisher",
    "read_url",
    "reader",
    "reply_queue",
    "result_url",
    "sends_replies",
    "store",
    "store_options",
    "write_url",
]

_MODULES = {
    "memory": "celeriac.brokers.memory",
    "sqlite": "celeriac.brokers.sqlite",
    "redis": "celeriac.brokers.redis",
    "rediss": "celeriac.brokers.redis",
    "redis+socket": "celeriac.brokers.redis",
    "rediss+socket": "celeriac.brokers.redis",
    "unix": "celeriac.brokers.redis",
    "postgresql": "celeriac.brokers.postgres",
    "postgres": "celeriac.brokers.postgres",
    # As SQLAlchemy names its drivers; ours is always psycopg 3.
    "postgresql+psycopg": "celeriac.brokers.postgres",
    "postgresql+psycopg2": "celeriac.brokers.postgres",
    "sentinel": "celeriac.brokers.redis",
    "redis+cluster": "celeriac.brokers.redis.cluster",
    "rediss+cluster": "celeriac.brokers.redis.cluster",
    "amqp": "celeriac.brokers.rabbitmq",
    "amqps": "celeriac.brokers.rabbitmq",
    "pyamqp": "celeriac.brokers.rabbitmq",
    # Results alone, by the broker.
    "rpc": "celeriac.brokers.rabbitmq.replies",
}
#: Third-party module of an adapter → the extra that brings it.
_EXTRAS = {"hiredis": "redis", "psycopg": "postgres"}
#: Schemes that mean what others mean: understood, and not listed.
_OTHER_NAMES = frozenset({"rediss+socket", "unix", "postgres", "postgresql+psycopg", "postgresql+psycopg2", "pyamqp"})
_DJANGO_RESULTS = frozenset({"django-db", "django-cache"})
#: Names of Celery that mean something else than a missing adapter.
_NOT_BUILT = frozenset({"librabbitmq", "sqs", "cache+memory"})
#: Transport options that say where in a database the tables are, and how to get there.
_POSTGRES_OPTIONS = ("schema", "listen", "auto_migrate")
_DISABLED = frozenset({"", "disabled", "disabled://"})
_FILE = "celeriac.db"
#: So many are drawn from a user's ``broker_failover_strategy`` for each URL: it need not yield each in turn.
_DRAWS = 10

#: The settings object, read by attribute.
Conf = Any


class AdapterModule(Protocol):
    """What every module of the scheme table offers (``celeriac.brokers``)."""

    def broker(self, url: str, options: AdapterOptions) -> Broker: ...

    def store(self, url: str, options: AdapterOptions) -> ResultStore: ...

    def publisher(self, url: str, options: AdapterOptions) -> Publisher: ...

    def reader(self, url: str, options: AdapterOptions) -> Reader: ...

    def caller(self, url: str, options: AdapterOptions) -> Caller: ...


def adapter(url: str) -> AdapterModule:
    """The module for a URL's scheme. Raises ``ImproperlyConfigured`` naming the scheme, and the extra it needs."""
    scheme, separator, _ = url.partition("://")
    module = _MODULES.get(scheme.lower()) if separator else None
    if module is None:
        raise ImproperlyConfigured(_explain(url, scheme.lower() if separator else ""))
    try:
        return cast("AdapterModule", import_module(module))
    except ModuleNotFoundError as error:
        raise missing_extra(scheme, error) from error


def missing_extra(scheme: str, error: ModuleNotFoundError) -> ImproperlyConfigured:
    """The error for an adapter whose third-party module is not installed."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return ImproperlyConfigured(f"the adapter for {scheme}:// cannot be loaded: {error}")
    return ImproperlyConfigured(f"{scheme}:// needs the package {package}: pip install 'celeriac[{extra}]'")


def _explain(url: str, scheme: str) -> str:
    known = ", ".join(f"{name}://" for name in _MODULES if name not in _OTHER_NAMES)
    if url in _DJANGO_RESULTS:
        return (
            f"{url!r} is a result backend of django-celery-results, which is not there: set result_backend to a URL, "
            "such as redis:// or postgresql://"
        )
    if not scheme:
        return f"{mask(url)!r} is no URL: write one of {known}"
    if scheme in _NOT_BUILT:
        return f"there is no adapter for {scheme}:// yet; there are {known}"
    from difflib import get_close_matches

    close = get_close_matches(scheme, _MODULES, n=1)
    hint = f"did you mean {close[0]}://?" if close else f"known are {known}"
    return f"unknown scheme {scheme}:// in {mask(url)!r}: {hint}"


def mask(url: str) -> str:
    """The URL with passwords hidden: the only form in which it may be shown."""
    return mask_url(url)


# ---------------------------------------------------------------- which URL


def write_url(conf: Conf, default: str) -> str:
    """Where producers send; ``default`` when no broker is set."""
    return _first(conf.broker_write_url) or _first(conf.broker_url) or default


def read_url(conf: Conf, default: str) -> str:
    """Where workers claim; ``default`` when no broker is set."""
    return _first(conf.broker_read_url) or _first(conf.broker_url) or default


def result_url(conf: Conf, default: str) -> str | None:
    """Where results go; None: nowhere.

    Without ``result_backend`` that is nowhere, as in Celery, unless there is no broker URL either: then the one file
    keeps both.
    """
    backend = conf.result_backend
    if backend is None:
        return default if not _first(conf.broker_url) and not _first(conf.broker_write_url) else None
    if not isinstance(backend, str):
        raise ImproperlyConfigured(f"result_backend must be a URL, not a {type(backend).__name__}")
    if backend in _DISABLED:
        return None
    backend = _first(backend) or ""
    return backend.removeprefix("db+") if backend.startswith(("db+sqlite:", "db+postgres")) else backend


def ledger_url(conf: Conf, url: str) -> str | None:
    """The server whose ledger an app uses whose messages are at ``url``: that of ``ledger_url``, else the same one
    where it keeps a ledger, else that of the results where it does; None: there is none.

    Rules, locks and limits stay with the messages where these are kept beside a ledger; there ``ledger_url`` is the
    place of ``self.once`` alone.
    """
    if conf.ledger_url:
        return str(conf.ledger_url)
    if keeps_ledger(url):
        return url
    results = result_url(conf, "")
    return results if results and keeps_ledger(results) else None


def keeps_ledger(url: str) -> bool:
    """Whether the server of a URL keeps a ledger; False for what is none of ours."""
    try:
        return hasattr(adapter(url), "ledger")
    except ImproperlyConfigured:
        return False


def _first(urls: str | Sequence[str] | None) -> str | None:
    """The URL that stands for a setting with several."""
    return next(iter(_each(urls)), None)


def _each(urls: str | Sequence[str] | None) -> list[str]:
    """The URLs of a setting: one, several with semicolons between them, or a list."""
    texts = urls.split(";") if isinstance(urls, str) else [each for text in urls or () for each in text.split(";")]
    # A module name alone is one of Celery's short names.
    return [f"{text}://" if "://" not in text and text in _MODULES else text for text in texts if text]


def _alternates(conf: Conf, setting: Any, url: str) -> Sequence[str]:
    """What is tried when the server at ``url`` cannot be reached, when that is the first URL of a setting: the others,
    in the order of ``broker_failover_strategy``."""
    urls = _each(setting) if isinstance(setting, (str, list, tuple)) else []
    if len(urls) < 2 or urls[0] != url:
        return ()
    strategy = conf.broker_failover_strategy or "round-robin"
    if strategy == "round-robin":
        return urls[1:]
    if strategy == "shuffle":
        from random import sample

        return sample(urls[1:], len(urls) - 1)
    if not callable(strategy):
        raise ImproperlyConfigured(
            f"broker_failover_strategy must be 'round-robin', 'shuffle' or a function, not {strategy!r}"
        )
    # Celery's: a function that takes the URLs and yields one after the other, for ever.
    from itertools import islice

    order = dict.fromkeys(islice(strategy(list(urls)), _DRAWS * len(urls)))
    return [each for each in order if each != url]


def default_url(main: str | None) -> str:
    """The URL of an app without ``broker_url``: a SQLite file beside its module.

    ``main`` is the name of a module (``__main__`` too) or the path of its file; a name that is not imported means the
    working directory. Producer and worker find the same file as long as they import the app from the same place.
    """
    path = _file_of(main) if main else None
    folder = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
    from urllib.parse import quote

    return "sqlite:///" + quote(os.path.join(folder, _FILE))


def _file_of(main: str) -> str | None:
    if main.endswith(".py") or os.sep in main:
        return main
    found = getattr(sys.modules.get(main), "__file__", None)
    return found if isinstance(found, str) else None


# ---------------------------------------------------------------- options


def adapter_options(conf: Conf, url: str = "", *, owner: str = "", queues: Queues | None = None) -> AdapterOptions:
    """What the broker adapter for ``url`` is told; ``owner`` names the child that claims, ``queues`` are the app's
    (None: those of the settings)."""
    options = structs.replace(_broker_options(conf, url, owner), declarations=declarations(conf, queues))
    beside = None if not url or keeps_ledger(url) else ledger_url(conf, url)
    if beside is None:
        return options
    told = ledger_options(conf, beside, owner=owner)
    return structs.replace(options, ledger_url=beside, ledger_options=told)


def ledger_options(conf: Conf, url: str, *, owner: str = "") -> AdapterOptions:
    """What the adapter of a ledger is told: as that of the results where it is the same server, else as that of the
    messages, but for what is said of another kind of server."""
    # Its maintenance is not to drop letters of those whose messages are there.
    kept = {"dead_letter_expires": inf, "dead_letter_limit": sys.maxsize, "dead_letter_max_bytes": sys.maxsize}
    options = structs.replace(_broker_options(conf, url, owner), **kept)
    if url == result_url(conf, ""):
        told = store_options(conf)
        return structs.replace(
            options, key_prefix=told.key_prefix, ssl=told.ssl, alternates=told.alternates, transport=told.transport
        )
    messages = read_url(conf, "")
    if not messages or _MODULES.get(url.partition("://")[0]) == _MODULES.get(messages.partition("://")[0]):
        return options
    return structs.replace(options, key_prefix="", ssl=None, transport={})


def _broker_options(conf: Conf, url: str, owner: str) -> AdapterOptions:
    transport = conf.broker_transport_options
    ordered = conf.result_backend_transport_options.get("result_chord_ordered")
    if ordered is not None:
        # Where broker and results are one server the broker's adapter writes both.
        transport = {**transport, "result_chord_ordered": ordered}
    return AdapterOptions(
        owner=owner,
        lease=float(conf.seconds("worker_lease") or 30.0),
        visibility_timeout=float(transport.get("visibility_timeout") or 3600.0),
        key_prefix=str(transport.get("global_keyprefix") or ""),
        dead_letter_expires=_unless_none(conf.seconds("dead_letter_expires"), inf),
        dead_letter_limit=_unless_none(conf.dead_letter_limit, sys.maxsize),
        dead_letter_max_bytes=_unless_none(conf.dead_letter_max_bytes, sys.maxsize),
        connect_timeout=float(conf.seconds("broker_connection_timeout") or 4.0),
        pool_limit=conf.broker_pool_limit or 1,
        max_message_bytes=conf.max_message_bytes,
        transport=transport,
        alternates=_alternates(conf, conf.broker_read_url, url) or _alternates(conf, conf.broker_write_url, url),
        zone=zone_name(conf),
        ssl=conf.broker_use_ssl,
        heartbeat=float(conf.seconds("broker_heartbeat") or 0.0),
        login_method=conf.broker_login_method,
        delay_queue_type=conf.broker_native_delayed_delivery_queue_type or "quorum",
    )


def _unless_none(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def store_options(conf: Conf, replies: ReplyQueue | None = None) -> AdapterOptions:
    """What a result store adapter is told; with ``rpc://`` that is what the broker's is, and ``replies``: the queue of
    a process that sends tasks. Raises ``ImproperlyConfigured`` when the broker has no such queues."""
    if sends_replies(conf):
        return _reply_options(conf, replies or reply_queue(conf))
    transport = conf.result_backend_transport_options
    ssl = conf.redis_backend_use_ssl
    if _is_postgres(conf.result_backend):
        ssl = None
        if result_url(conf, "") == write_url(conf, ""):
            # One database: what is said of the broker counts for both.
            given = conf.broker_transport_options
            transport = {**{name: given[name] for name in _POSTGRES_OPTIONS if name in given}, **transport}
            ssl = conf.broker_use_ssl
    return AdapterOptions(
        key_prefix=str(transport.get("global_keyprefix") or ""),
        connect_timeout=float(
            conf.seconds("redis_socket_connect_timeout") or conf.seconds("broker_connection_timeout") or 4.0
        ),
        pool_limit=conf.redis_max_connections or conf.broker_pool_limit or 1,
        max_message_bytes=conf.max_message_bytes,
        transport=transport,
        alternates=_alternates(conf, conf.result_backend, _first(conf.result_backend) or ""),
        zone=zone_name(conf),
        ssl=ssl,
    )


def sends_replies(conf: Conf) -> bool:
    """Results are messages to whoever has sent the task: ``rpc://``."""
    url = conf.result_backend
    return isinstance(url, str) and (url == "rpc" or url.startswith("rpc:"))


def reply_queue(conf: Conf, name: str = "", used: Callable[[], bool] = bool) -> ReplyQueue:
    """The reply queue ``name`` of a process that sends tasks, as the settings want it."""
    from celeriac.codec import serializers

    serializer = serializers.find(conf.result_serializer)
    return ReplyQueue(
        name=name,
        used=used,
        expires=conf.seconds("result_expires") or None,
        persistent=bool(conf.result_persistent),
        content=(serializer.content_type, serializer.content_encoding),
    )


def _reply_options(conf: Conf, replies: ReplyQueue) -> AdapterOptions:
    url = write_url(conf, "")
    scheme = url.partition("://")[0]
    if _MODULES.get(scheme) != _MODULES["amqp"]:
        raise ImproperlyConfigured(
            f"rpc:// sends results through RabbitMQ, and the broker is {mask(url) or 'a file'}: set result_backend to "
            "a store, such as redis://, or broker_url to amqp://"
        )
    if conf.result_backend.partition("://")[2].strip("/"):
        import warnings

        warnings.warn(
            f"result_backend={mask(conf.result_backend)!r}: rpc:// uses the broker's address, the one given here has "
            "no effect: write rpc://",
            UserWarning,
            stacklevel=2,
        )
    options = _broker_options(conf, url, "")
    return structs.replace(options, alternates=(url, *options.alternates), replies=replies)


def _is_postgres(url: Any) -> bool:
    return isinstance(url, str) and url.removeprefix("db+").startswith("postgres")


def zone_name(conf: Conf) -> str:
    """The name of the app's time zone: naive times in messages are in it. ``enable_utc`` without one means UTC."""
    zone = conf.timezone
    if zone is None:
        return "UTC"
    return zone if isinstance(zone, str) else str(getattr(zone, "key", zone))


# ---------------------------------------------------------------- adapters


def broker(url: str, options: AdapterOptions) -> Broker:
    """The broker of a worker. Raises ``ImproperlyConfigured`` like all of these."""
    made: Broker = _made(url, "broker", options)
    if isinstance(made, Limiter) and not beside.lacks(made):
        return made
    if not beside.lacks(made):
        return beside.broker(made, None, options)
    if not options.ledger_url:
        return made
    told = options.ledger_options or options
    return beside.broker(made, _made(options.ledger_url, "broker", told), options)


def store(url: str, options: AdapterOptions) -> ResultStore:
    """The result store of a worker."""
    return _made(url, "store", options)  # type: ignore[no-any-return]


def publisher(url: str, options: AdapterOptions) -> Publisher:
    """Blocking publishing."""
    made: Publisher = _made(url, "publisher", options)
    if not options.ledger_url or keeps_ledger(url):
        return made
    told = options.ledger_options or options
    return beside.publisher(made, ledger(options.ledger_url, told), _made(options.ledger_url, "publisher", told))


def reader(url: str, options: AdapterOptions) -> Reader:
    """Blocking access to results."""
    return _made(url, "reader", options)  # type: ignore[no-any-return]


def caller(url: str, options: AdapterOptions) -> Caller:
    """The asking side of remote control."""
    return _made(url, "caller", options)  # type: ignore[no-any-return]


def dead_letters(url: str, options: AdapterOptions) -> DeadLetters:
    """Blocking access to the dead letters."""
    if not hasattr(adapter(url), "dead_letters"):
        raise ImproperlyConfigured(f"{mask(url)} cannot show its dead letters: its adapter lacks that")
    made: DeadLetters = _made(url, "dead_letters", options)
    if not options.ledger_url or keeps_ledger(url):
        return made
    return beside.dead_letters(made, ledger(options.ledger_url, options.ledger_options or options))


def ledger(url: str, options: AdapterOptions) -> BlockingLedger:
    """Blocking access to a ledger. Raises ``ImproperlyConfigured`` too when the server keeps none."""
    if not hasattr(adapter(url), "ledger"):
        raise ImproperlyConfigured(f"{mask(url)} keeps no ledger: set ledger_url to a server that does, such as Redis")
    return _made(url, "ledger", options)  # type: ignore[no-any-return]


def migrate(url: str, options: AdapterOptions) -> tuple[int, int] | None:
    """Make or renew what the server must have; the version before and the one now, None where it needs nothing."""
    if not hasattr(adapter(url), "migrate_schema"):
        return None
    return _made(url, "migrate_schema", options)  # type: ignore[no-any-return]


def _made(url: str, what: str, options: AdapterOptions) -> Any:
    module = adapter(url)
    make = getattr(module, what, None)
    if make is None:
        raise ImproperlyConfigured(_cannot_be(url, what))
    try:
        return make(url, options)
    except ModuleNotFoundError as error:  # adapters import their drivers when first used
        raise missing_extra(url.partition("://")[0], error) from error


def _cannot_be(url: str, what: str) -> str:
    """Why a URL of one kind does not do as another."""
    if what in {"store", "reader"}:
        return f"{mask(url)} keeps no results: set result_backend to rpc://, or to a store, such as redis://"
    return f"{mask(url)} brings results and takes no messages: set broker_url to amqp://"
