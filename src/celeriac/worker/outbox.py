"""The relays of a node: one for each outbox that ``outbox_url`` names, on threads of the agent's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from celeriac.client.outboxes import outbox_urls
from celeriac.client.relay import Relay
from celeriac.client.resolver import mask

__all__ = ["Relays"]

#: Seconds that a relay gets at the end for what it is about: a publish that hangs ends with the process.
_PATIENCE = 8.0


class Relays:
    """A service of the agent."""

    def __init__(self, relays: Sequence[Relay]) -> None:
        self._relays = relays

    @classmethod
    def of(cls, app: Any) -> Relays | None:
        """Those that the settings ask for; None: none. Raises ``ImproperlyConfigured`` for a URL that cannot be."""
        urls = outbox_urls(app.conf)
        if not urls:
            return None
        from celeriac.outbox.stores import store_of  # for those who have an outbox

        return cls([Relay(app, store_of(url), mask(url)) for url in urls])

    def stats(self) -> list[dict[str, Any]]:
        """As ``inspect stats`` shows them."""
        return [relay.stats() for relay in self._relays]

    async def run(self) -> None:
        """Relay until cancelled. What ends a relay, no outage does, is raised here: the agent ends with it."""
        stop = threading.Event()
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        threads = [
            threading.Thread(target=_guarded, args=(relay, stop, over), name=f"outbox-{number}", daemon=True)
            for number, relay in enumerate(self._relays)
        ]
        for thread in threads:
            thread.start()
        try:
            await over
        finally:
            stop.set()
            await asyncio.to_thread(_join, threads)


def _guarded(relay: Relay, stop: threading.Event, over: asyncio.Future[None]) -> None:
    try:
        relay.run(stop)
    except BaseException as error:  # noqa: BLE001 - a thread's end: the loop raises it
        if not stop.is_set():
            over.get_loop().call_soon_threadsafe(_fail, over, error)


def _fail(over: asyncio.Future[None], error: BaseException) -> None:
    if not over.done():
        over.set_exception(error)


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join(_PATIENCE)
