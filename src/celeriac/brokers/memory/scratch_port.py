"""A place of its own in memory: another name. For ``celeriac broker test``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.brokers.memory.queues import step_of
from celeriac.brokers.memory.shared import drop, server
from celeriac.ports import AdapterOptions

__all__ = ["MemoryScratch"]


class MemoryScratch:
    """See ``celeriac.ports.Scratch``."""

    unreachable = None
    publisher_schedules = True
    one_server = True

    def __init__(self, url: str, options: AdapterOptions, name: str) -> None:
        self.url = f"{url.rstrip('/')}-{name}" if url.rstrip(":/") != "memory" else f"memory://{name}"
        self.options: Mapping[str, Any] = {}
        self.what = self.url

    def exempt(self, beside: bool) -> Mapping[str, str]:
        """See ``Scratch.exempt``."""
        return {}

    def inject(self, queue: str, raw: bytes) -> None:
        """See ``Scratch.inject``."""
        there = server(self.url, None)
        with there.lock:
            there.queues.add(queue, raw, step=step_of(0), due=None, now=there.clock.now())

    def clear(self) -> None:
        """See ``Scratch.clear``."""
        drop(self.url)
