"""Where RabbitMQ is and how to talk to it: URLs and options as Celery and kombu take them, one server or several.

Pure but for the TLS context, which reads certificate files. Used by both kinds of connection.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from celeriac.conf.masking import mask_url
from celeriac.exceptions import ImproperlyConfigured, SecurityWarning
from celeriac.ports import AdapterOptions

if TYPE_CHECKING:
    import ssl

__all__ = ["Address", "parse", "tls_context"]

#: A server that owes an answer for so long is given up; one that has said nothing for ``PING_INTERVAL`` is asked. So a
#: half-open connection is found within 10 s, whatever the heartbeat.
REPLY_TIMEOUT = 5.0
PING_INTERVAL = 4.0

_TLS_NAMES = {
    "cert_reqs", "ca_certs", "ca_path", "certfile", "keyfile", "keyfile_password", "check_hostname", "server_hostname",
}  # fmt: skip
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
    #: None: no TLS. Else options under the names of ``_TLS_NAMES``.
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
        if name not in _KNOWN and name.removeprefix("ssl_") not in _TLS_NAMES:
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
        tls=_tls_options(options.ssl, given) if by_tls else None,
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


def _tls_options(use_ssl: Mapping[str, Any] | bool | None, given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for source in (use_ssl if isinstance(use_ssl, Mapping) else {}, given):
        for key, value in source.items():
            name = key.removeprefix("ssl_")
            if name in _TLS_NAMES and (key.startswith("ssl_") or source is not given):
                found[name] = value
    _demand(found.get("cert_reqs"))
    return found


def tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Verifies certificate and host name unless told otherwise. Raises ``ImproperlyConfigured`` on unusable files."""
    import ssl

    demand = _demand(options.get("cert_reqs"))
    try:
        context = ssl.create_default_context(cafile=options.get("ca_certs"), capath=options.get("ca_path"))
        if options.get("certfile"):
            context.load_cert_chain(options["certfile"], options.get("keyfile"), options.get("keyfile_password"))
    except (OSError, ssl.SSLError) as error:
        raise ImproperlyConfigured(f"the TLS files of RabbitMQ cannot be used: {error}") from error
    if demand != "required" or str(options.get("check_hostname", True)).lower() in {"false", "0", "no"}:
        context.check_hostname = False
    if demand == "none":
        warnings.warn(
            "cert_reqs=none: anybody on the way to RabbitMQ can read and change every message", SecurityWarning, 2
        )
        context.verify_mode = ssl.CERT_NONE
    elif demand == "optional":
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _demand(value: Any) -> str:
    """``required``, ``optional`` or ``none`` from Celery's words and the constants of ssl."""
    if value is None:
        return "required"
    text = str(getattr(value, "name", value)).lower().removeprefix("cert_")
    text = {"0": "none", "1": "optional", "2": "required"}.get(text, text)
    if text not in {"none", "optional", "required"}:
        raise ImproperlyConfigured(f"cert_reqs={value!r}: it must be required, optional or none")
    return text
