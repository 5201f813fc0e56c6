"""A service of another package that runs in a node's agent, beside its own: the scheduler of ``worker -B``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Guest"]


class Guest(Protocol):
    """What the agent asks of it."""

    async def run(self) -> None:
        """Until cancelled."""
        ...

    def stats(self) -> Mapping[str, Any]:
        """Its part of what ``celeriac inspect stats`` shows, in JSON's types; at once, without I/O."""
        ...
