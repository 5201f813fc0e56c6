"""An adapter of which only the queues are seen, as those of RabbitMQ: no ledger, no rules, no limits, no plans in one
step.

A view ``requeues``: what a dead connection held comes back by itself, suspect, and nobody is told whose it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.settle import Release
from celeriac.ports import AdapterOptions

__all__ = ["QueueOnly", "QueuesOnly"]

_BROKER = (
    "claim", "close", "dead", "declare", "depth", "extend", "maintain", "open", "publish", "purge", "settle",
)  # fmt: skip
_BUS = ("emit", "listen", "reply")
_PUBLISHER = ("close", "depth", "launch", "publish", "purge", "stage")


class QueuesOnly:
    """A broker: ``Broker``, and ``Bus`` where the real one has it."""

    def __init__(self, real: Any, *, requeues: bool) -> None:
        self.real = real
        self.traits = replace(real.traits, requeues=requeues)
        for name in (*_BROKER, *_BUS):
            if hasattr(real, name):
                setattr(self, name, getattr(real, name))
        self._requeues = requeues

    async def orphans(self, owner: str) -> Sequence[Any]:
        """Nothing, where they come back by themselves: at the latest now."""
        held = await self.real.orphans(owner)
        if not self._requeues:
            return held  # type: ignore[no-any-return]
        await self.real.settle([Release(each, marks=replace(each.marks, suspect=True)) for each in held])
        return ()


class _Publisher:
    def __init__(self, real: Any) -> None:
        for name in _PUBLISHER:
            setattr(self, name, getattr(real, name))

    def publish_if(self, message: Any, changes: Sequence[Any], *, timeout: float) -> None:
        if changes:
            raise ImproperlyConfigured("no ledger: set ledger_url")
        self.publish([message], timeout=timeout)  # type: ignore[attr-defined]


class _Letters:
    """Dead letters whose server can make no changes of a ledger."""

    def __init__(self, real: Any) -> None:
        self.page, self.get, self.drop, self.close = real.page, real.get, real.drop, real.close
        self._real = real

    def replay(self, replays: Sequence[Any], *, timeout: float) -> Sequence[Any]:
        assert all(each.change is None for each in replays)
        return self._real.replay(replays, timeout=timeout)  # type: ignore[no-any-return]


class QueueOnly:
    """The module of an adapter, of which only the queues are seen."""

    def __init__(self, real: Any, *, requeues: bool = False) -> None:
        self.real = real
        self._requeues = requeues

    def broker(self, url: str, options: AdapterOptions) -> Any:
        return QueuesOnly(self.real.broker(_real(url), options), requeues=self._requeues)

    def publisher(self, url: str, options: AdapterOptions) -> Any:
        return _Publisher(self.real.publisher(_real(url), options))

    def dead_letters(self, url: str, options: AdapterOptions) -> Any:
        return _Letters(self.real.dead_letters(_real(url), options))

    def store(self, url: str, options: AdapterOptions) -> Any:
        return self.real.store(_real(url), options)

    def reader(self, url: str, options: AdapterOptions) -> Any:
        return self.real.reader(_real(url), options)

    def caller(self, url: str, options: AdapterOptions) -> Any:
        return self.real.caller(_real(url), options)


def _real(url: str) -> str:
    """``queues+redis://`` is a view of ``redis://``."""
    return url.removeprefix("queues+")
