"""An adapter of which only the queues are seen, as those of RabbitMQ: no ledger, no rules, no limits, no plans in one
step. And it together with a ledger beside it, as one adapter.

A view ``requeues``: what a dead connection held comes back by itself, suspect, and nobody is told whose it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from celeriac import beside
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.settle import Release
from celeriac.ports import AdapterOptions

__all__ = ["QueueOnly", "QueuesOnly", "wrapped"]

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


def wrapped(
    queues: Any,
    companion: Any,
    ledger_url: Callable[[str], str],
    ledger_options: Mapping[str, Any],
    *,
    now: Callable[[], float] | None = None,
) -> Any:
    """An adapter module: ``queues``, a ``QueueOnly``, with the ledger of the adapter ``companion`` beside it:
    ``ledger_url(url)`` tells where."""

    def told(options: AdapterOptions) -> AdapterOptions:
        return replace(options, **ledger_options)

    def broker(url: str, options: AdapterOptions) -> Any:
        ledger = companion.broker(ledger_url(url), told(options))
        return beside.broker(queues.broker(url, options), ledger, options, now=now)

    def ledger(url: str, options: AdapterOptions) -> Any:
        return companion.ledger(ledger_url(url), told(options))

    def publisher(url: str, options: AdapterOptions) -> Any:
        desk = companion.publisher(ledger_url(url), told(options))
        return beside.publisher(queues.publisher(url, options), ledger(url, options), desk)

    def dead_letters(url: str, options: AdapterOptions) -> Any:
        return beside.dead_letters(queues.dead_letters(url, options), ledger(url, options))

    return SimpleNamespace(
        broker=broker,
        publisher=publisher,
        dead_letters=dead_letters,
        ledger=ledger,
        store=queues.store,
        reader=queues.reader,
        caller=queues.caller,
    )
