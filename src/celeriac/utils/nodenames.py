"""``celery.utils.nodenames``: names of nodes, ``name@host``."""

from __future__ import annotations

import os
import socket
from functools import lru_cache

from celeriac.app.nodenames import DEFAULT, fill

__all__ = ["anon_nodename", "default_nodename", "gethostname", "host_format", "node_format", "nodename", "nodesplit"]

#: The name of those who have none of their own: ``gen123@host``.
_ANONYMOUS = "gen"


@lru_cache(maxsize=1)
def gethostname() -> str:
    """The name of this machine, asked once."""
    return socket.gethostname()


def nodename(name: str, hostname: str) -> str:
    """The full name of a node."""
    return f"{name}@{hostname}"


def nodesplit(name: str) -> tuple[str | None, str]:
    """Name and host; None and the host where there is no ``@``."""
    first, at, host = name.partition("@")
    return (first, host) if at else (None, first)


def default_nodename(hostname: str | None) -> str:
    """The full name of a node called ``hostname``: what it says of name and host, ``celery`` and this machine else."""
    name, host = nodesplit(hostname or "")
    return nodename(name or DEFAULT, host or gethostname())


def anon_nodename(hostname: str | None = None, prefix: str = _ANONYMOUS) -> str:
    """A name for a process that is no node."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def node_format(s: str, name: str, **extra: str) -> str:
    """``s`` with the ``%``-letters of a node: ``%n`` its name, ``%h`` its host, ``%p`` both; and those of ``extra``."""
    short, host = nodesplit(name)
    return host_format(s, host, short or DEFAULT, p=name, **extra)


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: str) -> str:
    """``s`` with ``%h`` the host, ``%n`` the name (the host's first part, where none is given), ``%d`` the domain, and
    the letters of ``extra``."""
    host = host or gethostname()
    first, _, domain = host.partition(".")
    letters = {"h": host, "n": name or first, "d": domain, "i": "%i", "I": "%I", **extra}
    return fill(s, letters)
