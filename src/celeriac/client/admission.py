"""Whether a remote command is obeyed: its signature, its times, and that it comes once. Asked by ``remote.py``.

``worker_enable_remote_control = "inspect"`` is decided in ``commands.py``, which knows what changes something.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.client.requests import LIFE
from celeriac.codec.signing import Signer

__all__ = ["Admission"]

#: Tickets that are remembered at most: more commands within ``LIFE`` seconds are refused.
TICKETS = 10_000
#: Seconds by which the sender's clock may be ahead.
_AHEAD = 30.0
_TICKET_LENGTH = 128


class Admission:
    """The door of one node. Without a signer all may come in, as in Celery."""

    def __init__(self, signer: Signer | None, now: Callable[[], float] = time.time) -> None:
        self._signer = signer
        self._now = now
        #: A command from before cannot be known to come for the first time.
        self._since = now()
        self._seen: dict[str, float] = {}

    @property
    def checks(self) -> bool:
        """Whether commands have to be signed."""
        return self._signer is not None

    def refusal(self, request: Mapping[str, Any]) -> str | None:
        """Why a command is not obeyed, in a few words; None: it is, and never again."""
        signer = self._signer
        if signer is None:
            return None
        if not signer.is_command(request):
            return "it is not signed with control_key"
        ticket: Any = request.get("ticket")
        issued: Any = request.get("issued")
        until: Any = request.get("until")
        if not (isinstance(ticket, str) and 0 < len(ticket) <= _TICKET_LENGTH and _is_time(issued) and _is_time(until)):
            return "its signature covers no ticket and no times"
        now = self._now()
        if until > issued + LIFE or not issued - _AHEAD <= now <= until:
            return "it is too old, or the clocks differ by more than half a minute"
        if issued < self._since:
            return "it was sent before this node started"
        if ticket in self._seen:
            return "it came before"
        self._forget(now)
        if len(self._seen) >= TICKETS:
            return f"more than {TICKETS} commands came within a minute"
        self._seen[ticket] = until
        return None

    def _forget(self, now: float) -> None:
        """In the order in which they came, which is nearly that in which they end."""
        seen = self._seen
        while seen:
            oldest = next(iter(seen))
            if seen[oldest] >= now:
                break
            del seen[oldest]


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
