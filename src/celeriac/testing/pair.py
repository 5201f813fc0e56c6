"""An adapter and the ledger of another beside it, as one adapter module: for the conformance suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from celeriac import beside
from celeriac.ports import AdapterOptions

__all__ = ["pair"]


def pair(
    queues: Any,
    companion: Any,
    ledger_url: Callable[[str], str],
    ledger_options: Mapping[str, Any],
    *,
    now: Callable[[], float] | None = None,
) -> Any:
    """``queues`` with the ledger of the adapter ``companion`` beside it: ``ledger_url(url)`` tells where that is,
    ``ledger_options`` are fields of ``AdapterOptions`` that differ there, ``now`` is the machine's clock."""

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

    parts = {"broker": broker, "publisher": publisher, "ledger": ledger}
    parts |= {name: getattr(queues, name) for name in ("store", "reader", "caller") if hasattr(queues, name)}
    if hasattr(queues, "dead_letters"):
        parts["dead_letters"] = dead_letters
    return SimpleNamespace(**parts)
