"""The suite on a server of the user's own: collected by ``celeriac.testing.trial`` alone, which says where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac import beside
from celeriac.client import resolver
from celeriac.ports import Scratch
from celeriac.testing import trial
from celeriac.testing.conformance import Conformance, Harness
from celeriac.testing.pair import pair

__all__ = ["TestYours"]


class _Place(Harness):
    """Places of one's own on one server, or two."""

    def __init__(self, running: trial.Trial, places: Sequence[Scratch]) -> None:
        super().__init__()
        urls, late = running.urls, running.late
        self._scratch = scratch = places[0]
        self.exempt = scratch.exempt(len(places) > 1)
        self.adapter = resolver.adapter(urls[0])  # type: ignore[assignment]  # a module, as any adapter is
        self.url, self.options = scratch.url, {**running.entrance(0), **scratch.options}
        self.unreachable = scratch.unreachable
        self.publisher_schedules = scratch.publisher_schedules
        self.between_processes = not scratch.url.startswith("memory:")
        self.late, self.lease = late, max(self.lease, late)
        if not scratch.one_server:
            self.one_server = self.parks = False
            self.adapter = _limited(self.adapter)
        if len(places) > 1:
            ledger, options = places[1], {"key_prefix": "", **running.entrance(1), **places[1].options}
            self.parks = self.purges_locks = self.withdraws = False
            nobody = ledger.unreachable or ledger.url
            self.adapter = pair(
                self.adapter, resolver.adapter(urls[1]), lambda url: ledger.url if url == self.url else nobody, options
            )

    async def inject(self, queue: str, raw: bytes) -> None:
        self._scratch.inject(queue, raw)


def _limited(adapter: Any) -> Any:
    """Limits are kept in the server's own ledger, as the resolver puts it together."""
    parts = {name: getattr(adapter, name) for name in adapter.__all__}
    parts["broker"] = lambda url, options: beside.broker(adapter.broker(url, options), None, options)
    return SimpleNamespace(**parts)


class TestYours(Conformance):
    """All sentences."""

    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        """In a place of its own, which is taken away afterwards."""
        running = trial.running
        if running is None:
            pytest.skip("run by `celeriac broker test`")
        with running.place() as places:
            yield _Place(running, places)
