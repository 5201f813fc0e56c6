"""``sqlite:///relative.db`` and ``sqlite:////absolute/path.db``: from URL and options to what a connection needs.

Pure but for resolving the path against the working directory and its symbolic links, once.
"""

from __future__ import annotations

import os
from urllib.parse import parse_qs, unquote, urlsplit

from msgspec import Struct

from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

__all__ = ["Address", "address"]

_SYNCHRONOUS = ("NORMAL", "FULL", "EXTRA", "OFF")


class Address(Struct, frozen=True, kw_only=True):
    """Where the file is and how it is written."""

    #: Absolute and without symbolic links, so that all names of a file share one directory of bells.
    path: str
    #: SQLite's word: NORMAL survives the death of any process, FULL also a power cut (ADR 0003).
    synchronous: str = "NORMAL"


def address(url: str, options: AdapterOptions) -> Address:
    """The address in ``url``; ``?synchronous=full`` or the transport option of this name chooses durability.

    Raises ``ImproperlyConfigured``.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or len(path) < 2:
        raise ImproperlyConfigured(
            f"{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute/path.db (three or four slashes)"
        )
    path = path[1:]
    if path == ":memory:":
        raise ImproperlyConfigured(f"{url!r}: several connections cannot share it; use memory:// or name a file")
    asked = parse_qs(parts.query).get("synchronous", [str(options.transport.get("synchronous", "normal"))])[-1]
    if asked.upper() not in _SYNCHRONOUS:
        raise ImproperlyConfigured(f"{url!r}: synchronous is {asked!r}, not one of normal, full, extra, off")
    return Address(path=os.path.realpath(path), synchronous=asked.upper())
