"""Redis by URL: one server, several that may take each other's place, or sentinels that know it. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from celeriac.brokers.redis.address import Address, one_server
from celeriac.brokers.redis.sentinels import parse_sentinels
from celeriac.ports import AdapterOptions

__all__ = ["parse"]


def parse(url: str, options: AdapterOptions) -> Address:
    """The address in a URL, with ``AdapterOptions.alternates``. Raises ``ImproperlyConfigured`` naming what is
    wrong."""
    urls = (*_each(url), *options.alternates)
    if url.partition("://")[0].lower() == "sentinel":
        return parse_sentinels(urls, options)
    first, *others = (one_server(each, options) for each in urls)
    if not others:
        return first
    return replace(first, others=tuple(others), masked=";".join(each.masked for each in (first, *others)))


def _each(url: str) -> list[str]:
    """The URLs with semicolons between them; one, where a password holds a semicolon."""
    urls = url.split(";")
    return urls if all("://" in each for each in urls) else [url]
