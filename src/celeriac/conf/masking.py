"""Hides secrets in what is shown: passwords in URLs, values under telling names.

Rather hides too much. Used by ``settings.py`` for reports, and wherever a URL is printed or logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["MASK", "mask_url", "mask_value"]

MASK = "*" * 8

# Compiled at first use: that takes 2 ms, and most processes never show a setting.
_SECRET = r"(?i)api_?key|token|secret|key|pass|credential|signature"
# Names that hold "key" and are no secret; the end of the name decides.
_HARMLESS = r"(?i)(routing_key|binding_key|key_?prefix)$"
_QUERY = r"(?i)([?&;][^=&;#]*(?:token|secret|key|pass|credential|sig)[^=&;#]*=)[^&;#]*"


def mask_url(url: str) -> str:
    """``url`` with its password masked, and secrets in its query; text without ``://`` comes back as it is.

    Also several URLs or hosts joined by ``;``. A password that holds ``/``, ``;`` or ``@`` unescaped is masked whole,
    at the price of hosts that go with it.
    """
    if "://" not in url:
        return url
    parts = url.split(";")
    if len(parts) > 1 and all("://" in part or "@" not in part for part in parts) and "@" in parts[0]:
        return ";".join(_mask_one(part) for part in parts)
    return _mask_one(url)


def _mask_one(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    user_info, at, tail = rest.rpartition("@")
    if at:
        user, colon, _password = user_info.partition(":")
        rest = f"{user}{colon}{MASK if colon else ''}@{tail}"
    return re.sub(_QUERY, rf"\g<1>{MASK}", f"{scheme}://{rest}")


def mask_value(key: Any, value: Any) -> Any:
    """``value`` as it may be shown under the name ``key``: nested dicts, lists and URLs are searched too."""
    if isinstance(value, Mapping):
        return {name: mask_value(name, item) for name, item in value.items()}
    if isinstance(key, str) and value not in (None, "") and re.search(_SECRET, key) and not re.search(_HARMLESS, key):
        return MASK
    if isinstance(value, str):
        return mask_url(value)
    if isinstance(value, (list, tuple)):
        items = [mask_value(None, item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value
