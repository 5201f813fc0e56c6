"""Which outboxes the settings name. Read by workers and by the command line."""

from __future__ import annotations

from typing import Any

from celeriac.exceptions import ImproperlyConfigured

__all__ = ["outbox_urls"]


def outbox_urls(conf: Any) -> list[str]:
    """The URLs in ``outbox_url``: one, or several. Raises ``ImproperlyConfigured`` for what is none."""
    given = conf.outbox_url
    urls = [given] if isinstance(given, str) else list(given or ())
    for url in urls:
        if not isinstance(url, str):
            raise ImproperlyConfigured(f"setting 'outbox_url' must be a URL or a list of URLs, not {given!r}")
    return [url for url in urls if url]
