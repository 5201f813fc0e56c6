"""Where large payloads are kept: a directory, or whatever fsspec reaches. Implements ``ports.PayloadStore``."""

from __future__ import annotations

import os

from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import PayloadStore

__all__ = ["open_store"]


def open_store(url: str) -> PayloadStore:
    """The store of ``payload_store``: an absolute path, ``file:///…``, or a URL of fsspec's (``s3://bucket/prefix``).

    Opens nothing yet. Raises ``ImproperlyConfigured`` for a relative path and for a missing package.
    """
    scheme, separator, path = url.partition("://")
    if not separator or scheme == "file":
        from celeriac.payloads.directory import Directory

        path = path if separator else url
        if not os.path.isabs(path):
            raise ImproperlyConfigured(
                f"payload_store = {url!r} is a relative path: every process would look in another place; "
                "write the absolute path of a directory that all machines share"
            )
        return Directory(path)
    from celeriac.payloads.remote import Remote

    return Remote(url)
