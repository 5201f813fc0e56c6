"""Events on Celery's wire (``celery-wire.md`` §3.6): lossy by design, so an unreachable broker costs nothing but
them."""

from __future__ import annotations

import os
import time
from typing import Any

from celeriac.exceptions import OperationalError
from celeriac.ports import Broker

__all__ = ["EXCHANGE", "send"]

EXCHANGE = "celeryev"


async def send(broker: Broker, hostname: str, routing_key: str, payload: list[dict[str, Any]] | dict[str, Any]) -> None:
    """Send one event or a list of them, with the common fields filled in."""
    emit = getattr(broker, "emit", None)
    if emit is None:
        return
    common = {"hostname": hostname, "utcoffset": time.timezone / 3600, "pid": os.getpid()}
    for event in payload if isinstance(payload, list) else [payload]:
        at = event.setdefault("timestamp", time.time())
        # Celery's monitors sort by clock. A count of its own in each child would mix them up; the time orders them all.
        event.update(common, clock=int(at * 1000))
    try:
        await emit(EXCHANGE, routing_key, payload, {"hostname": hostname})
    except OperationalError:
        pass
