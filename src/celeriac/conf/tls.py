"""TLS as Celery's settings and URLs describe it: ``broker_use_ssl``, ``redis_backend_use_ssl``, ``?ssl_cert_reqs=``.

Verifies certificate and host name unless told otherwise. Opens nothing but the files that are named, and imports ssl
when first used. Called by adapters whose sockets are their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac.exceptions import ImproperlyConfigured, SecurityWarning

if TYPE_CHECKING:
    import ssl

__all__ = ["TLS_NAMES", "server_name", "tls_context", "tls_options"]

#: Options, also with ``ssl_`` in front, as in redis-py's URLs.
TLS_NAMES = frozenset(
    {"cert_reqs", "ca_certs", "ca_path", "certfile", "keyfile", "keyfile_password", "check_hostname", "server_hostname"}
)


def tls_options(use_ssl: Mapping[str, Any] | bool | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of TLS out of a setting and of what a URL or a dict gives besides, where only those count that begin
    with ``ssl_``. Raises ``ImproperlyConfigured``."""
    found: dict[str, Any] = {}
    for source in (use_ssl if isinstance(use_ssl, Mapping) else {}, given):
        for key, value in source.items():
            name = key.removeprefix("ssl_")
            if name in TLS_NAMES and (key.startswith("ssl_") or source is not given):
                found[name] = value
    _demand(found.get("cert_reqs"))
    return found


def tls_context(options: Mapping[str, Any], server: str) -> ssl.SSLContext:
    """The context for these options; ``server`` is what messages call it. Raises ``ImproperlyConfigured`` on unusable
    files."""
    import ssl

    demand = _demand(options.get("cert_reqs"))
    try:
        context = ssl.create_default_context(cafile=options.get("ca_certs"), capath=options.get("ca_path"))
        if options.get("certfile"):
            context.load_cert_chain(options["certfile"], options.get("keyfile"), options.get("keyfile_password"))
    except (OSError, ssl.SSLError) as error:
        raise ImproperlyConfigured(f"the TLS files of {server} cannot be used: {error}") from error
    if demand != "required" or str(options.get("check_hostname", True)).lower() in {"false", "0", "no"}:
        context.check_hostname = False
    if demand == "none":
        warnings.warn(
            f"ssl_cert_reqs=none: anybody on the way to {server} can read and change every message", SecurityWarning, 2
        )
        context.verify_mode = ssl.CERT_NONE
    elif demand == "optional":
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def server_name(options: Mapping[str, Any], host: str) -> str:
    """The name that the certificate is to hold: that of ``server_hostname``, else of the host."""
    return str(options.get("server_hostname") or host)


def _demand(value: Any) -> str:
    """``required``, ``optional`` or ``none`` from redis-py's words, Celery's words and the constants of ssl."""
    if value is None:
        return "required"
    text = str(getattr(value, "name", value)).lower().removeprefix("cert_")
    text = {"0": "none", "1": "optional", "2": "required"}.get(text, text)
    if text not in {"none", "optional", "required"}:
        raise ImproperlyConfigured(f"ssl_cert_reqs={value!r}: it must be required, optional or none")
    return text
