"""The broker's URL from the settings of Celery 3 that name its parts: broker_host, broker_port, broker_user …

Called by ``settings.py`` when no ``broker_url`` is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["url_of_parts"]


def url_of_parts(conf: Mapping[str, Any]) -> str | None:
    """The URL, or None without ``broker_host``; a host that is a URL is taken as it is."""
    host: str | None = conf["broker_host"]
    if not host or "://" in host:
        return host or None
    # Not needed by anybody who sets broker_url.
    from urllib.parse import quote

    user, password, port, vhost = (conf[f"broker_{part}"] for part in ("user", "password", "port", "vhost"))
    login = quote(user or "", safe="")
    if password:
        login += f":{quote(password, safe='')}"
    path = "" if vhost is None else f"/{quote(str(vhost).removeprefix('/'), safe='')}"
    return f"{conf['broker_transport'] or 'amqp'}://{login and login + '@'}{host}{f':{port}' if port else ''}{path}"
