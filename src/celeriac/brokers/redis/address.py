"""Where a Redis server is and how to talk to it: URLs and options as Celery, kombu and redis-py take them.

Pure but for the TLS context, which reads certificate files. Used by both kinds of connection. Which of several servers
is the right one now is found out by ``places.py``.
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

__all__ = ["Address", "one_server"]

_SOCKET_SCHEMES = {"redis+socket", "unix", "rediss+socket"}
_TLS_SCHEMES = {"rediss"}
#: A server that sends nothing for so long while it owes an answer is given up: with the check of idle connections
#: (``PING_INTERVAL``) a half-open connection is found within 10 s.
REPLY_TIMEOUT = 5.0
PING_INTERVAL = 4.0
#: Milliseconds that replicas have, where ``wait_replicas`` says nothing.
_REPLICAS_WITHIN = 1000

#: Options of redis-py that mean nothing here; taken without a word so that URLs keep working.
_IGNORED = {
    "timeout", "retry_on_timeout", "health_check_interval", "max_connections", "protocol", "encoding",
    "decode_responses", "socket_read_size", "socket_type", "retry_on_error", "encoding_errors",
}  # fmt: skip


class Address(Struct, frozen=True, kw_only=True):
    """One server, one database, and how to get in; times in seconds."""

    #: For messages: the URL without its password.
    masked: str
    host: str = "localhost"
    port: int = 6379
    #: Unix socket; then host and port mean nothing.
    path: str = ""
    username: str = ""
    password: str = ""
    db: int = 0
    #: None: no TLS. Else options under the names of ``TLS_NAMES``.
    tls: Mapping[str, Any] | None = None
    connect_timeout: float = 4.0
    reply_timeout: float = REPLY_TIMEOUT
    ping_interval: float = PING_INTERVAL
    client_name: str = ""
    key_prefix: str = ""
    #: What is published counts when so many replicas have it, within so many milliseconds (``wait_replicas``).
    replicas: int = 0
    replicas_within: int = 0
    #: Servers that may have taken its place, in the order in which they are tried.
    others: tuple[Address, ...] = ()
    #: Those that know which server is ``master`` now; then host and port mean nothing.
    sentinels: tuple[Address, ...] = ()
    master: str = ""

    @property
    def place(self) -> str:
        """Host and port, or socket."""
        return self.path or f"{self.host}:{self.port}"

    @property
    def reach_timeout(self) -> float:
        """Seconds until a search for the server has come to an end."""
        return self.connect_timeout + sum(each.connect_timeout for each in self.sentinels)

    @property
    def server(self) -> tuple[str, str]:
        """``Traits.server``: equal when keys of one are keys of the other."""
        if self.sentinels:
            place = f"{self.master}@{','.join(sorted(each.place for each in self.sentinels))}"
        else:
            place = ",".join(sorted({self.place, *(each.place for each in self.others)}))
        return "redis", f"{place}/{self.db}#{self.key_prefix}"


def one_server(url: str, options: AdapterOptions) -> Address:
    """The address in one URL, options in its query winning. Raises ``ImproperlyConfigured``."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    masked = mask_url(url)
    given = {**options.transport, **query}
    by_socket = parts.scheme in _SOCKET_SCHEMES
    try:
        port = parts.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{masked}: {error}") from None
    database = query.get("virtual_host") or query.get("db") or ("" if by_socket else unquote(parts.path.strip("/")))
    _warn_unknown(query, masked)
    replicas = _replicas(given, masked)
    return Address(
        masked=masked,
        host=parts.hostname or "localhost",
        port=port or 6379,
        path=unquote(parts.path) if by_socket else "",
        username=unquote(parts.username or "") or str(query.get("username", "")),
        password=unquote(parts.password or "") or str(query.get("password", "")),
        db=_database(str(database).strip("/") or "0", masked),
        tls=tls_options(options.ssl, given) if options.ssl or parts.scheme in _TLS_SCHEMES else None,
        connect_timeout=_seconds(given, "socket_connect_timeout", masked) or options.connect_timeout,
        reply_timeout=_seconds(given, "socket_timeout", masked) or REPLY_TIMEOUT,
        client_name=str(given.get("client_name", "")),
        key_prefix=str(query.get("global_keyprefix", "")) or options.key_prefix,
        replicas=replicas[0],
        replicas_within=replicas[1],
    )


def _warn_unknown(query: Mapping[str, str], masked: str) -> None:
    known = _IGNORED | {"virtual_host", "db", "username", "password", "global_keyprefix", "client_name"}
    known |= {"socket_timeout", "socket_connect_timeout", "socket_keepalive", "visibility_timeout"}
    known |= {"wait_replicas", "master_name"}
    for name in query:
        if name not in known and name.removeprefix("ssl_") not in TLS_NAMES:
            warnings.warn(f"{masked}: the option {name!r} is not known and has no effect", UserWarning, 2)


def _database(text: str, masked: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ImproperlyConfigured(f"{masked}: {text!r} is not the number of a database; write /0")
    return number


def _seconds(given: Mapping[str, Any], name: str, masked: str) -> float | None:
    value = given.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ImproperlyConfigured(f"{masked}: {name}={value!r} is not a number of seconds") from None


def _replicas(given: Mapping[str, Any], masked: str) -> tuple[int, int]:
    """``wait_replicas``: how many, or how many and the milliseconds that they have, as a pair or with a comma."""
    value = given.get("wait_replicas")
    if value is None or value == "":
        return 0, 0
    try:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else (value,)
        count, within = (*map(int, parts), _REPLICAS_WITHIN)[:2]
        if count < 0 or not 0 < within < REPLY_TIMEOUT * 1000 or len(parts) > 2:
            raise ValueError
    except (TypeError, ValueError):
        raise ImproperlyConfigured(
            f"{masked}: wait_replicas={value!r}: write how many replicas, or (how many, milliseconds below 5000)"
        ) from None
    return count, within
