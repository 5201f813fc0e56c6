"""Remote control on Celery's wire, a node's side: takes requests off the bus, answers those that are meant for it.

What a request does is the node's matter: ``worker/commands.py`` for workers, ``beat/answering.py`` for schedulers.
"""

from __future__ import annotations

import fnmatch
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from celeriac.client.admission import Admission
from celeriac.client.requests import REPLY_EXCHANGE
from celeriac.clock import SYSTEM
from celeriac.codec.escape import one_line
from celeriac.codec.signing import Signer
from celeriac.exceptions import EncodeError, OperationalError
from celeriac.model.backoff import Backoff
from celeriac.ports import Bus, Clock

__all__ = ["Execute", "Listener"]

logger = logging.getLogger("celery.worker.control")

EXCHANGE = "celery.pidbox"
#: The only form of reply address that is answered: a request must not choose where a node writes.
_REPLY_KEY = re.compile(r"[0-9A-Za-z_.@-]{1,128}")
#: Longest pattern of node names that is looked at: one of 100,000 characters takes a quarter of a second to compile, in
#: which nothing else of the process goes on.
_LONGEST_PATTERN = 1000

#: ``execute(method, arguments, origin)``: the answer, None for none. ``origin`` is who asks, for the log.
Execute = Callable[[str, Mapping[str, Any], str], Awaitable[Any]]


class Listener:
    """The listener of the node ``hostname``. With a ``signer`` only signed requests count.

    ``regexes``: requests of anybody's may name nodes by a regular expression, which can take for ever.
    """

    def __init__(
        self,
        bus: Bus,
        hostname: str,
        execute: Execute,
        *,
        signer: Signer | None,
        regexes: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        self._bus = bus
        self._hostname = hostname
        self._execute = execute
        self._regexes = regexes or signer is not None
        self._clock = clock
        self._backoff = Backoff(rand=lambda: 0.5)
        self._admission = Admission(signer)
        self._refusals = 0
        self._told = -math.inf

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                async for payload, headers in self._bus.listen(EXCHANGE):
                    self._backoff.reset()
                    await self.handle(payload, headers)
            except OperationalError as error:
                logger.debug("Remote control is away: %s", error)
            await self._clock.sleep(self._backoff.next())

    async def handle(self, payload: Any, headers: Mapping[str, Any]) -> None:
        """One request. Whatever it holds, it costs at most itself."""
        if (
            not isinstance(payload, dict)
            or not isinstance(payload.get("method"), str)
            or not self._is_admitted(payload)
        ):
            return
        expires = headers.get("expires")
        if not self._is_mine(payload) or (isinstance(expires, (int, float)) and expires < self._clock.now()):
            return
        method, arguments = payload["method"], payload.get("arguments") or {}
        reply_to, origin = payload.get("reply_to"), _origin(payload.get("origin"))
        try:
            answer = await self._execute(method, arguments if isinstance(arguments, dict) else {}, origin)
        except Exception as error:  # noqa: BLE001 - user commands, and arguments of any kind
            logger.warning("Remote command %.80r from %s failed: %s", method, origin, one_line(repr(error), 500))
            answer = {"error": repr(error)}
        if isinstance(reply_to, dict) and answer is not None:
            await self._reply(reply_to, payload.get("ticket"), answer)

    def _is_admitted(self, payload: Mapping[str, Any]) -> bool:
        """Asked before anything in the request is used. At most one line a second: a flood must not fill the disk."""
        reason = self._admission.refusal(payload)
        if reason is None:
            return True
        self._refusals += 1
        now = self._clock.monotonic()
        if now - self._told >= 1.0:
            more = f" ({self._refusals - 1} more since the last line)" if self._refusals > 1 else ""
            method, origin = payload["method"], _origin(payload.get("origin"))
            logger.warning("Remote command %.80r from %s is refused: %s%s", method, origin, reason, more)
            self._told, self._refusals = now, 0
        return False

    def _is_mine(self, payload: Mapping[str, Any]) -> bool:
        pattern, destination = payload.get("pattern"), payload.get("destination")
        if isinstance(pattern, str):
            if len(pattern) > _LONGEST_PATTERN:
                return False
            if payload.get("matcher") != "pcre":
                pattern = fnmatch.translate(pattern)
            elif not self._regexes:
                return False
            try:
                return re.match(pattern, self._hostname) is not None
            except (re.error, OverflowError, RecursionError):
                return False
        return not destination or (isinstance(destination, (list, tuple)) and self._hostname in destination)

    async def _reply(self, reply_to: Mapping[str, Any], ticket: Any, answer: Any) -> None:
        exchange, key = reply_to.get("exchange"), reply_to.get("routing_key")
        if exchange != REPLY_EXCHANGE or not isinstance(key, str) or not _REPLY_KEY.fullmatch(key):
            logger.warning("A remote command asked for its reply at an unusual address: not answered")
            return
        headers = {"ticket": ticket, "clock": 1}
        try:
            try:
                await self._bus.reply(exchange, key, {self._hostname: answer}, headers)
            except (EncodeError, TypeError, ValueError) as error:  # a user's command may answer with anything
                await self._bus.reply(exchange, key, {self._hostname: {"error": repr(error)}}, headers)
        except OperationalError as error:
            logger.warning("Cannot answer a remote command: %s", error)


def _origin(value: Any) -> str:
    """Who sent a command, as it says itself: ``user@host (pid 17)``."""
    if not isinstance(value, dict):
        return "somebody unknown"
    user, host, pid = (one_line(value.get(key), 80) for key in ("user", "host", "pid"))
    return f"{user}@{host} (pid {pid})"
