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


class _Lamport:
    """The logical clock in every event."""

    value = 0

    @classmethod
    def forward(cls) -> int:
        cls.value += 1
        return cls.value


async def send(broker: Broker, hostname: str, routing_key: str, payload: list[dict[str, Any]] | dict[str, Any]) -> None:
    """Send one event or a list of them, with the common fields filled in."""
    emit = getattr(broker, "emit", None)
    if emit is None:
        return
    common = {"hostname": hostname, "utcoffset": time.timezone / 3600, "pid": os.getpid()}
    for event in payload if isinstance(payload, list) else [payload]:
        event.update(common, clock=_Lamport.forward())
        event.setdefault("timestamp", time.time())
    try:
        await emit(EXCHANGE, routing_key, payload, {"hostname": hostname})
    except OperationalError:
        pass
