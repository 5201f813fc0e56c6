"""Between an agent and the children of its node: questions and orders, one JSON line each, over a Unix socket.

A child that connects is greeted: it is told the orders that the agent keeps, and then that these were all. It claims
nothing before.

The agent listens on an abstract socket (it vanishes with the process); each child connects, also after either side was
replaced. Each makes sure that the other is of this node (``peer.py``). In one process the agent calls ``answer``
directly (``LocalLink``).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from celeriac.worker.inside import answer
from celeriac.worker.kept import KeptOrders
from celeriac.worker.peer import is_of_this_node

if TYPE_CHECKING:
    from celeriac.worker.child import Child

__all__ = ["Link", "LinkServer", "LocalLink", "attend"]

logger = logging.getLogger("celery.worker")

_RECONNECT = 0.2
#: The same for a child that has not been greeted yet: it waits with its first claim.
_FIRST = 0.02
#: What an agent says behind its orders.
_GREETED = "greeted"
#: Seconds between two lines about strangers.
_SILENCE = 60.0
_LINE_LIMIT = 64 * 1024 * 1024
#: A connection that ended, or lines that no agent or child writes.
_BROKEN = (OSError, ValueError, LookupError, TypeError, RecursionError)


class Link(Protocol):
    """How an agent reaches its children."""

    async def ask(self, method: str, arguments: Mapping[str, Any], *, timeout: float = 0.8) -> list[Any]:
        """The answers of all children that answered within ``timeout`` seconds."""
        ...


class LocalLink:
    """The agent's child lives on the agent's own loop."""

    def __init__(self, child: Child) -> None:
        self._child = child

    async def ask(self, method: str, arguments: Mapping[str, Any], *, timeout: float = 0.8) -> list[Any]:
        """See ``Link``."""
        return [answer(self._child, method, arguments)]


class LinkServer:
    """The agent's side. Orders are repeated to every child that connects later (a replaced child must know them), and
    ``kept`` for an agent that comes after this one."""

    def __init__(self, name: str, kept: KeptOrders | None = None) -> None:
        self._name = name
        self._kept = kept
        self._writers: set[asyncio.StreamWriter] = set()
        self._waiting: dict[int, tuple[asyncio.Future[None], list[Any], int]] = {}
        self._numbers = itertools.count(1)
        #: By method.
        self.orders: dict[str, Mapping[str, Any]] = kept.read() if kept is not None else {}
        self._told = -math.inf

    async def serve(self) -> None:
        """Listen until cancelled."""
        listening = _unix_socket()
        listening.bind(f"\0{self._name}")
        server = await asyncio.start_unix_server(self._greet, sock=listening, limit=_LINE_LIMIT)
        async with server:
            await server.serve_forever()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_of_this_node(writer.get_extra_info("socket")):
            await self._meet(reader, writer)
            return
        writer.close()
        now = time.monotonic()
        if now - self._told > _SILENCE:
            self._told = now
            logger.warning("Somebody who is no child of this node has connected to its agent: turned away")

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            for method, arguments in (*self.orders.items(), (_GREETED, {})):
                writer.write(_line({"n": 0, "method": method, "arguments": arguments}))
            while line := await reader.readline():
                reply = json.loads(line)
                waiting = self._waiting.get(reply["n"])
                if waiting is not None:
                    done, answers, wanted = waiting
                    answers.append(reply["answer"])
                    if len(answers) >= wanted and not done.done():
                        done.set_result(None)
        except _BROKEN:
            pass  # the child died: it connects anew when it is replaced
        finally:
            self._writers.discard(writer)
            writer.close()

    def keep(self, method: str, arguments: Mapping[str, Any]) -> None:
        """An order that children started later must obey as well; the newest of a method counts."""
        self.orders[method] = arguments
        if self._kept is not None:
            self._kept.write(self.orders)

    async def ask(self, method: str, arguments: Mapping[str, Any], *, timeout: float = 0.8) -> list[Any]:
        """See ``Link``."""
        writers = list(self._writers)
        if not writers:
            return []
        number = next(self._numbers)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers: list[Any] = []
        self._waiting[number] = (done, answers, len(writers))
        try:
            for writer in writers:
                writer.write(_line({"n": number, "method": method, "arguments": arguments}))
            async with asyncio.timeout(timeout):
                await done
        except (TimeoutError, OSError):
            pass  # whoever did not answer in time is not in the answer
        finally:
            del self._waiting[number]
        return answers


async def attend(
    child: Child, name: str, greeted: asyncio.Event, met: Callable[[], Awaitable[None]] | None = None
) -> None:
    """A child's side: connect, answer, connect again. Sets ``greeted`` when the agent's orders are obeyed, after
    ``met()``."""
    while True:
        try:
            reader, writer = await _connect(name)
        except OSError:
            await asyncio.sleep(_RECONNECT if greeted.is_set() else _FIRST)
            continue
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if request["method"] == _GREETED:
                    if met is not None:
                        await met()
                    greeted.set()
                    continue
                reply = answer(child, request["method"], request["arguments"])
                if request["n"]:
                    writer.write(_line({"n": request["n"], "answer": reply}))
        except _BROKEN:
            pass  # the agent died: its successor listens under the same name
        finally:
            writer.close()
        await asyncio.sleep(_RECONNECT)


async def _connect(name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = _unix_socket()
    try:
        sock.connect(f"\0{name}")
        if not is_of_this_node(sock):
            raise PermissionError(f"somebody else listens as {name}")
        return await asyncio.open_unix_connection(sock=sock, limit=_LINE_LIMIT)
    except BaseException:
        sock.close()
        raise


def _unix_socket() -> socket.socket:
    """Made here, as uvloop takes the name of an abstract socket for an empty path."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


def _line(value: Any) -> bytes:
    return json.dumps(value, default=repr).encode() + b"\n"
