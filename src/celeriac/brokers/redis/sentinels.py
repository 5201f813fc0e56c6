"""``sentinel://h1:26379;sentinel://h2:26379/0``: addresses of sentinels, as Celery and kombu take them. Pure.

Account, database, prefix and TLS of the URLs are the server's; those of the sentinels stand in ``sentinel_kwargs``, or
in ``sentinel_username`` and ``sentinel_password``. Called by ``urls.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from celeriac.brokers.redis.address import Address, one_server
from celeriac.conf.tls import tls_options
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

__all__ = ["parse_sentinels"]

_PORT = 26379
#: Most seconds for the answer of a sentinel: the next one may be there.
_TIMEOUT = 1.0
_KNOWN = {"username", "password", "ssl", "socket_timeout", "socket_connect_timeout"}


def parse_sentinels(urls: Sequence[str], options: AdapterOptions) -> Address:
    """The server that these sentinels watch. Raises ``ImproperlyConfigured``."""
    parsed = [one_server(url, options) for url in urls]
    masked = ";".join(each.masked for each in parsed)
    given: dict[str, Any] = dict(options.transport)
    for url in urls:
        query = urlsplit(url).query
        if "master_name=" in query:
            given["master_name"] = query.partition("master_name=")[2].partition("&")[0]
    master = str(given.get("master_name") or "")
    if not master:
        raise ImproperlyConfigured(
            f"{masked}: which master? Set master_name in broker_transport_options and "
            "result_backend_transport_options, or write ?master_name=NAME"
        )
    # Celery's habit: the database stands behind the last URL, the account in any.
    account = next((each for each in parsed if each.password), parsed[0])
    base = replace(account, db=next((each.db for each in reversed(parsed) if each.db), 0))
    template = _template(base, given, masked)
    sentinels = tuple(
        replace(template, host=each.host, port=urlsplit(url).port or _PORT, masked=f"sentinel://{each.host}")
        for url, each in zip(urls, parsed, strict=True)
    )
    return replace(base, masked=masked, sentinels=sentinels, master=master)


def _template(base: Address, given: Mapping[str, Any], masked: str) -> Address:
    """How to talk to a sentinel."""
    wanted = given.get("sentinel_kwargs") or {}
    if not isinstance(wanted, Mapping):
        raise ImproperlyConfigured(f"{masked}: sentinel_kwargs must be a dict, not {type(wanted).__name__}")
    for name in wanted:
        if name not in _KNOWN and not name.startswith("ssl_"):
            warnings.warn(f"{masked}: {name!r} in sentinel_kwargs is not known and has no effect", UserWarning, 2)
    try:
        timeout = float(wanted.get("socket_connect_timeout") or wanted.get("socket_timeout") or _TIMEOUT)
    except (TypeError, ValueError):
        raise ImproperlyConfigured(f"{masked}: the timeouts in sentinel_kwargs must be numbers of seconds") from None
    return Address(
        masked="",
        username=str(wanted.get("username") or given.get("sentinel_username") or ""),
        password=str(wanted.get("password") or given.get("sentinel_password") or ""),
        tls=tls_options(None, wanted) if wanted.get("ssl") else None,
        connect_timeout=min(timeout, base.connect_timeout),
    )
