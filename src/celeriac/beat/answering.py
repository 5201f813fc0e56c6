"""A scheduler's end of remote control: it answers ``ping``, so that ``celeriac inspect ping`` finds it (Celery 5.7).

Everything else that is asked of all nodes is for workers, and is passed over in silence. Run by ``service.py``, over a
connection of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.client import resolver
from celeriac.client.listener import Listener
from celeriac.clock import SYSTEM
from celeriac.codec.signing import control_signer_of
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.backoff import Backoff
from celeriac.ports import Broker, Bus, Clock

__all__ = ["Answering"]

logger = logging.getLogger("celery.beat")


class Answering:
    """The node ``hostname`` of a scheduler. ``stalled()``: why it must not count as alive, or nothing. Then it is
    silent: to a health check an error is an answer, too.

    Raises ``ImproperlyConfigured`` for a broker without remote control, and for a key that is none.
    """

    def __init__(self, app: Any, hostname: str, stalled: Callable[[], str], *, clock: Clock = SYSTEM) -> None:
        url = app.broker_url
        self._broker: Broker = resolver.broker(url, resolver.adapter_options(app.conf, url, queues=app.amqp.queues))
        if not isinstance(self._broker, Bus):
            raise ImproperlyConfigured(
                f"beat_enable_remote_control: {resolver.mask(url)} has no remote control: use `celeriac beat status`"
            )
        self._stalled = stalled
        self._clock = clock
        self._silent = False
        signer = control_signer_of(app.conf)
        self._listener = Listener(self._broker, hostname, self._execute, signer=signer, clock=clock)

    async def run(self) -> None:
        """Answer until cancelled; waits for a broker that is away."""
        backoff = Backoff(rand=random.random)
        try:
            while True:
                try:
                    await self._broker.open()
                    break
                except OperationalError as error:
                    logger.debug("beat: Remote control waits for the broker: %s", error)
                    await self._clock.sleep(backoff.next())
            await self._listener.run()
        except Exception:  # it must not end what it tells of
            logger.exception("beat: Remote control has ended: ping is not answered any more")
        finally:
            await asyncio.shield(self._broker.close())

    async def _execute(self, method: str, arguments: Mapping[str, Any], origin: str) -> Any:
        if method != "ping":
            return None
        why = self._stalled()
        if why and not self._silent:  # once: whoever asks may ask often
            logger.warning("beat: Not answering ping: %s", why)
        self._silent = bool(why)
        return None if why else {"ok": "pong"}
