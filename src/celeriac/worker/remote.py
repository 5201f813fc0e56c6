"""Remote control on Celery's wire: takes requests off the bus, answers those meant for this node.

Each command is a small function in ``commands``; users add theirs with ``control_command`` and ``inspect_command``.
"""

from __future__ import annotations

import fnmatch
import logging
import math
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from celeriac.client.requests import REPLY_EXCHANGE
from celeriac.codec.escape import one_line
from celeriac.codec.signing import control_signer_of
from celeriac.exceptions import EncodeError, OperationalError
from celeriac.ports import Bus
from celeriac.worker import commands
from celeriac.worker.admission import Admission
from celeriac.worker.backoff import Backoff

if TYPE_CHECKING:
    from celeriac.worker.agent import Agent

__all__ = ["Remote", "remote_services"]

logger = logging.getLogger("celery.worker.control")

EXCHANGE = "celery.pidbox"
#: The only form of reply address that is answered: a request must not choose where a node writes.
_REPLY_KEY = re.compile(r"[0-9A-Za-z_.@-]{1,128}")


def remote_services(agent: Agent) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """The listener of a node, unless its broker has no bus or ``worker_enable_remote_control`` is off."""
    if isinstance(agent.broker, Bus) and agent.options.remote_control:
        return [Remote(agent).run]
    return []


class Remote:
    """The listener of one node."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._backoff = Backoff(rand=lambda: 0.5)
        self._admission = Admission(control_signer_of(agent.app.conf))
        self._refusals = 0
        self._told = -math.inf

    async def run(self) -> None:
        """Listen until cancelled."""
        bus: Any = self._agent.broker
        while True:
            try:
                async for payload, headers in bus.listen(EXCHANGE):
                    self._backoff.reset()
                    await self.handle(payload, headers)
            except OperationalError as error:
                logger.debug("Remote control is away: %s", error)
            await self._agent.clock.sleep(self._backoff.next())

    async def handle(self, payload: Any, headers: Mapping[str, Any]) -> None:
        """One request. Whatever it holds, it costs at most itself."""
        if (
            not isinstance(payload, dict)
            or not isinstance(payload.get("method"), str)
            or not self._is_admitted(payload)
        ):
            return
        expires = headers.get("expires")
        if not self._is_mine(payload) or (isinstance(expires, (int, float)) and expires < self._agent.clock.now()):
            return
        method, arguments = payload["method"], payload.get("arguments") or {}
        reply_to, origin = payload.get("reply_to"), _origin(payload.get("origin"))
        try:
            given = arguments if isinstance(arguments, dict) else {}
            answer = await commands.execute(self._agent, method, given, origin=origin)
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
        now = self._agent.clock.monotonic()
        if now - self._told >= 1.0:
            more = f" ({self._refusals - 1} more since the last line)" if self._refusals > 1 else ""
            method, origin = payload["method"], _origin(payload.get("origin"))
            logger.warning("Remote command %.80r from %s is refused: %s%s", method, origin, reason, more)
            self._told, self._refusals = now, 0
        return False

    def _is_mine(self, payload: Mapping[str, Any]) -> bool:
        hostname = self._agent.options.hostname
        pattern, destination = payload.get("pattern"), payload.get("destination")
        if isinstance(pattern, str):
            if payload.get("matcher") != "pcre":
                pattern = fnmatch.translate(pattern)
            elif self._agent.options.remote_control == "inspect" and not self._admission.checks:
                return False  # an expression of anybody's can take for ever
            try:
                return re.match(pattern, hostname) is not None
            except (re.error, OverflowError, RecursionError):
                return False
        return not destination or (isinstance(destination, (list, tuple)) and hostname in destination)

    async def _reply(self, reply_to: Mapping[str, Any], ticket: Any, answer: Any) -> None:
        exchange, key = reply_to.get("exchange"), reply_to.get("routing_key")
        if exchange != REPLY_EXCHANGE or not isinstance(key, str) or not _REPLY_KEY.fullmatch(key):
            logger.warning("A remote command asked for its reply at an unusual address: not answered")
            return
        bus: Any = self._agent.broker
        headers = {"ticket": ticket, "clock": 1}
        try:
            try:
                await bus.reply(exchange, key, {self._agent.options.hostname: answer}, headers)
            except (EncodeError, TypeError, ValueError) as error:  # a user's command may answer with anything
                await bus.reply(exchange, key, {self._agent.options.hostname: {"error": repr(error)}}, headers)
        except OperationalError as error:
            logger.warning("Cannot answer a remote command: %s", error)


def _origin(value: Any) -> str:
    """Who sent a command, as it says itself: ``user@host (pid 17)``."""
    if not isinstance(value, dict):
        return "somebody unknown"
    user, host, pid = (one_line(value.get(key), 80) for key in ("user", "host", "pid"))
    return f"{user}@{host} (pid {pid})"
