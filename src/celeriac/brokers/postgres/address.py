"""``postgresql://user@host/database``: from URL and options to what a connection needs.

Pure. Everything that libpq knows may stand in the query of the URL; what is ours may stand there or in the transport
options.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from msgspec import Struct, field
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from celeriac.conf.masking import mask_url
from celeriac.exceptions import CeleryWarning, ImproperlyConfigured
from celeriac.ports import AdapterOptions

__all__ = ["Address", "address", "schema_name"]

_OWN = ("schema", "listen", "auto_migrate")
#: Options of all brokers that the resolver passes on, and that need nothing here: parts of a chord are always in order.
_QUIET = frozenset({*_OWN, "result_chord_ordered"})
#: Names of schemas stand in statements as they are.
_NAME = re.compile(r"[^\W\d][\w-]{0,39}")
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
#: A peer that is gone without a word is found within 10 s, also by an idle connection.
_ALIVE = {
    "keepalives": "1",
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "8000",
    "application_name": "celeriac",
}


class Address(Struct, frozen=True, kw_only=True):
    """Where the tables are, and how to get there."""

    #: For messages: the URL without its password.
    masked: str
    #: Parameters of libpq; the password among them.
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: The same for the addresses that are tried when that one cannot be reached.
    others: tuple[Mapping[str, str], ...] = ()
    schema: str = "celeriac"
    #: Woken by LISTEN, and statements prepared; without it by polling: behind a pooler in transaction mode.
    listen: bool = True
    #: The first connection makes or renews the schema.
    auto_migrate: bool = True
    connect_timeout: float = 4.0

    @property
    def server(self) -> tuple[str, str]:
        """``Traits.server``: equal when both work on the same tables."""
        get = self.parameters.get
        place = f"{get('host', '')}:{get('port', '5432')}/{get('dbname') or get('user', '')}"
        return "postgresql", f"{place}#{self.schema}"

    @property
    def places(self) -> tuple[Mapping[str, str], ...]:
        """Where to connect, in this order, round and round."""
        return (self.parameters, *self.others)


def address(url: str, options: AdapterOptions) -> Address:
    """The address in ``url``. Raises ``ImproperlyConfigured`` naming what is wrong."""
    masked = mask_url(url)
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    given: dict[str, Any] = {**options.transport, **{name: value for name, value in query if name in _OWN}}
    if options.key_prefix:
        raise ImproperlyConfigured("global_keyprefix means nothing on PostgreSQL: name a 'schema' in its place")
    unknown = sorted(set(options.transport) - _QUIET)
    if unknown:
        warnings.warn(f"transport options without a meaning on PostgreSQL: {', '.join(unknown)}", CeleryWarning, 2)
    return Address(
        masked=masked,
        parameters=_parameters(url, options),
        others=tuple(_parameters(other, options) for other in options.alternates),
        schema=schema_name(url, options),
        listen=_flag(given, "listen", masked),
        auto_migrate=_flag(given, "auto_migrate", masked),
        connect_timeout=options.connect_timeout,
    )


def schema_name(url: str, options: AdapterOptions) -> str:
    """Where the tables are; the URL's word counts before that of the options. Raises ``ImproperlyConfigured``."""
    named = dict(parse_qsl(urlsplit(url).query)).get("schema") or options.transport.get("schema") or "celeriac"
    name = str(named)
    if not _NAME.fullmatch(name) or name.startswith("pg_"):
        raise ImproperlyConfigured(
            f"{name!r} cannot be the name of a schema: 1 to 40 letters, digits, - and _, not pg_…"
        )
    return name


def _parameters(url: str, options: AdapterOptions) -> dict[str, str]:
    """What libpq is told."""
    parts = urlsplit(url)
    scheme = parts.scheme.removeprefix("db+").partition("+")[0]
    rest = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in _OWN]
    try:
        found = conninfo_to_dict(urlunsplit((scheme, parts.netloc, parts.path, urlencode(rest, quote_via=quote), "")))
    except (ProgrammingError, ValueError) as error:
        text = str(error).partition("\n")[0] if parts.password is None else type(error).__name__
        raise ImproperlyConfigured(f"{mask_url(url)} is no URL of PostgreSQL: {text}") from None
    return {**_ALIVE, **_tls(options.ssl), **{name: str(value) for name, value in found.items()}}


def _flag(given: Mapping[str, Any], name: str, masked: str) -> bool:
    value = given.get(name, True)
    text = str(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ImproperlyConfigured(f"{masked}: {name} is {value!r}, not true or false")


def _tls(ssl: Mapping[str, Any] | bool | None) -> dict[str, str]:
    """``broker_use_ssl``: True, or the parameters of libpq."""
    if not ssl:
        return {}
    if ssl is True:
        return {"sslmode": "verify-full", "sslrootcert": "system"}
    foreign = sorted(name for name in ssl if not str(name).startswith("ssl") or str(name).startswith("ssl_"))
    if foreign:
        raise ImproperlyConfigured(
            f"broker_use_ssl takes libpq's names here (sslmode, sslrootcert, sslcert, sslkey), not {foreign[0]}"
        )
    return {"sslmode": "verify-full", **{str(name): str(value) for name, value in ssl.items()}}
