"""``redis+cluster://user:password@h1:7000,h2:7001/``: some nodes of a cluster, and how to get in. Pure.

All options of ``redis://`` but a database: a cluster has one. ``rediss+cluster://`` is TLS.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec.structs import replace

from celeriac.brokers.redis.address import Address, one_server
from celeriac.conf.masking import mask_url
from celeriac.exceptions import ImproperlyConfigured
from celeriac.ports import AdapterOptions

__all__ = ["at", "parse_cluster", "server_of"]

_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}


def parse_cluster(url: str, options: AdapterOptions) -> Address:
    """The first node, the others in ``others``. Raises ``ImproperlyConfigured``."""
    seeds: list[Address] = []
    for each in (url, *options.alternates):
        parts = urlsplit(each)
        account, at_sign, hosts = parts.netloc.rpartition("@")
        scheme = _SCHEMES.get(parts.scheme.lower(), parts.scheme)
        seeds += (
            one_server(parts._replace(scheme=scheme, netloc=account + at_sign + host).geturl(), options)
            for host in hosts.split(",")
        )
    masked = mask_url(url)
    first = seeds[0]
    if any(seed.db for seed in seeds):
        raise ImproperlyConfigured(f"{masked}: a cluster has no database but 0; use global_keyprefix to share it")
    if "{" in first.key_prefix or "}" in first.key_prefix:
        raise ImproperlyConfigured(f"{masked}: global_keyprefix must not hold braces: keys have tags of their own")
    return replace(first, masked=masked, others=tuple(seeds[1:]))


def at(address: Address, place: str) -> Address:
    """The same account and options at another node, ``host:port``."""
    host, _, port = place.rpartition(":")
    scheme = "redis" if address.tls is None else "rediss"
    masked = f"{scheme}+cluster://{place}"
    return replace(address, host=host, port=int(port), masked=masked, others=())


def server_of(address: Address, kind: str) -> tuple[str, str]:
    """``Traits.server``: queues and results are not together, whatever they share."""
    places = ",".join(sorted({address.place, *(each.place for each in address.others)}))
    return "redis+cluster", f"{places}#{address.key_prefix}{kind}"
