"""Where RabbitMQ is and how to talk to it: URLs and options as Celery and kombu take them, one server or several.

Pure but for the TLS context, which reads certificate files. Used by both kinds of connection.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from celeriac.conf.masking import mask_url
from celeriac.conf.tls import TLS_NAMES, tls_options
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

__all__ = ["Address", "parse"]

#: A server that owes an answer for so long is given up; one that has said nothing for ``PING_INTERVAL`` is asked. So a
#: half-open connection is found within 10 s, whatever the heartbeat.
REPLY_TIMEOUT = 5.0
PING_INTERVAL = 4.0

_METHODS = ("PLAIN", "EXTERNAL")
_KNOWN = {"heartbeat", "frame_max", "login_method", "connect_timeout", "connection_timeout", "name"}


class Address(Struct, frozen=True, kw_only=True):
    """One node, one virtual host, and how to get in; times in seconds."""

    #: For messages: the URL without its password.
    masked: str
    host: str = "localhost"
    port: int = 5672
    username: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    method: str = "PLAIN"
    #: None: no TLS. Else options under the names of ``TLS_NAMES``.
    tls: Mapping[str, Any] | None = None
    connect_timeout: float = 4.0
    heartbeat: int = 60
    frame_max: int = 131072
    #: Shown by ``rabbitmqctl list_connections``.
    name: str = "celeriac"

    @property
    def server(self) -> tuple[str, str]:
        """``Traits.server``."""
        return "rabbitmq", f"{self.host}:{self.port}/{self.vhost}"


def parse(urls: str, options: AdapterOptions) -> tuple[Address, ...]:
    """The addresses in one or several URLs (``amqp://a//;amqp://b//``) and the alternates, in the order in which they
    are to be tried.

    Raises ``ImproperlyConfigured`` naming what is wrong.
    """
    each = [url.strip() for text in (urls, *options.alternates) for url in text.split(";")]
    return tuple(_one(url, options) for url in each if url)


def _one(url: str, options: AdapterOptions) -> Address:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    masked = mask_url(url)
    given = {**options.transport, **query}
    for name in query:
        if name not in _KNOWN and name.removeprefix("ssl_") not in TLS_NAMES:
            warnings.warn(f"{masked}: the option {name!r} is not known and has no effect", UserWarning, 2)
    try:
        port = parts.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{masked}: {error}") from None
    by_tls = parts.scheme == "amqps" or bool(options.ssl)
    method = str(given.get("login_method") or options.login_method or "PLAIN").upper()
    if method not in _METHODS:
        raise ImproperlyConfigured(f"{masked}: login_method {method} is not known: use {' or '.join(_METHODS)}")
    # As kombu: amqp://host//name is the virtual host "/name", amqp://host// and amqp://host/ are "/".
    vhost = unquote(parts.path[1:]) or "/"
    return Address(
        masked=masked,
        host=parts.hostname or "localhost",
        port=port or (5671 if by_tls else 5672),
        username=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=vhost,
        method=method,
        tls=tls_options(options.ssl, given) if by_tls else None,
        connect_timeout=float(given.get("connect_timeout") or given.get("connection_timeout") or 0)
        or options.connect_timeout,
        heartbeat=_count(given.get("heartbeat"), "heartbeat", masked, int(options.heartbeat or 0)),
        frame_max=max(_count(given.get("frame_max"), "frame_max", masked, 131072), 4096),
        name=str(given.get("name") or "celeriac"),
    )


def _count(value: Any, name: str, masked: str, default: int) -> int:
    if value is None or value == "":
        return default
    try:
        number = int(float(value))
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise ImproperlyConfigured(f"{masked}: {name}={value!r} is not a number of 0 or more")
    return number
